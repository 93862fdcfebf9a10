"""A bounded memory of what was looked up or verified of late, for who asks on every call."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """A bounded memory: what was put in longest ago is forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return what is kept, or None."""
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keep this, and forget something else if there is no room."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forget it."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)
