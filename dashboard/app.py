"""The application: routes, and what is the same for each: who asks, from where, what becomes of errors.

Built closed; ``open`` says where the API listens for this process. Until then, and after ``close``, every page is
answered with 503. Invariant: an act is a POST of a form of this session, and what it may do is for the API to say.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from tenure.client.link import Link
from tenure.dashboard import guard, render, sessions
from tenure.dashboard.live import Live
from tenure.dashboard.oidc import OidcLogin
from tenure.dashboard.pages import (
    audit,
    job,
    jobs,
    letters,
    limits,
    login,
    overview,
    retention,
    schedules,
    workers,
    workflows,
)
from tenure.dashboard.places import MOST, Bounded, Places
from tenure.dashboard.sessions import Session, SessionKeys
from tenure.dashboard.visit import Visit, client_of, form_of, told
from tenure.model.clock import Clock
from tenure.model.errors import (
    InvalidInput,
    PermissionDenied,
    TenureError,
    Unauthenticated,
    Unavailable,
)
from tenure.v1.bearer import Bearer

log = structlog.get_logger(__name__)

Handler = Callable[[Visit], Awaitable[Response]]
PREFIX = "/ui"
CALL_S = 30.0
"""What a page waits for one answer of the API; half of it for one attempt: passes over many jobs answer after five."""
OPEN_PAGES = ("/login", "/login/oidc", "/login/oidc/back", "/logout", "/theme", "/keys")
"""For whoever is not logged in."""
PAGES = (login, overview, jobs, job, letters, workflows, schedules, workers, limits, audit, retention)


class Dashboard:
    """The pages. ``routes`` are for the coordinator's HTTP server."""

    def __init__(
        self,
        clock: Clock,
        keys: SessionKeys,
        *,
        asks: bool,
        base_url: str,
        oidc: OidcLogin | None = None,
        named: Iterable[str] = (),
        places: int = MOST,
    ) -> None:
        """``asks``: credentials are asked for. ``named`` are hosts under which it is reached without them.

        ``places``: of requests under way, at most.
        """
        self.clock = clock
        self.keys = keys
        self.asks = asks
        self.oidc = oidc
        self.is_tls = base_url.startswith("https:")
        self._places = Places(places)
        self.live = Live(clock, viewers=self._places.for_live)
        self._names = guard.Names([urlsplit(base_url).hostname or "", *named])
        self._link: Link | None = None

    def open(self, address: str) -> None:
        """Serve from now on, by the API that listens there."""
        self._link = Link((address,), bearer=Bearer(None), tls=None, timeout_s=CALL_S, outage_s=CALL_S)

    async def close(self) -> None:
        """Serve no more; live pages end."""
        link, self._link = self._link, None
        await self.live.close()
        if link is not None:
            await link.close()

    def routes(self) -> list[Route]:
        """Return every route."""
        bounded = [Middleware(Bounded, self._places)]
        made = [
            Route(PREFIX + path, self._serving(path, handler), methods=list(methods), middleware=bounded)
            for page in PAGES
            for path, methods, handler in page.ROUTES
        ]
        return [
            *made,
            Route(f"{PREFIX}/static/{{name}}", self._static),
            Route(PREFIX, self._home),
            Route("/", self._home),
            Route("/favicon.ico", self._icon),
        ]

    @property
    def link(self) -> Link:
        """The connections to the API.

        Raises:
            Unavailable: there are none yet, or no more.
        """
        if self._link is None:
            raise Unavailable("this coordinator is starting, or stopping; try again, or another one")
        return self._link

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; over TLS one that no other host can set."""
        return "__Host-tenure" if self.is_tls else "tenure_session"

    @property
    def sign_in_cookie(self) -> str:
        """The name of the cookie of a login at the issuer that is under way."""
        return "__Host-tenure-sign-in" if self.is_tls else "tenure_sign_in"

    def remember(self, response: Response, session: Session) -> None:
        """Have the browser keep a session; where there is no room for what it has to say, without that."""
        text = sessions.write(self.keys, session)
        if len(text) > sessions.MAX_COOKIE_CHARS and session.said:
            text = sessions.write(self.keys, sessions.replace_said(session, ""))
        self.set_cookie(response, self.cookie, text, sessions.HOURS_S)

    def set_cookie(self, response: Response, name: str, value: str, max_age_s: int) -> None:
        """Set a cookie that scripts do not see, and that other sites do not send."""
        response.set_cookie(name, value, max_age=max_age_s, path="/", secure=self.is_tls, httponly=True, samesite="lax")

    def _serving(self, path: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        is_open = path in OPEN_PAGES

        async def serve(request: Request) -> Response:
            session, is_new = Session("", 0), False
            visit: Visit | None = None
            try:
                if not self.asks and not self._names.hold(request.headers.get("host", "")):
                    raise PermissionDenied(
                        "this dashboard asks nobody who they are, and so is not served under this name",
                        hint="call it by its address, or set TENURE_HTTP_ADVERTISE to the URL that leads here",
                    )
                base = self.link
                kept = sessions.read(self.keys, request.cookies.get(self.cookie), Session, self.clock)
                session, is_new = (kept, False) if kept else (sessions.new_session(self.clock), True)
                visit = Visit(self, request, session, client_of(base, session.token))
                if request.method == "POST":
                    guard.require_same_origin(request)
                    visit.lists = await form_of(request)
                    visit.form = {name: values[-1] for name, values in visit.lists.items()}
                    guard.require_csrf(visit.form.get("csrf", ""), session.csrf)
                if not is_open:
                    if self.asks and not session.token:
                        raise Unauthenticated("you are not logged in")
                    visit.caller = await visit.client.caller()
                response = await handler(visit)
            except ClientDisconnect:
                return Response(status_code=499)
            except Unauthenticated as exc:
                response = self._to_login(request, session, exc)
            except Exception as exc:  # the top of a request
                response = self._refusal(visit, request, exc)
            if is_new and "set-cookie" not in response.headers and session.csrf:
                self.remember(response, session)
            return guard.protect(response, is_tls=self.is_tls)

        return serve

    def _to_login(self, request: Request, session: Session, exc: Unauthenticated) -> Response:
        if request.url.path.startswith(f"{PREFIX}/live/"):
            return PlainTextResponse("not logged in", 401)
        then = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.method != "GET":
            then = f"{PREFIX}/"
        response = RedirectResponse(f"{PREFIX}/login?then={quote(then, safe='')}", 303)
        if session.token:  # expired or revoked: say so, and forget it
            fresh = sessions.replace_said(
                sessions.new_session(self.clock), "Your session is over: log in again.", failed=True
            )
            self.remember(response, fresh)
        return response

    def _refusal(self, visit: Visit | None, request: Request, exc: Exception) -> Response:
        if not isinstance(exc, TenureError):
            log.exception("dashboard_page_failed", path=request.url.path)
            exc = TenureError("something went wrong here; the coordinator's log has the details")
        if request.url.path.startswith(f"{PREFIX}/live/"):
            return PlainTextResponse(told(exc), exc.http_status)
        context: dict[str, Any] = {
            "message": told(exc),
            "hint": exc.hint or "",
            "fields": exc.violations if isinstance(exc, InvalidInput) else (),
            "status": exc.http_status,
            "title": _TITLES.get(exc.http_status, "That did not work"),
        }
        if visit is None:
            visit = Visit(self, request, Session("", 0), None)  # type: ignore[arg-type]  # an error page asks nothing
        return visit.page("error.html", **context)

    async def _home(self, request: Request) -> Response:
        return guard.protect(RedirectResponse(f"{PREFIX}/", 307), is_tls=self.is_tls)

    async def _icon(self, request: Request) -> Response:
        return guard.protect(RedirectResponse(render.static_url("icon.svg"), 307), is_tls=self.is_tls)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        file = render.STATIC / name
        if "/" in name or name.startswith(".") or not file.is_file():
            return guard.protect(PlainTextResponse("no such file", 404), is_tls=self.is_tls)
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        response = Response(file.read_bytes(), media_type=kind)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return guard.protect(response, is_tls=self.is_tls)


_TITLES = {
    400: "Invalid input",
    403: "You may not do this",
    404: "There is no such thing",
    409: "Not possible in this state",
    429: "Too much at once",
    503: "Not available now",
    504: "No answer in time",
}
