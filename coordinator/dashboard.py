"""What a coordinator gives its dashboard: a way to its own API, the keys of sessions, and what the settings say.

The way is a Unix socket in a folder that nobody else on this machine may enter. The API asks there who calls, as it
does everywhere, so that the dashboard may do what whoever is logged in may.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from tenure.coordinator.settings import CoordinatorSettings
from tenure.dashboard.app import Dashboard
from tenure.dashboard.oidc import OidcLogin
from tenure.dashboard.sessions import SessionKeys
from tenure.model.clock import Clock

log = structlog.get_logger(__name__)

MOST_CHARS = 75
"""Of the folder that the socket's own lies in: a socket's path has 107 at most."""


@dataclass(frozen=True, slots=True)
class OwnSocket:
    """A place for a Unix socket, for this process alone."""

    folder: Path

    @classmethod
    def made(cls) -> OwnSocket | None:
        """Make the folder; None where there is no place for one: then there is no dashboard."""
        problem = "its path would be too long"
        for folder in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
            if len(folder) > MOST_CHARS:
                continue
            try:
                return cls(Path(tempfile.mkdtemp(prefix="tenure-", dir=folder)))  # of mode 0700
            except OSError as exc:
                problem = str(exc.strerror)
        log.warning("dashboard_not_served", reason=f"no folder for its socket: {problem}; set TMPDIR")
        return None

    @property
    def address(self) -> str:
        """The address to listen on and to call."""
        return f"unix:{self.folder}/api"

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def dashboard_of(settings: CoordinatorSettings, clock: Clock, *, base_url: str, places: int) -> Dashboard | None:
    """Return the dashboard that the settings ask for, closed; None where they ask for none.

    ``places``: requests that it answers at a time, at most.

    Raises:
        ConfigurationError: the file of the issuer's CA certificates cannot be used.
    """
    if not settings.dashboard:
        return None
    oidc = None
    if settings.oidc_issuer and settings.oidc_client_id:
        secret = settings.oidc_client_secret
        oidc = OidcLogin(
            settings.oidc_issuer,
            settings.oidc_client_id,
            secret.get_secret_value() if secret else None,
            clock,
            redirect_url=f"{base_url}/ui/login/oidc/back",
            scopes=settings.oidc_scopes,
            audience=settings.oidc_audience,
            ca_file=settings.oidc_ca,
        )
    return Dashboard(
        clock, SessionKeys(), asks=settings.auth == "required", base_url=base_url, oidc=oidc, places=places
    )
