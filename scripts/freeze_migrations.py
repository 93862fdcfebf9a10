"""Freeze the migrations that stand in the tree: write their checksums to deploy/released-migrations.

Run it when a minor version is released. Databases out there have run these files, so an edit would reach new databases
only: tests/packaging asserts that none was edited since. A change is a new revision.
"""

from __future__ import annotations

import hashlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "store" / "postgres" / "migrations" / "versions"
FROZEN = ROOT / "deploy" / "released-migrations"


def checksums() -> dict[str, str]:
    """Return the SHA-256 of each file of the migrations, by its path in the tree."""
    files = (*MIGRATIONS.glob("[0-9]*.py"), *MIGRATIONS.glob("[0-9]*.sql"))
    return {str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def main() -> None:
    """Write the file, as sha256sum reads it."""
    FROZEN.write_text("".join(f"{checksum}  {path}\n" for path, checksum in checksums().items()), encoding="utf-8")


if __name__ == "__main__":
    main()
