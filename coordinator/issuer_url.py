"""The URL of an OIDC issuer, or of its keys: whoever could answer in its place would be believed."""

from __future__ import annotations

from urllib.parse import urlsplit

from tenure.model.listen import is_loopback


def require_url(url: str) -> str:
    """Return the URL of an issuer, or of its keys, as it is.

    Raises:
        ValueError: it is not HTTPS, or HTTP to this machine; or it holds a password, or a fragment.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    near = parts.scheme == "http" and is_loopback(f"[{host}]:0" if ":" in host else f"{host}:0")
    if not host or not url.isprintable() or " " in url or not (parts.scheme == "https" or near):
        raise ValueError(f"{url[:200]!r} is not an https:// URL (http:// for loopback alone)")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("the URL of an issuer has neither a user nor a fragment")
    return url
