"""A folder as an object store: for one machine, or on a file system that all coordinators share.

Invariant: an object appears whole, by a rename, after its bytes were synced; so a put that was acknowledged survives a
power cut, and one that was killed leaves nothing but a file in ``.part``, which is swept when it is a day old. Without
``.part`` the folder is not the one that was opened, as where its file system is not mounted any more: then nothing is
said of what it has not. Nor is it where the folder has not the id, in ``.store``, that the database knows; so it is of
no use either where it was not mounted at the start.
Files are read and written in threads of this adapter's own, so that a slow disk delays nobody's lookups.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar
from uuid import uuid4

from tenure.model.errors import ConfigurationError, FieldViolation, InvalidInput, NotFound, TenureError, Unavailable
from tenure.store.objects.keys import SEGMENT, checked, checked_prefix
from tenure.store.objects.port import ObjectInfo

PIECE_BYTES = 256 * 1024
PAGE_OBJECTS = 1_000
THREADS = 8
CALL_TIMEOUT_S = 30.0
"""Beside what the bytes of a put or get may take."""
SLOWEST_BYTES_S = 1024 * 1024
TIDY_S = 5.0
TRIES = 10
"""To put a file into a folder that somebody else removes."""
PART_KEPT_S = 86_400.0
"""How long a file in ``.part`` may be somebody's who still writes it."""
_PARTS = ".part"
_MARK = ".store"
_MARK_BYTES = 100
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
T = TypeVar("T")


class FolderObjects:
    """See ``store.objects.port.ObjectStore``."""

    has_storage_classes = False

    def __init__(self, root: Path) -> None:
        """Make the folder, unless it is there.

        Raises:
            ConfigurationError: it cannot be made or written, or is something else.
        """
        self._root = root
        self._parts = root / _PARTS
        try:
            self._parts.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sweep(self._parts)
        except OSError as exc:
            raise ConfigurationError(
                f"the object store {root} cannot be used: {exc.strerror}", hint="see TENURE_OBJECT_STORE"
            ) from exc
        self._expected: str | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tenure-objects")

    async def mark(self) -> str:
        """Return the folder's id; one that has none is given one, and goes on with that."""

        def read_or_make() -> str:
            if not self._marked():
                with self._part() as part:
                    part.write(f"{uuid4()}\n".encode())
                    part.flush()
                    os.fsync(part.fileno())
                    with contextlib.suppress(FileExistsError):  # another coordinator was first
                        os.link(part.name, self._root / _MARK)
                _sync_folder(self._root)
            return self._marked()

        return await self._run(read_or_make, _MARK)

    def expect(self, mark: str) -> None:
        """Be of use from now on only while the folder has this id."""
        self._expected = mark

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        storage_class: str | None = None,
    ) -> None:
        """See the port. The type of the content is not kept: who serves the object knows it."""
        target = self._path(key)

        def write() -> None:
            with self._part() as part:
                part.write(data)
                self._keep(part, target)

        await self._run(write, key, len(data))

    async def receive(self, key: str, pieces: AsyncIterator[bytes], *, size_bytes: int, sha256: bytes) -> None:
        """Write an object from pieces as they come, if it is what was announced; else nothing is kept.

        Raises:
            InvalidInput: it has another size, or another SHA-256.
        """
        target = self._path(key)
        part = await self._run(self._begin, key)
        try:
            digest, taken, waiting = hashlib.sha256(), 0, bytearray()

            def write(data: bytes) -> None:
                digest.update(data)
                part.write(data)

            async for piece in pieces:
                taken += len(piece)
                if taken > size_bytes:
                    break
                waiting += piece
                if len(waiting) >= PIECE_BYTES:
                    data, waiting = bytes(waiting), bytearray()
                    await self._run(lambda data=data: write(data), key)  # type: ignore[misc]
            await self._run(lambda: write(bytes(waiting)), key)
            if taken != size_bytes:
                raise InvalidInput(
                    [FieldViolation("size_bytes", f"{taken} bytes came, or more; {size_bytes} were told")]
                )
            if digest.digest() != sha256:
                raise InvalidInput([FieldViolation("sha256", "is not that of what came")])
            await self._run(lambda: self._keep(part, target), key)
        finally:
            await self._tidy(lambda: _discard(part))

    async def get(self, key: str) -> bytes:
        """See the port."""
        path = self._path(key)

        def read() -> bytes:
            with _opened(path) as file:
                return file.read()

        info = await self.head(key)
        return await self._run(read, key, info.size_bytes if info else 0)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """See the port."""
        path = self._path(key)

        def read() -> bytes:
            with _opened(path) as file:
                file.seek(start)
                return file.read(length)

        return await self._run(read, key, length)

    async def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """See the port."""
        path = self._path(key)
        file = await self._run(lambda: _opened(path), key)
        try:
            while piece := await self._run(lambda: file.read(PIECE_BYTES), key):
                yield piece
        finally:
            await self._tidy(file.close)

    async def head(self, key: str) -> ObjectInfo | None:
        """See the port."""
        path = self._path(key)
        try:
            return await self._run(lambda: _info(key, _regular(path.lstat())), key)
        except NotFound:
            return None

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Sequence[ObjectInfo]]:
        """See the port."""
        checked_prefix(prefix)
        await self._run(self._require_root, prefix)
        found = _walk(self._root / prefix, prefix, after)
        while page := await self._run(lambda: list(islice(found, PAGE_OBJECTS)), prefix):
            yield page

    async def delete(self, keys: Sequence[str]) -> None:
        """See the port. Folders that are empty then go, too."""
        paths = [self._path(key) for key in keys]
        await self._run(self._require_root, "")

        def remove(path: Path) -> None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
            with contextlib.suppress(OSError):  # not empty, or gone
                for folder in path.parents:
                    if folder == self._root:
                        break
                    folder.rmdir()

        for path in paths:
            await self._run(lambda path=path: remove(path), str(path))  # type: ignore[misc]

    async def drop_unfinished(self, prefix: str) -> None:
        """See the port. Here nothing goes in parts."""
        checked_prefix(prefix)

    async def check(self) -> None:
        """See the port."""

        def write() -> None:
            with self._part() as part:
                part.write(b"\n")

        await self._run(write, _PARTS)

    async def close(self) -> None:
        """See the port."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _path(self, key: str) -> Path:
        return self._root / checked(key)

    def _begin(self) -> IO[bytes]:
        """Open a file that is no object yet."""
        self._require_root()
        try:
            return open(self._parts / uuid4().hex, "xb")
        except FileNotFoundError as exc:
            raise _gone(self._root) from exc

    @contextlib.contextmanager
    def _part(self) -> Iterator[IO[bytes]]:
        """Open such a file; it is gone at the end unless it was kept."""
        file = self._begin()
        try:
            yield file
        finally:
            _discard(file)

    def _keep(self, part: IO[bytes], target: Path) -> None:
        part.flush()
        os.fsync(part.fileno())
        for left in reversed(range(TRIES)):
            try:
                made = _make_folders(target.parent)
                os.replace(part.name, target)
            except FileNotFoundError:
                # A folder that had become empty was removed meanwhile.
                if not left:
                    raise
                continue
            break
        for folder in (target.parent, *made):
            _sync_folder(folder)

    def _require_root(self) -> None:
        """Raise ``Unavailable`` where the folder is not the one that was opened: what is not in it may be there."""
        if not self._parts.is_dir():
            raise _gone(self._root)
        if self._expected is not None and (found := self._marked()) != self._expected:
            raise Unavailable(
                f"the object store {self._root} is not the one that the database knows: in its file {_MARK} is"
                f" {found or 'nothing'}, not {self._expected}",
                hint="is its file system mounted? A store that was moved takes this file along",
            )

    def _marked(self) -> str:
        """Return the id that the folder has; an empty one where it has none."""
        try:
            with _opened(self._root / _MARK) as file:
                return file.read(_MARK_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""

    async def _run(self, work: Callable[[], T], key: str, size: int = 0) -> T:
        loop = asyncio.get_running_loop()

        def told() -> T:
            try:
                return work()
            except OSError as exc:
                if exc.errno in _ABSENT:
                    self._require_root()
                raise

        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + size / SLOWEST_BYTES_S):
                return await loop.run_in_executor(self._threads, told)
        except TimeoutError as exc:
            raise Unavailable(f"the object store did not answer in time about {key}") from exc
        except OSError as exc:
            raise _translated(exc, key) from exc

    async def _tidy(self, act: Callable[[], object]) -> None:
        """Let go of a file in a thread; where the disk hangs it is not waited for long."""
        try:
            done = asyncio.get_running_loop().run_in_executor(self._threads, act)
        except RuntimeError:  # the store is closed, and so are its threads
            act()
        else:
            await asyncio.wait((done,), timeout=TIDY_S)


def _gone(root: Path) -> Unavailable:
    return Unavailable(f"the object store {root} is gone", hint="is its file system mounted?")


def _translated(exc: OSError, key: str) -> TenureError:
    if exc.errno in _ABSENT:
        return NotFound(f"there is no object {key}")
    if exc.errno in _NOT_OURS:
        return ConfigurationError(
            f"the object store refuses {key}: {exc.strerror}", hint="may this user write to TENURE_OBJECT_STORE?"
        )
    return Unavailable(f"the object store failed about {key}: {exc.strerror or exc}")


def _opened(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _regular(found: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is no file")
    return found


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _walk(folder: Path, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Yield the objects in a folder in the order of their keys; ``a-b/c`` comes before ``a/b``."""
    try:
        with os.scandir(folder) as entries:
            found = [(f"{one.name}/" if one.is_dir(follow_symlinks=False) else one.name, one) for one in entries]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in sorted(found, key=lambda pair: pair[0]):
        key = prefix + name
        if not SEGMENT.fullmatch(entry.name) or (key <= after and not (name[-1] == "/" and after.startswith(key))):
            continue
        if name[-1] == "/":
            yield from _walk(folder / entry.name, key, after)
            continue
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False):
                yield _info(key, entry.stat(follow_symlinks=False))


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and what it lies in; return those in which something was made."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True, mode=0o700)
    return [one.parent for one in missing]


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(part: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        part.close()
    with contextlib.suppress(OSError):
        os.unlink(part.name)


def _sweep(parts: Path) -> None:
    before = time.time() - PART_KEPT_S
    for one in parts.iterdir():
        with contextlib.suppress(OSError):
            if one.stat().st_mtime < before:
                one.unlink()
