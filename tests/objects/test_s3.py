"""A real S3 server as an object store: away midway, wrong keys, and the URLs by which others reach one object."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.coordinator.conftest import until
from tests.fixtures.s3 import S3Server

from tenure.model.errors import ConfigurationError, NotFound, Unavailable
from tenure.store.objects.opening import open_store
from tenure.store.objects.port import ObjectStore
from tenure.store.objects.s3 import S3Objects

MIB = 1024 * 1024


@pytest_asyncio.fixture
async def store(s3: S3Server) -> AsyncIterator[S3Objects]:
    made = open_store(s3.store_url("under/this"), s3.options)
    assert isinstance(made, S3Objects)
    yield made
    await made.close()


async def got(store: ObjectStore, key: str) -> bytes:
    """Read an object, as soon as a server that was started again lets it be read."""

    async def read() -> bytes | None:
        try:
            return await store.get(key)
        except Unavailable:
            return None

    found: bytes = await until(read)
    return found


async def test_objects_are_where_other_clients_look_for_them(s3: S3Server) -> None:
    bucket = s3.make_bucket()
    store = open_store(f"s3://{bucket}/under/this/", s3.options)
    await store.put("ns/a.txt", b"hello", content_type="text/plain")
    found = s3.client().get_object(Bucket=bucket, Key="under/this/ns/a.txt")
    assert found["Body"].read() == b"hello"
    assert found["ContentType"] == "text/plain"
    await store.close()


async def test_a_server_that_is_killed_is_unavailable_and_works_again_when_it_is_back(
    own_s3: Callable[[], S3Server],
) -> None:
    server = await asyncio.to_thread(own_s3)
    store = open_store(server.store_url(), server.options)
    assert isinstance(store, S3Objects)
    await store.put("a/small", b"before")
    await store.put("a/large", os.urandom(30 * MIB))
    upload = await store.begin_parts("a/parts", content_type="text/plain")
    pieces = store.stream("a/large")
    await anext(pieces)
    await asyncio.to_thread(server.kill)
    with pytest.raises(Unavailable):
        async for _ in pieces:
            pass
    for call in (
        store.put("a/small", b"after"),
        store.put("a/large", os.urandom(30 * MIB)),
        store.get("a/small"),
        store.get_range("a/small", 0, 3),
        store.head("a/small"),
        store.delete(["a/small"]),
        store.check(),
        store.end_parts("a/parts", upload, ["x"]),
        store.begin_parts("a/parts", content_type="text/plain"),
    ):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await call
        assert time.monotonic() - began < 60
    await asyncio.to_thread(server.start)
    assert await got(store, "a/small") == b"before"
    await store.put("a/small", b"after")
    assert await store.get("a/small") == b"after"
    await store.close()


async def test_a_put_that_was_cut_off_is_no_object(own_s3: Callable[[], S3Server]) -> None:
    server = await asyncio.to_thread(own_s3)
    store = open_store(server.store_url(), server.options)
    await store.put("a/one", b"whole")
    putting = asyncio.create_task(store.put("a/one", os.urandom(200 * MIB)))
    await asyncio.sleep(0.15)
    await asyncio.to_thread(server.kill)
    with pytest.raises(Unavailable):
        await putting
    await asyncio.to_thread(server.start)
    assert await got(store, "a/one") == b"whole"
    await store.close()


async def test_wrong_keys_and_no_bucket_are_not_worth_another_try(s3: S3Server) -> None:
    url = s3.store_url()
    for options in (s3.options._replace(secret_access_key="wrong"), s3.options._replace(access_key_id="nobody")):
        store = open_store(url, options)
        assert isinstance(store, S3Objects)
        for call in (
            store.put("a", b""),
            store.get("a"),
            store.head("a"),
            store.delete(["a"]),
            store.check(),
            store.begin_parts("a", content_type="a/b"),
            store.end_parts("a", "x", []),
        ):
            with pytest.raises(ConfigurationError):
                await call
        await store.close()
    store = open_store("s3://no-such-bucket-here", s3.options)
    with pytest.raises(ConfigurationError, match="no-such-bucket-here"):
        await store.check()
    await store.close()


async def test_without_keys_the_usual_places_are_looked_at(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_access_key)
    store = open_store(s3.store_url(), s3.options._replace(access_key_id=None, secret_access_key=None))
    await store.put("a/b", b"x")
    assert await store.get("a/b") == b"x"
    await store.close()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match="no credentials"):
        open_store("s3://bucket", s3.options._replace(access_key_id=None, secret_access_key=None))


# -- URLs --


async def ask(method: str, url: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(method, url, **more)


async def test_a_url_reads_its_object_and_no_other(store: S3Objects) -> None:
    await store.put("ns/a.txt", b"mine")
    await store.put("ns/b.txt", b"theirs")
    url, headers = await store.sign_get("ns/a.txt", expires_s=60, content_type="text/plain", file_name="a.txt")
    answer = await ask("GET", url, headers=headers)
    assert answer.content == b"mine"
    assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'
    assert (await ask("GET", url.replace("a.txt?", "b.txt?"))).status_code == 403
    for method in ("PUT", "DELETE"):
        assert (await ask(method, url, content=b"x")).status_code == 403
    assert await store.get("ns/a.txt") == b"mine"


async def test_a_url_that_has_expired_is_of_no_use(store: S3Objects) -> None:
    await store.put("ns/a.txt", b"mine")
    url, _ = await store.sign_get("ns/a.txt", expires_s=1, content_type="text/plain", file_name="a.txt")

    async def refused() -> bool:
        return (await ask("GET", url)).status_code == 403

    await until(refused)


async def test_a_url_writes_what_was_announced_and_nothing_else(store: S3Objects) -> None:
    data = os.urandom(100_000)
    digest = hashlib.sha256(data).digest()
    url, headers = await store.sign_put(
        "ns/a.bin", expires_s=60, size_bytes=len(data), sha256=digest, content_type="application/x-thing"
    )
    for sent in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1])):
        assert (await ask("PUT", url, headers=headers, content=sent)).status_code in (400, 403)
        assert await store.head("ns/a.bin") is None
    assert (await ask("PUT", url.replace("a.bin?", "b.bin?"), headers=headers, content=data)).status_code == 403
    assert (await ask("PUT", url, headers=headers, content=data)).status_code == 200
    assert await store.get("ns/a.bin") == data


async def test_an_upload_in_parts(store: S3Objects) -> None:
    data = os.urandom(12 * MIB)
    sizes = [5 * MIB, 5 * MIB, 2 * MIB]
    upload = await store.begin_parts("ns/large", content_type="application/x-thing")
    urls = await store.sign_parts("ns/large", upload, sizes, expires_s=60)
    tags, start = [], 0
    assert (await ask("PUT", urls[0], content=data[:100])).status_code == 403
    for url, size in zip(urls, sizes, strict=True):
        answer = await ask("PUT", url, content=data[start : start + size])
        assert answer.status_code == 200
        tags.append(answer.headers["etag"])
        start += size
    assert await store.head("ns/large") is None
    with pytest.raises(NotFound):
        await store.end_parts("ns/large", "no-such-upload", tags)
    await store.end_parts("ns/large", upload, tags)
    assert await store.get("ns/large") == data
    assert (await ask("PUT", urls[0], content=data[: 5 * MIB])).status_code == 404
    other = await store.begin_parts("ns/other", content_type="a/b")
    await store.drop_parts("ns/other", other)
    await store.drop_parts("ns/other", other)
    assert await store.head("ns/other") is None


async def test_encryption_is_asked_for(s3: S3Server) -> None:
    store = open_store(s3.store_url(), s3.options._replace(sse="AES256"))
    assert isinstance(store, S3Objects)
    _, headers = await store.sign_put("a", expires_s=60, size_bytes=1, sha256=b"\0" * 32, content_type="a/b")
    assert headers["x-amz-server-side-encryption"] == "AES256"
    await store.close()
