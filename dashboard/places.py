"""How many requests of the dashboard are under way at a time: the rest of the HTTP side is for runners and probes.

A stream counts until its body has ended. Half of the places at most are for live pages, which stay.
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tenure.dashboard import guard

MOST = 400


class Places:
    """Counts."""

    def __init__(self, most: int = MOST) -> None:
        self.most = min(most, MOST)
        self.taken = 0

    @property
    def for_live(self) -> int:
        """How many of them live pages may have."""
        return self.most // 2


class Bounded:
    """Lets in as many requests as there are places, and refuses the others at once."""

    def __init__(self, app: ASGIApp, places: Places) -> None:
        self._app = app
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._places.taken >= self._places.most:
            told = "As many pages of this dashboard are loading as may be: try again, or another coordinator."
            response = PlainTextResponse(told, 503, headers={"Retry-After": "5"})
            await guard.protect(response, is_tls=False)(scope, receive, send)
            return
        self._places.taken += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._places.taken -= 1
