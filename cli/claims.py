"""``tenure claims``: who holds what. ``list`` and ``revoke`` ask a coordinator; ``watch`` reads etcd itself.

Watching works while Postgres and every coordinator are down: it is a tool for that hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import completing
from tenure.cli.etcd import Endpoints, Prefix, options
from tenure.cli.output import Format, Output, ago, counted, line, print_data, print_record, span, to_stderr, to_stdout
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Every, Watch, show

if TYPE_CHECKING:
    from tenure.cli.claims_watch import Told
    from tenure.client import HeldClaim

app = typer.Typer(help="The claims that stand in etcd: which worker holds which job.", no_args_is_help=True)


class Transport(StrEnum):
    """How etcd is spoken to."""

    GATEWAY = "gateway"
    GRPC = "grpc"


@app.command("list")
def list_claims(
    watch: Watch = False, every: Every = EVERY, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """List the claims."""
    from tenure.client.records import lease_hex

    columns: list[Column[HeldClaim]] = [
        Column("job", lambda c: c.job_id, rank=0, is_whole=True),
        Column("worker", lambda c: c.worker, rank=1),
        Column("namespace", lambda c: c.namespace, is_wide=True),
        Column("kind", lambda c: c.kind, rank=2),
        Column("route", lambda c: c.route, rank=4),
        Column("claimed", lambda c: ago(c.claimed_at), rank=2, is_whole=True),
        Column("lease", lambda c: lease_hex(c.lease), rank=3, is_whole=True),
        Column("revision", lambda c: c.revision, rank=5, is_whole=True),
    ]
    with connect(coordinator) as client:
        show(
            lambda: sorted(client.claims(), key=lambda claim: claim.job_id),
            columns,
            output,
            empty="no claim stands: nothing is being run",
            watch=watch,
            every=every,
        )


@app.command("revoke")
def revoke(
    job_ids: Annotated[
        list[str], typer.Argument(metavar="ID", help="Ids of the jobs to take away.", autocompletion=completing.jobs)
    ],
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Take jobs away from their workers; they restart elsewhere once the lease would have ended. No crash counted."""
    done = []
    with connect(coordinator) as client:
        for job_id in job_ids:
            revoked = client.revoke_claim(job_id)
            done.append({"id": job_id, "revoked": revoked})
            if not output.is_data:
                to_stdout(f"{job_id} {'revoked' if revoked else 'was held by nobody'}")
    if output.is_data:
        print_data(done, output)
    if not all(one["revoked"] for one in done):
        raise typer.Exit(3)


@app.command("watch")
def watch(
    etcd: Endpoints = None,
    prefix: Prefix = "/tenure/v1/",
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Only of this kind.")] = None,
    worker: Annotated[str | None, typer.Option("--worker", help="Only of this worker.")] = None,
    since: Annotated[
        int | None,
        typer.Option("--since", min=1, help="Go on after this revision of etcd, the last one that was told before."),
    ] = None,
    transport: Annotated[
        Transport | None,
        typer.Option(
            "--transport",
            help="The JSON gateway, which etcd serves on the same port, or gRPC.  [default: gateway; grpc where a "
            "client certificate alone says who you are, which the gateway does not pass on]",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Follow claims as they come and go, straight from etcd (no coordinator, no Postgres needed).

    A lost connection is told, and what happened meanwhile when it is back. Where etcd has forgotten a part of that, a
    gap is told, and etcd is listed anew. With json each event is an object on a line of its own.
    """
    from tenure.cli.claims_watch import Wanted, by_gateway, follow

    chosen = options(etcd)
    if transport is None:
        transport = Transport.GRPC if chosen.cert_file and not chosen.user else Transport.GATEWAY
    if transport is Transport.GATEWAY:
        chosen = by_gateway(chosen)
    prefix = f"{prefix.removesuffix('/')}/claims/"
    asyncio.run(follow(chosen, prefix, Wanted(namespace, kind, worker), _teller(output), since=since))


def _teller(output: Format) -> Callable[[Told], None]:
    if output in (Format.JSON, Format.YAML):
        return lambda told: print_record(_record(told), output)
    if output is Format.NAME:
        return lambda told: to_stdout(told.job_id) if told.job_id else None
    return _tell


def _record(told: Told) -> dict[str, Any]:
    record: dict[str, Any] = {"event": told.event, "revision": told.revision, "at": datetime.now(UTC)}
    if told.job_id:
        record |= {"job_id": told.job_id, "claim_revision": told.claim_revision, "claim": told.claim}
        if told.is_after_gap:
            record["after_gap"] = True
    elif told.text:
        record["detail"] = told.text
    return record


def _tell(told: Told) -> None:
    match told.event:
        case "listed":
            to_stderr(f"{counted(int(told.text), 'claim')} at revision {told.revision}; watching, Ctrl-C ends")
        case "lost":
            to_stderr(f"connection lost after revision {told.revision}: {line(told.text)}; going on when it is back")
        case "back":
            to_stderr(f"connected again; nothing after revision {told.revision} is left out")
        case "gap":
            to_stderr(f"gap after revision {told.revision}: {line(told.text)}; listing anew")
        case _:
            claim = told.claim
            words = f"{claim.get('kind', '')} {claim.get('route', '')} by {claim.get('worker', '?')}" if claim else ""
            since = _held(claim) if told.event == "gone" else ""
            when = "  some time in the gap" if told.is_after_gap else ""
            to_stdout(f"{datetime.now():%H:%M:%S}  {told.event:<8}{told.job_id}  {words}{since}{when}")


def _held(claim: dict[str, Any]) -> str:
    try:
        since = datetime.fromisoformat(str(claim.get("claimed_at")))
        return f"  after {span(max((datetime.now(UTC) - since).total_seconds(), 0.0))}"
    except (ValueError, TypeError):
        return ""
