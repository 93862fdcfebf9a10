"""One job: where it stands and why, its attempts in time, its log as it grows, what went in and came out, acts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog
from markupsafe import escape
from starlette.responses import RedirectResponse, Response, StreamingResponse

from tenure.client.records import Attempt, Job, LogLine
from tenure.dashboard import charts, render
from tenure.dashboard.live import ENDED, TROUBLE
from tenure.dashboard.pages.schedules import name_of
from tenure.dashboard.visit import Visit, told
from tenure.model.errors import TenureError
from tenure.model.states import JobState

log = structlog.get_logger(__name__)

TAIL = 500
"""Lines of a log that a page begins with."""
MAX_UNSENT_LINES = 1_000
"""Lines that are read and not sent yet, at most: then the log is read no further, until they are. None is left out."""
GATHER_S = 0.25
PARENTS = 50


async def show(visit: Visit) -> Response:
    """Show a job."""
    id = visit.path("id")
    job = await visit.client.get(id)
    attempts, artifacts, lines, why, schedule = await asyncio.gather(
        visit.client.attempts(id), _artifacts(visit, job), _tail(visit, id), _why(visit, job), name_of(visit, job)
    )
    return visit.page(
        "job.html",
        artifacts=artifacts,
        lines=lines,
        tail=TAIL,
        why=why,
        schedule=schedule,
        parents=job.depends_on[:PARENTS],
        parents_left=max(0, len(job.depends_on) - PARENTS),
        **_context(visit, job, attempts),
    )


async def live(visit: Visit) -> Response:
    """Tell where it stands, again and again, and what its attempts log, as they do: one stream for a page.

    Browsers open six to a host, whatever the number of pages.
    """
    id = visit.path("id")
    schedule: str | None = None

    async def produce() -> dict[str, str]:
        nonlocal schedule
        job = await visit.client.get(id)
        if schedule is None:  # it stays as it is: looked for once
            schedule = await name_of(visit, job)
        found = _context(visit, job, await visit.client.attempts(id))
        context = visit.shared_context(why=await _why(visit, job), schedule=schedule, **found)
        parts = {name: render.block("job.html", name, context) for name in ("head", "story")}
        return {**parts, ENDED: "yes"} if job.is_terminal else parts

    return visit.dashboard.live.watch(visit, ("job", id), produce, beside=_growing(visit, id))


async def cancel(visit: Visit) -> Response:
    """Cancel it, or ask its worker to stop it."""
    id = visit.path("id")
    job = await visit.client.cancel(id, visit.form.get("reason", ""))
    said = "Canceled." if job.state is JobState.CANCELED else "Its worker was asked to stop it."
    return visit.back(f"/ui/jobs/{id}", f"It had ended already: {job.state}." if _had_ended(job) else said)


async def retry(visit: Visit) -> Response:
    """Make another go at it."""
    job = await visit.client.retry(visit.path("id"))
    return visit.back(
        f"/ui/jobs/{job.id}", "This is the retry." if job.created else "It had been retried before: by this."
    )


async def delete(visit: Visit) -> Response:
    """Delete it: listings leave it out unless they are asked for deleted ones."""
    id = visit.path("id")
    await visit.client.delete(id)
    return visit.back(f"/ui/jobs/{id}", "Deleted: it is listed no more unless deleted ones are asked for.")


async def revoke(visit: Visit) -> Response:
    """Take it away from its worker."""
    id = visit.path("id")
    revoked = await visit.client.revoke_claim(id)
    return visit.back(
        f"/ui/jobs/{id}",
        "Taken from its worker: it restarts elsewhere." if revoked else "Nobody held it.",
        failed=not revoked,
    )


async def payload(visit: Visit) -> Response:
    """Give what went in, as a file."""
    job = await visit.client.get(visit.path("id"))
    return _file(job.payload, f"{job.id}-payload.json")


async def result(visit: Visit) -> Response:
    """Give what came out, as a file; from the object store where it is there."""
    job = await visit.client.get(visit.path("id"))
    if job.result_object is not None:
        return RedirectResponse(await visit.client.download_url(job.id), 303)
    return _file(await visit.client.result(job), f"{job.id}-result.json")


async def artifact(visit: Visit) -> Response:
    """Lead to a file that an attempt has saved."""
    url = await visit.client.download_url(
        visit.path("id"), visit.path("name"), attempt=int(visit.request.path_params["attempt"])
    )
    return RedirectResponse(url, 303)


async def log_file(visit: Visit) -> Response:
    """Give the end of its log as text."""
    lines = visit.client.logs(visit.path("id"), tail=100_000)
    first = await anext(lines, None)  # what is refused is refused with words

    async def text() -> AsyncIterator[str]:
        if first is not None:
            yield _text_line(first)
        async for line in lines:
            yield _text_line(line)

    response = StreamingResponse(text(), media_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{visit.path("id")}.log"'
    return response


def _context(visit: Visit, job: Job, attempts: Sequence[Attempt]) -> dict[str, Any]:
    now = visit.now
    return {"job": job, "attempts": attempts, "now": now, "chart": charts.timeline(job, attempts, now)}


async def _why(visit: Visit, job: Job) -> Any:
    if job.is_terminal or job.state is JobState.EXECUTING:
        return None
    return await visit.client.why(job.id)


async def _artifacts(visit: Visit, job: Job) -> list[Any]:
    return await visit.client.artifacts(job.id) if job.attempt else []


async def _tail(visit: Visit, id: str) -> list[LogLine]:
    """Read the end of the log; one that cannot be read hides nothing else."""
    try:
        return [line async for line in visit.client.logs(id, tail=TAIL)]
    except TenureError:
        return []


async def _growing(visit: Visit, id: str) -> AsyncIterator[tuple[str, str]]:
    """Yield the end of the log whole, then what comes, gathered."""
    waiting: asyncio.Queue[LogLine | None] = asyncio.Queue(MAX_UNSENT_LINES)
    trouble: list[str] = []

    async def read() -> None:
        try:
            async for line in visit.client.logs(id, follow=True, tail=TAIL):
                await waiting.put(line)
        except TenureError as exc:  # one that cannot be read hides nothing else
            trouble.append(f"Not up to date: the log cannot be followed any more ({told(exc)}). Load the page again.")
        except Exception:
            log.exception("live_log_failed", job=id)
            trouble.append("Not up to date: the log cannot be followed any more. Load the page again.")
        await waiting.put(None)  # not where it is canceled: nobody takes it then

    reading = asyncio.create_task(read())
    is_first, is_over = True, False
    try:
        while not is_over:
            first = await waiting.get()
            await visit.dashboard.clock.sleep(GATHER_S)
            lines = [first]
            while not waiting.empty():
                lines.append(waiting.get_nowait())
            is_over = None in lines
            found = [line for line in lines if line is not None]
            if found or is_first:
                yield ("tail" if is_first else "lines"), render.render("log_lines.html", {"lines": found})
            is_first = False
        for text in trouble:
            yield TROUBLE, escape(text)
    finally:
        reading.cancel()
        await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.exception()


def _text_line(line: LogLine) -> str:
    at = line.at.isoformat(timespec="milliseconds") if line.at else "-"
    more = f" {json.dumps(line.fields, ensure_ascii=False)}" if line.fields else ""
    return render.shown(f"{at} {line.attempt} {line.level:<8} {line.message}{more}").replace("\n", "\\n") + "\n"


def _file(value: Any, name: str) -> Response:
    response = Response(json.dumps(value, ensure_ascii=False, indent=2), media_type="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _had_ended(job: Job) -> bool:
    return job.is_terminal and job.state is not JobState.CANCELED


ROUTES = (
    ("/jobs/{id}", ("GET",), show),
    ("/jobs/{id}/cancel", ("POST",), cancel),
    ("/jobs/{id}/retry", ("POST",), retry),
    ("/jobs/{id}/delete", ("POST",), delete),
    ("/jobs/{id}/revoke", ("POST",), revoke),
    ("/jobs/{id}/payload.json", ("GET",), payload),
    ("/jobs/{id}/result.json", ("GET",), result),
    ("/jobs/{id}/log.txt", ("GET",), log_file),
    ("/jobs/{id}/artifacts/{attempt:int}/{name:path}", ("GET",), artifact),
    ("/live/jobs/{id}", ("GET",), live),
)
