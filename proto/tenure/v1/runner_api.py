"""The JSON that runners speak with coordinators, under ``/v1/runner/``: every call is a POST of one of these.

Shared by the service (``coordinator.rest``), which makes its OpenAPI document from them, and by tenure's own runner
(``worker.remote``). Other languages write what ``/openapi.json`` says. Additive changes only.

Tokens are opaque texts that a coordinator signed: what a runner holds, it shows with each call, and whichever coordinator
it reaches knows what it is about. Numbers beyond 2^53 (fences, leases) are texts, since JavaScript cannot hold them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Token = Annotated[str, Meta(min_length=1, max_length=4_096)]
Text = Annotated[str, Meta(max_length=255)]
TtlS = Annotated[float, Meta(ge=2, le=86_400)]
WaitS = Annotated[float, Meta(ge=0, le=30)]
Size = Annotated[int, Meta(ge=0, le=2**53)]
Sha256 = Annotated[str, Meta(min_length=64, max_length=64, description="in hex")]
MAX_CLAIMS = 1_000
"""In one call."""
PREFIX = "/v1/runner/"


class Runner(Struct, frozen=True):
    """What a runner says of itself."""

    name: Annotated[str, Meta(min_length=1, max_length=63, description="its id begins with it; a route segment")]
    pools: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100, description="route prefixes that it serves")]
    kinds: Annotated[tuple[Text, ...], Meta(max_length=1_000, description="kinds that it has handlers for")]
    capacity: Annotated[int, Meta(ge=1, le=20_000, description="attempts at the same time")]
    labels: Annotated[dict[Text, Text], Meta(max_length=32)] = {}
    host: Text = ""
    version: Text = ""
    draining: bool = False


class OpenSession(Struct, frozen=True):
    """Register a runner, or say what changed of one."""

    runner: Runner
    ttl_s: Annotated[TtlS, Meta(description="the session's time to live, in seconds, unless it is renewed")] = 10.0
    session: Annotated[
        str,
        Meta(
            max_length=4_096,
            description="the token of this runner's session, or of its last one, if it had any: its id stays the same",
        ),
    ] = ""


class Session(Struct, frozen=True):
    """A session: as long as it is renewed, leaders offer jobs to the runner."""

    session: Annotated[str, Meta(description="the session's token")]
    runner: Annotated[str, Meta(description="the runner's id, as listings show it")]
    lease: Annotated[str, Meta(description="the session's lease, in hex")]
    ttl_s: Annotated[float, Meta(description="as granted")]
    is_new: Annotated[bool, Meta(description="false: the session that was shown is alive, and was changed")]


class CloseSession(Struct, frozen=True):
    """End a session: the runner is forgotten, its claims are not."""

    session: Token


class Poll(Struct, frozen=True):
    """Wait for jobs and cancel requests."""

    session: Token
    wait_s: Annotated[WaitS, Meta(description="how long to wait if there is nothing, in seconds")] = 20.0


class Claim(Struct, frozen=True):
    """A claim that was won for the runner: to be started at once, or released. It lives for ``ttl_s``."""

    claim: Annotated[str, Meta(description="the claim's token")]
    job_id: str
    namespace: str
    kind: str
    route: str
    lease: Annotated[str, Meta(description="the claim's lease, in hex")]
    ttl_s: float


class Cancel(Struct, frozen=True):
    """A wish that an attempt be stopped."""

    job_id: str
    fence: str
    reason: str


class Polled(Struct, frozen=True):
    """What there was; both empty when the time was over."""

    claims: tuple[Claim, ...] = ()
    cancels: tuple[Cancel, ...] = ()


class Start(Struct, frozen=True):
    """Turn claims into attempts. May be repeated."""

    claims: Annotated[tuple[Token, ...], Meta(min_length=1, max_length=MAX_CLAIMS, description="tokens of claims")]


class Attempt(Struct, frozen=True, omit_defaults=True):
    """What a runner needs to execute one attempt."""

    attempt_token: Annotated[str, Meta(description="names this attempt, and authorises its writes alone")]
    claim: Annotated[str, Meta(description="the token of the claim that it was started with")]
    job_id: str
    attempt: int
    fence: str
    namespace: str
    kind: str
    route: str
    lease: str
    ttl_s: Annotated[
        float, Meta(description="until its lease expires, in seconds, counted from when the request was sent")
    ]
    payload: Raw
    checkpoint: Raw | UnsetType = UNSET
    labels: dict[str, str] = {}
    timeout_s: float | None = None
    parent_id: str | None = None
    parked_attempt: int | None = None


class Started(Struct, frozen=True):
    """Only the attempts that started; the other claims are not the runner's any more."""

    attempts: tuple[Attempt, ...] = ()


class Renew(Struct, frozen=True):
    """Keep leases alive: one KeepAlive for each, sent once."""

    tokens: Annotated[
        tuple[Token, ...],
        Meta(min_length=1, max_length=MAX_CLAIMS, description="of the session, of claims and of attempts"),
    ]


class Renewed(Struct, frozen=True, omit_defaults=True):
    """What became of one lease."""

    ttl_s: Annotated[
        float | None,
        Meta(
            description="until it expires, in seconds, counted from when the request was sent; 0: it is gone; "
            "null: etcd did not answer, ask again"
        ),
    ]
    stop: Annotated[
        Literal["", "lost", "held"],
        Meta(description="stop the attempt: its claim was taken away, or an operator holds the job back"),
    ] = ""
    token: Annotated[
        str,
        Meta(
            description="a newer token to show in the place of this one from now on, where there is one: "
            "the installation's signing key is being replaced"
        ),
    ] = ""


class Renewals(Struct, frozen=True):
    """In the order of the request."""

    leases: tuple[Renewed, ...]


class Release(Struct, frozen=True):
    """Let go of claims that were not started, or of attempts that cannot be reported."""

    tokens: Annotated[tuple[Token, ...], Meta(min_length=1, max_length=MAX_CLAIMS)]


class Progress(Struct, frozen=True):
    """Say how far an attempt is."""

    attempt_token: Token
    fraction: Annotated[float, Meta(ge=0, le=1)]
    message: str = ""


class Checkpoint(Struct, frozen=True):
    """Keep a value for the next attempt of the job."""

    attempt_token: Token
    checkpoint: Raw


class Error(Struct, frozen=True, omit_defaults=True):
    """What went wrong in a handler."""

    type: str
    message: str
    traceback: str = ""


class Park(Struct, frozen=True, omit_defaults=True):
    """Wait for children of the job."""

    children: tuple[str, ...]
    checkpoint: Raw | UnsetType = UNSET
    trigger: Literal["all_completed", "all_finished", "any_completed", "any_finished"] = "all_finished"


class ResultObject(Struct, frozen=True):
    """A result that was uploaded as `_result.json`."""

    size_bytes: Size
    sha256: Sha256


class ResultLost(Struct, frozen=True):
    """A result that could not be uploaded."""

    reason: Annotated[str, Meta(max_length=1_024)]
    size_bytes: Size


class Report(Struct, frozen=True, omit_defaults=True):
    """How an attempt ended."""

    attempt_token: Token
    outcome: Literal["completed", "failed", "canceled", "timed_out", "rescheduled", "parked", "released"]
    result: Raw | UnsetType = UNSET
    error: Error | None = None
    retryable: Annotated[bool, Meta(description="false: trying again is of no use")] = True
    error_bases: tuple[str, ...] = ()
    delay_s: Annotated[float, Meta(ge=0, le=31_622_400, description="for rescheduled")] = 0.0
    spends_budget: Annotated[bool, Meta(description="for rescheduled: count it as an error")] = False
    park: Park | None = None
    result_object: Annotated[
        ResultObject | None, Meta(description="for completed, instead of a result larger than 64 KiB")
    ] = None
    result_lost: Annotated[
        ResultLost | None, Meta(description="for completed, when such a result could not be uploaded")
    ] = None


class Finish(Struct, frozen=True):
    """Report ends. May be repeated: what was recorded is answered so."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=MAX_CLAIMS)]


class Finished(Struct, frozen=True, omit_defaults=True):
    """What became of one report."""

    verdict: Annotated[
        Literal["recorded", "repeated", "lost", "invalid", "locked"],
        Meta(
            description="recorded: now; repeated: it had been; lost: the attempt is not the runner's any more, drop the "
            "result; invalid: it cannot be stored, `message` says why; locked: not now, report again"
        ),
    ]
    message: str = ""
    state: str = ""


class FinishedAll(Struct, frozen=True):
    """In the order of the request. The status is 409 if every one is lost."""

    reports: tuple[Finished, ...]


class SubmitChildren(Struct, frozen=True):
    """Submit jobs on behalf of an attempt, all or none."""

    attempt_token: Token
    jobs: Annotated[tuple[Raw, ...], Meta(min_length=1, max_length=10_000, description="as JobSpec, in JSON")]


class SubmittedChildren(Struct, frozen=True):
    """Their ids, in the order of the request."""

    ids: tuple[str, ...]


class ReadUpstream(Struct, frozen=True):
    """Ask what became of the jobs that this one waited for."""

    attempt_token: Token
    after: Annotated[str, Meta(description="`next` of the page before; empty for the first")] = ""
    result_of: Annotated[str, Meta(description="an id: only of this job, and with `result_url`")] = ""


class Upstream(Struct, frozen=True, omit_defaults=True):
    """A job that this one waited for."""

    job_id: str
    kind: str
    key: str
    state: str
    result: Raw | UnsetType = UNSET
    error: Error | None = None
    reason: str = ""
    result_object: ResultObject | None = None
    result_lost: ResultLost | None = None
    result_url: Annotated[str, Meta(description="where to GET a result that is in the object store; or a path here")] = ""


class UpstreamPage(Struct, frozen=True):
    """Some of them; ``next`` is empty on the last page."""

    jobs: tuple[Upstream, ...]
    next: str = ""


class LogLine(Struct, frozen=True, omit_defaults=True):
    """A line of the log of an attempt. One beyond 16 KiB is cut, and says so."""

    message: str
    at: Annotated[datetime | None, Meta(description="by the runner's clock; null: now")] = None
    level: Annotated[str, Meta(description="debug, info, warning, error or critical; another counts as info")] = "info"
    fields: Annotated[Raw | UnsetType, Meta(description="a JSON object")] = UNSET
    logger: str = ""
    code: Annotated[str, Meta(description="where in the code: `module:line`")] = ""


class LogBatch(Struct, frozen=True):
    """Lines of one attempt, numbered from ``first_seq``: from 1 in each attempt. 256 KiB at most."""

    attempt_token: Token
    first_seq: Annotated[
        int,
        Meta(ge=1, lt=1 << 53, description="one after the last line that was written; a batch may be repeated as it was"),
    ]
    lines: Annotated[tuple[LogLine, ...], Meta(min_length=1, max_length=1_000)]


class AppendLogs(Struct, frozen=True):
    """Write to the logs of attempts, at most one batch of each; 1 MiB in all."""

    batches: Annotated[tuple[LogBatch, ...], Meta(min_length=1, max_length=500)]


class Appended(Struct, frozen=True, omit_defaults=True):
    """What became of one batch."""

    verdict: Annotated[
        Literal["recorded", "repeated", "lost", "invalid", "locked"],
        Meta(
            description="recorded: now; repeated: it had been; lost: the attempt is not the runner's any more; "
            "invalid: `message` says why; locked: not now, send it again"
        ),
    ]
    message: str = ""
    is_full: Annotated[bool, Meta(description="the log takes no more")] = False


class AppendedAll(Struct, frozen=True):
    """In the order of the request."""

    batches: tuple[Appended, ...]


class CreateUpload(Struct, frozen=True):
    """Ask where a file of an attempt goes: an artifact, or a result larger than 64 KiB."""

    attempt_token: Token
    name: Annotated[
        str,
        Meta(
            max_length=128,
            description="letters, digits . _ -, beginning and ending with a letter or digit; the result is `_result.json`",
        ),
    ]
    size_bytes: Size
    sha256: Sha256
    content_type: Annotated[str, Meta(max_length=160)] = "application/octet-stream"
    upload: Annotated[
        str,
        Meta(
            max_length=4_096,
            description="of an upload in parts whose URLs have expired: the answer has new ones for the same parts",
        ),
    ] = ""


class Upload(Struct, frozen=True):
    """Where to PUT the bytes: whole, to ``url`` with ``headers``; or, if that is empty, each part to its own.

    A URL that begins with a slash is a path at the address that was called. No credentials are to be shown to any.
    """

    upload: Annotated[str, Meta(description="names the upload, for `uploaded`")]
    url: str = ""
    headers: dict[str, str] = {}
    part_bytes: Annotated[int, Meta(description="the size of every part but the last")] = 0
    part_urls: tuple[str, ...] = ()


class CompleteUpload(Struct, frozen=True):
    """Say that all was sent: from now on the file is there to read. May be repeated."""

    attempt_token: Token
    upload: Token
    part_tags: Annotated[
        tuple[Text, ...], Meta(max_length=1_000, description="the ETag that was answered to each part, in order")
    ] = ()


class Done(Struct, frozen=True):
    """It was done."""


class Violation(Struct, frozen=True):
    """A bad field."""

    field: str
    description: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why a call was refused."""

    status: Annotated[str, Meta(description="as in gRPC: INVALID_ARGUMENT, PERMISSION_DENIED, …")]
    message: str
    hint: str = ""
    fields: tuple[Violation, ...] = ()


class Refusal(Struct, frozen=True):
    """The answer to a call that was refused."""

    error: Problem
