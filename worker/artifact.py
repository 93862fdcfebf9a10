"""A file that an attempt has saved, and what it is made of. Apart from what sends it: handler processes import this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Source = bytes | Path
"""What a file holds, or where that lies."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that was saved."""

    name: str
    size_bytes: int
    sha256: str
    """In hex."""
