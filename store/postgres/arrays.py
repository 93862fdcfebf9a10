"""Lists as parameters: the text of an array, joined at once rather than element by element.

psycopg's own dumper asks of each element how it is written. The lists here are columns of hundreds of jobs, each of one
type; its type is left to the statement (``%(ids)s::uuid[]``, ``= ANY``), so that one kind of list has one prepared
statement whatever it holds.
"""

from __future__ import annotations

import uuid
from types import NoneType
from typing import Any

from psycopg import DataError
from psycopg.adapt import PyFormat
from psycopg.types.array import ListDumper

_BARE = frozenset({int, float, bool, NoneType})
_TEXTS = frozenset({str, NoneType})


class ArrayDumper(ListDumper):
    """Writes lists of numbers, truths, ids, texts and octets, some with None among them; leaves others to psycopg."""

    def get_key(self, obj: list[Any], format: PyFormat) -> type:
        """One dumper for all lists: the oid stays unknown."""
        return self.cls

    def dump(self, obj: list[Any]) -> bytes | bytearray | memoryview | None:
        """Return the text of an array.

        Raises:
            DataError: a text contains NUL, which Postgres does not store.
        """
        types = set(map(type, obj))
        if types == {str}:
            return _quoted(obj).encode()
        if types == {bytes}:
            return ("{" + ",".join([rf'"\\x{octets.hex()}"' for octets in obj]) + "}").encode()
        if types == {uuid.UUID}:
            return ("{" + ",".join([f"{id.int:032x}" for id in obj]) + "}").encode()
        if types <= _BARE:
            text = "{" + ",".join(map(repr, obj)) + "}"
            return (text.replace("None", "NULL") if NoneType in types else text).encode()
        if types == _TEXTS:
            # A text that reads NULL is quoted, so that it differs from the word.
            return ("{" + ",".join(["NULL" if text is None else _quoted([text])[1:-1] for text in obj]) + "}").encode()
        return super().dump(obj)


def _quoted(texts: list[str]) -> str:
    """Return an array in which every element is quoted."""
    joined = "\x00".join(texts)
    if joined.count("\x00") != len(texts) - 1:
        raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    escaped = joined.replace("\\", "\\\\").replace('"', '\\"')
    return '{"' + escaped.replace("\x00", '","') + '"}'
