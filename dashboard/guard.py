"""What stands between a browser and a page: headers of every answer, and who may ask from where.

Invariants: no script, style or picture comes from elsewhere, none is inline, and nothing is framed; an act comes from
a page of this very origin, with the text that its session was given. Where no credentials are asked for, a page is
served only under names that nobody else can point here: else any page that a browser has open could take a name of its
own to this machine and act as anybody.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from tenure.model.errors import PermissionDenied

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
HSTS = "max-age=31536000"


def protect(response: Response, *, is_tls: bool) -> Response:
    """Add the headers that every answer has; those that it has already stay."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if is_tls:
        response.headers.setdefault("Strict-Transport-Security", HSTS)
    return response


class Names:
    """The names under which a dashboard without credentials may be asked for."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """``named`` are hosts that are known to lead here, beside this machine's own names and any address."""
        self._named = {host.lower() for host in named if host} | {socket.gethostname().lower(), "localhost"}

    def hold(self, host: str) -> bool:
        """Say whether the Host of a request is an address, or one of the names."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower().removesuffix(".")
        except ValueError:
            return False
        if name in self._named or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def require_same_origin(request: Request) -> None:
    """Refuse an act that another site has a browser do.

    Raises:
        PermissionDenied: it comes from elsewhere, or does not say from where.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        is_own = site == "same-origin"
    elif origin is not None:
        is_own = _host_of(origin) == request.headers.get("host", "").lower()
    else:
        is_own = False
    if not is_own:
        raise PermissionDenied("this was sent by another site, not by a page of this dashboard")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def require_csrf(given: str, wanted: str) -> None:
    """Refuse an act without the text that its session was given.

    Raises:
        PermissionDenied: it is another one, or none.
    """
    if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise PermissionDenied(
            "this form is not of your session", hint="go back, load the page again, and send it once more"
        )
