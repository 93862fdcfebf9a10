"""docs/CLI.md is what the commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_fresh() -> None:
    script = ROOT / "scripts" / "generate_cli.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_has_a_section() -> None:
    text = (ROOT / "docs" / "CLI.md").read_text(encoding="utf-8")
    for name in ("tenure jobs owners", "tenure claims watch", "tenure top", "tenure doctor", "tenure up"):
        assert f"\n### {name}\n" in text
        assert f"(#{name.replace(' ', '-')})" in text
