"""What may be asked for: every violation is named; references and cycles; batches that form by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.model import jobs
from tenure.model.batch import COMPANY, Batcher, pieces
from tenure.model.errors import BoundExceeded, InvalidInput
from tenure.model.jobs import JobSpec, find_cycle, json_error, resolve_batch, validate_spec
from tenure.model.request import request_hash


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", ""),
        ("kind", "has space"),
        ("payload", "{"),
        ("payload", "NaN"),
        ("payload", '"\\u0000"'),
        ("payload", "[" * 65 + "]" * 65),
        ("payload", '"' + "x" * 300_000 + '"'),
        ("namespace", "Upper"),
        ("route", "a//b"),
        ("priority", 1001),
        ("priority", "high"),
        ("delay_s", -1),
        ("delay_s", float("nan")),
        ("activate_at", "2026-01-01T00:00:00"),
        ("ttl_s", 1.9),
        ("ttl_s", 3601),
        ("timeout_s", 0),
        ("max_crashes", 0),
        ("idempotency_key", "a\x00"),
        ("idempotency_key", "x" * 256),
        ("labels", {"Bad Key": "x"}),
        ("labels", {"a": "x" * 64}),
        ("labels", {"a": "line\nbreak"}),
        ("no_such_field", 1),
    ],
)
def test_each_bad_field_is_named(field: str, value: Any) -> None:
    """The path of the member comes first."""
    with pytest.raises(InvalidInput) as caught:
        validate_spec({"kind": "k", field: value}, path="jobs[3].")
    assert any(v.field.startswith(f"jobs[3].{field}") for v in caught.value.violations), caught.value.violations


def test_all_violations_are_named_at_once() -> None:
    """Not the first alone."""
    with pytest.raises(InvalidInput) as caught:
        validate_spec({"kind": "", "priority": 5000, "payload": "{", "route": "A"})
    assert {v.field for v in caught.value.violations} == {"kind", "priority", "payload", "route"}


def test_delay_and_activation_exclude_each_other() -> None:
    """And the violation names a field."""
    with pytest.raises(InvalidInput) as caught:
        validate_spec({"kind": "k", "delay_s": 1, "activate_at": "2026-01-01T00:00:00Z"})
    assert [v.field for v in caught.value.violations] == ["activate_at"]


@given(st.text())
def test_any_text_is_judged_without_an_accident(text: str) -> None:
    """It is JSON or it is not."""
    json_error(text, max_bytes=10_000, max_depth=64)


def test_an_escaped_backslash_is_no_nul() -> None:
    """Only an odd number of backslashes makes the escape."""
    assert json_error('"\\\\u0000"', max_bytes=100, max_depth=64) is None


def _specs(*depends: Sequence[str]) -> list[JobSpec]:
    return [JobSpec(kind="k", ref=f"r{n}", depends_on=tuple(on)) for n, on in enumerate(depends)]


def test_references_inside_a_batch_become_ids() -> None:
    """Ids outside of it stay as they are; naming one twice counts once."""
    ids = [uuid.UUID(int=n) for n in (1, 2)]
    outside = str(uuid.UUID(int=9))
    assert resolve_batch(_specs([], ["r0", "r0", outside]), ids) == [(), (ids[0], uuid.UUID(int=9))]


@pytest.mark.parametrize(
    ("specs", "field", "words"),
    [
        (_specs(["r1"], ["r0"]), "jobs[0].depends_on", "r0 -> r1 -> r0"),
        (_specs(["r0"]), "jobs[0].depends_on", "r0 -> r0"),
        (_specs(["nobody"]), "jobs[0].depends_on[0]", "neither"),
        ([JobSpec(kind="k", ref="a"), JobSpec(kind="k", ref="a")], "jobs[1].ref", "jobs[0]"),
    ],
)
def test_bad_references_are_refused_with_their_path(specs: list[JobSpec], field: str, words: str) -> None:
    """Cycles with the way round."""
    with pytest.raises(InvalidInput) as caught:
        resolve_batch(specs, [uuid.uuid4() for _ in specs])
    (violation,) = caught.value.violations
    assert violation.field == field
    assert words in violation.description


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.lists(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_a_cycle_is_found_if_there_is_one(edges: list[list[int]]) -> None:
    """Compared with taking away, again and again, what points nowhere."""
    left = set(range(len(edges)))
    while free := {node for node in left if not any(target in left for target in edges[node])}:
        left -= free
    cycle = find_cycle(edges)
    assert bool(cycle) == bool(left)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in edges[before] for before, after in itertools.pairwise(cycle))


async def test_batches_form_by_themselves() -> None:
    """What gathers while one is under way travels in the next, in order; each gets its own answer or error."""
    batches: list[list[int]] = []
    gate, begun = asyncio.Event(), asyncio.Event()

    async def carry_out(items: list[int]) -> list[int | Exception]:
        batches.append(items)
        begun.set()
        await gate.wait()
        return [ValueError(str(item)) if item == 3 else item * 10 for item in items]

    batcher: Batcher[int, int] = Batcher(carry_out, max_items=10)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        first = group.create_task(batcher.ask(1))
        await begun.wait()
        rest = [asyncio.ensure_future(batcher.ask(n)) for n in (2, 3, 4)]
        rest[2].cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await first == 10
        assert await rest[0] == 20
        with pytest.raises(ValueError, match="3"):
            await rest[1]
        with contextlib.suppress(asyncio.CancelledError):
            await rest[2]
        running.cancel()
    assert batches[0] == [1]
    assert batches[1][:2] == [2, 3]


class _Trips:
    """Batches of a batcher that rests, each of which takes a while."""

    def __init__(self, took_s: float) -> None:
        self.batches: list[list[int]] = []
        self._took_s = took_s
        self.batcher: Batcher[int, int] = Batcher(self._carry_out, max_items=10, rest_s=60.0)

    async def _carry_out(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await asyncio.sleep(self._took_s)
        return items


async def test_callers_in_company_wait_for_each_other_and_one_alone_for_nobody() -> None:
    trips = _Trips(took_s=0.5)
    ask = trips.batcher.ask
    async with asyncio.TaskGroup() as group:
        running = group.create_task(trips.batcher.run())
        await ask(1)
        await ask(2)  # one after the other: each goes at once
        assert trips.batches == [[1], [2]]
        together = list(range(3, COMPANY + 4))
        await asyncio.gather(*map(ask, together))  # after a rest
        next_one = group.create_task(ask(100))
        await asyncio.sleep(0.05)
        assert trips.batches == [[1], [2], together]  # it came after company, and waits for more
        await asyncio.gather(next_one, ask(101))
        assert trips.batches == [[1], [2], together, [100, 101]]
        running.cancel()


async def test_many_items_of_one_caller_are_no_company() -> None:
    trips = _Trips(took_s=0.5)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(trips.batcher.run())
        await trips.batcher.ask(1)
        for first in (2, 4):
            items = trips.batcher.add([first, first + 1])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert trips.batches[-1] == [first, first + 1]  # at once
            await asyncio.gather(*items)
        running.cancel()


async def test_batches_are_bounded_by_weight() -> None:
    batches: list[list[int]] = []

    async def carry_out(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    batcher: Batcher[int, int] = Batcher(carry_out, max_items=3, weigh=lambda item: item, max_weight=10)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(batcher.ask(item)) for item in (4, 6, 1, 20, 1, 1, 1, 1)]
        await asyncio.sleep(0)
        running = group.create_task(batcher.run())
        await asyncio.gather(*asked)
        running.cancel()
    assert batches == [[4, 6], [1], [20], [1, 1, 1], [1]]
    assert list(pieces([], int, max_weight=1, max_items=1)) == []


async def test_a_batcher_refuses_what_it_cannot_hold() -> None:
    """Bounded, with a named error."""

    async def never(items: list[int]) -> list[int]:
        raise AssertionError("nothing runs here")

    batcher: Batcher[int, int] = Batcher(never, max_items=1, max_waiting=0, name="test")
    with pytest.raises(BoundExceeded, match="test"):
        await batcher.ask(1)


@pytest.mark.parametrize(
    ("depth", "most", "is_refused"), [(3, 3, False), (4, 3, True), (64, 64, False), (65, 64, True)]
)
def test_nesting_is_bounded_by_the_bound_that_is_given(depth: int, most: int, is_refused: bool) -> None:
    text = "[" * depth + "]" * depth
    assert (json_error(text, max_bytes=1_000, max_depth=most) is not None) is is_refused
    assert json_error(f'"{text}"', max_bytes=1_000, max_depth=most) is None


_TEXTS = st.one_of(
    st.sampled_from(
        ["", "k", "a.b", "A", "pool/a", "-", "null", '"é"', '"\\u0000"', "{", "NaN", "a\n", "\x00", "\ud800", "x" * 300]
    ),
    st.text(max_size=5),
)
_NUMBERS = st.one_of(
    st.integers(-2_000, 5_000), st.sampled_from([0.0, 2.0, 1e-12, 3_600.5, 1e9, float("nan"), float("inf")]), st.none()
)
_ODD = st.sampled_from([True, [], b"k", "1"])


@settings(max_examples=500, deadline=None)
@given(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["noop", "k", "K", "-"])},
        optional={
            **dict.fromkeys(("payload", "namespace", "route", "idempotency_key", "ref"), st.one_of(_TEXTS, _ODD)),
            **dict.fromkeys(
                ("priority", "max_crashes", "ttl_s", "timeout_s", "delay_s"),
                st.one_of(_NUMBERS, st.sampled_from([1, 10.0]), _ODD),
            ),
            "labels": st.one_of(st.dictionaries(_TEXTS, st.one_of(_TEXTS, _ODD), max_size=3), _ODD),
        },
    )
)
def test_a_plain_job_is_judged_and_built_as_pydantic_does(values: dict[str, Any]) -> None:
    def by_pydantic() -> JobSpec:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "_plain", lambda values: None)
            return validate_spec(values)

    def outcome(build: Callable[[], JobSpec]) -> Any:
        try:
            spec = build()
        except InvalidInput as exc:
            return exc.violations
        return spec, vars(spec), sorted(spec.model_fields_set), spec.model_dump_json(), request_hash(spec)

    assert repr(outcome(lambda: validate_spec(values))) == repr(outcome(by_pydantic))


def test_a_plain_job_needs_no_pydantic() -> None:
    values = {
        "kind": "k",
        "payload": '"é"',
        "route": "a/b",
        "idempotency_key": "x",
        "priority": 1,
        "labels": {"a": "b"},
    }
    assert jobs._plain(values) == JobSpec.model_validate(values)
    one, other = jobs._plain({"kind": "k"}), jobs._plain({"kind": "k"})
    assert one is not None and other is not None
    assert one.labels is not other.labels
