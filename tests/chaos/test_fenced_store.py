"""The fenced store: it is the witness of the chaos runs, so it must be right itself."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.chaos.fenced_store import FencedStore, Written


def test_a_lower_fence_is_refused_after_a_higher_one(tmp_path: Path) -> None:
    store = FencedStore(tmp_path)
    assert [store.write("job", fence).accepted for fence in (5, 5, 7, 5, 6, 7, 1 << 62)] == [
        True, True, True, False, False, True, True,
    ]  # fmt: skip
    assert not store.write("job", 7).accepted


def test_keys_are_apart_and_outlive_the_store(tmp_path: Path) -> None:
    FencedStore(tmp_path).write("one", 9)
    assert FencedStore(tmp_path).write("two", 1).accepted
    assert not FencedStore(tmp_path).write("one", 8).accepted


def test_instants_have_the_order_of_the_decisions(tmp_path: Path) -> None:
    """Many writers at once, in threads and in processes: what was accepted never goes back in time."""
    fences = [fence for fence in range(1, 201) for _ in range(2)]
    random.Random(7).shuffle(fences)
    with ThreadPoolExecutor(4) as threads, get_context("spawn").Pool(2) as processes:
        elsewhere = processes.map_async(_write, [(tmp_path, fence) for fence in fences[::2]])
        here = list(threads.map(_write, [(tmp_path, fence) for fence in fences[1::2]]))
        written = [*here, *elsewhere.get(timeout=60)]
    accepted = sorted((one.at, fence) for fence, one in written if one.accepted)
    assert accepted
    assert [fence for _, fence in accepted] == sorted(fence for _, fence in accepted)
    assert any(not one.accepted for _, one in written)


def _write(what: tuple[Path, int]) -> tuple[int, Written]:
    folder, fence = what
    return fence, FencedStore(folder).write("job", fence)
