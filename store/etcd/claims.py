"""Claims: taking, giving up and checking the right to run jobs, in batches.

Owns the transactions around ``claims/``, ``slots/`` and ``holds/``. Invariant: a claim and all of its slots are put
together or not at all, only where none of them existed and nobody holds the job back; a claim is deleted only by
its identity, create revision and lease together (revisions are given again after etcd was lost). Workers call
``claim_batch`` and ``verify_batch``, coordinators ``release_batch``.

A batch is one flat transaction: what every job demands is compared at its top, and all of it is written or nothing.
That is what all but few batches are answered by, and a third cheaper for etcd than a nested transaction per job. If a
demand is not met the batch goes again with the jobs apart, a nested transaction each, so that they succeed or fail
alone. For claims, too, that is no second sending: the answer "not met" is certain, and nothing was written.

Etcd refuses a transaction as a whole for one bad member (a key written twice, a lease that is gone): the batch is then
halved and tried again, down to the culprit. A release may be sent again after an unknown outcome: a deletion that finds
nothing counts as none. A claim may not: the first sending could arrive when the job has ended and its lease, given back
as free, carries another claim. Deliberately not here: leases (``leases``), and what to do about a job that was not won.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from tenure.model.errors import BoundExceeded, Deposed, Unavailable
from tenure.store.etcd.keyspace import Keyspace, SlotValue
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

MAX_COMPARES = 127
"""Etcd allows 128 in a transaction, and as many operations in either branch; one is left for the guard or the inbox
key. A batch that fits so fits with its jobs apart, too, where a nested transaction's count with those above it."""
MAX_VERIFIED = MAX_COMPARES // 2
MAX_READS = 128
_Item = TypeVar("_Item")
_CREATE, _LEASE = Field.CREATE, Field.LEASE  # named once, as looking them up is slow


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


class ClaimRequest(Struct, frozen=True):
    """A job to be claimed."""

    job: str
    lease: int
    """A lease that carries nothing else."""
    value: bytes
    """A ``ClaimValue`` as JSON."""
    slots: tuple[str, ...] = ()
    """``<limit>/<n>`` each."""


class ClaimResult(Struct, frozen=True):
    """The outcome for one job. ``create_revision`` is the claim's identity, 0 unless won."""

    job: str
    outcome: ClaimOutcome
    create_revision: int = 0


class Release(Struct, frozen=True):
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
    pages = list(_pages(requests, lambda request: 2 + len(request.slots))) or [requests]
    try:
        for page in pages:
            await _claim(etcd, keys, page, tail if page is pages[-1] else (), results, timeout_s)
    except Unavailable as exc:
        log.warning("claims_unknown", jobs=len(requests) - len(results), reason=str(exc))
        results.extend(ClaimResult(r.job, ClaimOutcome.UNKNOWN) for r in requests[len(results) :])
    return results


def _pages(items: Sequence[_Item], compares: Callable[[_Item], int]) -> Iterator[Sequence[_Item]]:
    """Split a batch into what one transaction takes."""
    start = size = 0
    for index, item in enumerate(items):
        weight = compares(item)
        if index > start and size + weight > MAX_COMPARES:
            yield items[start:index]
            start, size = index, 0
        size += weight
    if items:
        yield items[start:]


async def _claim(
    etcd: Etcd,
    keys: Keyspace,
    requests: Sequence[ClaimRequest],
    tail: tuple[Operation, ...],
    results: list[ClaimResult],
    timeout_s: float | None,
    *,
    apart: bool = False,
) -> None:
    """Append the result of each request, splitting what etcd refuses."""
    if not requests and not tail:
        return
    form = _claims_apart if apart else _claims_together
    try:
        answer = await etcd.txn(form(keys, requests, tail), timeout_s=timeout_s)
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
    if apart:
        for request, result in zip(requests, answer.results, strict=False):
            if isinstance(result, TxnResult) and result.succeeded:
                results.append(ClaimResult(request.job, ClaimOutcome.WON, answer.revision))
            else:
                results.append(ClaimResult(request.job, ClaimOutcome.HELD))
    elif answer.succeeded:
        results.extend([ClaimResult(request.job, ClaimOutcome.WON, answer.revision) for request in requests])
    else:
        await _claim(etcd, keys, requests, tail, results, timeout_s, apart=True)


def _outcome_of(exc: Refused | BoundExceeded) -> ClaimOutcome:
    if isinstance(exc, Refused) and exc.reason is Refusal.LEASE_GONE:
        return ClaimOutcome.LEASE_GONE
    return ClaimOutcome.REFUSED


def _claims_together(keys: Keyspace, requests: Sequence[ClaimRequest], tail: tuple[Operation, ...]) -> Txn:
    compares: list[Compare] = []
    puts: list[Operation] = []
    for request in requests:
        compares += _demands(keys, request)
        puts += _puts(keys, request)
    return Txn(tuple(compares), (*puts, *tail))


def _claims_apart(keys: Keyspace, requests: Sequence[ClaimRequest], tail: tuple[Operation, ...]) -> Txn:
    return Txn(then=(*(Txn(_demands(keys, request), _puts(keys, request)) for request in requests), *tail))


def _demands(keys: Keyspace, request: ClaimRequest) -> tuple[Compare, ...]:
    return (
        Compare(keys.claim(request.job), _CREATE, 0),
        Compare(keys.hold(request.job), _CREATE, 0),
        *[Compare(keys.slot(slot), _CREATE, 0) for slot in request.slots],
    )


def _puts(keys: Keyspace, request: ClaimRequest) -> tuple[Put, ...]:
    claim = Put(keys.claim(request.job), request.value, request.lease)
    if not request.slots:
        return (claim,)
    value = SlotValue(request.job).to_json()
    return (claim, *[Put(keys.slot(slot), value, request.lease) for slot in request.slots])


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
    try:
        for page in _pages(releases, lambda release: 2 * len(_own_keys(keys, release)) or 1):
            await _release(etcd, keys, page, deleted, timeout_s, on_unannounced, guards)
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
    *,
    apart: bool = False,
) -> None:
    """Append whether each claim was deleted, splitting what etcd refuses."""
    form = _releases_apart if apart else _releases_together
    try:
        answer = await etcd.txn(form(keys, releases, guards), timeout_s=timeout_s, repeatable=True)
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
    if not apart:
        if answer.succeeded:  # each claim was there, as this very one, and was deleted
            deleted.extend([release.create_revision > 0 for release in releases])
        else:  # a claim is not, or the guard does not hold
            await _release(etcd, keys, releases, deleted, timeout_s, on_unannounced, guards, apart=True)
        return
    if not answer.succeeded:
        raise Deposed("the leader key has changed hands")
    at = 0
    for release in releases:
        own = len(_own_keys(keys, release))
        deleted.append(own > 0 and _deleted_one(answer.results[at]))
        at += own + (release.announcement is not None)


def _releases_together(keys: Keyspace, releases: Sequence[Release], guards: tuple[Compare, ...]) -> Txn:
    compares: list[Compare] = list(guards)
    operations: list[Operation] = []
    for release in releases:
        for key in _own_keys(keys, release):
            compares += _identity(key, release)
            operations.append(Delete(key))
        if release.announcement is not None:
            operations.append(release.announcement)
    return Txn(tuple(compares), tuple(operations))


def _releases_apart(keys: Keyspace, releases: Sequence[Release], guards: tuple[Compare, ...]) -> Txn:
    operations: list[Operation] = []
    for release in releases:
        operations += [Txn(_identity(key, release), (Delete(key),)) for key in _own_keys(keys, release)]
        if release.announcement is not None:
            operations.append(release.announcement)
    return Txn(guards, tuple(operations))


def _own_keys(keys: Keyspace, release: Release) -> tuple[str, ...]:
    """Return the claim's key and its slots', none for a job that had no claim."""
    if not release.create_revision:
        return ()
    return (keys.claim(release.job), *map(keys.slot, release.slots))


def _identity(key: str, release: Release) -> tuple[Compare, Compare]:
    # Claim and slots were created by one transaction: they share its revision.
    return Compare(key, _CREATE, release.create_revision), Compare(key, _LEASE, release.lease)


def _deleted_one(result: object) -> bool:
    if not isinstance(result, TxnResult) or not result.succeeded:
        return False
    first = result.results[0]
    return isinstance(first, DeleteResult) and first.deleted == 1


async def verify_batch(
    etcd: Etcd, keys: Keyspace, claims: Sequence[tuple[str, int, int]], *, timeout_s: float | None = None
) -> set[str]:
    """Return the ids of those jobs whose claim is the one given (job, create revision, lease); linearizable.

    Raises:
        Unavailable: etcd did not answer; nothing is known about any of them.
    """
    shown: set[str] = set()
    for start in range(0, len(claims), MAX_VERIFIED):
        page = claims[start : start + MAX_VERIFIED]
        if await _all_stand(etcd, keys, page, timeout_s):
            shown.update([job for job, _, _ in page])
        else:
            shown |= await _read(etcd, keys, page, timeout_s)
    return shown


async def _all_stand(
    etcd: Etcd, keys: Keyspace, claims: Sequence[tuple[str, int, int]], timeout_s: float | None
) -> bool:
    """Ask whether every claim is the one given. One bool is all that etcd sends and that is read here."""
    compares: list[Compare] = []
    for job, create_revision, lease in claims:
        key = keys.claim(job)
        compares += Compare(key, _CREATE, create_revision), Compare(key, _LEASE, lease)
    # A transaction that only compares is answered by any member from what it has, old or not (etcd: isTxnSerializable).
    # One that may read is linearizable, whichever branch is taken.
    read = Get(keys.claim(claims[0][0]), keys_only=True)
    return (await etcd.txn(Txn(tuple(compares), otherwise=(read,)), timeout_s=timeout_s)).succeeded


async def _read(
    etcd: Etcd, keys: Keyspace, claims: Sequence[tuple[str, int, int]], timeout_s: float | None
) -> set[str]:
    """Read each claim and return the jobs whose claim is the one given."""
    reads = tuple([Get(keys.claim(job), keys_only=True) for job, _, _ in claims])
    answer = await etcd.txn(Txn(then=reads), timeout_s=timeout_s)
    found = (r.items[0] if isinstance(r, GetResult) and r.items else None for r in answer.results)
    return {
        job
        for (job, *identity), seen in zip(claims, found, strict=True)
        if seen is not None and [seen.create_revision, seen.lease] == identity
    }
