"""Login with a token or at an issuer, logout, and the choice between light and dark."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from tenure.dashboard import sessions
from tenure.dashboard.oidc import SIGN_IN_S
from tenure.dashboard.sessions import MAX_COOKIE_CHARS, SignIn
from tenure.dashboard.visit import Visit, client_of, told
from tenure.model.errors import BoundExceeded, NotFound, PermissionDenied, TenureError, Unauthenticated, WrongState

THEMES = ("auto", "light", "dark")
YEAR_S = 365 * 86_400


async def show(visit: Visit) -> Response:
    """Ask for a token, or offer the issuer."""
    then = _own_path(visit.query.get("then", "/ui/"))
    if not visit.dashboard.asks:
        return RedirectResponse("/ui/", 303)
    return visit.page("login.html", then=then, issuer=visit.dashboard.oidc.name if visit.dashboard.oidc else "")


async def enter(visit: Visit) -> Response:
    """Log in with a token."""
    if not visit.dashboard.asks:
        raise WrongState("nobody is asked for a token here")
    then = _own_path(visit.form.get("then", "/ui/"))
    token = visit.form.get("token", "").strip()
    try:
        return await _logged_in(visit, [token] if token.isascii() and token.isprintable() else [], then)
    except (Unauthenticated, PermissionDenied, BoundExceeded) as exc:
        problem = _PROBLEMS.get(type(exc), told(exc))
    issuer = visit.dashboard.oidc.name if visit.dashboard.oidc else ""
    return visit.page("login.html", status=403, then=then, issuer=issuer, said=problem, said_failed=True)


async def begin(visit: Visit) -> Response:
    """Send the browser to the issuer."""
    if visit.dashboard.oidc is None:
        raise NotFound("no issuer is set here to log in at")
    url, sign_in = await visit.dashboard.oidc.begin(_own_path(visit.query.get("then", "/ui/")))
    response = RedirectResponse(url, 303)
    cookie = sessions.write(visit.dashboard.keys, sign_in)
    visit.dashboard.set_cookie(response, visit.dashboard.sign_in_cookie, cookie, SIGN_IN_S)
    return response


async def end(visit: Visit) -> Response:
    """Take what the browser comes back from the issuer with."""
    if visit.dashboard.oidc is None:
        raise NotFound("no issuer is set here to log in at")
    kept = visit.request.cookies.get(visit.dashboard.sign_in_cookie)
    sign_in = sessions.read(visit.dashboard.keys, kept, SignIn, visit.dashboard.clock)
    asked = visit.query
    tokens = await visit.dashboard.oidc.end(
        sign_in, state=asked.get("state", ""), code=asked.get("code", ""), error=asked.get("error", "")
    )
    try:
        response = await _logged_in(visit, tokens, sign_in.then if sign_in else "/ui/")
    except Unauthenticated as exc:
        raise PermissionDenied(
            "the issuer knows you, but your account has no role here",
            hint="its tokens need the audience and the claims that the coordinators ask for",
        ) from exc
    visit.dashboard.set_cookie(response, visit.dashboard.sign_in_cookie, "", 0)
    return response


async def leave(visit: Visit) -> Response:
    """Log out: forget the token."""
    fresh = sessions.replace_said(sessions.new_session(visit.dashboard.clock), "You are logged out.")
    response = RedirectResponse("/ui/login" if visit.dashboard.asks else "/ui/", 303)
    visit.dashboard.remember(response, fresh)
    return response


async def choose_theme(visit: Visit) -> Response:
    """Choose between light and dark."""
    theme = visit.form.get("theme", "auto")
    response = RedirectResponse(_own_path(visit.form.get("then", "/ui/")), 303)
    visit.dashboard.set_cookie(response, "tenure_theme", theme if theme in THEMES else "auto", YEAR_S)
    return response


async def choose_keys(visit: Visit) -> Response:
    """Switch keys that are single characters on or off: speech input would press them by chance (WCAG 2.1.4)."""
    response = RedirectResponse(_own_path(visit.form.get("then", "/ui/")), 303)
    visit.dashboard.set_cookie(response, "tenure_keys", "off" if visit.form.get("keys") == "off" else "on", YEAR_S)
    return response


async def _logged_in(visit: Visit, tokens: list[str], then: str) -> Response:
    """Answer with a new session of the first token that the API takes."""
    problem: TenureError = Unauthenticated("that is no token")
    for token in tokens:
        client = client_of(visit.dashboard.link, token)
        try:
            caller = await client.caller()
        except (Unauthenticated, PermissionDenied) as exc:
            problem = exc
            continue
        # A new session, with a secret of its own: what was known of the one before is of no use.
        session = sessions.new_session(visit.dashboard.clock, token)
        if len(sessions.write(visit.dashboard.keys, session)) > MAX_COOKIE_CHARS:
            raise BoundExceeded("that token is too long for a browser's session")
        response = RedirectResponse(then, 303)
        visit.dashboard.remember(response, sessions.replace_said(session, f"Logged in as {caller.name[:100]}."))
        return response
    raise problem


def _own_path(path: str) -> str:
    """Return a path of this dashboard; anything else leads home."""
    is_own = path.startswith("/ui/") and path.isprintable() and "\\" not in path and "//" not in path
    return path if is_own and not path.startswith("/ui/login") else "/ui/"


_PROBLEMS: dict[type[TenureError], str] = {
    Unauthenticated: "This token is not valid here: unknown, expired or revoked.",
    PermissionDenied: "This token may not read anything: it is for a worker or a runner.",
}
ROUTES = (
    ("/login", ("GET",), show),
    ("/login", ("POST",), enter),
    ("/login/oidc", ("GET",), begin),
    ("/login/oidc/back", ("GET",), end),
    ("/logout", ("POST",), leave),
    ("/theme", ("POST",), choose_theme),
    ("/keys", ("POST",), choose_keys),
)
