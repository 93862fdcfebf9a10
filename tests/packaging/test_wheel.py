"""The wheel holds every module and every data file, and the packages named in pyproject.toml are those that exist."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {".py", ".pyi", ".sql", ".proto", ".mako", ".ini", ".typed", ".html", ".js", ".css", ".svg", ".LICENSE"}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def shipped_files() -> set[str]:
    """Every file of the package folders that users need, under its name in the wheel."""
    found = set()
    for package, folder in SETTINGS["package-dir"].items():
        for path in (ROOT / folder).rglob("*"):
            is_for_others = package == "tenure.examples" and path.suffix not in {".py", ".typed"}  # such as Node.js
            if path.is_file() and path.suffix in SHIPPED and "__pycache__" not in path.parts and not is_for_others:
                found.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}")
    return found


def test_every_folder_with_modules_is_a_named_package() -> None:
    named = set(SETTINGS["packages"])
    for package, folder in SETTINGS["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            below = init.parent.relative_to(ROOT / folder).parts
            assert ".".join((package, *below)) in named
    for package in named:
        top = ".".join(package.split(".")[:2])
        folder = ROOT / SETTINGS["package-dir"][top] / "/".join(package.split(".")[2:])
        assert (folder / "__init__.py").exists(), (
            f"{package} is named in pyproject.toml but {folder} has no __init__.py"
        )


@pytest.mark.timeout(300)
def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    # Built from a copy: building writes into the source folder, and other tests run at the same time.
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        "__pycache__", ".venv", ".dev", ".git", ".tenure", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, source, ignore=ignored, symlinks=True)
    command = [
        sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-build-isolation", "--no-index", "-w", str(tmp_path / "dist"), str(source),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=250, stdin=subprocess.DEVNULL)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert shipped_files() <= names
    assert not [name for name in names if name.startswith(("tests/", "deploy/", "docs/"))]
    assert [name for name in names if name.endswith("entry_points.txt")]


def test_every_top_package_is_typed() -> None:
    for folder in SETTINGS["package-dir"].values():
        assert (ROOT / folder / "py.typed").exists()
