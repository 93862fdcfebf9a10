"""Installed Debian packages, from dpkg's own database: status, md5sums, diversions, and the copyright files.

Reads below ``root`` only, which the tests move. Runs no program, so it works where dpkg is not, by finding nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tenure.examples.inventory.findings import UNKNOWN_LICENCE, Package
from tenure.examples.inventory.scanning import Promise

ROOT = Path("/")
EXCLUDABLE = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/")
"""What minimal images leave out when they install (dpkg's path-exclude): not missing."""
MAX_COPYRIGHT_BYTES = 512 * 1024
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9])")
_SAME = {"expat": "MIT", "apache-2": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause"}
_SAID = (
    ("Apache License", "Apache-2.0"),
    ("GNU General Public", "GPL"),
    ("GNU Lesser General Public", "LGPL"),
    ("Permission is hereby granted, free of charge", "MIT"),
    ("Redistribution and use in source and binary forms", "BSD"),
    ("public domain", "public-domain"),
)


def installed(root: Path = ROOT) -> list[tuple[Package, int]]:
    """Return the installed packages and how many files each has."""
    info = root / "var/lib/dpkg/info"
    found = []
    for fields in _stanzas(root / "var/lib/dpkg/status"):
        name, version = fields.get("package", ""), fields.get("version", "")
        if not name or not fields.get("status", "").endswith(" installed"):
            continue
        with_arch = f"{name}:{fields.get('architecture', '')}"
        place = with_arch if (info / f"{with_arch}.list").exists() else name
        found.append((Package(name=name, version=version, place=place), _lines(info / f"{place}.list") + 1))
    return sorted(found, key=lambda item: item[0].place)


def promises(package: Package, root: Path = ROOT) -> Iterator[Promise]:
    """Yield the files that a package's md5sums name, where another package's diversion has put them."""
    sums = root / "var/lib/dpkg/info" / f"{package.place}.md5sums"
    moved = diversions(root)
    try:
        text = sums.read_text(errors="surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        if not name:
            continue
        target, owner = moved.get(f"/{name}", ("", ""))
        path = target.lstrip("/") if target and owner != package.name else name
        yield Promise(str(root / path), "md5", digest.strip(), name.startswith(EXCLUDABLE))


def licence(package: Package, root: Path = ROOT) -> str:
    """Return the main licence that a package's copyright file names, by DEP-5 where it is written so."""
    try:
        with open(root / "usr/share/doc" / package.name / "copyright", "rb") as file:
            text = file.read(MAX_COPYRIGHT_BYTES).decode(errors="replace")
    except OSError:
        return UNKNOWN_LICENCE
    if "copyright-format" in text[:1_000] or text.startswith("Format"):
        # The first one is that of "Files: *", by custom.
        named = re.search(r"^License:[ \t]*(\S[^\n]*)", text, re.MULTILINE | re.IGNORECASE)
        if named:
            name = named[1].strip().rstrip(",;.")
            return _SAME.get(name.lower(), name)
    if names := set(_COMMON.findall(text)):
        return " / ".join(sorted(names)[:3])
    flat = " ".join(text.split()).lower()
    return next((name for words, name in _SAID if words.lower() in flat), UNKNOWN_LICENCE)


def diversions(root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Return, per diverted path, where it went and the package that diverted it."""
    return _diversions(root / "var/lib/dpkg/diversions")


@functools.cache
def _diversions(path: Path) -> dict[str, tuple[str, str]]:
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return {}
    return {lines[i]: (lines[i + 1], lines[i + 2]) for i in range(0, len(lines) - 2, 3)}


def _stanzas(status: Path) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of dpkg's status file, first lines of fields only."""
    try:
        text = status.read_text(errors="replace")
    except OSError:
        return
    for paragraph in text.split("\n\n"):
        fields = {}
        for line in paragraph.splitlines():
            name, colon, value = line.partition(":")
            if colon and line[:1] not in (" ", "\t"):
                fields[name.lower()] = value.strip()
        yield fields


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
