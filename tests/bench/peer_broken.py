"""A plain queue whose worker dies of its first job."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

PLAIN = importlib.import_module("peer_plain").PEER


class _Broken:
    def __getattr__(self, name: str) -> Any:
        return getattr(PLAIN, name)

    async def work(self, place: str, began: Callable[[str], None]) -> None:
        raise RuntimeError("broken on purpose")


PEER = _Broken()
