"""Who can reach a coordinator: one that others reach proves who it is and asks who calls, or does not start.

Asked once, before anything listens. Loopback and Unix sockets are this machine's own business.
"""

from __future__ import annotations

import structlog

from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.errors import ConfigurationError
from tenure.model.listen import is_loopback

log = structlog.get_logger(__name__)


def require_closed(settings: CoordinatorSettings) -> None:
    """Refuse to listen elsewhere than on loopback without TLS and credentials, unless told to.

    Raises:
        ConfigurationError: it names the listeners, what is missing, and the ways out.
    """
    listeners = (("TENURE_GRPC_LISTEN", settings.grpc_listen), ("TENURE_HTTP_LISTEN", settings.http_listen))
    reached = [f"{variable} {address}" for variable, address in listeners if not is_loopback(address)]
    missing = []
    if settings.tls_cert is None:
        missing.append("TLS (TENURE_TLS_CERT and TENURE_TLS_KEY)")
    if settings.auth != "required":
        missing.append("credentials (TENURE_AUTH=required)")
    if not reached or not missing:
        return
    if settings.allow_insecure:
        log.warning("serving_in_the_open", listeners=reached, missing=missing)
        return
    raise ConfigurationError(
        f"{' and '.join(reached)} can be reached from elsewhere, without {' and without '.join(missing)}",
        hint="listen on loopback, such as 127.0.0.1:7070; or set TENURE_TLS_CERT, TENURE_TLS_KEY and "
        "TENURE_AUTH=required; or set TENURE_ALLOW_INSECURE=true, where whoever reaches it may do everything",
    )
