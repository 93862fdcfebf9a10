"""``tenure.submit_job``: the rules and the hash of the API, in the caller's transaction, for a role without rights."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb
from tests.postgres.conftest import Table

from tenure.coordinator.lanes import Lanes
from tenure.model.clock import SystemClock
from tenure.model.dependencies import Trigger, UpstreamFailure, Verdict, verdict
from tenure.model.errors import InvalidInput
from tenure.model.ids import new_id
from tenure.model.jobs import JobSpec, PlannedJob, RetrySpec, validate_spec
from tenure.model.kinds import KindBook, KindSettings
from tenure.model.request import request_hash
from tenure.model.states import JobState
from tenure.store.postgres.submit import keyed_jobs, write_jobs
from tenure.store.postgres.taken import KeyTaken
from tenure.store.postgres.unique import replacing

Connection = psycopg.Connection[Any]
NOT_BY_SQL = {"ref"}
"""Fields that a single job has no use for."""
AT = datetime(2040, 1, 1, tzinfo=UTC)
SOME_ID = "0190a5f3-0000-7000-8000-000000000000"


@pytest.fixture
def connection(shared_database: str) -> Iterator[Connection]:
    """A connection of a caller's."""
    with psycopg.connect(shared_database) as connection:
        yield connection


def _call(values: Mapping[str, Any]) -> tuple[sql.Composed, list[Any]]:
    casts = {"payload": "json", "depends_on": "uuid[]", "limits": "text[]"}
    parts, params = [], []
    for name, value in values.items():
        cast = sql.SQL("::" + casts[name]) if name in casts else sql.SQL("")
        parts.append(sql.SQL("{} => %s{}").format(sql.Identifier(name), cast))
        params.append(Jsonb(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value)
    return sql.SQL("SELECT tenure.submit_job({})").format(sql.SQL(", ").join(parts)), params


def submit(connection: Connection, **values: Any) -> uuid.UUID:
    """Call the function."""
    statement, params = _call(values)
    row = connection.execute(statement, params).fetchone()
    assert row is not None
    id: uuid.UUID = row[0]
    return id


def _fields_of_model(values: Mapping[str, Any]) -> set[str]:
    try:
        validate_spec(values)
    except InvalidInput as exc:
        return {violation.field for violation in exc.violations}
    return set()


def _fields_of_sql(connection: Connection, values: Mapping[str, Any]) -> set[str]:
    """Return the fields that are refused; where none is, compare the hash as well. Leaves nothing behind."""
    try:
        submit(connection, **values)
        row = connection.execute(
            "SELECT request_hash FROM tenure.idempotency WHERE key = %s", [values.get("idempotency_key")]
        ).fetchone()
        if row is not None:
            assert bytes(row[0]) == request_hash(validate_spec(values))
    except psycopg.errors.InvalidTextRepresentation as exc:
        assert "type json" in str(exc)
        return {"payload"}
    except psycopg.DatabaseError as exc:
        assert exc.sqlstate == "TN010", exc
        violations = json.loads(exc.diag.message_detail or "")
        assert exc.diag.column_name == violations[0]["field"]
        return {violation["field"] for violation in violations}
    finally:
        connection.rollback()
    return set()


EDGES: list[dict[str, Any]] = [
    {},
    {"kind": ""},
    {"kind": "a" * 128},
    {"kind": "a" * 129},
    {"kind": "a\n"},
    {"kind": "Insights:discovery_1.x"},
    {"kind": "-a"},
    {"namespace": ""},
    {"namespace": "A"},
    {"namespace": "a" * 63},
    {"namespace": "a" * 64},
    {"namespace": "a\u00e9"},
    {"route": ""},
    {"route": "a/b/c/d/e/f/g/h"},
    {"route": "a/b/c/d/e/f/g/h/i"},
    {"route": "a//b"},
    {"route": "/a"},
    {"route": "a/" + "b" * 64},
    {"route": "/".join(["a" * 63] * 4)},
    {"priority": -1000},
    {"priority": -1001},
    {"priority": 1001},
    {"payload": '"' + "x" * 262142 + '"'},
    {"payload": '"' + "x" * 262143 + '"'},
    {"payload": '"' + "\u00e9" * 131072 + '"'},
    {"payload": "[" * 64 + "]" * 64},
    {"payload": "[" * 65 + "]" * 65},
    {"payload": "[" * 63 + '{"[[[": "]\\"[[{"}' + "]" * 63},
    {"payload": json.dumps([{"a": [1]}] * 100)},
    {"payload": '"\\u0000"'},
    {"payload": '"\\\\u0000"'},
    {"payload": '"\\\\\\u0000"'},
    {"payload": "1" * 4300},
    {"payload": "-" + "1" * 4301},
    {"payload": "1." + "1" * 5000},
    {"payload": '"' + "1" * 5000 + '"'},
    {"payload": "NaN"},
    {"payload": "{"},
    {"payload": " [1, 2 ] "},
    {"activate_at": AT},
    {"activate_at": AT, "delay_s": 1.0},
    {"activate_at": datetime.min.replace(tzinfo=UTC)},
    {"activate_at": datetime.max.replace(tzinfo=UTC)},
    {"start_by": AT, "start_within_s": 1.0},
    {"start_by": AT, "activate_at": AT},
    {"start_by": AT + timedelta(microseconds=1), "activate_at": AT},
    {"start_by": AT, "activate_at": AT, "delay_s": 1.0},
    {"delay_s": -0.001},
    {"delay_s": 0.0},
    {"delay_s": float("nan")},
    {"delay_s": float("inf")},
    {"delay_s": 366 * 86_400.0},
    {"delay_s": 366 * 86_400.1},
    {"ttl_s": 1.999},
    {"ttl_s": 2.0},
    {"ttl_s": 3_600.5},
    {"ttl_s": 10.0},
    {"timeout_s": 0.0},
    {"timeout_s": 0.0000001},
    {"timeout_s": 30 * 86_400.0},
    {"start_within_s": 0.0},
    {"job_timeout_s": -1.0},
    {"max_crashes": 0},
    {"max_crashes": 101},
    {"idempotency_key": ""},
    {"idempotency_key": "x" * 255},
    {"idempotency_key": "x" * 256},
    {"idempotency_key": "\u00e9" * 255},
    {"idempotency_key": "a\tb"},
    {"idempotency_key": "a\x7f"},
    {"idempotency_key": "k", "idempotency_ttl_s": 599.9},
    {"idempotency_key": "k", "idempotency_ttl_s": 600.0},
    {"idempotency_ttl_s": 600.0},
    {"labels": {"a": "x" * 63}},
    {"labels": {"a": "x" * 64}},
    {"labels": {"a": ""}},
    {"labels": {"A": "x"}},
    {"labels": {"": "x"}},
    {"labels": {"a": "b\u00a0c"}},
    {"labels": {"a": "b\u200ec"}},
    {"labels": {"a": "\u65e5\u672c \U0001f600"}},
    {"labels": {"a": "\ue000"}},
    {"labels": {"start_by": "a\nb"}},
    {"labels": {"a": 1}},
    {"labels": {str(n): "" for n in range(32)}},
    {"labels": {str(n): "" for n in range(33)}},
    {"requires": {"a": "x\u2028"}},
    {"requires": {"b": "\u00fc", "a": "1"}},
    {"limits": ("a", "b")},
    {"limits": ("a", "a")},
    {"limits": ("a", "A")},
    {"limits": tuple("abcdefgh")},
    {"limits": tuple("abcdefghi")},
    {"limits": (*"abcdefgh", "")},
    {"limits": ("", *"abcdefghi")},
    {"limits": (*"abcdefgh", "", "")},
    {"labels": {str(n): 1 for n in range(33)}},
    {"retry": {"non_retryable": [*["a"] * 33, 1]}},
    {"retry": {}},
    {"retry": {"max_attempts": 0}},
    {"retry": {"max_attempts": 1.5}},
    {"retry": {"max_attempts": 100, "backoff": "linear", "initial_backoff_s": 0.25, "multiplier": 1.1, "jitter": 0.7}},
    {"retry": {"backoff": "odd"}},
    {"retry": {"multiplier": 0.9, "jitter": 1.1, "max_backoff_s": -1, "initial_backoff_s": 86_401}},
    {"retry": {"non_retryable": ["ValueError", "OSError"]}},
    {"retry": {"non_retryable": ["a", 1]}},
    {"retry": {"non_retryable": ["a"] * 33}},
    {"retry": {"non_retryable": ["a" * 255]}},
    {"retry": {"non_retryable": ["a", "\u00e9" * 256, "b"]}},
    {"retry": {"unknown": 1}},
    {"retry": {"max_attempts": "many"}},
    {"unique_key": ""},
    {"unique_key": "x" * 256},
    {"unique_key": "u", "on_duplicate": "existing"},
    {"unique_key": "u", "on_duplicate": "replace"},
    {"unique_key": "u", "on_duplicate": "odd"},
    {"on_duplicate": "existing"},
    {"on_duplicate": "refuse"},
    {"trigger": "all_completed"},
    {"trigger": "any_completed", "upstream_failure": "fail"},
    {"trigger": "all_finished"},
    {"trigger": "any_finished"},
    {"trigger": "odd"},
    {"trigger": ""},
    {"upstream_failure": "cancel"},
    {"upstream_failure": "odd"},
]


@pytest.mark.parametrize("values", EDGES, ids=lambda values: ",".join(values)[:40])
@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
def test_it_judges_as_the_api_does(connection: Connection, values: dict[str, Any], keyed: bool) -> None:
    values = {**({"idempotency_key": "the key"} if keyed else {}), "kind": "k", **values}
    assert _fields_of_sql(connection, values) == _fields_of_model(values)


_SECONDS = st.one_of(st.floats(-1, 5_000, width=32), st.sampled_from([0.0, 2.0, 60.0, 3_600.0, 1e9]))
_TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=70)
_NAMES = st.one_of(st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,5}[a-z0-9])?", fullmatch=True), _TEXTS)
_TIMES = st.datetimes(timezones=st.just(UTC))
_LABELS = st.dictionaries(_NAMES, _TEXTS, max_size=3)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_RETRY = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": st.integers(0, 101),
        "backoff": st.sampled_from(["exponential", "linear", "fixed", "odd"]),
        "initial_backoff_s": st.floats(-1, 100_000, width=32),
        "multiplier": st.floats(0, 101, width=32),
        "max_backoff_s": st.floats(-1, 700_000, width=32),
        "jitter": st.floats(-0.5, 1.5, width=32),
        "non_retryable": st.lists(_TEXTS, max_size=3),
    },
)
_REQUESTS = st.fixed_dictionaries(
    {"kind": _NAMES},
    optional={
        "payload": _JSON.map(json.dumps),
        "namespace": _NAMES,
        "route": st.one_of(_NAMES, st.lists(_NAMES, max_size=9).map("/".join)),
        "priority": st.integers(-1_100, 1_100),
        "activate_at": _TIMES,
        "delay_s": _SECONDS,
        "retry": _RETRY,
        "ttl_s": _SECONDS,
        "timeout_s": _SECONDS,
        "start_within_s": _SECONDS,
        "start_by": _TIMES,
        "job_timeout_s": _SECONDS,
        "max_crashes": st.integers(-1, 110),
        "idempotency_key": _TEXTS,
        "labels": _LABELS,
        "limits": st.lists(_NAMES, max_size=9).map(tuple),
        "requires": _LABELS,
        "unique_key": _TEXTS,
        "on_duplicate": st.sampled_from(["refuse", "existing", "replace", "odd"]),
        "idempotency_ttl_s": _SECONDS,
        "trigger": st.sampled_from([*map(str, Trigger), "odd"]),
        "upstream_failure": st.sampled_from([*map(str, UpstreamFailure), "odd"]),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_REQUESTS)
def test_it_judges_and_hashes_as_the_api_does_whatever_is_asked_for(
    connection: Connection, values: dict[str, Any]
) -> None:
    assert _fields_of_sql(connection, values) == _fields_of_model(values)


def test_it_takes_every_field_of_a_job(connection: Connection) -> None:
    [(names,)] = connection.execute("SELECT proargnames FROM pg_proc WHERE proname = 'submit_job'").fetchall()
    assert set(names) == set(JobSpec.model_fields) - NOT_BY_SQL
    [(keys,)] = connection.execute(
        "SELECT array_agg(DISTINCT m[1]) FROM pg_proc, regexp_matches(prosrc, 'retry\\.([a-z_]+)', 'g') AS m"
        " WHERE proname = 'request_hash'"
    ).fetchall()
    assert set(keys) == set(RetrySpec.model_fields)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": None}, "kind"),
        ({"on_duplicate": "replace"}, "on_duplicate"),
        ({"activate_at": "infinity"}, "activate_at"),
        ({"start_by": "-infinity"}, "start_by"),
        ({"activate_at": "294276-01-01 00:00:00+00"}, "activate_at"),
        ({"depends_on": [SOME_ID]}, "depends_on"),
        ({"depends_on": [None]}, "depends_on"),
        ({"depends_on": [[SOME_ID], [SOME_ID]]}, "depends_on"),
        ({"limits": [["a"], ["b"]]}, "limits"),
        ({"limits": [None]}, "limits.0"),
    ],
)
def test_what_only_sql_can_say_is_refused_too(connection: Connection, values: dict[str, Any], field: str) -> None:
    assert _fields_of_sql(connection, {"kind": "k", **values}) == {field}


def test_the_trace_is_no_part_of_a_request_by_sql_either(connection: Connection) -> None:
    context = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    for labels in (context, {"x": "y", **context}):
        values = {"kind": "k", "labels": labels, "idempotency_key": str(uuid.uuid4())}
        assert not _fields_of_sql(connection, values)


@pytest.mark.parametrize("field", ["jitter", "initial_backoff_s", "max_backoff_s"])
def test_a_number_too_small_for_a_float_is_zero_as_by_the_api(connection: Connection, field: str) -> None:
    """The API reads it so; a jsonb keeps each of its digits."""
    key, retry = str(uuid.uuid4()), f'{{"{field}": 1e-400}}'
    call = b"SELECT tenure.submit_job('k', idempotency_key => %s, retry => %s::jsonb)"
    connection.execute(call, [key, retry])
    [(hash,)] = connection.execute("SELECT request_hash FROM tenure.idempotency WHERE key = %s", [key]).fetchall()
    connection.rollback()
    assert bytes(hash) == request_hash(validate_spec({"kind": "k", "retry": json.loads(retry)}))


def test_nulls_are_fields_that_are_not_given(connection: Connection) -> None:
    names = sorted(set(JobSpec.model_fields) - NOT_BY_SQL - {"kind"})
    assert _fields_of_sql(connection, {"kind": "k", **dict.fromkeys(names)}) == set()


async def test_what_it_writes_is_what_the_api_writes(table: Table, connection: Connection) -> None:
    values: dict[str, Any] = {
        "kind": "k",
        "payload": '{"b":1,  "a": "\\u00fc"}',
        "namespace": "ns",
        "route": "a/b/c",
        "priority": -7,
        "retry": {"max_attempts": 9, "non_retryable": ["A"]},
        "ttl_s": 2.5,
        "timeout_s": 0.5,
        "start_within_s": 60.0,
        "job_timeout_s": 600.0,
        "max_crashes": 7,
        "labels": {"k": "v'\"{},", "\u0061": "\u00fc"},
        "limits": ("y", "x"),
        "requires": {"gpu": "yes"},
        "unique_key": str(uuid.uuid4()),
        "trigger": "any_finished",
        "upstream_failure": "fail",
    }
    by_sql = submit(connection, **values)
    connection.commit()
    other = {**values, "unique_key": str(uuid.uuid4()), "limits": ("x", "y")}
    by_api = PlannedJob(new_id(), validate_spec(other), (), b"")
    await write_jobs(table.db, [by_api], [1])
    one, two = await table.row(by_sql), await table.row(by_api.id)
    same = set(one._fields) - {
        *("id", "created_at", "activate_at", "start_by", "deadline", "unique_key", "retry", "labels", "requires")
    }
    assert {name: getattr(one, name) for name in same} == {name: getattr(two, name) for name in same}
    assert json.loads(one.labels) == json.loads(two.labels)
    assert json.loads(one.requires) == json.loads(two.requires)
    assert RetrySpec.model_validate_json(one.retry) == RetrySpec.model_validate_json(two.retry)
    assert (one.start_by - one.activate_at, one.deadline - one.activate_at) == (
        timedelta(minutes=1),
        timedelta(minutes=10),
    )
    assert by_sql.version == 7
    [lane] = await table.sql("SELECT l.* FROM tenure.lane l JOIN tenure.job j ON j.lane = l.id WHERE j.id = %s", by_sql)
    assert (lane.pool, lane.namespace, lane.kind, lane.limits, lane.requires) == (
        "a",
        "ns",
        "k",
        "x,y",
        '{"gpu":"yes"}',
    )


async def test_its_lane_is_that_of_the_longest_pool(table: Table, connection: Connection) -> None:
    await table.db.fetch("register_pools", {"pools": ["deep", "deep/er", "deep/er-still"]})
    ids = [submit(connection, kind="k", route=route) for route in ("deep/er/x", "deep/x", "deeper/x", "deep/er")]
    connection.commit()
    rows = await table.sql("SELECT j.id, l.pool FROM tenure.job j JOIN tenure.lane l ON l.id = j.lane")
    pools = {row.id: row.pool for row in rows}
    assert [pools[id] for id in ids] == ["deep/er", "deep", "deeper", "deep/er"]


@pytest.mark.parametrize("label", ["yes", "gr\u00fcn", "\u7dd1", "\U0001f600", 'a"b\\c/', "<&'>"])
async def test_its_lane_is_that_of_the_api(table: Table, connection: Connection, label: str) -> None:
    values = {"kind": "k", "requires": {"b": label, "a": "x"}, "limits": ("y", "x")}
    id = submit(connection, **values)
    connection.commit()
    [row] = await table.sql("SELECT lane FROM tenure.job WHERE id = %s", id)
    assert await Lanes(table.db, SystemClock()).of([validate_spec(values)]) == [row.lane]


async def test_it_is_rolled_back_with_its_transaction(table: Table, connection: Connection) -> None:
    id = submit(connection, kind="k", idempotency_key="rolled back")
    connection.rollback()
    assert await table.row(id) is None
    assert submit(connection, kind="k", idempotency_key="rolled back") != id


async def test_a_key_of_the_api_is_met_by_sql_and_the_other_way_round(table: Table, connection: Connection) -> None:
    values: dict[str, Any] = {"kind": "k", "payload": "[1]", "labels": {"a": "b"}, "delay_s": 0.1}
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    spec = validate_spec({**values, "idempotency_key": first})
    planned = PlannedJob(new_id(), spec, (), request_hash(spec))
    await write_jobs(table.db, [planned], [1])
    assert submit(connection, **values, idempotency_key=first) == planned.id
    with pytest.raises(psycopg.DatabaseError) as refused:
        submit(connection, **{**values, "payload": "[2]"}, idempotency_key=first)
    assert (refused.value.sqlstate, refused.value.diag.message_detail) == ("TN011", str(planned.id))
    connection.rollback()
    by_sql = submit(connection, **values, idempotency_key=second)
    connection.commit()
    with pytest.raises(KeyTaken):
        await write_jobs(
            table.db, [PlannedJob(new_id(), validate_spec({**values, "idempotency_key": second}), (), b"")], [1]
        )
    known = await keyed_jobs(table.db, [("default", "", second)])
    met = known["default", "", second]
    assert (met.job_id, met.request_hash) == (
        by_sql,
        request_hash(validate_spec({**values, "idempotency_key": second})),
    )


async def test_an_expired_key_is_free_by_sql_too(table: Table, connection: Connection) -> None:
    key = str(uuid.uuid4())
    first = submit(connection, kind="k", idempotency_key=key, idempotency_ttl_s=600.0)
    connection.commit()
    [row] = await table.sql("SELECT expires_at - now() AS left_s FROM tenure.idempotency WHERE key = %s", key)
    assert timedelta(0) < row.left_s <= timedelta(seconds=600)
    await table.sql("UPDATE tenure.idempotency SET expires_at = now() WHERE key = %s", key)
    assert submit(connection, kind="k", idempotency_key=key, idempotency_ttl_s=600.0) != first


async def test_unique_keys_hold_between_sql_and_the_api(table: Table, connection: Connection) -> None:
    key = str(uuid.uuid4())
    held = await table.submit(unique_key=key)
    with pytest.raises(psycopg.DatabaseError) as refused:
        submit(connection, kind="k", unique_key=key)
    assert (refused.value.sqlstate, refused.value.diag.message_detail) == ("TN011", str(held))
    connection.rollback()
    idempotency = str(uuid.uuid4())
    asked = {"kind": "k", "unique_key": key, "on_duplicate": "existing", "idempotency_key": idempotency}
    assert submit(connection, **asked) == held
    connection.commit()
    await table.end(held, (await table.start(held))[0].fence)
    assert submit(connection, **asked) == held  # the same request, the same answer
    assert submit(connection, kind="k", unique_key=key) != held


async def test_it_waits_for_what_it_depends_on(table: Table, connection: Connection) -> None:
    parent, done = await table.submit(), await table.submit()
    await table.end(done, (await table.start(done))[0].fence)
    child = submit(connection, kind="k", depends_on=[parent, done, parent])
    ready = submit(connection, kind="k", depends_on=[done], job_timeout_s=60.0)
    connection.commit()
    assert (await table.row(child)).state == "waiting"
    row = await table.row(ready)
    assert (row.state, row.deadline is None) == ("ready", False)
    await table.end(parent, (await table.start(parent))[0].fence)
    assert (await table.row(child)).state == "ready"


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("end", [JobState.COMPLETED, JobState.FAILED])
async def test_it_waits_by_its_trigger(table: Table, connection: Connection, trigger: Trigger, end: JobState) -> None:
    parent, done = await table.submit(), await table.submit()
    await table.end(done, (await table.start(done))[0].fence, end)
    child = submit(connection, kind="k", depends_on=[parent, done], trigger=str(trigger))
    connection.commit()
    by_api = await table.submit(parents=[parent, done], trigger=trigger)
    columns = "state, due, waiting_on, trigger, held_back"
    assert await table.sql(f"SELECT {columns} FROM tenure.job WHERE id = %s", child) == await table.sql(
        f"SELECT {columns} FROM tenure.job WHERE id = %s", by_api
    )
    completed = int(end is JobState.COMPLETED)
    decided = verdict(trigger, left=1, completed=completed, otherwise=1 - completed)
    assert (await table.state(child) is JobState.READY) == (decided is Verdict.RUN)


@pytest.mark.parametrize("trigger", [None, "any_finished"])
async def test_it_is_held_behind_a_job_that_is_being_replaced(
    table: Table, connection: Connection, trigger: str | None
) -> None:
    key = str(uuid.uuid4())
    done, first = await table.submit(), await table.submit(unique_key=key)
    await table.end(done, (await table.start(done))[0].fence)
    fence = (await table.start(first))[0].fence
    await table.sql("UPDATE tenure.job SET replaced_by = %s, cancel_requested = true WHERE id = %s", new_id(), first)
    second = submit(connection, kind="k", unique_key=key, depends_on=[done], trigger=trigger)
    connection.commit()
    assert await table.state(second) is JobState.WAITING
    await table.end(first, fence, JobState.CANCELED)
    assert await table.state(second) is JobState.READY


async def test_an_idle_job_is_replaced_at_once_and_kept_as_after_any_cancel(
    table: Table, connection: Connection
) -> None:
    key, other = str(uuid.uuid4()), str(uuid.uuid4())
    values: dict[str, Any] = {
        "kind": "k",
        "payload": "[1]",
        "priority": 3,
        "retry": {"max_attempts": 9},
        "start_within_s": 60.0,
        "job_timeout_s": 600.0,
        "labels": {"a": "b"},
        "limits": ("x",),
        "requires": {"gpu": "yes"},
        "trigger": "any_finished",
        "upstream_failure": "fail",
    }
    first, twin = submit(connection, **values, unique_key=key), submit(connection, **values, unique_key=other)
    second = submit(connection, kind="k", unique_key=key, on_duplicate="replace")
    connection.rollback()
    assert await table.sql("SELECT FROM tenure.job WHERE id = ANY (%s)", [first, twin, second]) == []

    first, twin = submit(connection, **values, unique_key=key), submit(connection, **values, unique_key=other)
    connection.commit()
    await table.sql(
        """UPDATE tenure.job j SET attempt = 3, errors = 2, crashes = 1, progress = 0.5, progress_message = 'm',
           error = '{}', idempotency_key = 'i', parent_id = p, retry_of = r, schedule_id = s, scheduled_at = 'epoch',
           workflow_id = w, ref = 'r', asked_priority = 9, timeout_s = 7, max_crashes = 5, ttl_s = 33, reason = 'x'
           FROM (SELECT %s::uuid, %s::uuid, %s::uuid, %s::uuid) AS ids (p, r, s, w) WHERE j.id = ANY (%s)""",
        *(new_id() for _ in range(4)),
        [first, twin],
    )
    second = submit(connection, kind="k", unique_key=key, on_duplicate="replace")
    connection.commit()
    await table.db.transaction(replacing({twin: new_id()}))
    assert await table.state(second) is JobState.READY
    one, two = [(await table.sql("SELECT * FROM tenure.history WHERE id = %s", id))[0] for id in (first, twin)]
    assert (one.state, one.replaced_by, one.reason) == ("canceled", second, two.reason)
    differing = {"id", "unique_key", "replaced_by", "created_at", "activate_at", "finished_at", "start_by", "deadline"}
    same = set(one._fields) - differing
    assert {name: getattr(one, name) for name in same} == {name: getattr(two, name) for name in same}
    assert one.start_by - one.activate_at == timedelta(minutes=1)
    assert one.deadline - one.activate_at == timedelta(minutes=10)


async def test_whoever_replaces_an_executing_job_waits_for_its_end(table: Table, connection: Connection) -> None:
    key = str(uuid.uuid4())
    first = await table.submit(unique_key=key)
    fence = (await table.start(first))[0].fence
    second = submit(connection, kind="k", unique_key=key, on_duplicate="replace")
    third = submit(connection, kind="k", unique_key=key, on_duplicate="replace")
    connection.commit()
    row = await table.row(first)
    assert (row.state, row.cancel_requested, row.replaced_by) == ("executing", True, second)
    assert await table.state(second) is JobState.CANCELED
    assert await table.state(third) is JobState.WAITING
    await table.end(first, fence, JobState.CANCELED)
    assert await table.state(third) is JobState.READY


async def test_transactions_that_replace_at_the_same_moment_leave_one_job(shared_database: str, table: Table) -> None:
    key = str(uuid.uuid4())
    statement, params = _call({"kind": "k", "unique_key": key, "on_duplicate": "replace"})

    async def once() -> None:
        async with await psycopg.AsyncConnection.connect(shared_database) as own:
            await own.execute(statement, params)

    await asyncio.gather(*(once() for _ in range(12)))
    rows = await table.sql("SELECT id FROM tenure.job WHERE unique_key = %s", key)
    gone = await table.sql("SELECT state, replaced_by FROM tenure.history WHERE unique_key = %s", key)
    assert (len(rows), len(gone)) == (1, 11)
    assert {row.state for row in gone} == {"canceled"}
    assert rows[0].id in {row.replaced_by for row in gone}


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {
            "priority": 7,
            "ttl_s": 20.0,
            "timeout_s": 60.0,
            "start_within_s": 30.0,
            "job_timeout_s": 600.0,
            "max_crashes": 5,
            "retry": {"max_attempts": 9, "backoff": "linear", "non_retryable": ["A"]},
            "limits": ("scan:{namespace}", "{kind}"),
        },
        {},
    ),
    (
        {"priority": 7, "ttl_s": 20.0, "retry": {"max_attempts": 9, "jitter": 0.5}, "limits": ("wide",)},
        {"priority": 0, "timeout_s": 1.0, "retry": {"jitter": 0.0}, "limits": ("{kind}:{namespace}",)},
    ),
    ({"priority": None, "retry": None, "limits": ()}, {"priority": None, "ttl_s": 5.0, "limits": ()}),
    ({"limits": tuple("abcd")}, {}),
]
ASKED: list[dict[str, Any]] = [
    {},
    {"priority": 0, "ttl_s": 10.0, "max_crashes": 3, "retry": {"max_attempts": 3}},
    {"priority": -1, "timeout_s": 2.0, "job_timeout_s": 3.0, "retry": {"multiplier": 3.0}, "limits": ("own", "wide")},
    {"start_by": AT, "limits": ("a",)},
    {"start_within_s": 5.0, "namespace": "other", "limits": tuple("ijklmno")},
]


@pytest.mark.parametrize("wide_and_own", SETTINGS, ids=lambda each: ",".join(each[0]))
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: ",".join(asked) or "nothing")
async def test_settings_of_kinds_are_applied_as_the_api_does(
    table: Table, connection: Connection, wide_and_own: tuple[dict[str, Any], dict[str, Any]], asked: dict[str, Any]
) -> None:
    kind = f"set-{uuid.uuid4().hex[:8]}"
    wide, own = (KindSettings(**each) for each in wide_and_own)
    book = KindBook({("", kind): wide, ("default", kind): own})
    for namespace, each in (("", wide), ("default", own)):
        await table.db.fetch("put_kind", {"namespace": namespace, "name": kind, "settings": each.stored()})
    values = {"kind": kind, "idempotency_key": kind, **asked}
    spec = validate_spec(values)
    try:
        planned = PlannedJob(new_id(), book.apply(spec), (), b"")
    except InvalidInput as exc:
        assert _fields_of_sql(connection, values) == {exc.violations[0].field.removeprefix("job.")}
        return
    by_sql = submit(connection, **values)
    connection.commit()
    await write_jobs(table.db, [planned._replace(spec=planned.spec.model_copy(update={"idempotency_key": None}))], [1])
    one, two = await table.row(by_sql), await table.row(planned.id)
    names = ("priority", "ttl_s", "timeout_s", "job_timeout_s", "max_crashes", "limits", "trigger", "upstream_failure")
    assert {name: getattr(one, name) for name in names} == {name: getattr(two, name) for name in names}
    assert RetrySpec.model_validate_json(one.retry or "{}") == RetrySpec.model_validate_json(two.retry or "{}")
    assert (one.start_by is None) == (two.start_by is None)
    if one.start_by is not None and spec.start_by is None:
        assert one.start_by - one.activate_at == two.start_by - two.activate_at
    known = await keyed_jobs(table.db, [(spec.namespace, "", kind)])
    assert known[spec.namespace, "", kind].request_hash == request_hash(spec)  # of what was asked
    [lane] = await table.sql("SELECT l.* FROM tenure.lane l JOIN tenure.job j ON j.lane = l.id WHERE j.id = %s", by_sql)
    assert lane.limits == ",".join(sorted(planned.spec.limits))


async def test_a_namespace_that_is_full_takes_no_more(table: Table, connection: Connection) -> None:
    namespace, key = f"full-{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
    params = {
        "name": namespace,
        "weight": None,
        "ageing_s": None,
        "backlog": 1,
        "submit_rate": None,
        "submit_burst": None,
    }
    await table.db.fetch("put_namespace", params)
    first = submit(connection, kind="k", namespace=namespace, idempotency_key=key, unique_key=key)
    connection.commit()
    await table.db.fetch("count_backlogs")
    with pytest.raises(psycopg.DatabaseError, match="1 unfinished jobs, 1 are allowed") as refused:
        submit(connection, kind="k", namespace=namespace)
    assert (refused.value.sqlstate, refused.value.diag.message_detail) == ("TN012", "1")
    connection.rollback()
    # What is there already is answered.
    assert submit(connection, kind="k", namespace=namespace, idempotency_key=key, unique_key=key) == first
    assert submit(connection, kind="k", namespace=namespace, unique_key=key, on_duplicate="existing") == first


async def test_transactions_with_the_same_keys_leave_one_job(shared_database: str) -> None:
    key = str(uuid.uuid4())

    async def once(number: int) -> uuid.UUID:
        async with await psycopg.AsyncConnection.connect(shared_database) as own:
            statement, params = _call(
                {"kind": "k", "idempotency_key": key}
                if number % 2
                else {"kind": "k", "unique_key": key, "on_duplicate": "existing", "idempotency_key": f"{key}{number}"}
            )
            row = await (await own.execute(statement, params)).fetchone()
            assert row is not None
            id: uuid.UUID = row[0]
            return id

    ids = await asyncio.gather(*(once(number) for number in range(12)))
    assert len(set(ids[::2])) == len(set(ids[1::2])) == 1


@pytest.fixture
def role(shared_database: str) -> Iterator[str]:
    """A role that may submit and nothing else."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(shared_database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE tenure_submitter").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def submitter(connection: Connection, role: str) -> Connection:
    """A connection that has become that role and cannot go back but by RESET."""
    connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
    connection.commit()
    return connection


def test_a_role_that_may_only_submit_submits(submitter: Connection) -> None:
    assert submit(submitter, kind="k", idempotency_key=str(uuid.uuid4()), unique_key=str(uuid.uuid4())).version == 7


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM tenure.job",
        "SELECT * FROM tenure.jobs",
        "SELECT * FROM tenure.idempotency",
        "INSERT INTO tenure.pool (path) VALUES ('x')",
        "DELETE FROM tenure.history",
        "UPDATE tenure.cluster SET epoch = 9",
        "SELECT nextval('tenure.fence_sequence')",
        "SELECT tenure.make_partitions(1)",
        "SELECT tenure.new_id()",
        "SELECT tenure.insert_job(NULL, NULL)",
        "SELECT tenure.take_key(NULL, NULL)",
        "CREATE FUNCTION tenure.is_name(name varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    ],
)
def test_and_does_nothing_else(submitter: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        submitter.execute(statement.encode())


def test_the_callers_settings_do_not_reach_into_it(submitter: Connection) -> None:
    """A search path with functions and tables of the caller's own, and literals read the old way."""
    submitter.execute("CREATE TEMP TABLE job (id uuid)")
    submitter.execute("CREATE TEMP TABLE lane (id bigint)")
    submitter.execute(
        "CREATE FUNCTION pg_temp.length(text) RETURNS integer LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$"
    )
    submitter.execute("CREATE FUNCTION pg_temp.is_true(boolean, boolean) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    submitter.execute("CREATE OPERATOR pg_temp.<> (LEFTARG = boolean, RIGHTARG = boolean, FUNCTION = pg_temp.is_true)")
    submitter.execute("SET search_path = pg_temp, public, pg_catalog, tenure")
    submitter.execute("SET standard_conforming_strings = off")
    submitter.execute("SET backslash_quote = on")
    assert submit(submitter, kind="k", labels={"a": "b"}).version == 7
    assert _fields_of_sql(submitter, {"kind": "k", "payload": '"\\u0000"'}) == {"payload"}


def test_nor_do_types_of_the_callers_own(submitter: Connection) -> None:
    """Types are looked for in pg_temp, too, and first unless it is named: a check of theirs would run as the owner."""
    names = (
        "bool",
        "bytea",
        "float8",
        "int4",
        "int8",
        "interval",
        "json",
        "jsonb",
        "numeric",
        "text",
        "timestamptz",
        "uuid",
    )
    submitter.execute(
        "CREATE FUNCTION pg_temp.reached() RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$"
    )
    for name in map(sql.Identifier, names):
        domain = sql.SQL("CREATE DOMAIN pg_temp.{0} AS pg_catalog.{0} CHECK (pg_temp.reached())")
        submitter.execute(domain.format(name))
    given = "idempotency_key => 'a', unique_key => 'a', start_within_s => 60, job_timeout_s => 600"
    row = submitter.execute(f"SELECT tenure.submit_job('k', {given})".encode()).fetchone()
    submitter.rollback()
    assert row is not None


async def test_no_function_looks_for_types_of_its_caller(table: Table) -> None:
    rows = await table.sql(
        "SELECT p.proname, p.proconfig FROM pg_proc p WHERE p.pronamespace = 'tenure'::regnamespace AND NOT EXISTS"
        " (SELECT FROM unnest(p.proconfig) AS c WHERE c = 'search_path=pg_catalog, pg_temp')"
    )
    # Those that are put into the statements which call them, and name no type, no table and no function.
    assert {row.proname for row in rows} == {"verdict", "trigger_of"}
