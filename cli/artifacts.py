"""``tenure jobs artifacts`` and ``tenure jobs download``: the files that attempts have saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import completing
from tenure.cli.output import Format, Output, ago, print_data, print_done, print_table
from tenure.cli.progress import Busy
from tenure.cli.session import Address, connect

if TYPE_CHECKING:
    from tenure.client import Job

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.", autocompletion=completing.jobs)]


def artifacts(job_id: JobId, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the files that attempts of a job have saved; a result too large to be kept with its job is one of them."""
    with connect(coordinator) as client:
        found = client.artifacts(job_id)
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("attempt", "name", "size", "type", "saved", "sha256"),
        [
            (
                one.attempt,
                "(result)" if one.is_result else one.name,
                size_text(one.size_bytes),
                one.content_type,
                ago(one.created_at),
                one.sha256,
            )
            for one in found
        ],
        empty="nothing was saved",
    )


def download(
    job_id: JobId,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its name; none: the result.")] = None,
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="A file, or a folder.")] = Path("."),
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="Of this attempt; 0: the last one with it.")] = 0,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Fetch a file that a job has saved, or its large result; it is checked, and there only when it is whole."""
    with connect(coordinator) as client, Busy("fetching"):
        path = client.download(job_id, name, to, attempt=attempt)
    size = path.stat().st_size
    print_done(f"{path} ({size_text(size)})", output, path=str(path), size_bytes=size)


def result_note(job: Job) -> str | None:
    """Say where a result is that is not with its job, or None."""
    if job.result_object is not None:
        size = size_text(job.result_object.size_bytes)
        return f"{size}, in the object store: tenure jobs download {job.id}"
    if job.result_lost is not None:
        return f"lost ({size_text(job.result_lost.size_bytes)}): {job.result_lost.reason}"
    return None


def size_text(size_bytes: int) -> str:
    """Return a size with its unit."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    power = 1 if size_bytes < 1024**2 else 2 if size_bytes < 1024**3 else 3
    return f"{size_bytes / 1024**power:.1f} {'KMG'[power - 1]}iB"
