"""Claims: taking, giving up and checking the right to run jobs, in batches.

Owns the transactions around ``claims/``, ``slots/`` and ``holds/``. Invariant: a claim and all of its slots are put
together or not at all, only where none of them existed and nobody holds the job back; a claim is deleted only by
its identity, create revision and lease together (revisions are given again after etcd was lost). Workers call
``claim_batch`` and ``verify_batch``, coordinators ``release_batch``.

A batch is one transaction with a nested one per job, so that jobs succeed or fail alone. Etcd refuses a transaction as
a whole for one bad member (a key written twice, a lease that is gone): the batch is then halved and tried again, down
to the culprit. A release may be sent again after an unknown outcome: a deletion that finds nothing counts as none. A
claim may not: the first sending could arrive when the job has ended and its lease, given back as free, carries another
claim. Deliberately not here: leases (``leases``), and what to do about a job that was not won.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from tenure.model.errors import BoundExceeded, Deposed, Unavailable
from tenure.store.etcd.keyspace import Keyspace
from tenure.store.etcd.port import (
    Compare,
    Delete,
    DeleteResult,
    Etcd,
    Field,
    Get,
    GetResult,
    Operation,
    Put,
    Refusal,
    Refused,
    TooLarge,
    Txn,
    TxnResult,
)

log = structlog.get_logger(__name__)

MAX_OPERATIONS = 100
"""Operations at the top of one transaction. Etcd allows 128 on a path of nested ones, so 28 are left to each job."""
MAX_READS = 128


class ClaimOutcome(StrEnum):
    """What became of one wish for a claim."""

    WON = "won"
    HELD = "held"
    """Somebody has the job or one of the slots, or an operator holds it. The lease carries nothing."""
    LEASE_GONE = "lease gone"
    """The lease expired before it could carry the claim."""
    REFUSED = "refused"
    """etcd does not take it (no space, named twice in the batch). The lease carries nothing."""
    UNKNOWN = "unknown"
    """No answer. The lease may carry the claim: discard it."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A job to be claimed."""

    job: str
    lease: int
    """A lease that carries nothing else."""
    value: bytes
    """A ``ClaimValue`` as JSON."""
    slots: tuple[str, ...] = ()
    """``<limit>/<n>`` each."""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The outcome for one job. ``create_revision`` is the claim's identity, 0 unless won."""

    job: str
    outcome: ClaimOutcome
    create_revision: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """A claim to be given up, if it is still this one."""

    job: str
    create_revision: int
    lease: int
    slots: tuple[str, ...] = ()
    announcement: Put | None = None
    """Written with it, whether the claim was still there or not: ``/done``."""


async def claim_batch(
    etcd: Etcd,
    keys: Keyspace,
    requests: Sequence[ClaimRequest],
    *,
    inbox_key: str | None = None,
    timeout_s: float | None = None,
) -> list[ClaimResult]:
    """Claim jobs, answering the offer ``inbox_key`` by deleting it together with the last of them.

    Returns one result per request, in order; failures are results. After an unknown outcome the rest of the batch
    is not tried: it is unknown too.

    Raises:
        ConfigurationError: etcd refuses the user; what an earlier part of a large batch won is left to its leases.
    """
    results: list[ClaimResult] = []
    tail: tuple[Operation, ...] = (Delete(inbox_key),) if inbox_key else ()
    chunks = [requests[at : at + MAX_OPERATIONS] for at in range(0, len(requests), MAX_OPERATIONS)] or [requests]
    try:
        for index, chunk in enumerate(chunks):
            last = index == len(chunks) - 1
            await _claim(etcd, keys, chunk, tail if last else (), results, timeout_s)
    except Unavailable as exc:
        log.warning("claims_unknown", jobs=len(requests) - len(results), reason=str(exc))
        results.extend(ClaimResult(r.job, ClaimOutcome.UNKNOWN) for r in requests[len(results) :])
    return results


async def _claim(
    etcd: Etcd,
    keys: Keyspace,
    requests: Sequence[ClaimRequest],
    tail: tuple[Operation, ...],
    results: list[ClaimResult],
    timeout_s: float | None,
) -> None:
    """Append the result of each request, splitting what etcd refuses."""
    if not requests and not tail:
        return
    txn = Txn(then=(*(_claim_txn(keys, request) for request in requests), *tail))
    try:
        answer = await etcd.txn(txn, timeout_s=timeout_s)
    except (Refused, BoundExceeded) as exc:
        whole = isinstance(exc, BoundExceeded) and not isinstance(exc, TooLarge)  # no part of it would pass
        if len(requests) <= 1 or whole:
            outcome = _outcome_of(exc)
            log.info("claims_refused", jobs=len(requests), outcome=outcome.value, reason=str(exc))
            results.extend(ClaimResult(request.job, outcome) for request in requests)
            if tail and requests:
                await _claim(etcd, keys, (), tail, results, timeout_s)
            return
        half = len(requests) // 2
        await _claim(etcd, keys, requests[:half], (), results, timeout_s)
        await _claim(etcd, keys, requests[half:], tail, results, timeout_s)
        return
    for request, result in zip(requests, answer.results, strict=False):
        if isinstance(result, TxnResult) and result.succeeded:
            results.append(ClaimResult(request.job, ClaimOutcome.WON, answer.revision))
        else:
            results.append(ClaimResult(request.job, ClaimOutcome.HELD))


def _outcome_of(exc: Refused | BoundExceeded) -> ClaimOutcome:
    if isinstance(exc, Refused) and exc.reason is Refusal.LEASE_GONE:
        return ClaimOutcome.LEASE_GONE
    return ClaimOutcome.REFUSED


def _claim_txn(keys: Keyspace, request: ClaimRequest) -> Txn:
    claim = keys.claim(request.job)
    slots = [keys.slot(slot) for slot in request.slots]
    slot_value = b'{"job":"%s"}' % request.job.encode()
    return Txn(
        compares=(
            Compare(claim, Field.CREATE, 0),
            Compare(keys.hold(request.job), Field.CREATE, 0),
            *(Compare(slot, Field.CREATE, 0) for slot in slots),
        ),
        then=(
            Put(claim, request.value, request.lease),
            *(Put(slot, slot_value, request.lease) for slot in slots),
        ),
    )


async def release_batch(
    etcd: Etcd,
    keys: Keyspace,
    releases: Sequence[Release],
    *,
    timeout_s: float | None = None,
    on_unannounced: Callable[[str], None] = lambda _job: None,
    guard: Compare | None = None,
) -> list[bool]:
    """Give claims up and announce ends. True only where etcd answered that this very claim was deleted.

    Only then may the lease be used again; False covers "was not there", "was somebody else's" and "no answer".
    Announcements are hints: one that etcd refuses (its lease is gone) is dropped, never the release with it;
    ``on_unannounced`` is told the job. ``guard`` is compared with everything (the leader's key).

    Raises:
        ConfigurationError: etcd refuses the user. Deposed: the guard does not hold; the rest was not released.
    """
    guards = () if guard is None else (guard,)
    deleted: list[bool] = []
    chunk: list[Release] = []
    size = 0
    try:
        for release in releases:
            weight = 1 + len(release.slots) + (release.announcement is not None)
            if chunk and size + weight > MAX_OPERATIONS:
                await _release(etcd, keys, chunk, deleted, timeout_s, on_unannounced, guards)
                chunk, size = [], 0
            chunk.append(release)
            size += weight
        await _release(etcd, keys, chunk, deleted, timeout_s, on_unannounced, guards)
    except Unavailable as exc:
        log.warning("releases_unknown", jobs=len(releases) - len(deleted), reason=str(exc))
        deleted.extend(False for _ in range(len(releases) - len(deleted)))
    return deleted


async def _release(
    etcd: Etcd,
    keys: Keyspace,
    releases: Sequence[Release],
    deleted: list[bool],
    timeout_s: float | None,
    on_unannounced: Callable[[str], None],
    guards: tuple[Compare, ...],
) -> None:
    """Append whether each claim was deleted, splitting what etcd refuses."""
    if not releases:
        return
    operations: list[Operation] = []
    for release in releases:
        operations.extend(_release_operations(keys, release))
    try:
        answer = await etcd.txn(Txn(guards, tuple(operations)), timeout_s=timeout_s, repeatable=True)
    except (Refused, BoundExceeded) as exc:
        # No room, or too much asked of it: halves would pass no better, but without announcements all may.
        whole = isinstance(exc, BoundExceeded) and not isinstance(exc, TooLarge)
        if len(releases) > 1 and not whole:
            half = len(releases) // 2
            await _release(etcd, keys, releases[:half], deleted, timeout_s, on_unannounced, guards)
            await _release(etcd, keys, releases[half:], deleted, timeout_s, on_unannounced, guards)
            return
        log.warning("releases_refused", jobs=len(releases), reason=str(exc))
        unannounced = [release.job for release in releases if release.announcement is not None]
        if not unannounced:
            deleted.extend(False for _ in releases)
            return
        for job in unannounced:
            on_unannounced(job)
        bare = [replace(release, announcement=None) for release in releases]
        await _release(etcd, keys, bare, deleted, timeout_s, on_unannounced, guards)
        return
    if not answer.succeeded:
        raise Deposed("the leader key has changed hands")
    at = 0
    for release in releases:
        deleted.append(_deleted_one(answer.results[at]))
        at += 1 + len(release.slots) + (release.announcement is not None)


def _release_operations(keys: Keyspace, release: Release) -> list[Operation]:
    # Claim and slots were created by one transaction: they share its revision.
    operations: list[Operation] = [_delete_if(keys.claim(release.job), release)]
    operations.extend(_delete_if(keys.slot(slot), release) for slot in release.slots)
    if release.announcement is not None:
        operations.append(release.announcement)
    return operations


def _delete_if(key: str, release: Release) -> Txn:
    identity = (Compare(key, Field.CREATE, release.create_revision), Compare(key, Field.LEASE, release.lease))
    return Txn(compares=identity, then=(Delete(key),))


def _deleted_one(result: object) -> bool:
    if not isinstance(result, TxnResult) or not result.succeeded:
        return False
    return isinstance(result.results[0], DeleteResult) and result.results[0].deleted == 1


async def verify_batch(
    etcd: Etcd, keys: Keyspace, claims: Sequence[tuple[str, int, int]], *, timeout_s: float | None = None
) -> set[str]:
    """Return the ids of those jobs whose claim is the one given (job, create revision, lease); linearizable reads.

    Raises:
        Unavailable: etcd did not answer; nothing is known about any of them.
    """
    found = await _read(etcd, [keys.claim(job) for job, _, _ in claims], timeout_s)
    return {job for (job, *identity), seen in zip(claims, found, strict=True) if seen == tuple(identity)}


async def _read(etcd: Etcd, names: Sequence[str], timeout_s: float | None) -> list[tuple[int, int] | None]:
    """Return create revision and lease of each key, None if absent."""

    async def read(chunk: Sequence[str]) -> list[tuple[int, int] | None]:
        answer = await etcd.txn(Txn(then=tuple(Get(key, keys_only=True) for key in chunk)), timeout_s=timeout_s)
        found = (r.items[0] if isinstance(r, GetResult) and r.items else None for r in answer.results)
        return [(item.create_revision, item.lease) if item is not None else None for item in found]

    chunks = [names[at : at + MAX_READS] for at in range(0, len(names), MAX_READS)]
    return [identity for chunk in chunks for identity in await read(chunk)]
