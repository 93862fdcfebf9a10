"""A bucket of S3, or of what speaks its protocol, as an object store; and the URLs by which others reach one object.

obstore reads and writes; botocore finds the credentials (environment, files, roles) for both, and signs URLs and ends
uploads in parts, which obstore has not. Both are the extra ``s3``: import this module only where the store is one.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import botocore.session
import obstore
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from tenure.model.errors import ConfigurationError, NotFound, TenureError, Unavailable
from tenure.store.objects.keys import checked, checked_prefix
from tenure.store.objects.port import ObjectInfo

PAGE_OBJECTS = 1_000
PIECE_BYTES = 1024 * 1024
PART_BYTES = 8 * 1024 * 1024
"""Of puts by coordinators; parts of them go side by side."""
THREADS = 16
"""For what botocore does: its calls block."""
CALL_TIMEOUT_S = 30.0
"""Beside what the bytes of a put or get may take."""
SLOWEST_BYTES_S = 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 15.0
REQUEST_TIMEOUT_S = 300.0
RETRIES = 3
RETRY_TIMEOUT_S = 10.0
CREDENTIALS_TTL_S = 300.0
"""How long obstore uses what botocore gave; that is renewed earlier than it runs out."""
_REFUSED = frozenset({401, 403})
_ABSENT = 404
_NOT_IMPLEMENTED = 501
_STATUS = re.compile(r"status code: (\d{3})")
T = TypeVar("T")


class S3Options(NamedTuple):
    """What there is to say of a bucket beside its name; keys left out are looked for where AWS' own tools look."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    """None: where there is an endpoint."""
    access_key_id: str | None = None
    secret_access_key: str | None = None
    sse: str | None = None
    """``AES256`` or ``aws:kms``."""
    sse_kms_key_id: str | None = None
    ca_file: Path | None = None


class Signed(NamedTuple):
    """A URL that is good for one request, and the headers that the request must have."""

    url: str
    headers: Mapping[str, str]


class _NotKnown(Unavailable):
    """The server does not have this call."""


class S3Objects:
    """See ``store.objects.port.ObjectStore``; what is about URLs is beside it."""

    has_storage_classes = True

    def __init__(self, options: S3Options) -> None:
        """Prepare; nothing is connected.

        Raises:
            ConfigurationError: there are no credentials, or a file cannot be read.
        """
        self._options = options
        session = botocore.session.Session()
        if options.access_key_id and options.secret_access_key:
            session.set_credentials(options.access_key_id, options.secret_access_key)
        self._credentials = _credentials(session)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tenure-s3")
        region = options.region or session.get_config_variable("region") or "us-east-1"
        path_style = options.path_style if options.path_style is not None else options.endpoint is not None
        self._client = _client(session, options, region, path_style)
        self._store = _store(options, region, path_style, self._current)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._options.bucket

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        storage_class: str | None = None,
    ) -> None:
        """See the port."""
        told = {"Content-Type": content_type} | ({"Storage-Class": storage_class} if storage_class else {})
        request = obstore.put_async(self._store, checked(key), data, attributes=told, chunk_size=PART_BYTES)
        try:
            await self._bounded(request, key, len(data))
        except NotFound as exc:  # of a put it can only be the bucket
            raise self._no_bucket() from exc

    async def get(self, key: str) -> bytes:
        """See the port."""
        found = await self._bounded(obstore.get_async(self._store, checked(key)), key)
        return bytes(await self._bounded(found.bytes_async(), key, found.meta["size"]))

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """See the port."""
        info = await self.head(key)  # a range that begins behind the end is refused
        if info is None:
            raise NotFound(f"there is no object {key}")
        length = min(length, info.size_bytes - start)
        if length <= 0:
            return b""
        request = obstore.get_range_async(self._store, key, start=start, length=length)
        return bytes(await self._bounded(request, key, length))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """See the port."""
        found = await self._bounded(obstore.get_async(self._store, checked(key)), key)
        pieces = aiter(found.stream(min_chunk_size=PIECE_BYTES))
        while (piece := await self._bounded(_next(pieces), key)) is not None:
            yield bytes(piece)

    async def head(self, key: str) -> ObjectInfo | None:
        """See the port."""
        try:
            return _info(await self._bounded(obstore.head_async(self._store, checked(key)), key))
        except NotFound:
            return None

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Sequence[ObjectInfo]]:
        """See the port."""
        found = obstore.list(self._store, checked_prefix(prefix) or None, offset=after or None, chunk_size=PAGE_OBJECTS)
        try:
            while page := await self._bounded(_next(aiter(found)), prefix):
                yield [_info(one) for one in page]
        except NotFound as exc:
            raise self._no_bucket() from exc

    async def delete(self, keys: Sequence[str]) -> None:
        """See the port."""
        for start in range(0, len(keys), PAGE_OBJECTS):
            page = [checked(key) for key in keys[start : start + PAGE_OBJECTS]]
            try:
                await self._bounded(obstore.delete_async(self._store, page), page[0])
            except NotFound:  # of some that are told one by one
                continue

    async def drop_unfinished(self, prefix: str) -> None:
        """See the port. Some servers list them for whole keys alone, or not at all: there it takes a lifecycle rule."""
        under = (self._options.prefix, checked_prefix(prefix))
        where: dict[str, str] = {"Prefix": "/".join(part for part in under if part)}
        while True:
            try:
                page = await self._call("list_multipart_uploads", where, prefix)
            except _NotKnown:
                return
            for one in page.get("Uploads", ()):
                with suppress(NotFound):  # somebody else has dropped it
                    named = {"Key": one["Key"], "UploadId": one["UploadId"]}
                    await self._call("abort_multipart_upload", named, one["Key"])
            if not page.get("IsTruncated"):
                return
            where |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    async def check(self) -> None:
        """See the port."""
        async for _ in self.list("_check/"):
            break

    async def close(self) -> None:
        """See the port."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # -- URLs: who has one may do just what was signed, until it expires --

    async def sign_get(self, key: str, *, expires_s: float, content_type: str, file_name: str) -> Signed:
        """Return the URL to read an object; browsers are told to save it and not to show it."""
        parameters = {
            "Key": self._full(key),
            "ResponseContentType": content_type,
            "ResponseContentDisposition": f'attachment; filename="{file_name}"',
        }
        return Signed(await self._sign("get_object", parameters, expires_s), {})

    async def sign_put(
        self, key: str, *, expires_s: float, size_bytes: int, sha256: bytes, content_type: str
    ) -> Signed:
        """Return the URL to write an object whole: of this size, with this SHA-256, and no other."""
        parameters: dict[str, Any] = {
            "Key": self._full(key),
            "ContentLength": size_bytes,
            "ContentType": content_type,
            "ChecksumSHA256": b64encode(sha256).decode(),
            **self._encryption(),
        }
        headers = {"content-type": content_type, "x-amz-checksum-sha256": parameters["ChecksumSHA256"]}
        if self._options.sse:
            headers["x-amz-server-side-encryption"] = self._options.sse
        if self._options.sse_kms_key_id:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self._options.sse_kms_key_id
        return Signed(await self._sign("put_object", parameters, expires_s), headers)

    async def begin_parts(self, key: str, *, content_type: str) -> str:
        """Begin an upload in parts; return its id. See ``drop_unfinished`` for one that is never ended."""
        parameters = {"Key": self._full(key), "ContentType": content_type, **self._encryption()}
        answer = await self._call("create_multipart_upload", parameters, key)
        return str(answer["UploadId"])

    async def sign_parts(self, key: str, upload_id: str, sizes: Sequence[int], *, expires_s: float) -> Sequence[str]:
        """Return a URL to write each part of an upload, numbered from 1; each is of its size and no other."""
        full = self._full(key)

        def sign() -> Sequence[str]:
            return [
                self._url(
                    "upload_part",
                    {"Key": full, "UploadId": upload_id, "PartNumber": number, "ContentLength": size},
                    expires_s,
                )
                for number, size in enumerate(sizes, 1)
            ]

        return await self._in_thread(sign, key)

    async def end_parts(self, key: str, upload_id: str, tags: Sequence[str]) -> None:
        """Make an object of the parts of an upload; ``tags`` are what the store answered to each.

        Raises:
            NotFound: there is no such upload (any more), or not these parts.
        """
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        parameters = {"Key": self._full(key), "UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
        await self._call("complete_multipart_upload", parameters, key)

    async def drop_parts(self, key: str, upload_id: str) -> None:
        """Forget an upload and its parts; one that is not there is no matter."""
        try:
            await self._call("abort_multipart_upload", {"Key": self._full(key), "UploadId": upload_id}, key)
        except NotFound:
            return

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self._options.prefix, checked(key)) if part)

    def _encryption(self) -> dict[str, str]:
        found = {"ServerSideEncryption": self._options.sse, "SSEKMSKeyId": self._options.sse_kms_key_id}
        return {name: value for name, value in found.items() if value}

    async def _sign(self, method: str, parameters: Mapping[str, Any], expires_s: float) -> str:
        return await self._in_thread(lambda: self._url(method, parameters, expires_s), method)

    def _url(self, method: str, parameters: Mapping[str, Any], expires_s: float) -> str:
        named = {"Bucket": self._options.bucket, **parameters}
        return str(self._client.generate_presigned_url(method, named, ExpiresIn=int(expires_s)))

    async def _call(self, method: str, parameters: Mapping[str, Any], key: str) -> Any:
        named = {"Bucket": self._options.bucket, **parameters}
        return await self._in_thread(lambda: getattr(self._client, method)(**named), key)

    # -- one translation of errors for each library --

    async def _in_thread(self, work: Callable[[], T], key: str) -> T:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as exc:
            raise Unavailable(f"the object store did not answer in time about {key}") from exc
        except ClientError as exc:
            raise self._answered(exc, key) from exc
        except (BotoCoreError, OSError) as exc:
            raise Unavailable(f"the object store does not answer: {exc}") from exc

    def _answered(self, exc: ClientError, key: str) -> TenureError:
        error = exc.response.get("Error", {})
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(error.get("Code", ""))
        if code in ("NoSuchUpload", "NoSuchKey", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"):
            return NotFound(f"there is no such upload, or not these parts, for {key}: {code}")
        if status == _NOT_IMPLEMENTED:
            return _NotKnown(f"the object store does not know this: {code}")
        if code == "NoSuchBucket":
            return self._no_bucket()
        if status in _REFUSED:
            return self._refusal(f"{code} {error.get('Message', '')}")
        return Unavailable(f"the object store failed about {key}: {code or status} {error.get('Message', '')}")

    async def _bounded(self, request: Coroutine[Any, Any, T] | Awaitable[T], key: str, size: int = 0) -> T:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + size / SLOWEST_BYTES_S):
                return await request
        except TimeoutError as exc:
            raise Unavailable(f"the object store did not answer in time about {key}") from exc
        except FileNotFoundError as exc:
            raise NotFound(f"there is no object {key}") from exc
        except (PermissionDeniedError, UnauthenticatedError) as exc:
            raise self._refusal(_first_line(exc)) from exc
        except (BaseError, OSError, ValueError) as exc:
            # Of some requests obstore tells the status in words alone.
            status = _STATUS.search(str(exc))
            if status is not None and int(status[1]) in _REFUSED:
                raise self._refusal(_first_line(exc)) from exc
            if status is not None and int(status[1]) == _ABSENT:
                raise NotFound(f"there is no object {key}") from exc
            raise Unavailable(f"the object store failed about {key}: {_first_line(exc)}") from exc

    def _no_bucket(self) -> ConfigurationError:
        return ConfigurationError(
            f"the object store has no bucket {self._options.bucket}", hint="make it, or see TENURE_OBJECT_STORE"
        )

    def _refusal(self, told: str) -> ConfigurationError:
        return ConfigurationError(
            f"the object store refuses: {told}",
            hint="are the keys right? they must be for reading, writing and listing the bucket",
        )

    def _current(self) -> Any:
        """Return the credentials as they are now. Called by obstore, in whatever thread, and not on a loop of ours."""
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=CREDENTIALS_TTL_S),
        }


def _credentials(session: Any) -> Any:
    try:
        found = session.get_credentials()
    except BotoCoreError as exc:
        raise ConfigurationError(f"the credentials of the object store cannot be had: {exc}") from exc
    if found is None:
        raise ConfigurationError(
            "there are no credentials for the object store",
            hint="set TENURE_OBJECT_STORE_ACCESS_KEY_ID and …_SECRET_ACCESS_KEY, or give this process a role",
        )
    return found


def _client(session: Any, options: S3Options, region: str, path_style: bool) -> Any:
    try:
        return session.create_client(
            "s3",
            region_name=region,
            endpoint_url=options.endpoint,
            verify=str(options.ca_file) if options.ca_file else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if path_style else "virtual"},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=SILENCE_S,
                retries={"total_max_attempts": RETRIES, "mode": "standard"},
                # Of what is asked for by name alone: other servers know the newer checksums badly.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
    except (BotoCoreError, ValueError) as exc:
        raise ConfigurationError(f"the object store cannot be used: {exc}") from exc


def _store(options: S3Options, region: str, path_style: bool, credentials: Callable[[], Any]) -> S3Store:
    client: Any = {
        "allow_http": bool(options.endpoint and options.endpoint.startswith("http:")),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=SILENCE_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }
    if options.ca_file is not None:
        try:
            client["root_certificate"] = options.ca_file.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"TENURE_OBJECT_STORE_CA: {options.ca_file}: {exc.strerror}") from exc
    more: Any = {"endpoint": _endpoint(options, path_style)} if options.endpoint else {}
    if options.sse:
        more["server_side_encryption"] = options.sse
    if options.sse_kms_key_id:
        more["sse_kms_key_id"] = options.sse_kms_key_id
    return S3Store(
        options.bucket,
        prefix=options.prefix or None,
        region=region,
        virtual_hosted_style_request=not path_style,
        client_options=client,
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)},
        credential_provider=credentials,
        **more,
    )


def _endpoint(options: S3Options, path_style: bool) -> str:
    """Return the endpoint as obstore wants it: with the bucket in its name where buckets are names of hosts."""
    endpoint = options.endpoint or ""
    if path_style:
        return endpoint
    parts = urlsplit(endpoint)
    return parts._replace(netloc=f"{options.bucket}.{parts.netloc}").geturl()


async def _next(pieces: Any) -> Any:
    return await anext(pieces, None)


def _info(found: Any) -> ObjectInfo:
    return ObjectInfo(found["path"], found["size"], found["last_modified"])


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0][:300]
