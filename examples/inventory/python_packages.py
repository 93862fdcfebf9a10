"""Installed Python distributions: where they are, what their RECORD promises, under which licence they come.

Reads metadata only; the files themselves are ``scanning``'s. Nothing of a package is imported or run.
"""

from __future__ import annotations

import base64
import site
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from tenure.examples.inventory.findings import UNKNOWN_LICENCE, Package
from tenure.examples.inventory.scanning import Promise

SYSTEM_PATTERNS = (
    "usr/lib/python3/dist-packages",
    "usr/local/lib/python3*/dist-packages",
    "usr/lib/python3*/site-packages",
)
OWNED_BY_DPKG = Path("/usr/lib/python3/dist-packages")
"""Here Debian's packages put their files, changed from what RECORD says; they are checked as Debian's."""
MAX_NAMED_LICENCE_CHARS = 60


def folders() -> list[Path]:
    """Return the folders in which this interpreter and the system keep distributions."""
    candidates = [Path(entry) for entry in sys.path if entry]
    candidates += [Path(entry) for entry in site.getsitepackages()]
    candidates += [found for pattern in SYSTEM_PATTERNS for found in sorted(Path("/").glob(pattern))]
    return list(dict.fromkeys(folder.resolve() for folder in candidates if folder.is_dir()))


def installed(where: list[Path]) -> list[tuple[Package, int]]:
    """Return the distributions and how many files each has, by name."""
    found: dict[str, tuple[Package, int]] = {}
    for folder in where:
        for place in sorted((*folder.glob("*.dist-info"), *folder.glob("*.egg-info"))):
            distribution = Distribution.at(place)
            if name := _field(distribution, "Name"):
                package = Package(name=name, version=_field(distribution, "Version"), place=str(place))
                found[str(place)] = (package, len(distribution.files or ()) + 1)
    return sorted(found.values(), key=lambda item: (item[0].name.lower(), item[0].place))


def promises(package: Package) -> Iterator[Promise]:
    """Yield the files that a distribution's RECORD names, with their checksums where it gives any."""
    if Path(package.place).is_relative_to(OWNED_BY_DPKG):
        return
    for file in Distribution.at(Path(package.place)).files or ():
        digest = None
        if file.hash is not None and file.hash.mode == "sha256":
            padded = file.hash.value + "=" * (-len(file.hash.value) % 4)
            digest = base64.urlsafe_b64decode(padded).hex()
        # Byte code is made after the install and belongs to nobody's promise.
        is_optional = str(file).endswith(".pyc")
        yield Promise(str(file.locate()), "sha256", digest, is_optional)


def licence(package: Package) -> str:
    """Return the licence that the metadata gives: License-Expression, License, or the classifiers."""
    distribution = Distribution.at(Path(package.place))
    for field in ("License-Expression", "License"):
        value = _field(distribution, field).strip()
        if value and value.upper() != "UNKNOWN" and "\n" not in value and len(value) <= MAX_NAMED_LICENCE_CHARS:
            return value
    names = {
        line.rpartition("::")[2].strip()
        for line in distribution.metadata.get_all("Classifier") or ()
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    }
    return " / ".join(sorted(names)) or UNKNOWN_LICENCE


def _field(distribution: Distribution, name: str) -> str:
    """Return a field of the metadata, empty where it is missing (or the whole file is)."""
    values = distribution.metadata.get_all(name) if distribution.metadata is not None else None
    return str(values[0]) if values else ""
