"""What the client gives back and takes: frozen records with Python's own types, no protobuf inside.

Invariant: times are aware UTC datetimes, durations are seconds (``_s``), payloads and results are parsed JSON.
Built by ``client.convert`` only. Deliberately no behaviour beyond reading oneself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tenure.model.dependencies import Trigger, UpstreamFailure
from tenure.model.retry import Backoff, RetryPolicy
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.states import TERMINAL, JobState, Outcome
from tenure.model.unique import OnDuplicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how soon a failed job is tried again. What is None takes the service's default."""

    max_attempts: int | None = None
    """Attempts that may end in an error; 1 means no retry."""
    backoff: Backoff | str | None = None
    """How the pauses grow: exponential, linear, fixed."""
    initial_backoff_s: float | None = None
    multiplier: float | None = None
    max_backoff_s: float | None = None
    jitter: float | None = None
    """Share of the backoff by which it may vary, 0 to 1."""
    non_retryable: Sequence[str] = ()
    """Error types that fail the job at once: names of classes or, where handlers tell them, of their bases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """One job to submit. ``payload`` is anything that JSON can hold, or a pydantic model."""

    kind: str
    payload: Any = None
    namespace: str = DEFAULT_NAMESPACE
    route: str = DEFAULT_ROUTE
    priority: int | None = None
    """Higher runs first; None: as set for its kind, else 0. The same goes for what else is None."""
    activate_at: datetime | None = None
    """Not before this instant; must carry a time zone. At most one of ``activate_at`` and ``delay_s``."""
    delay_s: float | None = None
    retry: Retry | None = None
    ttl_s: float | None = None
    """Lease TTL of its claims: how soon it restarts elsewhere when its worker dies."""
    timeout_s: float | None = None
    """The most that one attempt may take."""
    start_within_s: float | None = None
    """When its first attempt must have started, else it fails: counted from its first possible start."""
    start_by: datetime | None = None
    """The same as an instant; must carry a time zone. At most one of the two."""
    job_timeout_s: float | None = None
    """The most that all attempts may take together, from its first possible start."""
    max_crashes: int | None = None
    idempotency_key: str | None = None
    """The same key with the same request answers with the first job. Made by the client when None."""
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[str] = ()
    """Names of limits under which it runs; one that is not defined limits nothing."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Labels that its worker must have."""
    depends_on: Sequence[str] = ()
    """Ids of jobs, or the ``ref`` of members of the same batch, that it waits for, as ``trigger`` says."""
    ref: str | None = None
    """A name for this member within its batch."""
    trigger: Trigger | str = Trigger.ALL_COMPLETED
    """What must have become of the jobs in ``depends_on``."""
    upstream_failure: UpstreamFailure | str = UpstreamFailure.CANCEL
    """How it ends when that can no longer be: canceled or failed."""
    unique_key: str | None = None
    """At most one unfinished job of a namespace and kind has it."""
    on_duplicate: OnDuplicate | str | None = None
    """Where a job has the unique key: "refuse", answer with the "existing" one, or "replace" it."""
    idempotency_ttl_s: float | None = None
    """How long ``idempotency_key`` stands for this job."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """One member of a batch as written. ``created`` is False when one of its keys answered with an earlier job."""

    id: str
    ref: str | None
    created: bool


class SubmittedJobs(list[SubmittedJob]):
    """A batch as written, in order. ``workflow_id`` is None where the batch is no workflow."""

    def __init__(self, jobs: Iterable[SubmittedJob] = (), workflow_id: str | None = None) -> None:
        super().__init__(jobs)
        self.workflow_id = workflow_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CanceledJobs:
    """What became of a cancel of many; in a preview, what would."""

    canceled: int
    asked: int
    """Executing ones whose workers were asked to stop."""
    dependants: int
    """Ended with those, as their dependants or children. Not counted in a preview."""
    ids: tuple[str, ...]
    """The first of those that match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriedJobs:
    """What became of a retry of many: how many were retried (in a preview: match) and how many left alone."""

    retried: int
    skipped: int
    """Retried by somebody else meanwhile, or dependent on a job that failed and is not retried."""
    ids: tuple[str, ...]
    """The first of the new jobs; in a preview, of those that match."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds a job now: the worker, its etcd lease, and the create revision of the claim key."""

    worker: str
    lease: int
    revision: int


@dataclass(frozen=True, slots=True)
class JobError:
    """An error as a handler reported it."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ResultObject:
    """A result that is too large to be kept with its job; ``client.result`` fetches it. ``sha256`` is hex."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ResultLost:
    """A result that a completed job had, and that could not be kept."""

    reason: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that an attempt has saved. ``sha256`` is hex."""

    attempt: int
    name: str
    size_bytes: int
    sha256: str
    content_type: str
    created_at: datetime | None
    is_result: bool
    """It is the result of its attempt, too large to be kept with the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as the service knew it when it answered. Listings leave ``payload`` and ``result`` out (None)."""

    id: str
    namespace: str
    kind: str
    route: str
    state: JobState
    priority: int
    payload: Any
    result: Any
    error: JobError | None
    """The last error, if any."""
    reason: str
    """Why it is in its final state, in words, where that needs words."""
    attempt: int
    """Attempts started so far."""
    errors: int
    crashes: int
    fence: int
    claim: Claim | None
    created_at: datetime | None
    activate_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    retry: RetryPolicy
    ttl_s: float
    timeout_s: float | None
    max_crashes: int
    idempotency_key: str
    labels: Mapping[str, str]
    limits: tuple[str, ...]
    requires: Mapping[str, str]
    depends_on: tuple[str, ...]
    parent_id: str | None
    schedule_id: str | None
    scheduled_at: datetime | None
    """The tick of that schedule which the job is for."""
    progress: float
    progress_message: str
    cancel_requested: bool
    retry_of: str | None
    """The failed or canceled job that this one is another go at."""
    retried_by: str | None
    """The job that is another go at this one."""
    start_by: datetime | None
    """When it must have started."""
    deadline: datetime | None
    """When it must have ended."""
    job_timeout_s: float | None
    trigger: Trigger
    upstream_failure: UpstreamFailure
    workflow_id: str | None
    """The workflow that it is a member of."""
    ref: str | None
    """Its name there."""
    unique_key: str | None = None
    replaced_by: str | None = None
    """The job that took the unique key from this one."""
    deleted_at: datetime | None = None
    """Hidden from listings since."""
    archived_at: datetime | None = None
    """It lies in the archive since: it can be read, and is not listed, retried or deleted any more."""
    created: bool | None = None
    """From ``submit`` and ``retry``: False when an earlier job was the answer. None from elsewhere."""
    result_object: ResultObject | None = None
    """Instead of ``result``, which is None then."""
    result_lost: ResultLost | None = None
    """The same, of one that nobody can read."""
    aged: bool = False
    """Ready for longer than its namespace's ageing: it goes with the jobs of the highest priority."""

    @property
    def is_terminal(self) -> bool:
        """Say whether the job has reached the state that it will keep."""
        return self.state in TERMINAL

    @property
    def is_pending(self) -> bool:
        """Say whether a worker has claimed the job and not yet started it."""
        return self.claim is not None and self.state in (JobState.READY, JobState.RESTARTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job. ``outcome`` is None while it executes."""

    job_id: str
    attempt: int
    fence: int
    worker: str
    lease: int
    claim_revision: int
    outcome: Outcome | None
    error: JobError | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that is registered now. ``claims`` counts what it holds."""

    id: str
    pools: tuple[str, ...]
    kinds: tuple[str, ...]
    capacity: int
    claims: int
    labels: Mapping[str, str]
    mode: str
    host: str
    version: str
    draining: bool
    started_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """A claim as it stands in etcd."""

    job_id: str
    worker: str
    namespace: str
    kind: str
    route: str
    lease: int
    revision: int
    claimed_at: datetime | None
    time_left_s: float | None = None
    """Until its lease expires unless it is kept alive; None: not asked for, or it is gone."""
    ttl_s: float | None = None
    """As it was granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClaim:
    """How a job is held at this moment, as etcd has it. ``worker`` is None while nobody holds it."""

    job_id: str
    worker: str | None
    lease: int
    """Of the claim; 0 without one."""
    revision: int
    """The revision of etcd that created the claim."""
    claimed_at: datetime | None
    remaining_s: float | None
    """What the lease has left, in whole seconds rounded down; None: it is gone, or there is none."""
    granted_s: float | None
    hold: str | None
    """The reason of a hold, by which nobody may run the job; None: it is not held back."""
    read_at_revision: int
    """The revision of etcd at which this was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit by name, or, ending in ``*``, a family of them. ``held`` tells of each name how many slots are held."""

    name: str
    concurrent: int | None
    """Jobs that may execute at a time."""
    rate: int | None
    """Starts per ``interval_s``."""
    interval_s: float
    burst: int | None
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool that is or was served. ``ready`` is counted up to 10,000."""

    path: str
    workers: int
    ready: int
    executing: int
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Nothing of this is offered any more. ``executing`` counts what still does.

    It is drained when ``executing`` has been 0 for some seconds: what was offered before may start a second later.
    """

    subject: str
    """pool, kind or namespace."""
    name: str
    reason: str
    paused_at: datetime | None
    executing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """What is set for a namespace."""

    name: str
    weight: float
    """Its share against others at equal priority."""
    ageing_s: float | None = None
    """A job that has been ready for longer counts as of the highest priority; None: none does."""
    backlog: int | None = None
    """The most unfinished jobs; None: any number."""
    unfinished: int | None = None
    """The unfinished jobs when last counted, where there is a bound."""
    submit_rate: float | None = None
    """New jobs per second, at each coordinator; None: any number."""
    submit_burst: int | None = None
    """The most new jobs at once; None: what a second brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One act of somebody who steers, as the audit log has it."""

    id: str
    at: datetime | None
    caller: str
    """Who; "anybody" where no credentials are asked for."""
    role: str
    action: str
    """A noun and a verb: ``jobs.cancel``."""
    namespace: str | None
    target: str
    """What it was about: an id, a name, a filter in words."""
    outcome: str
    """``ok``, ``denied``, ``interrupted``, or the gRPC status of the refusal."""
    detail: dict[str, Any]
    """What changed, or how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as the service sees it."""

    name: str
    """"anybody" where no credentials are asked for."""
    role: str
    namespaces: tuple[str, ...]
    """``*`` stands for every one."""
    pools: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs of a listing, and where it goes on."""

    jobs: tuple[Job, ...]
    next_page_token: str | None
    """None on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Some entries of the audit log, and where it goes on."""

    entries: tuple[AuditEntry, ...]
    next_page_token: str | None
    """None on the last page."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that keeps a job from running: a word for programs, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does not run, or what it does. No obstacles: nothing is in its way."""

    job: Job
    summary: str
    obstacles: tuple[Obstacle, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """A coordinator that is registered now."""

    id: str
    grpc: str
    http: str
    version: str
    is_leader: bool
    started_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Who coordinates, who leads, on which stores. ``leader`` is None while there is none."""

    coordinators: tuple[Coordinator, ...]
    leader: str | None
    epoch: int
    etcd_version: str
    postgres_version: str
    schema_version: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPool:
    """A pool that workers serve now. ``capacity`` leaves those out that drain."""

    path: str
    workers: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPicture:
    """Who was there at one instant. ``more_workers`` counts those beyond the 5,000 that are told of."""

    coordinators: tuple[Coordinator, ...]
    leader: str | None
    workers: tuple[Worker, ...]
    more_workers: int
    pools: tuple[ServedPool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStep:
    """What a coordinator has tried with the object store. Without ``problem`` it worked."""

    name: str
    took_s: float
    problem: str | None
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of the log of an attempt. What a handler wrote is data: escape it before it comes to a terminal."""

    attempt: int
    seq: int
    """Counted from 1 in each attempt."""
    at: datetime | None
    """By the clock of the worker."""
    level: str
    message: str
    fields: Mapping[str, Any]
    logger: str
    """``stdout`` and ``stderr`` for the output of commands."""
    code: str
    """Where in the code: ``module:line``."""


def lease_hex(lease: int) -> str:
    """Return the id of a lease as etcdctl takes it: 16 hex digits."""
    return f"{lease & 0xFFFF_FFFF_FFFF_FFFF:016x}"
