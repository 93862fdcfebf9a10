"""Who calls: tokens and certificates become identities, and are refused soon after they ceased to be good."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.coordinator.conftest import MakeParts, Parts, running, until
from tests.fixtures.network import ProxyFactory

from tenure.coordinator import authenticate
from tenure.coordinator.authenticate import COORDINATOR, Authenticator
from tenure.model.access import Identity, Role
from tenure.model.errors import Unauthenticated, Unavailable
from tenure.model.ids import new_id
from tenure.model.tokens import Token, coordinators_token, new_token, read_token
from tenure.store.postgres.database import Database, Row


class Counted(Database):
    """A database that remembers which look-ups were asked of it."""

    asked: list[int]

    async def fetch(self, name: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        if name == "credentials" and params is not None:
            self.asked.append(len(params["ids"]) + len(params["subjects"]))
        return await super().fetch(name, params)


class Hand:
    """A clock whose time is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


async def write(parts: Parts, *, role: str = "operator", subject: str | None = None, **columns: Any) -> Token:
    token = new_token(new_id())
    given = {"namespaces": ["ns-a"], "pools": ["*"], "expires_at": None, **columns}
    await parts.sql(
        "INSERT INTO tenure.token (id, name, role, namespaces, pools, hash, subject, created_by, expires_at)"
        " VALUES (%s, 'somebody', %s, %s, %s, %s, %s, 'test', now() + %s::interval)",
        token.id,
        role,
        given["namespaces"],
        given["pools"],
        None if subject else token.hash(),
        subject,
        given["expires_at"],
    )
    return token


def counting(parts: Parts, clock: Any) -> tuple[Authenticator, list[int]]:
    database = Counted.__new__(Counted)
    database.__dict__.update(parts.db.__dict__)
    database.asked = []
    return Authenticator(database, clock), database.asked


async def refused(authenticator: Authenticator, bearer: str | None, subjects: Sequence[str] = ()) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.identify(bearer=bearer, subjects=subjects)
    return caught.value.message


async def test_a_token_is_an_identity_and_nothing_else_is(parts: Parts) -> None:
    token, other = await write(parts), await write(parts)
    expired, revoked = await write(parts, expires_at="-1 s"), await write(parts)
    await parts.sql("UPDATE tenure.token SET revoked_at = now() WHERE id = %s", revoked.id)
    authenticator = Authenticator(parts.db, parts.clock)
    async with running(authenticator.run()):
        assert await authenticator.identify(bearer=token.text()) == Identity(
            "somebody", Role.OPERATOR, ("ns-a",), ("*",)
        )
        assert await refused(authenticator, None) == "no credentials"
        bad = [
            "",
            "garbage",
            token.text() + "x",
            token.text().upper(),
            " " + token.text(),
            f"tnr_{token.id}_{token.secret}",
            Token(token.id, other.secret).text(),
            Token(new_id(), token.secret).text(),
            Token(token.id, "A" * 43).text(),
            expired.text(),
            revoked.text(),
            "tnr_" + "0" * 32 + "_" + "A" * 43,
            "\x00",
        ]
        assert {await refused(authenticator, text) for text in bad} == {"the credentials are not valid"}


async def test_the_subject_of_a_certificate_is_an_identity(parts: Parts) -> None:
    await write(parts, role="worker", subject="spiffe://here/worker-1", pools=["pool-a"])
    bound = await write(parts, role="viewer", subject="gone.example")
    await parts.sql("UPDATE tenure.token SET revoked_at = now() WHERE id = %s", bound.id)
    authenticator = Authenticator(parts.db, parts.clock)
    async with running(authenticator.run()):
        found = await authenticator.identify(bearer=None, subjects=["nobody\x00", "nobody", "spiffe://here/worker-1"])
        assert (found.role, found.pools) == (Role.WORKER, ("pool-a",))
        assert await refused(authenticator, None, ["nobody", "gone.example"]) == "the credentials are not valid"
        # What was shown in the metadata counts, not what lies beneath.
        assert await refused(authenticator, "garbage", ["spiffe://here/worker-1"])
        # A row that is bound to a certificate has no secret that anybody could guess.
        assert await refused(authenticator, Token(bound.id, base64.urlsafe_b64encode(bytes(32)).decode()[:43]).text())


async def test_calls_cost_no_query_each(parts: Parts) -> None:
    clock = Hand()
    authenticator, asked = counting(parts, clock)
    token = await write(parts)
    async with running(authenticator.run()):
        await asyncio.gather(*(authenticator.identify(bearer=token.text()) for _ in range(100)))
        assert asked == [1], "those who ask at the same time share an answer"
        for _ in range(100):
            await authenticator.identify(bearer=token.text())
            assert await refused(authenticator, Token(token.id, "A" * 43).text())
        assert asked == [1]
        clock.now += authenticate.FRESH_S
        await authenticator.identify(bearer=token.text())
        assert asked == [1, 1]


async def test_unknown_tokens_are_no_flood_and_drive_out_nobody(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticate, "MAX_KEPT", 50)
    clock = Hand()
    authenticator, asked = counting(parts, clock)
    token = await write(parts)
    strangers = [new_token(new_id()).text() for _ in range(300)]
    async with running(authenticator.run()):
        await authenticator.identify(bearer=token.text())
        await asyncio.gather(*(refused(authenticator, text) for text in strangers))
        assert len(asked) <= 3, "different ones that come together share a query"
        asked.clear()
        assert await refused(authenticator, strangers[-1])
        await authenticator.identify(bearer=token.text())
        assert asked == [], "that there is none is kept, too"
        assert len(authenticator._unknown) == 50


async def test_a_revoked_token_is_refused_within_five_seconds(parts: Parts) -> None:
    token = await write(parts)
    authenticator = Authenticator(parts.db, parts.clock)
    async with running(authenticator.run()):
        await authenticator.identify(bearer=token.text())
        await parts.sql("UPDATE tenure.token SET revoked_at = now() WHERE id = %s", token.id)
        began = parts.clock.monotonic()

        async def is_refused() -> bool:
            try:
                await authenticator.identify(bearer=token.text())
            except Unauthenticated:
                return True
            return False

        await until(is_refused)
        assert parts.clock.monotonic() - began < 5


async def test_while_postgres_is_away_those_seen_of_late_go_on(
    make_parts: MakeParts, database: str, proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticate, "PATIENCE_S", 0.2)
    address = database.rpartition("@")[2].partition("/")[0]
    road = await proxy(int(address.rpartition(":")[2]), address.rpartition(":")[0])
    parts = await make_parts(database.replace(address, road.address))
    near = await make_parts(database)
    parts.db._pool.timeout = 0.5
    token, unseen = await write(near), await write(near)
    clock = Hand()
    authenticator, _ = counting(parts, clock)
    async with running(authenticator.run()):
        await authenticator.identify(bearer=token.text())
        await authenticator.own_token()
        await road.refuse()
        clock.now += authenticate.TRUST_S - 1
        assert (await authenticator.identify(bearer=token.text())).role is Role.OPERATOR
        assert (await authenticator.identify(bearer=await authenticator.own_token())) is COORDINATOR
        assert await refused(authenticator, Token(token.id, "A" * 43).text()) == "the credentials are not valid"
        with pytest.raises(Unavailable):
            await authenticator.identify(bearer=unseen.text())
        clock.now += 1
        with pytest.raises(Unavailable):
            await authenticator.identify(bearer=token.text())
        await road.accept()

        async def is_back() -> bool:
            try:
                return (await authenticator.identify(bearer=unseen.text())).role is Role.OPERATOR
            except Unavailable:
                return False

        await until(is_back)


async def test_coordinators_know_each_other_by_the_signing_key(parts: Parts) -> None:
    one, other = Authenticator(parts.db, parts.clock), Authenticator(parts.db, parts.clock)
    assert await other.identify(bearer=await one.own_token()) is COORDINATOR
    assert await refused(other, coordinators_token(b"another key").text()) == "the credentials are not valid"


def test_a_token_shows_its_secret_to_nobody() -> None:
    token = new_token(new_id())
    assert token.secret not in repr(token)
    assert read_token(token.text()) == token
    assert len(token.secret) == 43 and len(token.hash()) == 32
