"""``tenure jobs owners``: the story of a job's owners, and what the lease of the last one has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from tests.fixtures.deployment import DeploymentFactory

from tenure.cli.embedded.deployment import Deployment
from tenure.cli.owners import note, ownership
from tenure.client import Attempt, Client, Job, JobClaim
from tenure.client.records import lease_hex
from tenure.model.errors import NotFound
from tenure.model.states import Outcome

T = TypeVar("T")
START = datetime(2026, 11, 22, tzinfo=UTC)
SOON_S = 60.0
ABSENT = "01890a5d-ac96-774b-bcce-b302099a8057"


def tenure(made: Deployment, *arguments: str) -> str:
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("TENURE_")}, **made.env}
    done = subprocess.run(
        [sys.executable, "-m", "tenure.cli", *arguments], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {SOON_S:g} s: {what}")


@pytest.mark.timeout(170)
def test_a_killed_worker_and_its_successor(deployment: DeploymentFactory) -> None:
    made = deployment(workers=2)
    with Client(made.coordinator_addresses) as client:
        with pytest.raises(NotFound):
            client.claim_of(ABSENT)
        job = client.submit("sleep", {"seconds": 600}, ttl_s=2).id
        until(lambda: client.get(job).state == "executing" or None, "the first attempt")
        claim = client.claim_of(job)
        assert claim.worker and claim.granted_s == 2 and claim.remaining_s is not None
        assert claim.hold is None and claim.revision <= claim.read_at_revision
        [standing] = [one for one in client.claims() if one.job_id == job]
        assert (claim.lease, claim.revision, claim.claimed_at) == (
            standing.lease,
            standing.revision,
            standing.claimed_at,
        )
        [victim] = [worker for worker in made.workers if worker.id == claim.worker]
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: client.get(job).attempt == 2 or None, "the second attempt")
        told: dict[str, Any] = json.loads(tenure(made, "jobs", "owners", job, "-o", "json"))
        first, second = told["owners"]
        assert (first["worker"], first["outcome"], first["lease_left_s"]) == (claim.worker, "lost", None)
        assert (second["outcome"], second["lease_granted_s"]) == ("executing", 2)
        assert second["worker"] != first["worker"]
        assert second["fence"] > first["fence"] and second["claim_revision"] > first["claim_revision"]
        assert second["unowned_s"] is not None
        shown = tenure(made, "jobs", "owners", job)
        assert "lost" in shown and "of 2s" in shown and second["lease"] in shown
        client.cancel(job)
        client.wait(job, SOON_S)
        assert client.claim_of(job).worker is None
        ended = json.loads(tenure(made, "jobs", "owners", job, "-o", "json"))
        assert [one["outcome"] for one in ended["owners"]] == ["lost", "canceled"]
        assert not ended["is_held"]


def job_of(**changes: Any) -> Job:
    fields: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
    return Job(**{**fields, "id": "j", "state": "executing", **changes})


def claim_of(**changes: Any) -> JobClaim:
    fields = {
        "job_id": "j", "worker": None, "lease": 0, "revision": 0, "claimed_at": None, "remaining_s": None,
        "granted_s": None, "hold": None, "read_at_revision": 99,
    }  # fmt: skip
    return JobClaim(**{**fields, **changes})


def attempt_of(number: int, **changes: Any) -> Attempt:
    fields = {
        "job_id": "j", "attempt": number, "fence": number, "worker": f"w{number}", "lease": 7,
        "claim_revision": 10 * number, "outcome": None, "error": None, "started_at": START, "finished_at": None,
    }  # fmt: skip
    return Attempt(**{**fields, **changes})


def test_a_claim_that_has_not_started_is_pending() -> None:
    ended = attempt_of(1, outcome=Outcome.LOST, finished_at=START)
    claim = claim_of(worker="w2", lease=8, revision=20, claimed_at=START + timedelta(seconds=3), remaining_s=5.0)
    first, second = ownership(job_of(state="restarting"), [ended], claim).owners
    assert (first.outcome, first.lease_left_s) == ("lost", None)
    assert (second.attempt, second.outcome, second.unowned_s, second.lease_left_s) == (None, "pending", 3.0, 5.0)


def test_another_claim_on_the_same_lease_is_not_this_attempts() -> None:
    [one, pending] = ownership(job_of(), [attempt_of(1)], claim_of(worker="w2", lease=7, revision=11)).owners
    assert one.lease_left_s is None
    assert pending.outcome == "pending"


def test_nobody_yet() -> None:
    found = ownership(job_of(state="ready"), [], claim_of(hold=""))
    assert (found.owners, found.is_held, found.hold) == ((), False, "")


def test_the_next_step_for_a_hold_can_be_run_as_it_is_printed() -> None:
    held = ownership(job_of(state="ready"), [], claim_of(hold="runaway"))
    assert note(held, "/acme/").splitlines() == ["an operator holds it back: runaway", "try: etcdctl del /acme/holds/j"]
    told = note(held, None).splitlines()
    assert told[1] == "try: etcdctl del /tenure/v1/holds/j"
    assert "TENURE_ETCD_PREFIX" in told[2]
    assert note(ownership(job_of(state="ready"), [], claim_of()), None) == ""


@pytest.mark.parametrize(("lease", "written"), [(0x7587, "0000000000007587"), (-1, "f" * 16)])
def test_leases_are_written_as_etcdctl_takes_them(lease: int, written: str) -> None:
    assert lease_hex(lease) == written
