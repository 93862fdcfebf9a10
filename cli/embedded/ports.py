"""Choose TCP ports that stay ours across restarts.

Ports are drawn below the kernel's range for outgoing connections: a port out of that range can be taken by
somebody's outgoing connection while a server restarts, and a client that reconnects to it can connect to itself.
Nothing is reserved: whoever listens must be ready to be told "in use" and to draw again.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 15000
HIGHEST = 32000
_ATTEMPTS = 200
_random = random.SystemRandom()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError:
            return False
    return True


def choose(preferred: int = 0, avoid: frozenset[int] = frozenset()) -> int:
    """Return a port of 127.0.0.1 that is free now: the preferred one where possible.

    Raises:
        OSError: no free port was found.
    """
    if preferred and preferred not in avoid and is_free(preferred):
        return preferred
    highest = min(HIGHEST, _first_outgoing_port() - 1)
    for _ in range(_ATTEMPTS):
        port = _random.randint(LOWEST, max(highest, LOWEST + 1000))
        if port not in avoid and is_free(port):
            return port
    raise OSError(f"no free TCP port found on 127.0.0.1 between {LOWEST} and {highest}")


def choose_many(count: int, preferred: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Return ``count`` distinct ports that are free now, the preferred ones in their places where possible."""
    chosen: list[int] = []
    for index in range(count):
        wish = preferred[index] if index < len(preferred) else 0
        chosen.append(choose(wish, frozenset(chosen)))
    return tuple(chosen)


def _first_outgoing_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768
