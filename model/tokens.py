"""Bearer tokens: their text, and what of them is kept. The secret itself is shown once and kept nowhere.

``tnr_<id>_<secret>``: the id (32 hexadecimal digits) finds the row, the secret (32 random bytes, base64url) shows that
the caller has the token. A row holds the secret's SHA-256: with 256 random bits in it, nothing slower is of use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import uuid
from dataclasses import dataclass, field

PREFIX = "tnr"
SECRET_BYTES = 32
COORDINATORS = uuid.UUID(int=0)
"""The id in the token by which coordinators call each other; no row has it."""
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{32}})_([A-Za-z0-9_-]{{43}})")
_LABEL = b"tenure coordinator 1"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token in parts."""

    id: uuid.UUID
    secret: str = field(repr=False)

    def text(self) -> str:
        """Return what the caller sends."""
        return f"{PREFIX}_{self.id.hex}_{self.secret}"

    def hash(self) -> bytes:
        """Return what is kept of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def shows(self, kept: bytes) -> bool:
        """Say whether the secret is the one of which this hash is kept, in a time that says nothing else."""
        return hmac.compare_digest(self.hash(), kept)


def new_token(id: uuid.UUID) -> Token:
    """Return a token with a fresh secret."""
    return Token(id, _base64(secrets.token_bytes(SECRET_BYTES)))


def read_token(text: str) -> Token | None:
    """Take a token apart; None for what is none."""
    found = _TOKEN.fullmatch(text)
    return Token(uuid.UUID(hex=found[1]), found[2]) if found else None


def coordinators_token(signing_key: bytes) -> Token:
    """Return the token by which coordinators call each other: whoever can read the key has it, and nobody else."""
    return Token(COORDINATORS, _base64(hmac.digest(signing_key, _LABEL, "sha256")))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
