"""Bytes that are too many for a frame, on their way between a handler's process and its worker: in a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def spooled(data: bytes, folder: Path) -> Path:
    """Return a file that holds some bytes: more than fit into a frame. The worker removes the folder in the end."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return Path(name)
