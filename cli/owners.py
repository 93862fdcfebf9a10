"""``tenure jobs owners``: who has held a job, one after the other, under which fence, and how each claim ended.

Attempts come from Postgres; how the job is held at this moment, from etcd. Both through a coordinator.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import completing
from tenure.cli.output import Format, Output, print_data, print_fields, span, state_text, to_stderr, to_stdout
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch, show

if TYPE_CHECKING:
    from tenure.client import Attempt, Client, Job, JobClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One that has held the job, or holds it."""

    job_id: str
    attempt: int | None
    """None: claimed, and not started yet."""
    fence: int | None
    worker: str
    lease: str
    """In hex, as etcdctl takes it."""
    claim_revision: int
    """The revision of etcd that created the claim: with the lease its identity, and an order over all owners."""
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str
    """How it ended; ``executing`` or ``pending`` while it lasts."""
    why: str
    unowned_s: float | None
    """How long nobody held the job before: from the end of the owner before to this start."""
    lease_left_s: float | None
    """Of a claim that stands: whole seconds rounded down, renewed by every KeepAlive."""
    lease_granted_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """All owners of a job, oldest first, and how it stands now."""

    id: str
    state: str
    is_held: bool
    """A claim stands in etcd."""
    hold: str | None
    """The reason of a hold, by which nobody may run it."""
    etcd_revision: int
    owners: tuple[Owner, ...]


def owners(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the job.", autocompletion=completing.jobs)],
    watch: Watch = False,
    every: Every = EVERY,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Show who has held a job: fences, revisions and leases, when, how each ended; and what its lease has left now."""
    columns: list[Column[Owner]] = [
        Column("attempt", lambda o: o.attempt, rank=0, is_whole=True),
        Column("fence", lambda o: o.fence, rank=2, is_whole=True),
        Column("revision", lambda o: o.claim_revision, rank=4, is_whole=True),
        Column("worker", lambda o: o.worker, rank=0),
        Column("lease", lambda o: o.lease, rank=4, is_whole=True),
        Column("started", lambda o: _clock(o.started_at), rank=3, is_whole=True),
        Column("held", _held, rank=1, is_whole=True),
        Column("free before", lambda o: "" if o.unowned_s is None else span(o.unowned_s), rank=3, is_whole=True),
        Column("ended", lambda o: state_text(o.outcome), rank=0, is_whole=True),
        Column("lease left", _left, rank=1, is_whole=True),
        Column("why", lambda o: o.why, rank=1),
    ]
    with connect(coordinator) as client:
        if output.is_data and not watch:
            print_data(read(client, job_id), output)
            return
        last: list[Ownership] = []

        def look() -> Sequence[Owner]:
            last[:] = [read(client, job_id)]
            return last[0].owners

        if not watch:
            found = read(client, job_id)
            print_fields((("job", found.id), ("state", state_text(found.state)), ("held back", found.hold)))
            to_stdout("")
            show(lambda: found.owners, columns, output, empty="nobody has held it yet")
            if told := note(found, os.environ.get("TENURE_ETCD_PREFIX")):
                to_stderr(told)
            return
        show(look, columns, output, empty="nobody has held it yet", watch=True, every=every)


def read(client: Client, job_id: str) -> Ownership:
    """Return who has held a job and who does.

    The claim is read before the attempts: what has ended since then has no lease left to show.

    Raises:
        NotFound: there is no such job.
    """
    claim, attempts, job = client.claim_of(job_id), client.attempts(job_id), client.get(job_id)
    return ownership(job, attempts, claim)


def ownership(job: Job, attempts: Sequence[Attempt], claim: JobClaim) -> Ownership:
    """Put attempts and the claim together. Pure."""
    from tenure.client.records import lease_hex

    found: list[Owner] = []
    ended_at: datetime | None = None
    for attempt in attempts:
        stands = claim.worker is not None and (attempt.lease, attempt.claim_revision) == (claim.lease, claim.revision)
        found.append(
            Owner(
                job_id=job.id,
                attempt=attempt.attempt,
                fence=attempt.fence,
                worker=attempt.worker,
                lease=lease_hex(attempt.lease),
                claim_revision=attempt.claim_revision,
                started_at=attempt.started_at,
                ended_at=attempt.finished_at,
                outcome=str(attempt.outcome or "executing"),
                why=f"{attempt.error.type}: {attempt.error.message}" if attempt.error else "",
                unowned_s=_between(ended_at, attempt.started_at),
                lease_left_s=claim.remaining_s if stands and attempt.outcome is None else None,
                lease_granted_s=claim.granted_s if stands and attempt.outcome is None else None,
            )
        )
        ended_at = attempt.finished_at
    if claim.worker is not None and all(claim.revision != one.claim_revision for one in found):
        found.append(_pending(job, claim, ended_at))
    return Ownership(
        id=job.id,
        state=str(job.state),
        is_held=claim.worker is not None,
        hold=claim.hold,
        etcd_revision=claim.read_at_revision,
        owners=tuple(found),
    )


def _pending(job: Job, claim: JobClaim, ended_at: datetime | None) -> Owner:
    from tenure.client.records import lease_hex

    return Owner(
        job_id=job.id,
        attempt=None,
        fence=None,
        worker=claim.worker or "?",
        lease=lease_hex(claim.lease),
        claim_revision=claim.revision,
        started_at=claim.claimed_at,
        ended_at=None,
        outcome="pending",
        why="claimed, not started yet",
        unowned_s=_between(ended_at, claim.claimed_at),
        lease_left_s=claim.remaining_s,
        lease_granted_s=claim.granted_s,
    )


def _between(ended_at: datetime | None, started_at: datetime | None) -> float | None:
    if ended_at is None or started_at is None:
        return None
    return max((started_at - ended_at).total_seconds(), 0.0)


def _held(owner: Owner) -> str:
    if owner.started_at is None:
        return ""
    until = owner.ended_at or datetime.now(owner.started_at.tzinfo)
    return span(max((until - owner.started_at).total_seconds(), 0.0))


def _left(owner: Owner) -> str:
    if owner.lease_left_s is None:
        return ""
    return f"{owner.lease_left_s:g}s of {owner.lease_granted_s or 0:g}s"


def _clock(at: datetime | None) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}" if at else ""


def note(found: Ownership, prefix: str | None) -> str:
    """Say what a person would do next. ``prefix`` is that of etcd's keys; None: it is not known here. Pure."""
    from tenure.store.etcd.keyspace import DEFAULT_PREFIX, Keyspace

    if found.hold is not None:
        told = "an operator holds it back" + (f": {found.hold}" if found.hold else "")
        step = f"try: etcdctl del {Keyspace(prefix or DEFAULT_PREFIX).hold(found.id)}"
        return f"{told}\n{step}" + (
            "" if prefix else "\n(the key of the coordinators' TENURE_ETCD_PREFIX, if they have one)"
        )
    last = found.owners[-1] if found.owners else None
    if last is not None and last.outcome == "executing" and last.lease_left_s is None:
        return "its claim is gone from etcd: the attempt is reaped, or reports its end, within seconds"
    return ""
