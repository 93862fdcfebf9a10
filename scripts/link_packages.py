"""Make the folders of the checkout importable as tenure.* in .venv: a folder of links and a .pth file.

Linters and type checkers follow the links where they cannot follow an import hook (STYLE: Imports).
The mapping is read from pyproject.toml, so that there is one list.
"""

from __future__ import annotations

import pathlib
import sysconfig
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINKS = ROOT / ".dev"


def main() -> None:
    """Lay the links afresh and point the environment at them."""
    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    package = LINKS / "tenure"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        link.unlink()
    for name, folder in mapping.items():
        (package / name.removeprefix("tenure.")).symlink_to(ROOT / folder)
    site = pathlib.Path(sysconfig.get_path("purelib"))
    (site / "tenure_dev.pth").write_text(f"{LINKS}\n")


if __name__ == "__main__":
    main()
