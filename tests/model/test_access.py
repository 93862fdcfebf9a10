"""Who may do what: every role, every right, every scope."""

from __future__ import annotations

import itertools

import pytest

from tenure.model.access import ANYBODY, Identity, Right, Role, allows, has

GIVEN = {
    Role.ADMIN: {"read", "submit", "operate", "work", "run", "administer"},
    Role.OPERATOR: {"read", "submit", "operate"},
    Role.SUBMITTER: {"read", "submit"},
    Role.VIEWER: {"read"},
    Role.WORKER: {"work"},
    Role.RUNNER: {"run"},
    Role.COORDINATOR: {"coordinate"},
}
OF_POOLS = (Right.WORK, Right.RUN)
NAMESPACES: dict[tuple[str, ...], set[str | None]] = {
    ("*",): {None, "ns-a", "ns-b"},
    ("ns-a",): {"ns-a"},
    ("ns-a", "ns-b"): {"ns-a", "ns-b"},
    (): set(),
}
POOLS: dict[tuple[str, ...], set[str | None]] = {
    ("*",): {None, "pool-a", "pool-a/x/y", "pool-ab", "q"},
    ("pool-a",): {"pool-a", "pool-a/x/y"},
    ("pool-a/x",): {"pool-a/x/y"},
    ("pool-a", "q"): {"pool-a", "pool-a/x/y", "q"},
    (): set(),
}


@pytest.mark.parametrize(("role", "right"), list(itertools.product(Role, Right)))
def test_every_role_and_right_and_scope(role: Role, right: Right) -> None:
    is_given = right.value in GIVEN[role]
    assert has(Identity("x", role), right) is is_given
    if right in OF_POOLS:
        for pools, inside in POOLS.items():
            for route in (None, "pool-a", "pool-a/x/y", "pool-ab", "q"):
                identity = Identity("x", role, namespaces=(), pools=pools)
                assert allows(identity, right, route=route) is (is_given and route in inside), (pools, route)
        return
    for namespaces, seen in NAMESPACES.items():
        for namespace in (None, "ns-a", "ns-b"):
            identity = Identity("x", role, namespaces=namespaces, pools=())
            assert allows(identity, right, namespace=namespace) is (is_given and namespace in seen), namespaces


def test_without_credentials_everything_but_what_is_among_coordinators_is_allowed() -> None:
    assert {right for right in Right if allows(ANYBODY, right)} == set(Right) - {Right.COORDINATE}


def test_every_role_has_its_row() -> None:
    assert set(GIVEN) == set(Role)
