"""Dead letters: failed jobs that nobody has retried, by kind and error, and another go at them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from starlette.responses import Response

from tenure.client.records import Job, JobPage
from tenure.dashboard.visit import Visit, link, told
from tenure.model.errors import TenureError
from tenure.model.states import JobState

PAGE_JOBS = 500
SHOWN = 5
AT_ONCE = 10


@dataclass(slots=True)
class Group:
    """Failed jobs of one kind with one type of error."""

    namespace: str
    kind: str
    error: str
    jobs: list[Job] = field(default_factory=list)


async def show(visit: Visit) -> Response:
    """List what has failed, in groups."""
    page, groups = await _read(visit, visit.query.get("page"), visit.query.get("kind"), visit.query.get("namespace"))
    return visit.page(
        "letters.html",
        groups=sorted(groups, key=lambda group: len(group.jobs), reverse=True),
        looked=len(page.jobs),
        dead=sum(len(group.jobs) for group in groups),
        next=page.next_page_token,
        token=visit.query.get("page", ""),
        asked={name: visit.query.get(name, "") for name in ("kind", "namespace")},
        shown=SHOWN,
    )


async def retry(visit: Visit) -> Response:
    """Retry the jobs of one group on a page."""
    form = visit.form
    token = form.get("page") or None
    _, groups = await _read(visit, token, form.get("kind") or None, form.get("namespace") or None)
    wanted = (form.get("of_namespace"), form.get("of_kind"), form.get("of_error"))
    jobs = [job for group in groups if (group.namespace, group.kind, group.error) == wanted for job in group.jobs]
    room = asyncio.Semaphore(AT_ONCE)

    async def again(job: Job) -> TenureError | None:
        async with room:
            try:
                await visit.client.retry(job.id)
            except TenureError as exc:
                return exc
            return None

    problems = [exc for exc in await asyncio.gather(*map(again, jobs)) if exc is not None]
    said = f"{len(jobs) - len(problems):,} retried."
    if problems:
        said += f" {len(problems):,} were not: {told(problems[0])}"
    back = link("/ui/letters", page=token, kind=form.get("kind"), namespace=form.get("namespace"))
    return visit.back(back, said, failed=bool(problems))


async def _read(
    visit: Visit, token: str | None, kind: str | None, namespace: str | None
) -> tuple[JobPage, list[Group]]:
    page = await visit.client.list_page(
        states=[JobState.FAILED], kind=kind, namespace=namespace, page_size=PAGE_JOBS, page_token=token
    )
    groups: defaultdict[tuple[str, str, str], list[Job]] = defaultdict(list)
    for job in page.jobs:
        if job.retried_by is None:
            error = job.error.type if job.error else job.reason
            groups[job.namespace, job.kind, error[:200]].append(job)
    return page, [Group(*key, jobs=found) for key, found in groups.items()]


ROUTES = (("/letters", ("GET",), show), ("/letters/retry", ("POST",), retry))
