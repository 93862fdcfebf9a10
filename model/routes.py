"""Names, routes and pools: their grammar, and which pool a route belongs to.

A route is a path such as ``pool-abc/insights/scan-123``; a pool is a route prefix. Matching is by whole
segments: ``pool-a`` never matches ``pool-abc``.
"""

from __future__ import annotations

import re

SEGMENT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
SEGMENT_RULE = "1 to 63 of a-z 0-9 . _ -, beginning and ending with a letter or digit"
MAX_SEGMENTS = 8
MAX_ROUTE_CHARS = 255
DEFAULT_ROUTE = "default"
DEFAULT_NAMESPACE = "default"
KIND = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._:-]{0,126}[a-zA-Z0-9])?")
KIND_RULE = "1 to 128 of letters, digits . _ : -, beginning and ending with a letter or digit"
LIMIT = re.compile(r"[a-z0-9](?:[a-z0-9._:-]{0,126}[a-z0-9])?")
LIMIT_RULE = "1 to 128 of a-z 0-9 . _ : -, beginning and ending with a letter or digit"


def name_error(name: str) -> str | None:
    """Say what is wrong with a namespace or a segment, or None."""
    return None if SEGMENT.fullmatch(name) else f"must be {SEGMENT_RULE}"


def kind_error(kind: str) -> str | None:
    """Say what is wrong with a kind, or None."""
    return None if KIND.fullmatch(kind) else f"must be {KIND_RULE}"


def limit_error(limit: str) -> str | None:
    """Say what is wrong with the name of a limit, or None."""
    return None if LIMIT.fullmatch(limit) else f"must be {LIMIT_RULE}"


def route_error(route: str) -> str | None:
    """Say what is wrong with a route or a pool, or None."""
    if not route:
        return "must not be empty"
    if len(route) > MAX_ROUTE_CHARS:
        return f"is {len(route)} characters long, at most {MAX_ROUTE_CHARS} are allowed"
    segments = route.split("/")
    if len(segments) > MAX_SEGMENTS:
        return f"has {len(segments)} segments, at most {MAX_SEGMENTS} are allowed"
    for segment in segments:
        if not SEGMENT.fullmatch(segment):
            return f"segment {segment!r} must be {SEGMENT_RULE}"
    return None


def covers(pool: str, route: str) -> bool:
    """Say whether ``route`` lies in ``pool``, by whole segments."""
    return route == pool or route.startswith(pool + "/")


def pool_of(route: str, pools: frozenset[str]) -> str:
    """Return the longest known pool that covers a route; its first segment when nobody serves it."""
    segments = route.split("/")
    for end in range(len(segments), 0, -1):
        prefix = "/".join(segments[:end])
        if prefix in pools:
            return prefix
    return segments[0]
