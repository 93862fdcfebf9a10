"""The end of a term, as an exception of the tasks that run in it."""

from __future__ import annotations

from tenure.model.errors import TenureError


class Deposed(TenureError):
    """The leader key is not this term's any more, or the stores are not those with which the term began."""
