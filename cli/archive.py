"""``tenure archive``: the files into which retention has put jobs before it removed them."""

from __future__ import annotations

from typing import Annotated

import typer

from tenure.cli.artifacts import size_text
from tenure.cli.output import Format, Output, ago, print_data, print_table, to_stderr
from tenure.cli.progress import Bar
from tenure.cli.session import Address, connect

app = typer.Typer(help="The archive: jobs that retention has removed from the database.", no_args_is_help=True)
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")]


@app.callback()
def archive() -> None:
    """The archive: jobs that retention has removed from the database."""


@app.command("list")
def list_files(
    namespace: Namespace = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List the files of the archive, newest first, with their sizes and between which times their jobs ended."""
    with connect(coordinator) as client:
        found = list(client.archive_files(namespace=namespace, limit=limit))
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("namespace", "jobs", "size", "ended from", "until", "archived", "key"),
        [
            (
                one.namespace,
                one.jobs,
                size_text(one.size_bytes),
                f"{one.finished_from:%Y-%m-%d %H:%M:%S}",
                f"{one.finished_until:%Y-%m-%d %H:%M:%S}",
                ago(one.archived_at),
                one.key,
            )
            for one in found
        ],
        empty="the archive is empty: `tenure retention set 90d --archive` fills it",
    )
    if len(found) == limit:
        to_stderr(f"the newest {limit}; --limit shows more")


@app.command("verify")
def verify(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Files; none: all of them.")] = None,
    namespace: Namespace = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Have files read from the object store, and say which are not as they were written. Ends with 1 if one is not."""
    wrong: dict[str, str] = {}
    looked_at = 0
    with connect(coordinator) as client, Bar("files", len(ids) if ids else None) as bar:
        for id in ids or (file.id for file in client.archive_files(namespace=namespace)):
            looked_at += 1
            problem = client.verify_archive_file(id)
            bar.advance()
            if problem is not None:
                wrong[id] = problem
    if output.is_data:
        print_data({"files": looked_at, "wrong": wrong}, output)
    else:
        print_table(("file", "problem"), list(wrong.items()), empty=f"all {looked_at} files are as they were written")
    if wrong:
        raise typer.Exit(1)
