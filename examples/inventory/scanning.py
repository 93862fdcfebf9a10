"""Looks at files: are they there, how large, as promised, open to the world. Called by the scan handler.

Reads nothing but regular files, follows no link out of curiosity, and reads no more than its budget: small files
first, so that a budget covers most of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tenure.examples.inventory.findings import Problem, Summary

BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Promise:
    """What was installed: a file and its checksum in hex, if one was given."""

    path: str
    algorithm: str
    digest: str | None
    is_optional: bool = False
    """May be absent without that being a finding."""


def examine(
    package: str, promises: Iterable[Promise], summary: Summary, *, budget_bytes: float, tick: Callable[[], None]
) -> float:
    """Look at one package's files, add what is seen to ``summary``, and return what is left of the budget.

    ``tick`` is called now and then, between blocks: it may report, or raise to stop.
    """
    to_hash: list[tuple[int, Promise]] = []
    for promise in promises:
        tick()
        try:
            seen = os.lstat(promise.path)
            is_link = stat.S_ISLNK(seen.st_mode)
            target = os.stat(promise.path) if is_link else seen
        except FileNotFoundError:
            if not promise.is_optional:
                summary.add(Problem.MISSING, package, promise.path)
            continue
        except OSError:
            summary.unreadable += 1
            continue
        summary.files += 1
        if target.st_mode & stat.S_IWOTH and not target.st_mode & stat.S_ISVTX:
            summary.add(Problem.WORLD_WRITABLE, package, promise.path)
        if not stat.S_ISREG(target.st_mode):
            continue
        summary.size_bytes += target.st_size
        if promise.digest is None:
            summary.unhashed_bytes += target.st_size
        else:
            to_hash.append((target.st_size, promise))
    for size, promise in sorted(to_hash, key=lambda item: item[0]):
        if size > budget_bytes:
            summary.unhashed_bytes += size
            continue
        budget_bytes -= size
        _compare(package, promise, size, summary, tick)
    return budget_bytes


def _compare(package: str, promise: Promise, size: int, summary: Summary, tick: Callable[[], None]) -> None:
    digest = hashlib.new(promise.algorithm, usedforsecurity=False)
    try:
        with open(promise.path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                tick()
    except OSError:
        summary.unreadable += 1
        return
    summary.hashed_files += 1
    summary.hashed_bytes += size
    if digest.hexdigest() != promise.digest:
        summary.add(Problem.CHANGED, package, promise.path)
