"""A visit: one request of a browser, who is behind it, and the client that asks the API in their name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tenure.client import AsyncClient, Caller
from tenure.client.gather import Gathering
from tenure.client.link import Link
from tenure.dashboard import render, sessions
from tenure.dashboard.sessions import Session
from tenure.model.errors import FieldViolation, InvalidInput, TenureError
from tenure.v1.bearer import Bearer

if TYPE_CHECKING:
    from tenure.dashboard.app import Dashboard

MAX_FORM_BYTES = 64 * 1024
FORM_S = 5.0
"""For a form to arrive in: it holds one of few places meanwhile."""
OPERATES = ("operator", "admin")
SUBMITS = (*OPERATES, "submitter")


class VisitorsClient(AsyncClient):
    """A client over connections that are there, showing a visitor's token."""

    def __init__(self, link: Link) -> None:
        """Take a link; it is closed by whoever made it."""
        self._link = link
        self._gathering = Gathering(link)
        self._files = None


@dataclass(slots=True)
class Visit:
    """A request on its way."""

    dashboard: Dashboard
    request: Request
    session: Session
    client: AsyncClient
    caller: Caller | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    """What an act was sent with."""
    lists: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The time of day by the clock that the dashboard was given."""
        return self.dashboard.clock.wall()

    @property
    def query(self) -> Mapping[str, str]:
        """What stands behind the question mark, without what is empty."""
        return {name: value for name, value in self.request.query_params.items() if value.strip()}

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """Answer with a page; what the session had to say is said there, once."""
        html = render.render(template, self.context(**context))
        response = HTMLResponse(html, status)
        if self.session.said:
            self.dashboard.remember(response, sessions.replace_said(self.session, ""))
        return response

    def context(self, **context: Any) -> dict[str, Any]:
        """Return what every template may use."""
        return {
            "caller": self.caller,
            "csrf": self.session.csrf,
            "said": self.session.said,
            "said_failed": self.session.failed,
            "theme": self.request.cookies.get("tenure_theme", "auto"),
            "keys_off": self.request.cookies.get("tenure_keys") == "off",
            "path": self.request.url.path,
            "asks": self.dashboard.asks,
            **self.shared_context(**context),
        }

    def shared_context(self, **context: Any) -> dict[str, Any]:
        """Return what the live parts of pages may use: nothing that is one visitor's, as others are shown them."""
        role = self.caller.role if self.caller else ""
        return {
            "may_operate": role in OPERATES,
            "may_submit": role in SUBMITS,
            "link": link,
            "now": self.now,
            **context,
        }

    def back(self, path: str, said: str = "", *, failed: bool = False) -> Response:
        """Answer an act: show a page, which says what became of it."""
        response = RedirectResponse(path, 303)
        if said:
            self.dashboard.remember(response, sessions.replace_said(self.session, said, failed=failed))
        return response


_OWN_ADDRESS = re.compile(r"^refused by unix:\S+: | at unix:\S+(?=[: ])")
"""What the client says of where it asked: of no use to people."""


def told(exc: TenureError) -> str:
    """Return what a refusal says to people."""
    return _OWN_ADDRESS.sub("", exc.message)


def link(path: str, /, **query: Any) -> str:
    """Return a path with a query, without what is empty."""
    asked = {name: value for name, value in query.items() if value not in (None, "", ())}
    return f"{path}?{urlencode(asked, doseq=True)}" if asked else path


async def form_of(request: Request) -> dict[str, list[str]]:
    """Read a form.

    Raises:
        InvalidInput: it is none, too long, or too slow.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise InvalidInput([FieldViolation("content-type", "must be that of a form")])
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_FORM_BYTES:
                    raise InvalidInput([FieldViolation("body", f"is longer than {MAX_FORM_BYTES} bytes")])
    except TimeoutError:
        raise InvalidInput([FieldViolation("body", f"did not arrive within {FORM_S:g} s")]) from None
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1_000, errors="strict")
    except ValueError as exc:
        raise InvalidInput([FieldViolation("body", "is no form")]) from exc


def client_of(base: Link, token: str) -> AsyncClient:
    """Return a client that shows this token, or nothing."""
    return VisitorsClient(base.showing(Bearer(token or None)))
