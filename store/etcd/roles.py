"""The roles of least privilege in etcd: who may touch which of tenure's keys, and the calls that set that up.

Owns: what each role may do (``roles_of``). Repeating the set-up changes nothing, and nothing is sent that would change
nothing: every change makes all tokens too old. What a role may do outside of the prefix is left alone. Called by
``tenure etcd roles``, as an administrator. Deliberately not here: to enable authentication, and the passwords of users
that exist.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tenure.etcdpb import rpc_pb2 as rpc
from tenure.model.errors import ConfigurationError, NotFound
from tenure.store.etcd.connect import open_cluster
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.member import (
    ROLE_ADD,
    ROLE_GET,
    ROLE_GRANT,
    ROLE_REVOKE,
    USER_ADD,
    USER_GET,
    USER_GRANT,
    Method,
)
from tenure.store.etcd.members import Members
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.port import Refused
from tenure.store.etcd.ranges import prefix_range

READ: int = rpc.Permission.READ
READWRITE: int = rpc.Permission.READWRITE
WORDS = {READ: "read", READWRITE: "readwrite"}


@dataclass(frozen=True, slots=True)
class Role:
    """A role and what it may do: prefixes of keys, each with READ or READWRITE."""

    name: str
    permissions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """A user that is to have a role. With a password the user is made where it is missing."""

    user: str
    role: str
    password: str | None = None

    def __repr__(self) -> str:
        return f"Membership({self.user!r}, {self.role!r})"


def roles_of(prefix: str, name: str = "tenure") -> tuple[Role, ...]:
    """Return the roles for a prefix of keys; ``name`` is what their names begin with.

    A worker's own registration and inbox are not told from another's: the role is one for all workers.
    """
    keys = Keyspace(prefix)
    own = ((keys.claims, READWRITE), (keys.slots, READWRITE), (keys.workers, READWRITE), (keys.inboxes, READWRITE))
    return (
        Role(f"{name}-coordinator", ((keys.prefix, READWRITE),)),
        Role(f"{name}-worker", (*own, (keys.holds, READ), (keys.coordinators, READ))),
        Role(f"{name}-sre", ((keys.prefix, READ),)),
        Role(f"{name}-oncall", ((keys.prefix, READ), (keys.holds, READWRITE))),
    )


def commands(roles: Sequence[Role], memberships: Sequence[Membership] = ()) -> list[str]:
    """Return the ``etcdctl`` commands that do on a new etcd what ``set_up`` does; passwords are asked for by them."""
    lines = []
    for role in roles:
        lines.append(shlex.join(["etcdctl", "role", "add", role.name]))
        for prefix, may in role.permissions:
            lines.append(
                shlex.join(["etcdctl", "role", "grant-permission", "--prefix=true", role.name, WORDS[may], prefix])
            )
    for one in memberships:
        if one.password is not None:
            lines.append(shlex.join(["etcdctl", "user", "add", one.user]))
        lines.append(shlex.join(["etcdctl", "user", "grant-role", one.user, one.role]))
    return lines


async def set_up(
    options: EtcdOptions, prefix: str, roles: Sequence[Role], memberships: Sequence[Membership] = ()
) -> list[str]:
    """Make the roles what they are to be, and users have them; return what was changed, a line each.

    Raises:
        ConfigurationError: the credentials are not an administrator's.
        NotFound: a user is not there, and no password came with it.
        Unavailable: etcd did not answer.
    """
    cluster = open_cluster(options)
    try:
        changed: list[str] = []
        for role in roles:
            changed += await _set_up_role(cluster, prefix, role)
        for membership in memberships:
            changed += await _set_up_user(cluster, membership)
        return changed
    finally:
        await cluster.close()


async def _set_up_role(cluster: Members, prefix: str, role: Role) -> list[str]:
    changed = []
    found = await _get(cluster, ROLE_GET, rpc.AuthRoleGetRequest(role=role.name), "role name not found")
    if found is None:
        await _call(cluster, ROLE_ADD, rpc.AuthRoleAddRequest(name=role.name))
        changed.append(f"role {role.name} was made")
    there = {(p.key, p.range_end): p.perm_type for p in found.perm} if found is not None else {}
    wanted = {prefix_range(start): (start, may) for start, may in role.permissions}
    first, last = prefix_range(prefix)
    for key, end in there:
        if (key, end) not in wanted and first <= key < last:
            request = rpc.AuthRoleRevokePermissionRequest(role=role.name, key=key, range_end=end)
            await _call(cluster, ROLE_REVOKE, request)
            changed.append(f"role {role.name} may no longer touch {key.decode(errors='replace')}")
    for (key, end), (start, may) in wanted.items():
        if there.get((key, end)) != may:
            permission = rpc.Permission(perm_type=may, key=key, range_end=end)  # type: ignore[arg-type]
            await _call(cluster, ROLE_GRANT, rpc.AuthRoleGrantPermissionRequest(name=role.name, perm=permission))
            changed.append(f"role {role.name} may {WORDS[may]} {start}")
    return changed


async def _set_up_user(cluster: Members, one: Membership) -> list[str]:
    changed = []
    found = await _get(cluster, USER_GET, rpc.AuthUserGetRequest(name=one.user), "user name not found")
    if found is None:
        if one.password is None:
            raise NotFound(f"etcd has no user {one.user}", hint=f"etcdctl user add {one.user}, or give --password-file")
        await _call(cluster, USER_ADD, rpc.AuthUserAddRequest(name=one.user, password=one.password))
        changed.append(f"user {one.user} was made")
    if found is None or one.role not in found.roles:
        await _call(cluster, USER_GRANT, rpc.AuthUserGrantRoleRequest(user=one.user, role=one.role))
        changed.append(f"user {one.user} has role {one.role}")
    return changed


async def _get(cluster: Members, method: Method, request: Any, absent: str) -> Any | None:
    try:
        return await cluster.call(method, request, timeout_s=None)
    except Refused as exc:
        if absent in exc.message:
            return None
        raise ConfigurationError(exc.message) from exc


async def _call(cluster: Members, method: Method, request: Any) -> None:
    # Not repeated after an unknown outcome: the whole set-up is what is to be repeated.
    await cluster.call(method, request, timeout_s=None, repeatable=False)
