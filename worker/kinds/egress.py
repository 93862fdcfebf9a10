"""Where HTTP jobs may connect to: the rules against server-side request forgery (SECURITY decision 6.2.8).

Pure, but for the default resolver. Invariant: an address is judged after it was resolved and the judged address is the
one connected to, so that a name which answers differently the second time gains nothing. An IPv6 address that stands
for an IPv4 one (mapped, NAT64) is judged by that one; tunnels (6to4, Teredo) are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from tenure.model.errors import ConfigurationError, TenureError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host, as text; raises OSError if there are none."""

_HOST = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "168.63.129.16/32",  # Azure's host agent, on a public address
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 for local use
        "100::/64",
        "2001::/23",  # Teredo among others
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",  # unique local; fd00:ec2::254
        "fec0::/10",
    )
)


class EgressRefused(TenureError):
    """The rules forbid this request; trying again is of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """What HTTP jobs of a worker may reach. The default is https to public addresses."""

    allow_http: bool = False
    """Plain http as well; hosts and networks that are allowed by name may always be reached with it."""
    allow_hosts: frozenset[str] = field(default_factory=frozenset)
    """Host names, lower case, that may resolve to any address."""
    allow_networks: tuple[Network, ...] = ()
    """Addresses that may be reached though they are not public, such as an intranet's."""
    max_response_bytes: int = 1024 * 1024
    max_body_bytes: int = 16 * 1024
    """How much of a response's body becomes part of the result."""
    max_timeout_s: float = 300.0

    @classmethod
    def allowing(cls, entries: Iterable[str], *, allow_http: bool = False) -> EgressPolicy:
        """Return the default policy plus some host names and networks, such as ``10.0.0.0/8`` or ``hooks.intranet``.

        Raises:
            ConfigurationError: an entry is neither.
        """
        hosts, networks = set(), []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError as exc:
                if not _HOST.fullmatch(entry.lower()):
                    raise ConfigurationError(f"{entry!r} is neither a host name nor a network: {exc}") from exc
                hosts.add(entry.lower())
        return cls(allow_http=allow_http, allow_hosts=frozenset(hosts), allow_networks=tuple(networks))


@dataclass(frozen=True, slots=True)
class Target:
    """A request's checked destination."""

    url: SplitResult
    host: str
    port: int
    addresses: tuple[str, ...]


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a name with the system's resolver.

    Raises:
        OSError: it has no address.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


async def check(url: str, policy: EgressPolicy, resolver: Resolver) -> Target:
    """Check a URL and resolve its host, once.

    Raises:
        EgressRefused: the rules forbid it; OSError: the host has no address.
    """
    parts, host, port = _parse(url)
    is_named = host in policy.allow_hosts
    found = list(dict.fromkeys(await resolver(host, port)))
    if not found:
        raise OSError(f"{host} has no address")
    addresses = [_address(text) for text in found]
    is_inside = all(any(one in network for network in policy.allow_networks) for one in addresses)
    # One bad address refuses the host: else an attacker mixes a good one in and hopes for the other.
    for address in () if is_named or is_inside else addresses:
        if problem := refusal(address, policy.allow_networks):
            raise EgressRefused(f"{host} is {address}: {problem}")
    if parts.scheme == "http" and not (policy.allow_http or is_named or is_inside):
        raise EgressRefused("http is not allowed here, only https")
    return Target(parts, host, port, tuple(str(one) for one in addresses))


def refusal(address: Address, allowed: tuple[Network, ...] = ()) -> str | None:
    """Say why an address may not be connected to, or None."""
    one = _carried(address) or address
    if any(each in network for network in allowed for each in (address, one)):
        return None
    if one.is_loopback or one.is_unspecified:
        return "the machine itself"
    if one.is_link_local:
        return "a link-local address (such as a metadata service)"
    if one.is_multicast:
        return "a multicast address"
    if not one.is_global:
        return "not a public address"
    if any(one in network for network in _SPECIAL):
        return "a special-purpose address"
    return None


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to this IPv6 address go to in the end, if it is of such a kind."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


def _address(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as exc:
        raise EgressRefused(f"the resolver answered {text[:64]!r}, which is no address") from exc
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise EgressRefused(f"{text} is bound to one interface")
    return address


def _parse(url: str) -> tuple[SplitResult, str, int]:
    if any(ord(char) <= 0x20 or ord(char) == 0x7F or char == "\\" for char in url):
        raise EgressRefused("the URL contains a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise EgressRefused(f"not a URL: {exc}") from exc
    if parts.scheme not in ("http", "https"):
        raise EgressRefused(f"scheme {parts.scheme[:16]!r} is not allowed, only https")
    if "@" in parts.netloc:
        raise EgressRefused("a user or password in the URL is not allowed; use a header")
    if not parts.hostname:
        raise EgressRefused("the URL names no host")
    if port == 0:
        raise EgressRefused("port 0 is not allowed")
    try:
        host = parts.hostname.rstrip(".").encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    except UnicodeError as exc:
        raise EgressRefused("the host is not a valid name") from exc
    if not host or "%" in host or len(host) > 253:
        raise EgressRefused("the host is not a valid name")
    return parts, host.lower(), port or (443 if parts.scheme == "https" else 80)
