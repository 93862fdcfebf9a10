"""The command line and the client against a real deployment: what people and programs read from it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.fixtures.deployment import DeploymentFactory
from tests.fixtures.etcd import EtcdServer
from tests.fixtures.postgres import PostgresServer

from tenure.cli.embedded.deployment import Deployment
from tenure.client import AsyncClient, Client, JobState, NewJob
from tenure.model.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound

pytestmark = pytest.mark.timeout(170)
ABSENT = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(scope="module")
def shared(
    postgres_server: PostgresServer,
    postgres_template: str,
    etcd_server: EtcdServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """One coordinator and one worker for all tests here that break nothing: starting them costs seconds."""
    dsn = postgres_server.create_database(postgres_template)
    with Deployment(
        tmp_path_factory.mktemp("shared"),
        coordinators=1,
        workers=1,
        worker_args=["--pool", "default", "--allow-command"],
        postgres_dsn=dsn,
        etcd_endpoints=etcd_server.endpoints,
        etcd_prefix=f"/test-{uuid.uuid4().hex}/v1/",
        drain_s=5.0,
    ) as running:
        yield running
    postgres_server.drop_database(dsn)


@pytest.fixture
def client(shared: Deployment) -> Iterator[Client]:
    with Client(shared.coordinator_addresses) as client:
        yield client
        for job in client.list(states=["ready", "executing", "restarting", "waiting"]):
            client.cancel(job.id)


class Tenure:
    """Runs ``tenure`` as a program."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith("TENURE_")}, **env}

    def __call__(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tenure.cli", *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self(*arguments, "-o", "json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def follow_all(self, *arguments: str) -> subprocess.Popen[str]:
        """Follow what it says on stderr, too."""
        return subprocess.Popen(
            [sys.executable, "-m", "tenure.cli", *arguments],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tenure.cli", *arguments], env=self.env, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture
def tenure(shared: Deployment, client: Client) -> Tenure:
    """The program, and a client that cancels what a test leaves behind."""
    return Tenure(shared.env)


def test_commands(tenure: Tenure) -> None:
    job = tenure.json("submit", "command", '{"argv": ["echo", "hi"]}', "--wait", "--label", "a=b", "--timeout", "30s")
    assert job["state"] == "completed"
    assert "hi" in json.dumps(job["result"])
    shown = tenure("jobs", "get", job["id"])
    assert "completed" in shown.stdout
    assert "\x1b" not in shown.stdout, "no color without a terminal"
    assert [listed["id"] for listed in tenure.json("jobs", "list", "--label", "a=b", "--state", "completed")] == [
        job["id"]
    ]
    [attempt] = tenure.json("jobs", "attempts", job["id"])
    assert (attempt["outcome"], attempt["attempt"]) == ("completed", 1)
    assert tenure("jobs", "attempts", job["id"]).stdout.count("completed") == 1
    [worker] = tenure.json("workers", "list")
    assert "command" in worker["kinds"]
    cluster = tenure.json("cluster")
    assert len(cluster["coordinators"]) == 1
    assert cluster["leader"]
    assert cluster["leader"] in tenure("cluster").stdout
    schema = tenure.json("db", "status")
    assert schema["is_current"]
    assert "nothing to do" in tenure("db", "migrate").stdout
    assert tenure("db", "wait").returncode == 0


def test_times_are_given_and_shown(tenure: Tenure) -> None:
    times = ("--start-within", "5m", "--job-timeout", "2h", "--route", "nobody-here")
    job = tenure.json("submit", "noop", *times)
    assert job["job_timeout_s"] == 7_200
    assert job["start_by"] and job["deadline"]
    shown = tenure("jobs", "get", job["id"]).stdout
    assert "start by" in shown and "end by" in shown
    refused = tenure("submit", "noop", "--start-within", "5m", "--start-by", "2030-01-01T00:00:00Z")
    assert (refused.returncode, "start_by" in refused.stderr) == (2, True)


def test_settings_of_kinds_and_namespaces(tenure: Tenure) -> None:
    given = ("--ttl", "20s", "--priority", "3", "--max-attempts", "7", "--limit", "noop:{namespace}")
    made = tenure.json("kinds", "set", "noop", *given)
    assert [(one["ttl_s"], one["priority"], one["retry"]["max_attempts"]) for one in made] == [(20, 3, 7)]
    job = tenure.json("submit", "noop", "--route", "nobody-here", "--namespace", "acme")
    assert (job["ttl_s"], job["priority"], job["retry"]["max_attempts"]) == (20, 3, 7)
    assert job["limits"] == ["noop:acme"]
    assert tenure.json("submit", "noop", "--route", "nobody-here", "--priority", "0")["priority"] == 0
    assert "max-attempts 7" in tenure("kinds", "list").stdout
    assert "ttl 20s" in tenure("kinds", "get", "noop").stdout
    more = ("--multiplier", "3", "--jitter", "0", "--non-retryable", "A", "--non-retryable", "B", "--priority", "4")
    [one] = tenure.json("kinds", "set", "noop", *more)
    assert (one["ttl_s"], one["priority"], one["limits"]) == (20, 4, ["noop:{namespace}"])
    policy = one["retry"]
    assert (policy["max_attempts"], policy["multiplier"], policy["jitter"]) == (7, 3, 0)
    assert policy["non_retryable"] == ["A", "B"]
    assert tenure("kinds", "get", "noop", "-n", "acme").returncode == 3
    refused = tenure("kinds", "set", "noop", "--limit", "{nothing}")
    assert (refused.returncode, "settings.limits" in refused.stderr) == (2, True)
    assert [tenure("kinds", "delete", "noop").returncode for _ in range(2)] == [0, 3]

    updated = tenure.json("namespaces", "update", "full", "--backlog", "1", "--ageing", "10m")
    assert (updated["backlog"], updated["ageing_s"], updated["weight"]) == (1, 600, 1)
    updated = tenure.json("namespaces", "update", "fast", "--submit-rate", "2.5", "--submit-burst", "1000")
    assert (updated["submit_rate"], updated["submit_burst"]) == (2.5, 1000)
    assert "2.5/s, 1,000 at once" in tenure("namespaces", "list").stdout
    assert "10m" in tenure("namespaces", "list").stdout
    codes = set[int]()
    deadline = time.monotonic() + 60
    while codes != {0, 5} and time.monotonic() < deadline:  # from when its coordinator has read the bound
        codes.add(tenure("submit", "noop", "--route", "nobody-here", "-n", "full").returncode)
    assert codes == {0, 5}


def test_many_jobs_are_canceled_by_their_pool(tenure: Tenure, client: Client) -> None:
    submitted = [client.submit("noop", route=f"nobody/here/{n}") for n in range(3)]
    client.submit("noop", route="nobody-else")
    child = client.submit("noop", depends_on=[submitted[0].id])
    asleep = client.submit("sleep", {"seconds": 600}, labels={"a": "sleeper"})
    preview = tenure.json("jobs", "cancel", "--route", "nobody", "--preview")
    assert (preview["canceled"], preview["asked"], set(preview["ids"])) == (3, 0, {job.id for job in submitted})
    assert {job["id"]: job["route"] for job in preview["jobs"]} == {job.id: job.route for job in submitted}
    shown = tenure("jobs", "cancel", "--route", "nobody/here/1", "--preview")
    assert "1 job would be canceled" in shown.stderr
    assert [text.split()[:3] for text in shown.stdout.splitlines() if "nobody/" in text] == [
        [submitted[1].id, "noop", "nobody/here/1"]
    ]
    assert tenure("jobs", "cancel", "--route", "nobody", stdin="").returncode == 2
    done = tenure("jobs", "cancel", "--route", "nobody", "--yes", "--reason", "pool closed")
    assert "3 jobs canceled" in done.stderr and "1 ended with them" in done.stderr
    assert {client.get(job.id).reason for job in submitted} == {"pool closed"}
    assert client.get(child.id).state == "canceled"
    assert [job.route for job in client.list(route_prefix="nobody-else")] == ["nobody-else"]
    for job in client.watch(asleep.id):
        if job.state == "executing":
            break
    done = tenure("jobs", "cancel", "--label", "a=sleeper", "--yes")
    assert "0 jobs canceled, 1 executing one asked to stop" in done.stderr
    assert client.wait(asleep.id, 60).state == "canceled"


def test_failed_jobs_are_looked_at_and_retried(tenure: Tenure) -> None:
    options = ("--max-attempts", "1", "--label", "batch=dead", "--wait")
    failing = '{"argv": ["sh", "-c", "echo broken >&2; exit 3"]}'
    old = [tenure.json("submit", "command", failing, *options, code=1)["id"] for _ in range(3)]
    listed = tenure("jobs", "list", "--state", "failed", "--label", "batch=dead").stdout
    assert listed.count("CommandFailed") == 3
    story = tenure("jobs", "get", old[0]).stdout
    assert "CommandFailed" in story and "outcome" in story and "retried by" not in story
    [attempt] = tenure.json("jobs", "get", old[0])["attempts"]
    assert (attempt["outcome"], attempt["error"]["type"]) == ("failed", "CommandFailed")

    new = tenure.json("jobs", "retry", old[0])
    assert (new["retry_of"], new["created"]) == (old[0], True)
    assert tenure.json("jobs", "retry", old[0])["id"] == new["id"]
    assert new["id"] in tenure("jobs", "get", old[0]).stdout
    tenure("jobs", "wait", new["id"])

    preview = tenure.json("jobs", "retry", "--label", "batch=dead", "--preview")
    assert set(preview["ids"]) == {old[1], old[2], new["id"]}
    assert {job["id"] for job in preview["jobs"]} == set(preview["ids"])
    assert all(job["kind"] == "command" and "CommandFailed" in job["error"] for job in preview["jobs"])
    assert all(job["finished_at"] for job in preview["jobs"])
    seen = tenure("jobs", "retry", "--label", "batch=dead", "--preview")
    assert "finished" in seen.stdout and seen.stdout.count("CommandFailed") == 3
    assert "3 jobs would be retried" in seen.stderr
    assert "\n0 jobs would be retried" in tenure("jobs", "retry", "--kind", "zilch", "--preview").stderr
    asked = tenure("jobs", "retry", "--label", "batch=dead", stdin="")
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    done = tenure("jobs", "retry", "--label", "batch=dead", "--yes")
    assert "3 jobs retried" in done.stderr
    assert len(done.stdout.split()) == 3
    tenure("jobs", "wait", *done.stdout.split())

    completed = tenure.json("submit", "noop", "--wait")["id"]
    refused = tenure("jobs", "retry", completed)
    assert (refused.returncode, "is completed" in refused.stderr) == (4, True)
    assert "try: submit another" in refused.stderr


def test_doctor(tenure: Tenure) -> None:
    findings = tenure.json("doctor")
    assert {"fail"}.isdisjoint({finding["level"] for finding in findings}), findings
    assert any("answers" in finding["detail"] for finding in findings)
    [store] = [finding for finding in findings if finding["what"] == "object store"]
    assert store["level"] == "ok" and "fetch by a signed URL" in store["detail"], store
    [clocks] = [finding["detail"] for finding in findings if finding["check"] == "clocks"]
    assert "coordinator" in clocks and "postgres" in clocks, clocks
    shown = tenure("doctor").stdout
    assert "clocks: " in shown and "a commit" in shown
    assert "try:" in tenure("doctor").stdout


def test_what_is_not_there_is_refused_with_the_list_of_what_is(tenure: Tenure) -> None:
    for listing in ("limits", "kinds", "schedules", "workflows"):
        assert f"try: tenure {listing} list" in tenure(listing, "get", "nothing-here").stderr


def test_exit_codes_and_messages(tenure: Tenure) -> None:
    absent = tenure("jobs", "get", ABSENT)
    assert (absent.returncode, "try: tenure jobs list" in absent.stderr) == (3, True)
    odd = tenure("jobs", "get", "no-id")
    assert (odd.returncode, "is not an id" in odd.stderr and "try:" in odd.stderr) == (2, True)
    refused = tenure("submit", "noop", "--pool", "BAD//")
    assert refused.returncode == 2
    assert "route" in refused.stderr
    failed = tenure("submit", "command", '{"argv": ["false"]}', "--wait", "--max-attempts", "1")
    assert failed.returncode == 1, failed.stderr
    assert "failed" in failed.stdout
    late = tenure("submit", "sleep", '{"seconds": 60}', "--wait", "--timeout", "300ms")
    assert late.returncode == 7, late.stderr
    first = tenure.json("submit", "noop", "1", "--key", "cli-key")
    second = tenure("submit", "noop", "1", "--key", "cli-key", "-o", "json")
    assert json.loads(second.stdout)["id"] == first["id"]
    assert "earlier job" in second.stderr
    other = tenure("submit", "noop", "2", "--key", "cli-key")
    assert (other.returncode, "error: job.idempotency_key 'cli-key'" in other.stderr) == (4, True)


def test_a_waited_for_job_says_whether_it_was_created(tenure: Tenure) -> None:
    asked = ("submit", "noop", "--unique", "once", "--wait")
    assert tenure.json(*asked)["created"] is True
    held = tenure.json("submit", "noop", "--unique", "once", "--delay", "1h")
    replacing = tenure.json(*asked, "--on-duplicate", "replace")
    assert (replacing["created"], replacing["id"] == held["id"]) == (True, False)
    again = [tenure.json("submit", "noop", "--key", "waited-for", "--wait") for _ in range(2)]
    assert [one["created"] for one in again] == [True, False]


def test_who_waits_is_told_once_what_is_in_the_way(tenure: Tenure, client: Client) -> None:
    job = client.submit("nobody-handles-this")
    with tenure.follow_all("jobs", "wait", job.id, "-o", "json") as waiting:
        assert waiting.stdout is not None and waiting.stderr is not None
        note = waiting.stderr.readline()
        assert job.id in note and "handles the kind nobody-handles-this" in note
        assert "still waiting" in waiting.stderr.readline()
        assert waiting.poll() is None
        client.cancel(job.id)
        assert json.loads(waiting.stdout.read())["state"] == "canceled"
        assert waiting.stderr.read() == ""
        assert waiting.wait(30) == 1


def test_who_submits_and_waits_is_told_of_a_pause(tenure: Tenure, client: Client) -> None:
    client.pause(kind="noop", reason="a bad release")
    try:
        with tenure.follow_all("submit", "noop", "--wait") as waiting:
            assert waiting.stderr is not None
            assert "the kind noop is paused: a bad release" in waiting.stderr.readline()
            client.resume(kind="noop")
            assert waiting.wait(60) == 0
    finally:
        client.resume(kind="noop")


def test_a_look_at_a_job_that_nobody_runs_names_the_command_that_says_why(tenure: Tenure, client: Client) -> None:
    unhandled = client.submit("nobody-handles-this", labels={"look": "at"})
    unroutable = client.submit("noop", route="nobody/here", labels={"look": "at"})
    for job, words in ((unhandled, "handles the kind"), (unroutable, "serves the route nobody/here")):
        told = tenure("jobs", "get", job.id).stderr
        assert words in told and f"try: tenure jobs why {job.id}" in told
        assert not tenure("jobs", "get", job.id, "-o", "json").stderr
    told = tenure("jobs", "list", "--label", "look=at").stderr
    assert "of 2 of these jobs" in told and f"try: tenure jobs why {unroutable.id}" in told
    assert not tenure("jobs", "list", "--label", "look=at", "-o", "json").stderr
    assert "note" not in tenure("jobs", "list", "--state", "completed").stderr
    later = client.submit("noop", delay_s=3600)
    assert not tenure("jobs", "get", later.id).stderr, "it waits for its time: nothing is to be done"


def test_lines_are_submitted_and_told_of_in_their_order(tenure: Tenure) -> None:
    lines = ["{", '{"kind": "noop"}', '{"kind": "noop", "colour": 1}', '{"kind": "noop", "priority": 5000}', "{}", ""]
    done = tenure("submit", "--from", "-", "-o", "json", stdin="\n".join(lines))
    assert done.returncode == 1, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["line"] for one in told] == [1, 2, 3, 4, 5]
    assert ["error" in one for one in told] == [True, False, True, True, True]
    assert "character 3" in told[0]["error"] and "colour" in told[2]["error"]


def test_an_idle_source_does_not_hold_up_the_end(tenure: Tenure) -> None:
    """Ctrl-C, while the next line may never come."""
    with subprocess.Popen(
        [sys.executable, "-m", "tenure.cli", "submit", "noop", "--from", "-", "-o", "json"],
        env=tenure.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write("{}\n")
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["line"] == 1
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130


def test_watch_and_cancel(tenure: Tenure) -> None:
    job = tenure.json("submit", "sleep", '{"seconds": 120}')
    watching = tenure.follow("jobs", "watch", job["id"], "-o", "json")
    assert watching.stdout is not None
    for text in watching.stdout:
        if json.loads(text)["state"] == "executing":
            break
    assert tenure("jobs", "cancel", job["id"], "--reason", "enough").returncode == 0
    last = json.loads(watching.stdout.read().splitlines()[-1])
    assert last["state"] == "canceled"
    assert watching.wait(30) == 0
    assert tenure("jobs", "wait", job["id"]).returncode == 1


def test_claims(tenure: Tenure, client: Client) -> None:
    watching = tenure.follow("claims", "watch", "-o", "json")
    try:
        job = client.submit("sleep", {"seconds": 120}, ttl_s=2)
        _until(client, job.id, JobState.EXECUTING)
        [claim] = [claim for claim in tenure.json("claims", "list") if claim["job_id"] == job.id]
        assert claim["kind"] == "sleep"
        assert watching.stdout is not None
        seen = _next_of(watching, job.id)
        assert seen["event"] in ("claimed", "held")
        assert seen["claim"]["kind"] == "sleep"
        revoked = tenure("claims", "revoke", job.id)
        assert revoked.returncode == 0, revoked.stderr
        assert _next_of(watching, job.id)["event"] == "gone"
        for changed in client.watch(job.id):
            if changed.attempt == 2:
                break
        assert tenure("claims", "revoke", ABSENT).returncode == 3
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130


def test_taking_a_job_away_is_no_crash(client: Client) -> None:
    job = client.submit("sleep", {"seconds": 120}, ttl_s=2)
    _until(client, job.id, JobState.EXECUTING)
    assert client.revoke_claim(job.id)
    for changed in client.watch(job.id):
        if changed.attempt == 2:
            break
    assert client.get(job.id).crashes == 0


def test_hostile_text_stays_text(tenure: Tenure, client: Client) -> None:
    job = client.submit("noop", {"text": "\x1b]0;owned\x07"}, route="default")
    client.wait(job.id, 30)
    shown = tenure("jobs", "get", job.id).stdout
    assert "\x1b" not in shown
    assert "owned" in shown


def test_logs_are_shown_and_followed(tenure: Tenure, client: Client) -> None:
    script = "printf 'one\\n\\033[2Jtwo\\n'; sleep 1; echo three >&2"
    job = client.submit("command", {"argv": ["sh", "-c", script]})
    following = tenure.follow("jobs", "logs", job.id, "-f")
    out, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    assert [line[13:] for line in out.splitlines()] == [
        "#1 INFO     one  (stdout)",
        "#1 INFO     \\x1b[2Jtwo  (stdout)",
        "#1 WARNING  three  (stderr)",
    ]
    done = tenure("jobs", "logs", job.id, "--level", "warning", "--tail", "5", "-o", "json")
    [line] = map(json.loads, done.stdout.splitlines())
    assert (line["attempt"], line["seq"], line["level"], line["message"]) == (1, 3, "warning", "three")
    document = tenure("jobs", "logs", job.id, "--level", "warning", "--tail", "5", "-o", "yaml").stdout
    assert [one["message"] for one in yaml.safe_load_all(document)] == ["three"]
    assert tenure("jobs", "logs", job.id, "--attempt", "2").stdout == ""
    assert [line.message for line in client.logs(job.id, limit=1)] == ["one"]
    assert tenure("jobs", "logs", ABSENT).returncode == 3


def test_client(client: Client) -> None:
    batch = client.submit_many(
        [
            NewJob(kind="noop", ref="first", payload=1, labels={"test": "batch"}),
            NewJob(kind="sleep", ref="second", payload={"seconds": 0.1}, depends_on=["first"]),
            NewJob(kind="noop", depends_on=["first", "second"], labels={"test": "batch"}),
        ]
    )
    assert [made.ref for made in batch] == ["first", "second", None]
    ended = client.wait_many([made.id for made in batch], timeout_s=60)
    assert [job.state for job in ended] == [JobState.COMPLETED] * 3
    assert ended[2].depends_on == (batch[0].id, batch[1].id)
    assert ended[0].started_at is not None
    assert ended[1].started_at is not None
    assert ended[0].finished_at is not None
    assert ended[0].finished_at <= ended[1].started_at
    states = [job.state for job in client.watch(batch[2].id)]
    assert states == [JobState.COMPLETED]
    assert len(list(client.list(kind="noop", labels={"test": "batch"}, page_size=1))) == 2


def test_client_errors(client: Client) -> None:
    with pytest.raises(NotFound):
        client.get(ABSENT)
    with pytest.raises(InvalidInput) as caught:
        client.submit_many([NewJob(kind="noop"), NewJob(kind="", route="//", ttl_s=0.1)])
    fields = {violation.field for violation in caught.value.violations}
    assert {"jobs[1].kind", "jobs[1].route"} <= fields, fields
    with pytest.raises(InvalidInput):
        client.submit("noop", "\0")
    client.submit("noop", 1, idempotency_key="client-key")
    with pytest.raises(Conflict):
        client.submit("noop", 2, idempotency_key="client-key")
    later = client.submit("noop", delay_s=3600)
    with pytest.raises(DeadlineExceeded, match="still ready") as late:
        client.wait(later.id, timeout_s=0.5)
    assert late.value.hint == f"tenure jobs why {later.id}"
    assert client.cancel(later.id, "not needed").state is JobState.CANCELED


async def test_waiting_survives_a_coordinator(database: str, etcd_prefix: str, deployment: DeploymentFactory) -> None:
    """The coordinator that a client waits at is killed: the answer comes from the other one."""
    running = await asyncio.to_thread(lambda: deployment(coordinators=2, workers=1, worker_args=["--pool", "default"]))
    async with AsyncClient(running.coordinator_addresses) as client:
        job = await client.submit("sleep", {"seconds": 4})
        waiting = asyncio.create_task(client.wait(job.id, timeout_s=90))

        async def follow() -> list[JobState]:
            return [seen.state async for seen in client.watch(job.id)]

        watching = asyncio.create_task(follow())
        async for seen in client.watch(job.id):
            if seen.state is JobState.EXECUTING:
                break
        await asyncio.to_thread(running.coordinators[0].kill)
        assert (await waiting).state is JobState.COMPLETED
        states = await watching
        assert states[-1] is JobState.COMPLETED
        assert len(states) == len(set(states)), "a state was told twice"


def _next_of(watching: subprocess.Popen[str], job_id: str) -> Any:
    assert watching.stdout is not None
    for text in watching.stdout:
        if job_id in text:
            return json.loads(text)
    raise AssertionError(f"nothing more was told of {job_id}")


def _until(client: Client, job_id: str, state: JobState) -> None:
    for job in client.watch(job_id):
        if job.state is state:
            return
    raise AssertionError(f"{job_id} ended without being {state}")
