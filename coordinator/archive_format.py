"""Files of the archive as Parquet: the columns, and jobs on their way there and back. Needs pyarrow.

Only this module knows pyarrow, which is imported where it is used: coordinators without an archive do without. What is
JSON in Postgres is JSON text here, but for labels; times are in microseconds and UTC. The same jobs always make the
same bytes. Blocking: call it in a thread.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from tenure.model.archive import SCHEMA_VERSION
from tenure.model.errors import WrongState
from tenure.model.objects import LOG, attempt_key, file_key
from tenure.store.postgres.database import Row

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

SCHEMA_KEY = b"tenure.schema_version"
COMPRESSION = "zstd"
TAIL_BYTES = 64 * 1024
"""Of a file, that are read first: where its footer fits in, they are all that is read to find a job's row group."""
_LENGTH_BYTES = 8
"""Behind the footer: its length in four bytes, and four that every Parquet file ends with."""
_IDS = ("id", "parent_id", "schedule_id", "retry_of", "retried_by", "workflow_id", "replaced_by")
_TEXTS = (
    "namespace", "kind", "route", "state", "payload", "result", "error", "reason", "worker", "retry",
    "idempotency_key", "progress_message", "trigger", "upstream_failure", "ref", "unique_key",
)  # fmt: skip
_TIMES = (
    "created_at", "activate_at", "started_at", "finished_at", "scheduled_at", "start_by", "deadline", "deleted_at",
)  # fmt: skip
_SMALL = ("priority", "attempt", "errors", "crashes", "max_crashes")
_SECONDS = ("ttl_s", "timeout_s", "start_within_s", "job_timeout_s", "progress")
_BATCH = 1_000
_FLAGS = ("cancel_requested", "has_begun_uploads")
_MAPS = ("labels", "requires")
_AS_THEY_ARE = (*_TEXTS, *_TIMES, *_SMALL, "fence", *_SECONDS, *_FLAGS)
ATTEMPT = ("attempt", "fence", "worker", "lease", "claim_revision", "outcome", "error", "started_at", "finished_at")
ARTIFACT = ("attempt", "name", "key", "size_bytes", "sha256", "content_type", "lost", "created_at")
LOG_HEAD = ("attempt", "key", "lines", "last_seq", "bytes", "object_bytes")


def missing() -> str | None:
    """Say what is missing to read and write files, or None."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        return f"{exc.name} is not installed (pip install 'tenure[archive]')"
    return None


def schema() -> pyarrow.Schema:
    """Return the columns."""
    import pyarrow as pa

    text, time, number = pa.string(), pa.timestamp("us", tz="UTC"), pa.int64()
    labels = pa.map_(text, text)
    attempt = {"attempt": pa.int32(), "fence": number, "lease": number, "claim_revision": number}
    attempt |= {"started_at": time, "finished_at": time}
    artifact = {"attempt": pa.int32(), "size_bytes": number, "created_at": time}
    fields = [("id", text), *((name, text) for name in _TEXTS), *((name, time) for name in _TIMES)]
    fields += [(name, pa.int32()) for name in _SMALL]
    fields += [
        ("fence", number),
        *((name, pa.float64()) for name in _SECONDS),
        *((name, pa.bool_()) for name in _FLAGS),
    ]
    fields += [(name, text) for name in _IDS[1:]]
    fields += [("labels", labels), ("requires", labels), ("limits", pa.list_(text)), ("depends_on", pa.list_(text))]
    fields.append(("attempts", pa.list_(pa.struct([(name, attempt.get(name, text)) for name in ATTEMPT]))))
    fields.append(("artifacts", pa.list_(pa.struct([(name, artifact.get(name, text)) for name in ARTIFACT]))))
    head = {"attempt": pa.int32(), "key": text}
    fields.append(("logs", pa.list_(pa.struct([(name, head.get(name, number)) for name in LOG_HEAD]))))
    return pa.schema(fields, metadata={SCHEMA_KEY: str(SCHEMA_VERSION).encode()})


class Writer:
    """Writes one file, in memory."""

    def __init__(self) -> None:
        from pyarrow import parquet

        self._sink = io.BytesIO()
        self._schema = schema()
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression=COMPRESSION)

    def add(
        self, jobs: Sequence[Row], attempts: Iterable[Row], artifacts: Iterable[Row], logs: Iterable[Row] = ()
    ) -> None:
        """Write a row group: these jobs, with what is theirs."""
        import pyarrow as pa

        columns = _columns(jobs, _by_job(attempts), _by_job(artifacts), _by_job(logs))
        self._writer.write_table(pa.Table.from_pydict(columns, schema=self._schema), row_group_size=len(jobs))

    def close(self) -> bytes:
        """Return the file."""
        self._writer.close()
        return self._sink.getvalue()


def ids_of(data: bytes) -> list[str]:
    """Return the ids of the jobs in a file; none where it is no such file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        found: list[str] = parquet.ParquetFile(pa.BufferReader(data)).read(columns=["id"])["id"].to_pylist()
    except (pa.ArrowException, OSError, KeyError):
        return []
    return found


class Told(NamedTuple):
    """What a file says of its jobs, as far as its end asks for it."""

    labels: set[tuple[str, str]]
    with_objects: list[uuid.UUID]
    """Jobs of which something may lie in the object store."""


def labels_and_objects(data: bytes) -> Told:
    """Read which labels the jobs of a file have, and which of them have saved something, or may have begun to.

    Raises:
        WrongState: it is no such file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns = ["id", "labels", "artifacts", "logs", "has_begun_uploads"]
    told = Told(set(), [])
    try:
        jobs = parquet.read_table(pa.BufferReader(data), columns=columns)
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise WrongState("it cannot be read as a file of the archive") from exc
    for group in jobs.to_batches(max_chunksize=_BATCH):
        for job in group.to_pylist():
            told.labels.update(map(tuple, job["labels"] or ()))
            if job["artifacts"] or job["logs"] or job["has_begun_uploads"]:
                told.with_objects.append(uuid.UUID(job["id"]))
    return told


class Part(NamedTuple):
    """Some jobs of a file: as a file of their own, and what is said of each."""

    data: bytes
    jobs: dict[uuid.UUID, SimpleNamespace]
    """By id: ``namespace``, ``kind``, ``state``, ``created_at``, ``finished_at``."""


def only(data: bytes, ids: Collection[str]) -> Part:
    """Return a file with just these jobs, in the same order and row groups no larger."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    source = parquet.ParquetFile(pa.BufferReader(data))
    sink, jobs = io.BytesIO(), dict[uuid.UUID, SimpleNamespace]()
    with parquet.ParquetWriter(sink, source.schema_arrow, compression=COMPRESSION) as writer:
        for number in range(source.num_row_groups):
            group = source.read_row_group(number)
            group = group.filter(compute.is_in(group["id"], value_set=pa.array(sorted(ids), pa.string())))
            if group.num_rows:
                writer.write_table(group, row_group_size=group.num_rows)
            few = group.select(["id", "namespace", "kind", "state", "created_at", "finished_at"])
            for job in few.to_pylist():
                jobs[uuid.UUID(job["id"])] = SimpleNamespace(**job)
    return Part(sink.getvalue(), jobs)


def footer_bytes(tail: bytes) -> int:
    """Return how many bytes of the end of a file its footer takes, from the last of them."""
    return int.from_bytes(tail[-_LENGTH_BYTES:-4], "little") + _LENGTH_BYTES


def footer_of(tail: bytes) -> parquet.FileMetaData:
    """Read the footer, which lies whole in the end of a file."""
    import pyarrow as pa
    from pyarrow import parquet

    return parquet.read_metadata(pa.BufferReader(tail))


def group_of(footer: parquet.FileMetaData, job: uuid.UUID) -> int | None:
    """Return the number of the row group in which a job would be, None if in no one."""
    for number in range(footer.num_row_groups):
        ids = footer.row_group(number).column(0).statistics
        if ids.min <= str(job) <= ids.max:
            return number
    return None


def range_of(footer: parquet.FileMetaData, number: int) -> tuple[int, int]:
    """Return where the bytes of a row group begin, and how many there are."""
    group = footer.row_group(number)
    columns = [group.column(index) for index in range(group.num_columns)]
    begins = [min(at for at in (one.dictionary_page_offset, one.data_page_offset) if at is not None) for one in columns]
    ends = [at + one.total_compressed_size for at, one in zip(begins, columns, strict=True)]
    return min(begins), max(ends) - min(begins)


def job_in(size: int, tail: bytes, start: int, group: bytes, number: int, job: uuid.UUID) -> SimpleNamespace | None:
    """Return a job of a row group as a row of ``tenure.jobs``, with what is its own as ``ArchivedJob`` has it.

    ``group`` are the bytes of the file from ``start``, ``tail`` those at its end, with the footer.
    """
    import pyarrow as pa
    from pyarrow import parquet

    file = bytearray(size)
    file[start : start + len(group)] = group
    file[size - len(tail) :] = tail
    table = parquet.ParquetFile(pa.BufferReader(pa.py_buffer(file))).read_row_group(number)
    ids = table["id"].to_pylist()
    if str(job) not in ids:
        return None
    [found] = table.slice(ids.index(str(job)), 1).to_pylist()
    return _as_row(found)


def _by_job(rows: Iterable[Row]) -> dict[uuid.UUID, list[Row]]:
    found: dict[uuid.UUID, list[Row]] = {}
    for row in rows:
        found.setdefault(row.job_id, []).append(row)
    return found


def _columns(
    jobs: Sequence[Row],
    attempts: Mapping[uuid.UUID, list[Row]],
    artifacts: Mapping[uuid.UUID, list[Row]],
    logs: Mapping[uuid.UUID, list[Row]],
) -> dict[str, list[Any]]:
    """Return the values of each column: much less work than a mapping for each job."""
    columns: dict[str, list[Any]] = {name: [getattr(job, name) for job in jobs] for name in _AS_THEY_ARE}
    columns |= {name: [_text(getattr(job, name)) for job in jobs] for name in _IDS}
    columns |= {name: [_pairs(getattr(job, name)) for job in jobs] for name in _MAPS}
    columns["limits"] = [job.limits or [] for job in jobs]
    columns["depends_on"] = [[str(parent) for parent in job.depends_on] for job in jobs]
    columns["attempts"] = [[_attempt(one) for one in attempts.get(job.id, ())] for job in jobs]
    columns["artifacts"] = [[_file(job, one) for one in artifacts.get(job.id, ())] for job in jobs]
    columns["logs"] = [[_log(job, one) for one in logs.get(job.id, ())] for job in jobs]
    return columns


def _attempt(one: Row) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ATTEMPT}


def _log(job: Row, one: Row) -> dict[str, Any]:
    own = {name: getattr(one, name) for name in LOG_HEAD if name != "key"}
    return {**own, "key": attempt_key(job.namespace, job.id, one.attempt, LOG)}


def _file(job: Row, one: Row) -> dict[str, Any]:
    own = {name: getattr(one, name) for name in ARTIFACT if name not in ("key", "sha256")}
    is_there = one.sha256 is not None
    return {
        **own,
        "key": file_key(job.namespace, job.id, one.attempt, one.name, one.sha256) if is_there else None,
        "sha256": one.sha256.hex() if is_there else None,
    }


def _as_row(found: Mapping[str, Any]) -> SimpleNamespace:
    row = SimpleNamespace(**found)
    for name in _IDS:
        if found[name] is not None:
            setattr(row, name, uuid.UUID(found[name]))
    for name in _MAPS:
        setattr(row, name, json.dumps(dict(found[name])) if found[name] else None)
    row.aged = False
    row.lease = row.claim_revision = None
    row.attempts = [SimpleNamespace(job_id=row.id, **one) for one in found["attempts"]]
    row.artifacts = [
        SimpleNamespace(**{**one, "sha256": bytes.fromhex(one["sha256"]) if one["sha256"] else None})
        for one in found["artifacts"]
    ]
    row.logs = [SimpleNamespace(**one) for one in found["logs"]]
    return row


def _pairs(text: str | None) -> list[tuple[str, str]]:
    return list(json.loads(text).items()) if text else []


def _text(id: uuid.UUID | None) -> str | None:
    return None if id is None else str(id)
