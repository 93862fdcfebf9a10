"""Files of the archive: how jobs gather into them, and by what they are found."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from tenure.model import archive
from tenure.model.archive import Expired, Gathering, Plan, file_key, made_ms, manifest_key, manifest_of, mark_of
from tenure.model.ids import first_id_at
from tenure.store.objects.keys import checked

AT = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def job(n: int, *, namespace: str = "a", weight: int = 1) -> Expired:
    return Expired(uuid.UUID(int=n), namespace, AT, AT + timedelta(hours=n), weight)


def ids(files: Iterable[list[Expired]]) -> list[list[int]]:
    return [[one.id.int for one in file] for file in files]


def test_a_file_is_full_by_jobs_or_by_bytes_and_of_one_namespace() -> None:
    gathering = Gathering(max_jobs=3, max_bytes=10)
    assert list(gathering.add([job(1), job(2, namespace="b"), job(3)])) == []
    assert ids(gathering.add([job(4), job(5, weight=9), job(6, weight=2)])) == [[1, 3, 4], [5]]
    assert ids(gathering.add([job(7, weight=100), job(8)])) == [[6], [7]]
    assert ids(gathering.rest()) == [[8], [2]]
    assert gathering.rest() == []


def test_what_waits_is_bounded_over_all_namespaces() -> None:
    gathering = Gathering(max_jobs=archive.MAX_GATHERED_JOBS)
    jobs = [job(n, namespace=f"n{n % 10}") for n in range(archive.MAX_GATHERED_JOBS + 1)]
    full = list(gathering.add(jobs))
    assert len(full) == 1
    assert sum(map(len, full)) + sum(map(len, gathering.rest())) == len(jobs)


def test_row_groups_are_bounded_by_jobs_and_bytes() -> None:
    plan = Plan(uuid.uuid4(), [job(n, weight=archive.GROUP_BYTES // 2) for n in range(5)])
    assert [len(group) for group in plan.groups()] == [2, 2, 1]
    plan = Plan(uuid.uuid4(), [job(n) for n in range(archive.GROUP_JOBS + 1)])
    assert [len(group) for group in plan.groups()] == [archive.GROUP_JOBS, 1]


def test_keys_are_keys_and_name_the_day_of_the_first_end() -> None:
    plan = Plan(uuid.UUID(int=7), [job(2), job(1), job(3)])
    assert plan.key == f"_archive/a/2026/03/02/{uuid.UUID(int=7)}.parquet"
    assert checked(plan.key) == plan.key
    assert manifest_key(plan.key) == f"_archive/a/2026/03/02/{uuid.UUID(int=7)}.json"
    east = AT.astimezone(tz=None)
    assert file_key("a", east, uuid.UUID(int=7)) == file_key("a", AT, uuid.UUID(int=7))


def test_a_manifest_says_what_a_file_holds() -> None:
    told = json.loads(manifest_of(Plan(uuid.UUID(int=7), [job(1), job(2)]), 10, b"\1" * 32))
    assert (told["rows"], told["size_bytes"], told["sha256"]) == (2, 10, "01" * 32)
    assert (told["first_id"], told["last_id"]) == (str(uuid.UUID(int=1)), str(uuid.UUID(int=2)))
    assert told["finished_from"] < told["finished_until"]


def test_marks_fit_into_an_integer_and_times_are_those_of_the_id() -> None:
    id = uuid.UUID(int=first_id_at(AT).int | 0xFFFFFFFF)
    assert mark_of(id) == -1
    assert mark_of(uuid.UUID(int=2**31 - 1)) == 2**31 - 1
    assert made_ms(id) == int(AT.timestamp() * 1000)
