"""What an address to listen on has to look like."""

from __future__ import annotations

import ipaddress

MAX_PORT = 65_535


def listened(address: str) -> str:
    """Return an address to listen on as it is.

    Raises:
        ValueError: it is not ``HOST:PORT``. Said here, as whoever listens would take a lone port for every address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT or not _is_host(host):
        raise ValueError(
            f"{address!r} is not HOST:PORT, such as 127.0.0.1:7071, [::1]:7071 or 0.0.0.0:7071 (everywhere)"
        )
    return address


def is_loopback(address: str) -> bool:
    """Say whether only this machine reaches an address to listen on or to call: loopback, or a Unix socket.

    A name other than ``localhost`` is not looked up, and counts as reachable from elsewhere.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _is_host(host: str) -> bool:
    """Say whether this may be a host; an empty one means every address."""
    if ":" not in host:
        return not any(c.isspace() or c in "/[]" for c in host)
    try:
        ipaddress.IPv6Address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return True
