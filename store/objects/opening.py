"""Which object store a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from tenure.model.errors import ConfigurationError, InvalidInput
from tenure.store.objects.folder import FolderObjects
from tenure.store.objects.keys import checked
from tenure.store.objects.port import ObjectStore


class StoreOptions(NamedTuple):
    """What a URL does not say; of S3 alone."""

    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    sse: str | None = None
    sse_kms_key_id: str | None = None
    ca_file: Path | None = None


def store_url_error(url: str) -> str | None:
    """Say what is wrong with the URL of an object store, or None."""
    try:
        parts = urlsplit(url)
        if parts.query or parts.fragment or parts.username or parts.password:
            return "must hold nothing but a place"
        if parts.scheme == "file":
            return None if not parts.netloc and len(parts.path) > 1 else "must be file:///folder"
        if parts.scheme == "s3":
            if not parts.netloc:
                return "must name a bucket: s3://bucket/prefix"
            if prefix := parts.path.strip("/"):
                checked(prefix)
            return None
    except ValueError as exc:
        return str(exc)
    except InvalidInput:
        return "has a prefix that cannot be one of keys"
    return "must begin with file:/// or s3://"


def open_store(url: str, options: StoreOptions | None = None) -> ObjectStore:
    """Return the store that ``file:///folder`` or ``s3://bucket/prefix`` names; ``check`` says whether it answers.

    Raises:
        ConfigurationError: it cannot be used, or what it needs is not installed.
    """
    if problem := store_url_error(url):
        raise ConfigurationError(f"TENURE_OBJECT_STORE={url}: {problem}")
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderObjects(Path(unquote(parts.path)))
    try:
        from tenure.store.objects.s3 import S3Objects, S3Options
    except ImportError as exc:
        raise ConfigurationError(
            f"an object store in S3 needs the extra s3: {exc.name} is not installed",
            hint="pip install 'tenure[s3]'",
        ) from exc
    return S3Objects(S3Options(parts.netloc, parts.path.strip("/"), **(options or StoreOptions())._asdict()))
