"""A folder as an object store: what is killed midway, what comes in pieces, what the disk says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tenure.model.errors import ConfigurationError, InvalidInput, NotFound, Unavailable
from tenure.store.objects.folder import FolderObjects

PUTS_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from tenure.store.objects.folder import FolderObjects

async def main():
    store = FolderObjects(Path(sys.argv[1]))
    for number in range(1_000_000):
        await store.put(f"a/{number % 3}", bytes([number % 251]) * 8_000_000)
        print(number, flush=True)

asyncio.run(main())
"""


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_a_put_that_is_killed_leaves_whole_objects_only(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    for _ in range(3):
        putting = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PUTS_FOR_EVER, str(root), stdout=subprocess.PIPE
        )
        assert putting.stdout is not None
        await putting.stdout.readline()
        await asyncio.sleep(0.03)
        putting.kill()
        await putting.communicate()
        store = FolderObjects(root)
        for key in [one.key async for page in store.list("") for one in page]:
            data = await store.get(key)
            assert len(data) == 8_000_000
            assert data == data[:1] * len(data)
        await store.close()


async def test_what_a_killed_put_left_goes_when_it_is_a_day_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".part" / "old", tmp_path / ".part" / "young"
    (tmp_path / ".part").mkdir()
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    store = FolderObjects(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert [page async for page in store.list("")] == []
    await store.close()


async def test_what_comes_in_pieces_is_kept_if_it_is_what_was_announced(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    data = os.urandom(700_000)
    digest = hashlib.sha256(data).digest()
    came = pieces_of(data[:10], data[10:600_000], data[600_000:])
    await store.receive("a/b", came, size_bytes=700_000, sha256=digest)
    assert await store.get("a/b") == data
    for size, sha256, sent in (
        (700_000, digest, data[:-1]),
        (700_000, digest, data + b"x"),
        (700_000, digest, data[:-1] + b"x"),
        (10, digest, data),
        (700_001, digest, data),
        (0, digest, b""),
    ):
        with pytest.raises(InvalidInput):
            await store.receive("a/b", pieces_of(sent), size_bytes=size, sha256=sha256)
    assert await store.get("a/b") == data
    assert files_in(tmp_path) == ["a/b"]
    await store.close()


async def test_a_sender_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 500_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.receive("a/b", broken(), size_bytes=1_000_000, sha256=b"\0" * 32)
    assert files_in(tmp_path) == []
    await store.close()


async def test_folders_that_are_empty_go_and_come_again_under_a_put(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)

    async def put_and_delete(number: int) -> None:
        for _ in range(30):
            await store.put(f"a/b/c/{number}", b"x")
            await store.delete([f"a/b/c/{number}"])

    await asyncio.gather(*(put_and_delete(number) for number in range(6)))
    assert os.listdir(tmp_path) == [".part"]
    await store.close()


async def test_links_are_no_objects(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    root = tmp_path / "objects"
    store = FolderObjects(root)
    (root / "link").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(NotFound):
        await store.get("link")
    assert await store.head("link") is None
    assert [page async for page in store.list("")] == []
    await store.close()


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="file"):
        FolderObjects(tmp_path / "file" / "objects")
    store = FolderObjects(tmp_path / "objects")
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="gone"):
        await store.put("a/b", b"x")
    with pytest.raises(Unavailable, match="gone"):
        await store.check()
    (tmp_path / "elsewhere").rename(tmp_path / "objects")
    await store.put("a/b", b"x")
    await store.close()


async def test_a_full_disk_is_no_loss_of_what_was_there(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    await store.put("a/b", b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(Unavailable):
            await store.put("a/b", b"x" * 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert await store.get("a/b") == b"before"
    assert files_in(tmp_path) == ["a/b"]
    await store.close()


async def test_a_folder_that_is_not_mounted_any_more_says_of_nothing_that_it_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    store = FolderObjects(root)
    await store.put("a/b", b"1")
    root.rename(tmp_path / "unmounted")
    root.mkdir()
    with pytest.raises(Unavailable, match="gone"):
        await store.get("a/b")
    with pytest.raises(Unavailable, match="gone"):
        await store.head("a/b")
    with pytest.raises(Unavailable, match="gone"):
        await store.delete(["a/b"])
    with pytest.raises(Unavailable, match="gone"):
        _ = [page async for page in store.list("a/")]


async def test_a_folder_is_of_use_only_with_the_id_that_is_expected(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    first = FolderObjects(root)
    other = FolderObjects(root)
    marks = await asyncio.gather(*(store.mark() for store in (first, other) * 4))
    assert len(set(marks)) == 1 and marks[0]
    first.expect(marks[0])
    await first.put("a/b", b"1")
    await first.close()
    await other.close()

    root.rename(tmp_path / "unmounted")
    store = FolderObjects(root)  # the start of a coordinator makes what it needs
    store.expect(marks[0])
    sha256 = hashlib.sha256(b"2").digest()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.put("a/c", b"2"),
        lambda: store.receive("a/c", pieces_of(b"2"), size_bytes=1, sha256=sha256),
        lambda: store.get("a/b"),
        lambda: store.head("a/b"),
        lambda: store.delete(["a/b"]),
        lambda: anext(aiter(store.list(""))),
        store.check,
    ]
    for mark in (None, "of another store"):
        if mark is not None:
            (root / ".store").write_text(mark)
        for call in calls:
            with pytest.raises(Unavailable, match="not the one that the database knows"):
                await call()
    assert files_in(root) == [".store"]

    root.rename(tmp_path / "what lay below")
    (tmp_path / "unmounted").rename(root)
    assert await store.get("a/b") == b"1", "mounted later, it is used at once"
    assert [one.key async for page in store.list("") for one in page] == ["a/b"], "the id is no object"
    await store.put("a/c", b"2")
    await store.close()
