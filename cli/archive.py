"""``tenure archive``: the files into which retention has put jobs before it removed them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tenure.cli.artifacts import size_text
from tenure.cli.output import Format, Output, ago, print_data, print_table, to_stderr
from tenure.cli.progress import Bar
from tenure.cli.session import Address, connect
from tenure.model.errors import FieldViolation, InvalidInput, PermissionDenied

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
    """Have files read from the object store, and say which are not as they were written. Ends with 1 if one is not.

    Without files and namespace also those that the database does not know, as after a restore of it; this takes an
    operator of all namespaces: `tenure archive adopt` takes them in.
    """
    wrong: dict[str, str] = {}
    unknown: list[str] = []
    looked_at = 0
    with connect(coordinator) as client, Bar("files", len(ids) if ids else None) as bar:
        for id in ids or (file.id for file in client.archive_files(namespace=namespace)):
            looked_at += 1
            problem = client.verify_archive_file(id)
            bar.advance()
            if problem is not None:
                wrong[id] = problem
        if not ids and namespace is None:
            try:
                unknown = list(client.unknown_archive_files())
            except PermissionDenied:
                to_stderr("whether there are files that the database does not know is for operators of all namespaces")
    if output.is_data:
        print_data({"files": looked_at, "wrong": wrong, "unknown": unknown}, output)
    else:
        print_table(("file", "problem"), list(wrong.items()), empty=f"all {looked_at} files are as they were written")
        if unknown:
            print_table(("the database does not know", ""), [(key, "") for key in unknown], empty="")
            to_stderr("after a restore of the database: tenure archive adopt --all")
    if wrong or unknown:
        raise typer.Exit(1)


@app.command("adopt")
def adopt(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Files, as `verify` lists them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that the database does not know.")] = False,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Take in files that the database does not know, as after a restore of it.

    Those of their jobs that are nowhere else get into files that count; the files themselves go.
    """
    if bool(keys) is all_:
        raise InvalidInput([FieldViolation("KEY", "name files, or all of them with --all")])
    done: list[dict[str, Any]] = []
    with connect(coordinator) as client:
        for key in keys or list(client.unknown_archive_files()):
            file, known = client.adopt_archive_file(key)
            done.append({"key": key, "adopted": file.jobs if file else 0, "known": known, "file": file and file.key})
    if output.is_data:
        print_data(done, output)
        return
    print_table(
        ("file", "jobs adopted", "there already", "now in"),
        [(one["key"], one["adopted"], one["known"], one["file"] or "") for one in done],
        empty="the database knows all files of the archive",
    )
