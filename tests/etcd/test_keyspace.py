"""Keys and values: what is written is read back, by older and newer versions too."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tenure.store.etcd.keyspace import (
    CancelRequest,
    ClaimValue,
    CoordinatorValue,
    DoneValue,
    HoldValue,
    Keyspace,
    LeaderValue,
    Offer,
    Offers,
    SlotValue,
    WorkerValue,
    parse_inbox,
    slot_name,
    stamp,
)
from tenure.store.etcd.ranges import ALL_KEYS, FIRST_KEY, after, prefix_range

NOW = stamp(datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))


def test_keys_are_as_documented() -> None:
    keys = Keyspace()
    assert keys.leader == "/tenure/v1/leader"
    assert keys.coordinator("c") == "/tenure/v1/coordinators/c"
    assert keys.worker("w") == "/tenure/v1/workers/w"
    assert keys.message("w", 7) == "/tenure/v1/inbox/w/00000000000000000007"
    assert keys.message("w", 7).startswith(keys.inbox("w"))
    assert keys.claim("j") == "/tenure/v1/claims/j"
    assert keys.slot(slot_name("db", 3)) == "/tenure/v1/slots/db/3"
    assert keys.slot("db/3").startswith(keys.limit("db"))
    assert keys.hold("j") == "/tenure/v1/holds/j"
    assert keys.announcement("j") == "/tenure/v1/done/j"
    assert Keyspace("/other").claim("j") == "/other/claims/j"


def test_ids_are_read_back() -> None:
    keys = Keyspace()
    assert keys.last(keys.claim("j")) == "j"
    assert keys.parse_message(keys.message("w", 42)) == ("w", 42)
    assert keys.parse_slot(keys.slot("team/db/3")) == ("team/db", 3)
    with pytest.raises(ValueError):
        keys.parse_message(keys.inboxes + "w")


@pytest.mark.parametrize(
    "value",
    [
        LeaderValue("c", NOW),
        CoordinatorValue("127.0.0.1:7070", "127.0.0.1:7071", "0.1.0", NOW),
        WorkerValue(("a", "b/c"), ("noop",), 8, {"zone": "ü"}, "direct", "host", "0.1.0", True, NOW),
        ClaimValue("w", "default", "noop", "a/b", 7587862094932733445, NOW),
        SlotValue("j"),
        HoldValue('why "not"'),
        DoneValue("completed", 2, NOW),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_survive_and_ignore_what_is_new(value) -> None:  # type: ignore[no-untyped-def]
    data = value.to_json()
    assert type(value).from_json(data) == value
    newer = json.dumps({**json.loads(data), "invented_later": [1]}).encode()
    assert type(value).from_json(newer) == value


@pytest.mark.parametrize(
    "message",
    [
        Offers(5, (Offer("j", 0, 10.0, "default", "noop", "a", ("db/0",)), Offer("k", 3, 2.5, "n", "k", "b/c"))),
        Offers(1, ()),
        CancelRequest("j", 77, "by ada"),
    ],
)
def test_messages_survive(message) -> None:  # type: ignore[no-untyped-def]
    assert parse_inbox(message.to_json()) == message


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"{}", b'{"term":1,"offers":[{}]}', b'{"cancel":3}', b"\xff"])
def test_what_cannot_be_read_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_inbox(data)
    for cls in (LeaderValue, WorkerValue, ClaimValue, DoneValue):
        with pytest.raises(ValueError):
            cls.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"pools": ["a\x00"]},
        {"pools": ["a", "/b"]},
        {"pools": [3]},
        {"pools": "default\n"},
        {"kinds": ["two words"]},
        {"kinds": [None]},
        {"capacity": "many"},
    ],
)
def test_a_worker_that_names_nonsense_is_not_read(change: dict[str, object]) -> None:
    good = json.loads(WorkerValue(("a",), ("noop",), 8, {}).to_json())
    with pytest.raises(ValueError):
        WorkerValue.from_json(json.dumps({**good, **change}).encode())


def test_any_text_holds() -> None:
    assert HoldValue.from_json(b"stop it").reason == "stop it"
    assert HoldValue.from_json(b"").reason == ""
    assert HoldValue.from_json(b"[1]").reason == "[1]"


def test_the_lease_is_in_hex_for_etcdctl() -> None:
    assert json.loads(ClaimValue("w", "n", "k", "r", 0xABC, NOW).to_json())["lease"] == "0000000000000abc"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a/", (b"a/", b"a0")),
        ("", (FIRST_KEY, ALL_KEYS)),
        ("a\U0010ffff", (b"a\xf4\x8f\xbf\xbf", b"a\xf4\x8f\xbf\xc0")),
    ],
)
def test_prefix_ranges(prefix: str, expected: tuple[bytes, bytes]) -> None:
    assert prefix_range(prefix) == expected
    assert after(b"k") == b"k\0"
