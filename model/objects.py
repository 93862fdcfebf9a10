"""Names in the object store: where what belongs to a job lies, told from the job alone.

``<namespace>/<yyyy>/<mm>/<dd>/<job>/<attempt>/<hash>-<name>``, by the UTC day on which the job was made, which its id
says; the log of an attempt has a name and no hash. With the hash of what it holds in its key, a file is never
overwritten by another: whoever has a URL for it can only write the same again.
A namespace is one segment of ``a-z 0-9 . _ -`` that begins and ends with a letter or digit, an id is hexadecimal, and a
name is checked here: so no key leads out of its job. ``_archive`` is no namespace: nobody meets it.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

from tenure.model.errors import FieldViolation, InvalidInput

ARTIFACT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
ARTIFACT_NAME_RULE = "1 to 128 of letters, digits . _ -, beginning and ending with a letter or digit"
RESULT = "_result.json"
"""Of an attempt whose result is too large to be kept with its job. No artifact is named so."""
ELSEWHERE = "(see result_object)"
"""In the place of the result, in a report of one that is not kept with its job. It is no JSON: a coordinator of a
release without object stores refuses it, and does not record the job without its result."""
LOG = "_log.jsonl.gz"
OBJECTS_PATH = "/v1/objects/"
"""What the URLs of a store that is a folder lead to, at coordinators."""
HASH_CHARS = 16
"""Of the SHA-256 in hex, in the key of a file."""


def artifact_name_error(name: str) -> str | None:
    """Say what is wrong with the name of an artifact, or None."""
    return None if ARTIFACT_NAME.fullmatch(name) else f"must be {ARTIFACT_NAME_RULE}"


def job_prefix(namespace: str, job: uuid.UUID) -> str:
    """Return what the keys of all objects of a job begin with."""
    return f"{namespace}/{made_at(job):%Y/%m/%d}/{job}/"


def attempt_key(namespace: str, job: uuid.UUID, attempt: int, name: str) -> str:
    """Return the key of an object of an attempt that is not told by its content: ``LOG``.

    Raises:
        InvalidInput: the name is none.
    """
    _require_name(name)
    return f"{job_prefix(namespace, job)}{attempt}/{name}"


def file_key(namespace: str, job: uuid.UUID, attempt: int, name: str, sha256: bytes) -> str:
    """Return the key of a file that an attempt saves; ``name`` is an artifact's or ``RESULT``.

    Raises:
        InvalidInput: the name is none.
    """
    _require_name(name)
    return f"{job_prefix(namespace, job)}{attempt}/{sha256.hex()[:HASH_CHARS]}-{name}"


def job_of_key(key: str) -> str:
    """Return what the keys of all objects of the same job begin with."""
    return key.rpartition("/")[0].rpartition("/")[0]


def is_result_key(key: str) -> bool:
    """Say whether a key is that of a large result; the names of some artifacts end as a result's does."""
    return key.rpartition("/")[2][HASH_CHARS:] == f"-{RESULT}"


def _require_name(name: str) -> None:
    if name not in (RESULT, LOG) and (problem := artifact_name_error(name)):
        raise InvalidInput([FieldViolation("name", problem)])


def made_at(job: uuid.UUID) -> datetime:
    """Return when a job was made, by its id (a UUIDv7: milliseconds since 1970 in its first 48 bits)."""
    return datetime.fromtimestamp((job.int >> 80) / 1000, UTC)


DEFAULT_CONTENT_TYPE = "application/octet-stream"
RESULT_CONTENT_TYPE = "application/json"
CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}(?:; ?charset=[a-z0-9-]{1,32})?", re.IGNORECASE)
MAX_ARTIFACTS = 1_000
"""Of an attempt."""
MAX_UPLOADS = 10_000
"""That an attempt may begin: each name again and again, and those that come to nothing."""
MAX_RESULT_UPLOADS = 1_000
"""That it may begin of its result, beyond those of its artifacts: these never forbid it."""
MIB = 1024 * 1024
WHOLE_BYTES = 64 * MIB
"""What is larger goes in parts, where the store takes parts: one that fails is sent again, not all."""
PART_BYTES = 32 * MIB
MAX_PARTS = 500
"""Of an upload: each has a URL in one answer."""


def part_bytes_for(size_bytes: int) -> int:
    """Return the size of the parts in which a file goes, 0 if it goes whole. The last part may be smaller."""
    if size_bytes <= WHOLE_BYTES:
        return 0
    return max(PART_BYTES, -(-size_bytes // (MAX_PARTS * MIB)) * MIB)


def part_sizes(size_bytes: int, part_bytes: int) -> list[int]:
    """Return the sizes of the parts of a file."""
    whole, rest = divmod(size_bytes, part_bytes)
    return [part_bytes] * whole + ([rest] if rest else [])
