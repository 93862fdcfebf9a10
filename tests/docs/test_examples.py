"""The examples of README.md and of the documents below do what they say.

A comment before a block says what it is: ``<!-- file: NAME -->`` is written down as a module, ``<!-- client: NAME -->``
is a program that runs against a deployment whose workers import these modules, ``<!-- shell -->`` are commands for the
same deployment, ``<!-- archive: NAME -->`` is a program that reads an archive, as
``tests.coordinator.test_archive_document`` has it do, ``<!-- services -->`` are commands each of which joins it and
runs until it is stopped.
``print(…)  # text`` in a client is its promise of what is printed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fixtures.deployment import DeploymentFactory

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "README.md",
    "docs/ACCESS.md",
    "docs/ARCHIVE.md",
    "docs/AUDIT.md",
    "docs/DEPENDENCIES.md",
    "docs/DISPATCH.md",
    "docs/HANDLERS.md",
    "docs/JOBS.md",
    "docs/LOGS.md",
    "docs/OBJECTS.md",
    "docs/RETENTION.md",
    "docs/SCHEDULES.md",
    "docs/SUBMIT.md",
    "docs/TLS.md",
    "docs/TRACING.md",
    "docs/WORKFLOWS.md",
]
TRIED_ELSEWHERE = {"docs/TUTORIAL.md"}
"""Step by step, in ``tests.docs.test_tutorial``."""
PAGES = ["README.md", "CHANGELOG.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
READY_S = 60.0
_BLOCK = re.compile(r"(?:^<!-- (\w+)(?:: (\S+))? -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMISE = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:)([^)#]+)(?:#[^)]*)?\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block and the comment before it."""

    role: str
    name: str
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [Block(role or "", name or "", language, body) for role, name, language, body in _BLOCK.findall(text)]


def write_modules(document: str, folder: Path) -> list[str]:
    """Write the document's files; return the names of those that declare handlers."""
    files = [block for block in blocks(document) if block.role == "file"]
    for block in files:
        (folder / block.name).write_text(block.text, encoding="utf-8")
    return [Path(block.name).stem for block in files if "@handler(" in block.text]


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return what a reader's shell would have, and ``env``."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TENURE_", "PYTEST_"))}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
    return {**own, **env}


def run(command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(env or {}), capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def serve(line: str, folder: Path, env: Mapping[str, str]) -> None:
    """Run a command until it is ready and then stop it, or to its end where it ends by itself."""
    told = folder / "service.out"
    with told.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"], cwd=folder, env=environment(env), stdin=subprocess.DEVNULL,
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + READY_S
        while process.poll() is None and not re.search(r"(coordinator|worker)_ready", told.read_text()):
            assert time.monotonic() < deadline, f"{line}\n{told.read_text()}"
            time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(READY_S) == 0, f"{line}\n{told.read_text()}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_python_and_shell_block_is_tested(document: str) -> None:
    for block in blocks(document):
        if block.language == "python":
            assert block.role in ("file", "client", "archive"), f"not marked: {block.text[:80]}"
        if block.language == "sh":
            assert block.role in ("shell", "services"), f"not marked: {block.text[:80]}"


def test_no_page_has_examples_that_nobody_tries() -> None:
    marked = {
        page for page in PAGES if {block.role for block in blocks(page)} & {"file", "client", "shell", "services"}
    }
    assert marked - set(DOCUMENTS) == TRIED_ELSEWHERE


@pytest.mark.parametrize("document", PAGES)
def test_links_lead_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    missing = [to for to in _LINK.findall((ROOT / document).read_text()) if not (folder / to).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:[`$&] ?|&& )make ([a-z-]+)", (ROOT / document).read_text())
    assert set(named) <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_the_examples_need_is_said(document: str, tmp_path: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    unsaid = [module for module in write_modules(document, tmp_path) if f"--import {module}" not in text]
    assert not unsaid or document == "docs/HANDLERS.md", "a whole page about modules"
    examples = " ".join(block.text for block in blocks(document) if block.role in ("client", "shell"))
    if re.search(r"\b(noop|sleep)\b", examples):
        assert "HANDLERS.md#built-in-kinds" in text
        assert "### Built-in kinds" in (ROOT / "docs/HANDLERS.md").read_text(encoding="utf-8")


def test_the_readme_names_the_command_that_says_why() -> None:
    tried = (ROOT / "README.md").read_text(encoding="utf-8").split("## Try it")[1].split("## How it works")[0]
    assert "tenure jobs why" in tried


def test_the_readme_lists_every_document() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in text]
    assert not missing


def test_the_index_of_the_documentation_lists_every_page() -> None:
    linked = {to.strip() for to in _LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))}
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in linked | {"README.md"}]
    assert not missing


def test_the_readme_names_what_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "make check && make test" in readme
    assert "make check" in ci and "make test" in ci


@pytest.mark.parametrize(
    "document", [page for page in DOCUMENTS if any(block.name.startswith("test_") for block in blocks(page))]
)
def test_the_documented_tests_pass(document: str, tmp_path: Path) -> None:
    write_modules(document, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    assert " passed" in run([*command, "--rootdir", str(tmp_path), str(tmp_path)], tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_clients_and_commands_do_what_they_say(document: str, deployment: DeploymentFactory, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    modules = write_modules(document, folder)
    worker_args = [part for module in modules for part in ("--import", module)]
    made = deployment(worker_args=worker_args, env={"PYTHONPATH": str(folder)})
    (folder / ".tenure").mkdir()
    (folder / ".tenure" / "up").symlink_to(made.folder.path)
    tried = 0
    for block in blocks(document):
        if block.role == "client":
            script = folder / block.name
            script.write_text(block.text, encoding="utf-8")
            told = run([sys.executable, script.name], folder, {"TENURE_COORDINATOR": made.env["TENURE_COORDINATOR"]})
            promised = _PROMISE.findall(block.text)
            assert promised and told.splitlines() == promised
            tried += 1
        elif block.role == "shell":
            run(["sh", "-e", "-c", block.text], folder)
            tried += 1
        elif block.role == "services":
            joining = {**made.env, "TENURE_GRPC_LISTEN": "127.0.0.1:0", "TENURE_HTTP_LISTEN": "127.0.0.1:0"}
            for line in block.text.splitlines():
                serve(line, folder, joining)
                tried += 1
    assert tried
