"""The signing key is replaced: both are taken for a while, and no coordinator meets a token that it cannot read."""

from __future__ import annotations

import pytest
from tests.coordinator.conftest import Parts, running, until

from tenure.coordinator import signing_keys
from tenure.coordinator.authenticate import COORDINATOR, Authenticator
from tenure.coordinator.runner_tokens import SessionToken, Signer
from tenure.coordinator.signing_keys import FRESH_S, LOOK_S, SigningKeys, read_keys
from tenure.model.clock import SystemClock
from tenure.model.errors import InvalidInput, PermissionDenied, Unauthenticated, Unavailable, WrongState
from tenure.store.postgres.signing_key import SETTLE_S, replace_signing_key

TOKEN = SessionToken("far", "far-1", 7, ("default",))
HOUR_S = 3600.0


class Jumping(SystemClock):
    """A clock that can be put forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


async def keys_of(parts: Parts) -> SigningKeys:
    """Return the keys of a coordinator that has just read them."""
    keys = SigningKeys(parts.db, parts.clock)
    await keys.refresh()
    return keys


async def settle(parts: Parts) -> None:
    """Let the time pass that coordinators have to read the new key."""
    await parts.sql("UPDATE tenure.signing_key SET signs_at = now()")


async def forget(parts: Parts) -> None:
    """Let the time pass for which the key before is taken."""
    await parts.sql("UPDATE tenure.signing_key SET previous_until = now()")


async def test_both_keys_are_taken_until_the_old_one_is_gone(alone: Parts) -> None:
    one, other = await keys_of(alone), await keys_of(alone)
    old = one.signer.sign(TOKEN)
    await replace_signing_key(alone.dsn, HOUR_S)

    await one.refresh()
    assert one.signer.sign(TOKEN) == old, "others may not have read the new one"
    assert one.signer.newer(old, TOKEN) == ""
    await other.refresh()
    await settle(alone)
    await one.refresh()
    new = one.signer.sign(TOKEN)
    assert new != old
    assert (one.signer.newer(old, TOKEN), one.signer.newer(new, TOKEN)) == (new, "")
    assert other.signer.sign(TOKEN) == old, "it has not looked since"
    for signer in (one.signer, other.signer):
        assert signer.read_any(old) == signer.read_any(new) == TOKEN
    assert other.signer.newer(new, TOKEN) == "", "nothing is signed anew with an older key"

    await forget(alone)
    await one.refresh()
    assert one.signer.read_any(new) == TOKEN
    with pytest.raises(PermissionDenied):
        one.signer.read_any(old)


async def test_who_has_not_read_the_keys_of_late_refuses_nobody(alone: Parts) -> None:
    alone.clock = clock = Jumping()
    keys = await keys_of(alone)
    unknown = Signer(b"a key of 32 bytes, that is newer").sign(TOKEN)
    own = keys.signer.sign(TOKEN)
    with pytest.raises(PermissionDenied):
        keys.signer.read_any(unknown)
    clock.ahead_s = FRESH_S + 1
    with pytest.raises(Unavailable):
        keys.signer.read_any(unknown)
    assert keys.signer.read_any(own) == TOKEN
    assert 2 * LOOK_S < FRESH_S < SETTLE_S


async def test_a_coordinator_notices_by_itself(alone: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_keys, "LOOK_S", 0.05)
    keys = await keys_of(alone)
    old = keys.signer.sign(TOKEN)

    async def signs_anew() -> bool:
        return keys.signer.sign(TOKEN) != old

    async with running(keys.keep_fresh()):
        await replace_signing_key(alone.dsn, HOUR_S)
        await settle(alone)
        await until(signs_anew)
        assert keys.signer.read_any(old) == TOKEN


async def test_a_key_that_is_still_taken_is_not_dropped_unless_told_so(alone: Parts) -> None:
    [before] = (await read_keys(alone.db)).known
    with pytest.raises(InvalidInput, match="for 60 s at least"):
        await replace_signing_key(alone.dsn, 1.0)
    assert (await read_keys(alone.db)).known == (before,)
    await replace_signing_key(alone.dsn, HOUR_S)
    new, previous = (await read_keys(alone.db)).known
    assert previous == before != new
    with pytest.raises(WrongState, match="the key before this one is taken until"):
        await replace_signing_key(alone.dsn, HOUR_S)
    await replace_signing_key(alone.dsn, 0.0)
    [newest] = (await read_keys(alone.db)).known
    assert newest not in (before, new)
    entries = await alone.sql("SELECT action, caller, detail FROM tenure.audit ORDER BY at")
    assert [(one.action, one.detail["keep_s"]) for one in entries] == [
        ("signing_key.replace", HOUR_S),
        ("signing_key.replace", 0),
    ]
    assert all(one.caller.startswith("tenure db, as ") for one in entries)


async def test_coordinators_know_each_other_by_either_key(alone: Parts) -> None:
    clock = Jumping()
    one, other = Authenticator(alone.db, clock), Authenticator(alone.db, clock)
    old = await one.own_token()
    assert await other.identify(bearer=old) is COORDINATOR
    await replace_signing_key(alone.dsn, HOUR_S)
    await settle(alone)
    clock.ahead_s += LOOK_S
    new = await one.own_token()
    assert new != old
    for shown in (old, new):
        assert await other.identify(bearer=shown) is COORDINATOR
    await forget(alone)
    clock.ahead_s += LOOK_S
    assert await other.identify(bearer=new) is COORDINATOR
    with pytest.raises(Unauthenticated):
        await other.identify(bearer=old)
