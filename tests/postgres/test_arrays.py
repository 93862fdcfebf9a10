"""Lists as parameters arrive as they were given, whatever is in them."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from tenure.model.states import JobState
from tenure.store.postgres.arrays import ArrayDumper

TEXTS = [
    "", " ", " lead and trail ", "NULL", "null", "Null", "a,b", "{}", "{a", "}", '"', '""', "\\", "\\\\", '\\"', '"\\',
    "'", "$1", "%s", "\n", "\t\r", "\x01", "\x7f", "é", "日本", "😀", "\u2028", "\u00a0", "e\u0301", "true", "0",
    '{"a": "\\u0000 \\" \\\\"}',
]  # fmt: skip


@pytest_asyncio.fixture
async def connection(shared_database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(shared_database, autocommit=True) as connection:
        connection.adapters.register_dumper(list, ArrayDumper)
        yield connection


@pytest.mark.parametrize(
    ("array", "given"),
    [
        ("text", TEXTS),
        ("text", [*TEXTS, None, "NULL", None]),
        *(("text", [text]) for text in TEXTS),
        ("text", []),
        ("text", [None, None]),
        ("text", [JobState.READY, JobState.WAITING]),
        ("int", [0, -1, 2**31 - 1, None]),
        ("bigint", [1, 2**63 - 1, -(2**63)]),
        ("float8", [0.0, 0.1, 1e300, 5e-324, -1.5, None, math.inf, 2.0]),
        ("bool", [True, False, None]),
        ("uuid", [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID("01a2007a-ccb4-773a-a6c6-ff4b0446a86a")]),
        ("uuid", [uuid.UUID(int=7), None]),
        ("bytea", [b"", b"\x00\\\xff", b'"{},', bytes(range(256))]),
        ("bytea", [b"", b"\x00\\\xff", None]),
        ("timestamptz", [datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)]),
    ],
)  # fmt: skip
async def test_a_list_arrives_as_it_was_given(
    connection: psycopg.AsyncConnection[Any], array: str, given: list[Any]
) -> None:
    query = f"SELECT value FROM unnest(%s::{array}[]) WITH ORDINALITY AS u (value, n) ORDER BY n".encode()
    rows = await (await connection.execute(query, [given])).fetchall()
    assert [value for (value,) in rows] == given


@pytest.mark.parametrize("given", [["a\x00b"], ["a", "\x00"], ["\x00", None]])
async def test_a_text_with_nul_is_refused_and_never_split(
    connection: psycopg.AsyncConnection[Any], given: list[Any]
) -> None:
    with pytest.raises(psycopg.DataError):
        await connection.execute("SELECT %s::text[]", [given])


async def test_lists_of_any_content_share_a_prepared_statement(connection: psycopg.AsyncConnection[Any]) -> None:
    for given in ([1], [2**40], [None], []):
        await connection.execute("SELECT %s::bigint[]", [given], prepare=True)
    rows = await (await connection.execute("SELECT count(*) FROM pg_prepared_statements")).fetchall()
    assert rows == [(1,)]


async def test_the_pool_writes_lists_so(table: Any) -> None:
    async with table.db._pool.connection() as connection:
        assert connection.adapters.get_dumper(list, psycopg.adapt.PyFormat.AUTO) is ArrayDumper
        assert connection.info.encoding == "utf-8"
