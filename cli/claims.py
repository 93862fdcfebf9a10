"""``tenure claims``: who holds what. ``list`` and ``revoke`` ask a coordinator; ``watch`` reads etcd itself.

Watching works while Postgres and every coordinator are down: it is a tool for that hour.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli.etcd import Endpoints, Prefix, opened
from tenure.cli.output import Format, Output, ago, print_json, print_table, to_stderr, to_stdout
from tenure.cli.session import Address, connect

if TYPE_CHECKING:
    from tenure.store.etcd.port import Event

app = typer.Typer(help="The claims that stand in etcd: which worker holds which job.", no_args_is_help=True)


@app.command("list")
def list_claims(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the claims."""
    with connect(coordinator) as client:
        found = client.claims()
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        ("job", "worker", "kind", "route", "claimed", "lease", "revision"),
        [(c.job_id, c.worker, c.kind, c.route, ago(c.claimed_at), f"{c.lease:016x}", c.revision) for c in found],
        empty="no claim stands: nothing is being run",
    )


@app.command("revoke")
def revoke(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of the jobs to take away.")],
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Take jobs away from their workers; they restart elsewhere once the lease would have ended. No crash counted."""
    done = []
    with connect(coordinator) as client:
        for job_id in job_ids:
            revoked = client.revoke_claim(job_id)
            done.append({"id": job_id, "revoked": revoked})
            if output is Format.TABLE:
                to_stdout(f"{job_id} {'revoked' if revoked else 'was held by nobody'}")
    if output is Format.JSON:
        print_json(done)
    if not all(one["revoked"] for one in done):
        raise typer.Exit(3)


@app.command("watch")
def watch(etcd: Endpoints = None, prefix: Prefix = "/tenure/v1/", output: Output = Format.TABLE) -> None:
    """Follow claims as they come and go, straight from etcd (no coordinator, no Postgres needed)."""
    asyncio.run(_watch(etcd, prefix, output))


async def _watch(endpoints: str | None, prefix: str, output: Format) -> None:
    from tenure.store.etcd.port import Compacted, EventKind

    claims = f"{prefix}claims/"
    async with opened(endpoints) as etcd:
        while True:
            listing = await etcd.list(claims)
            for item in listing.items:
                _print("held", item.key.removeprefix(claims), item.value, output)
            to_stderr(f"{len(listing.items)} claims at revision {listing.revision}; watching, Ctrl-C ends")
            try:
                async for batch in etcd.watch(claims, start_revision=listing.revision + 1, previous=True):
                    for event in batch.events:
                        word = "claimed" if event.kind is EventKind.PUT else "gone"
                        _print(word, event.item.key.removeprefix(claims), _value(event), output)
            except Compacted:
                to_stderr("etcd has forgotten part of the story: listing again")


def _value(event: Event) -> bytes:
    return event.item.value or (event.previous.value if event.previous else b"")


def _print(word: str, job_id: str, value: bytes, output: Format) -> None:
    import json

    try:
        claim = json.loads(value) if value else {}
    except ValueError:
        claim = {}
    if output is Format.JSON:
        print_json({"event": word, "job_id": job_id, "claim": claim}, compact=True)
        return
    told = f"{claim.get('kind', '')} {claim.get('route', '')} by {claim.get('worker', '?')}" if claim else ""
    to_stdout(f"{datetime.now():%H:%M:%S}  {word:<8}{job_id}  {told}")
