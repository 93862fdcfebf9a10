"""The labels in which a job carries the context of a trace, as W3C Trace Context names them. See docs/TRACING.md."""

from __future__ import annotations

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
NOT_ASKED_FOR = frozenset({TRACEPARENT, TRACESTATE})
"""Labels that are no part of a request: whoever asks again for the same does so in another trace."""
