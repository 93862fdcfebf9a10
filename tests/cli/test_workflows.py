"""``tenure workflows`` against a real deployment, and its live picture."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console
from tests.cli.test_end_to_end import ABSENT, Tenure, client, shared, tenure  # noqa: F401 - fixtures

from tenure.cli.live import picture
from tenure.client import Client, NewJob, SubmittedJobs, Workflow, WorkflowState
from tenure.model.states import JobState

pytestmark = pytest.mark.timeout(170)


def submit(client: Client, name: str, *, seconds: float = 0.0) -> SubmittedJobs:  # noqa: F811 - a fixture's name
    return client.submit_many(
        [
            NewJob(kind="noop", ref='first "one"'),
            NewJob(kind="sleep", ref="second", payload={"seconds": seconds}, depends_on=['first "one"']),
            NewJob(kind="noop", ref="third", depends_on=["second"]),
        ],
        workflow=name,
    )


def test_a_workflow_is_listed_shown_watched_and_drawn(
    tenure: Tenure,  # noqa: F811
    client: Client,  # noqa: F811
    tmp_path: Path,
) -> None:
    made = submit(client, "nightly")
    assert made.workflow_id
    lines = tenure("workflows", "watch", "nightly", "-o", "json").stdout.splitlines()
    assert json.loads(lines[-1])["workflow"]["state"] == "completed"
    told = tenure("workflows", "watch", made.workflow_id)
    assert (told.returncode, told.stdout.splitlines()[-1]) == (0, "completed  100%  3 completed")
    shown = tenure.json("workflows", "get", made.workflow_id)
    assert (shown["name"], shown["state"], shown["jobs"], shown["counts"]) == (
        "nightly",
        "completed",
        3,
        {"completed": 3},
    )
    assert "nightly" in tenure("workflows", "get", "nightly").stdout
    assert [one["id"] for one in tenure.json("workflows", "list", "--name", "nightly")] == [made.workflow_id]
    assert made.workflow_id in tenure("workflows", "list").stdout
    assert len(tenure.json("jobs", "list", "--workflow", made.workflow_id)) == 3
    text = tenure("workflows", "draw", "nightly").stdout
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("layer")] == ["job"] * 3
    assert 'after first "one"' in text and "\x1b" not in text
    assert tenure("workflows", "draw", "nightly", "-f", "mermaid").stdout.startswith("flowchart LR\n")
    assert tenure("workflows", "draw", "nightly", "-f", "dot").stdout.startswith("digraph workflow {\n")
    file = tmp_path / "nightly.svg"
    assert tenure("workflows", "draw", "nightly", "-f", "svg", "--output", str(file)).returncode == 0
    assert ET.parse(file).getroot().tag.endswith("svg")
    assert client.draw_workflow(made.workflow_id, "svg") == file.read_text()


def test_a_workflow_is_canceled_after_a_look(tenure: Tenure, client: Client) -> None:  # noqa: F811
    made = submit(client, "long", seconds=600)
    for seen in client.watch(made[1].id):
        if seen.state is JobState.EXECUTING:
            break
    preview = tenure.json("workflows", "cancel", "long", "--preview")
    assert (preview["canceled"], preview["asked"]) == (1, 1)
    assert tenure("workflows", "cancel", "long", stdin="").returncode == 2
    done = tenure("workflows", "cancel", "long", "--yes", "--reason", "too late", "--grace", "5s")
    assert (done.returncode, done.stdout.strip()) == (0, made.workflow_id)
    assert "1 job canceled, 1 executing one asked to stop" in done.stderr
    assert tenure("workflows", "watch", "long").returncode == 1
    assert [(job.state, job.reason) for job in client.workflow_jobs(made.workflow_id or "")][1:] == [
        ("canceled", "too late"),
        ("canceled", "too late"),
    ]


def test_what_is_not_there_or_malformed(tenure: Tenure, tmp_path: Path) -> None:  # noqa: F811
    assert tenure("workflows", "get", ABSENT).returncode == 3
    assert tenure("workflows", "get", "nobody-called-it-so").returncode == 3
    assert tenure("workflows", "draw", ABSENT).returncode == 3
    assert tenure("workflows", "cancel", ABSENT, "--grace", "soon").returncode == 2


def test_the_live_picture_says_how_far_it_is() -> None:
    workflow = Workflow(
        id=ABSENT,
        namespace="default",
        name="a\x1b[31m",
        state=WorkflowState.RUNNING,
        created_at=None,
        started_at=None,
        finished_at=None,
        submitted=4,
        jobs=4,
        counts={JobState.COMPLETED: 1, JobState.WAITING: 3},
        progress=0.25,
        canceled_at=None,
        cancel_reason="",
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(picture(workflow, []))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    assert "\x1b" not in shown
    assert "running" in shown and "█" * 10 + "░" * 30 + " 25%" in shown
    assert "waiting    3" in shown
