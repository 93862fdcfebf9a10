"""What every object store keeps to (store.objects.port): a folder, and a real S3 server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.s3 import S3Server

from tenure.model.errors import ConfigurationError, InvalidInput, NotFound
from tenure.store.objects.folder import FolderObjects
from tenure.store.objects.keys import checked, checked_prefix
from tenure.store.objects.opening import StoreOptions, open_store, store_url_error
from tenure.store.objects.port import ObjectStore

HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    ".part/x",
    "a/.hidden",
    "a\\..\\b",
    "a%2e%2e/b",
    "a\x00b",
    "a\nb",
    "a b",
    "ä",
    "a/‥/b",
    "-rf",
    "a" * 256,
    "a/" * 500 + "a",
]


@pytest_asyncio.fixture(params=["folder", "s3", "s3 without a prefix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """A store of the test's own, empty."""
    if request.param == "folder":
        made = open_store((tmp_path / "objects").as_uri())
    else:
        server: S3Server = request.getfixturevalue("s3")
        url = server.store_url() if request.param == "s3" else f"s3://{server.make_bucket()}"
        made = open_store(url, server.options)
    yield made
    await made.close()


async def keys_of(store: ObjectStore, prefix: str = "", *, after: str = "") -> list[str]:
    return [one.key async for page in store.list(prefix, after=after) for one in page]


async def test_what_was_put_is_there_until_it_is_deleted(store: ObjectStore) -> None:
    await store.check()
    assert await store.head("ns/2026/11/22/job/1/a.txt") is None
    await store.put("ns/2026/11/22/job/1/a.txt", b"first", content_type="text/plain")
    await store.put("ns/2026/11/22/job/1/a.txt", b"second one")
    assert await store.get("ns/2026/11/22/job/1/a.txt") == b"second one"
    info = await store.head("ns/2026/11/22/job/1/a.txt")
    assert info is not None
    assert (info.key, info.size_bytes) == ("ns/2026/11/22/job/1/a.txt", 10)
    assert info.modified_at.tzinfo is not None
    await store.delete(["ns/2026/11/22/job/1/a.txt", "ns/2026/11/22/job/1/never.was"])
    await store.delete(["ns/2026/11/22/job/1/a.txt"])
    await store.delete([])
    assert await store.head("ns/2026/11/22/job/1/a.txt") is None
    assert await keys_of(store) == []


async def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    await store.put("ns/there/a", b"x")
    for key in ("ns/nowhere/a", "ns/there/b", "ns/there", "ns/there/a/b"):
        assert await store.head(key) is None
        with pytest.raises(NotFound):
            await store.get(key)
        with pytest.raises(NotFound):
            await store.get_range(key, 0, 10)
        with pytest.raises(NotFound):
            async for _ in store.stream(key):
                pass


async def test_parts_of_an_object(store: ObjectStore) -> None:
    await store.put("a/b", b"0123456789")
    assert await store.get_range("a/b", 0, 4) == b"0123"
    assert await store.get_range("a/b", 6, 100) == b"6789"
    assert await store.get_range("a/b", 10, 5) == b""
    assert await store.get_range("a/b", 50, 5) == b""
    await store.put("a/empty", b"")
    assert await store.get("a/empty") == b""
    assert [piece async for piece in store.stream("a/empty")] in ([], [b""])


async def test_large_objects_go_in_parts_and_come_in_pieces(store: ObjectStore) -> None:
    data = os.urandom(20 * 1024 * 1024 + 1)
    await store.put("large/one", data)
    pieces = [piece async for piece in store.stream("large/one")]
    assert len(pieces) > 5
    assert b"".join(pieces) == data
    assert await store.get("large/one") == data


async def test_listings_are_in_the_order_of_keys_from_page_to_page(store: ObjectStore) -> None:
    keys = ["a-b/x", "a/x", "a/y/z", "a/y-1", "a0", "b/1/2/3", "b/10/x", "b/2", "c"]
    for key in keys:
        await store.put(key, key.encode())
    listed = await keys_of(store)
    assert sorted(listed) == sorted(keys)
    if isinstance(store, FolderObjects):
        assert listed == sorted(keys)
        for after in ("a/x/y", "a/zz", "zzz", "a-b"):
            assert await keys_of(store, after=after) == sorted(key for key in keys if key > after), after
    for at, after in enumerate(listed):
        assert await keys_of(store, after=after) == listed[at + 1 :], after
    assert set(await keys_of(store, "a/")) == {"a/x", "a/y-1", "a/y/z"}
    assert await keys_of(store, "b/1/") == ["b/1/2/3"]
    assert await keys_of(store, "nothing/") == []
    assert set(await keys_of(store, "a/", after="a/x")) == {"a/y-1", "a/y/z"}


async def test_a_long_listing_comes_in_bounded_pages(store: ObjectStore) -> None:
    keys = [f"many/{number:05}" for number in range(1_100)]
    for start in range(0, len(keys), 50):
        await asyncio.gather(*(store.put(key, b"") for key in keys[start : start + 50]))
    pages = [[one.key for one in page] async for page in store.list("many/")]
    assert [key for page in pages for key in page] == keys
    assert all(0 < len(page) <= 1_000 for page in pages)
    await store.delete(keys)
    assert await keys_of(store) == []


async def test_what_is_no_key_is_refused(store: ObjectStore) -> None:
    for key in HOSTILE:
        for call in (store.put(key, b""), store.get(key), store.get_range(key, 0, 1), store.head(key)):
            with pytest.raises(InvalidInput):
                await call
        with pytest.raises(InvalidInput):
            await store.delete(["a/b", key])
        with pytest.raises(InvalidInput):
            async for _ in store.stream(key):
                pass
    for prefix in ("../", "a/../", "/", "//", "a", "a/b", ".part/", "a\0/"):
        with pytest.raises(InvalidInput):
            await keys_of(store, prefix)


async def test_puts_of_one_key_at_once_leave_one_of_them_whole(store: ObjectStore) -> None:
    values = [bytes([number]) * 100_000 for number in range(8)]
    await asyncio.gather(*(store.put("one/key", value) for value in values))
    assert await store.get("one/key") in values


@given(st.text(max_size=40) | st.from_regex(r"[a-z./%\\_=-]{0,20}", fullmatch=True))
def test_no_key_leads_out_of_its_folder(key: str) -> None:
    root = Path("/srv/objects")
    try:
        path = root / checked(key)
    except InvalidInput:
        return
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(root)
    assert path != root
    assert path.relative_to(root).parts[0] != ".part"


def test_prefixes_are_whole_segments() -> None:
    assert checked_prefix("") == ""
    assert checked_prefix("a/b/") == "a/b/"
    for prefix in ("a", "a/b", "/", "../", "a/../", "//"):
        with pytest.raises(InvalidInput):
            checked_prefix(prefix)


@pytest.mark.parametrize(
    "url",
    [
        "srv",
        "/srv",
        "file://",
        "file:///",
        "file://host/srv",
        "s3://",
        "s3:///x",
        "s3://b/../c",
        "s3://b?x=1",
        "s3://key:secret@bucket/",
        "s3://b#x",
        "gs://bucket",
        "http://bucket",
        "s3://[b",
    ],
)
def test_urls_that_name_no_store(url: str) -> None:
    assert store_url_error(url)
    with pytest.raises(ConfigurationError):
        open_store(url, StoreOptions())
