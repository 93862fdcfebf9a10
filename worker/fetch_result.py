"""The large result of a job that this one waited for, fetched from the object store for the handler that asks.

A coordinator says where, under the attempt's fence, each time anew: its URLs expire. Invariant: what is given is what
was saved, by its SHA-256, and of bounded size.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tenure.model.bounds import DEFAULT_BOUNDS
from tenure.model.clock import Clock
from tenure.model.errors import FieldViolation, InvalidInput, NotFound, TenureError, Unavailable
from tenure.v1.transfer import Files, Measured
from tenure.worker.execute.call import LostResult
from tenure.worker.upload import Patience
from tenure.worker.upstream import UpstreamJob

AskUpstream = Callable[[str], Awaitable[Sequence[UpstreamJob]]]


async def fetch_result(ask: AskUpstream, files: Files, clock: Clock, job: str, turn_away: Callable[[], None]) -> bytes:
    """Return the JSON text of a result; ``ask`` reads one job, with its URL.

    A coordinator of a release that does not know of such answers its first page instead, or tells no URL: it is turned
    away, and another one asked.

    Raises:
        NotFound: there is none, or it was lost. OwnershipLost: the claim is gone. Unavailable: it could not be fetched.
    """
    patience = Patience(clock, None)
    while True:
        try:
            told = await ask(job)
            found = next((one for one in told if one.id == job), None)
            if found is not None and found.result_text is not None:
                return found.result_text.encode()
            if found is None and told:
                turn_away()
                raise Unavailable(f"a coordinator was asked for the result of {job}, and told of others")
            if found is None or not found.completed:
                raise _none(job, "this job has waited for no such job that has completed")
            if isinstance(found.large, LostResult):
                raise _none(job, f"its result was lost: {found.large.reason}")
            if found.large is None or not found.result_url:
                turn_away()
                raise Unavailable(f"where the result of {job} is was not told")
            if found.large.size_bytes > DEFAULT_BOUNDS.large_result_bytes:
                raise InvalidInput([FieldViolation("job", "its result is larger than any that workers save")])
            expected = Measured(found.large.size_bytes, bytes.fromhex(found.large.sha256))
            return await files.fetch(found.result_url, expected)
        except _NoResult:
            raise
        except TenureError as exc:
            await patience.bear(exc)


class _NoResult(NotFound):
    """Another try finds none either."""


def _none(job: str, why: str) -> _NoResult:
    return _NoResult(f"there is no result of job {job}: {why}")
