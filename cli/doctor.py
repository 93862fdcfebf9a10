"""``tenure doctor``: looks at every part that it has an address of, and says what is wrong and what to do.

Reads only, but for one lease that it grants and revokes. Each check is by itself: one that fails stops no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from tenure.cli.db import Dsn, told_dsn
from tenure.cli.etcd import Endpoints, opened
from tenure.cli.etcd_faults import ADVICE, NEWEST, OLDEST, faults_of, parsed
from tenure.cli.output import Format, Output, line, print_data
from tenure.cli.session import Address
from tenure.model.errors import TenureError

if TYPE_CHECKING:
    from tenure.store.etcd.port import Etcd
    from tenure.store.postgres.migrate import SchemaStatus

LEAST_POSTGRES = 140_000
MIN_TTL_S = 2
DB_WARN_BYTES = 1_500_000_000
ASK_S = 5.0
CHECK_S = 30.0
"""Backstop: each check bounds its own calls, but a busy machine is slow to import what they need."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, and the next step where there is one."""

    level: Level
    what: str
    detail: str
    next_step: str = ""


def doctor(
    postgres: Dsn = None,
    etcd: Endpoints = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Check coordinators, workers, Postgres and etcd, as far as their addresses are known. Exits 1 if one is broken."""
    findings = asyncio.run(_examine(coordinator, told_dsn(postgres), etcd))
    if output.is_data:
        print_data(findings, output)
    else:
        _print(findings)
    if any(finding.level is Level.FAIL for finding in findings):
        raise typer.Exit(1)


async def _examine(coordinator: str | None, postgres: str | None, etcd: str | None) -> list[Finding]:
    findings: list[Finding] = []
    findings += await _guarded(
        "coordinator", lambda: _coordinators(coordinator), "is it running? `tenure up` starts all"
    )
    if postgres:
        findings += await _guarded("postgres", lambda: asyncio.to_thread(_postgres, postgres), "check its address")
    else:
        findings.append(Finding(Level.SKIP, "postgres", "no address", "set TENURE_POSTGRES_DSN to check it"))
    if etcd:
        for endpoint in (part.strip() for part in etcd.split(",") if part.strip()):
            findings += await _guarded(endpoint, lambda at=endpoint: _etcd(at), "is it running?")  # type: ignore[misc]
    else:
        findings.append(Finding(Level.SKIP, "etcd", "no address", "set TENURE_ETCD_ENDPOINTS to check it"))
    return findings


async def _guarded(what: str, check: Callable[[], Awaitable[list[Finding]]], next_step: str) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TenureError as exc:
        return [Finding(Level.FAIL, what, exc.message, exc.hint or next_step)]
    except TimeoutError:
        return [Finding(Level.FAIL, what, f"no answer within {CHECK_S:g} s", next_step)]


async def _coordinators(address: str | None) -> list[Finding]:
    from tenure.client import AsyncClient

    async with AsyncClient(address, timeout_s=ASK_S) as client:
        cluster = await client.cluster()
        workers = await client.workers()
    count = len(cluster.coordinators)
    return [
        Finding(Level.OK, "coordinator", f"answers, version {cluster.version}, {count} registered"),
        Finding(Level.OK, "leader", cluster.leader)
        if cluster.leader
        else Finding(Level.FAIL, "leader", "there is none", "wait for the leader TTL; then look at coordinators' logs"),
        *(
            [Finding(Level.WARN, "coordinators", "only one", "run two or more, so that one may die")]
            if count == 1
            else []
        ),
        Finding(Level.OK, "workers", f"{len(workers)} registered, room for {sum(w.capacity for w in workers)} jobs")
        if workers
        else Finding(Level.WARN, "workers", "none is registered", "tenure worker --import my.handlers --pool default"),
    ]


def _postgres(dsn: str) -> list[Finding]:
    import psycopg

    from tenure.store.postgres.dsn import checked
    from tenure.store.postgres.migrate import status

    try:
        with psycopg.connect(
            checked(dsn), connect_timeout=round(ASK_S), application_name="tenure-doctor"
        ) as connection:
            number = connection.info.server_version
            rows = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
                (["fsync", "synchronous_commit", "full_page_writes"],),
            ).fetchall()
            in_recovery = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    except psycopg.Error as exc:
        words = str(exc).strip().splitlines()
        return [Finding(Level.FAIL, "postgres", words[0] if words else type(exc).__name__, "check TENURE_POSTGRES_DSN")]
    release = f"{number // 10_000}.{number % 10_000}"
    findings = [
        Finding(Level.OK, "postgres", f"answers, version {release}")
        if number >= LEAST_POSTGRES
        else Finding(Level.FAIL, "postgres", f"version {release} is too old", "run Postgres 14 or later")
    ]
    if in_recovery and in_recovery[0]:
        findings.append(Finding(Level.FAIL, "postgres", "is a standby", "give the address of the primary"))
    findings += [
        Finding(
            Level.WARN, "postgres", f"{name} is off: an acknowledged job can be lost in a crash", f"set {name} = on"
        )
        for name, setting in rows
        if setting == "off"
    ]
    findings.append(_schema(asyncio.run(status(dsn))))
    return findings


def _schema(schema: SchemaStatus) -> Finding:
    if schema.is_current:
        return Finding(Level.OK, "schema", str(schema.current))
    if schema.is_usable:
        return Finding(
            Level.OK, "schema", f"{schema.current}, newer than {schema.wanted}, on which this release runs too"
        )
    next_step = "run a newer release" if schema.is_newer else "tenure db migrate"
    return Finding(
        Level.FAIL, "schema", f"is {schema.current or 'none'}, this release wants {schema.wanted}", next_step
    )


async def _etcd(endpoint: str) -> list[Finding]:
    async with opened(endpoint) as etcd:
        status = await etcd.status()
        granted = await _granted(etcd)
    findings = [Finding(Level.OK, endpoint, f"answers, version {status.version}, revision {status.revision}")]
    if not status.leader_id:
        findings.append(Finding(Level.FAIL, endpoint, "sees no leader", "are most of its members up and connected?"))
    findings += [Finding(Level.FAIL, endpoint, f"alarm {alarm}", _alarm_step(alarm)) for alarm in status.alarms]
    if status.db_size_bytes > DB_WARN_BYTES:
        size = f"{status.db_size_bytes / 1e9:.1f} GB of database, the usual quota is 2.1 GB"
        findings.append(Finding(Level.WARN, endpoint, size, "etcdctl defrag; is a leader there to compact?"))
    if isinstance(granted, Finding):
        findings.append(replace(granted, what=endpoint))
    elif granted > MIN_TTL_S:
        findings.append(
            Finding(
                Level.WARN,
                endpoint,
                f"grants {granted:g} s where {MIN_TTL_S} s were asked: jobs restart that much later",
                "lower etcd's --election-timeout (the least TTL is 1.5 times it)",
            )
        )
    return findings + _version_findings(endpoint, status.version)


async def _granted(etcd: Etcd) -> float | Finding:
    """Return the TTL that etcd grants where the least is asked for, or why it grants none: the rest is still told."""
    try:
        grant = await etcd.grant(MIN_TTL_S)
    except TenureError as exc:
        return Finding(Level.FAIL, "etcd", f"grants no lease: {exc.message}", exc.hint or "nothing can be claimed")
    with contextlib.suppress(TenureError):  # it expires by itself
        await etcd.revoke(grant.lease)
    return grant.ttl_s


def _version_findings(endpoint: str, text: str) -> list[Finding]:
    version = parsed(text)
    if version is None:
        return [Finding(Level.WARN, endpoint, f"version {text!r} cannot be read", ADVICE)]
    findings = []
    if version[:2] < OLDEST or version[:2] > NEWEST:
        known = f"3.{OLDEST[1]} to 3.{NEWEST[1]}"
        findings.append(Finding(Level.WARN, endpoint, f"version {text} was not tried, {known} were", ADVICE))
    faults = faults_of(version)
    if faults:
        told = "; ".join(
            f"{fault.words} (issue {fault.issue}, fixed in {_fix(fault.fixed_in, version)})" for fault in faults
        )
        findings.append(Finding(Level.WARN, endpoint, f"version {text} has known faults: {told}", ADVICE))
    return findings


def _fix(fixed_in: dict[tuple[int, int], int], version: tuple[int, int, int]) -> str:
    return f"{version[0]}.{version[1]}.{fixed_in[version[:2]]}"


def _alarm_step(alarm: str) -> str:
    if "NOSPACE" in alarm.upper():
        return "compact, etcdctl defrag, then etcdctl alarm disarm; raise --quota-backend-bytes"
    return "see etcdctl alarm list and etcd's page on disaster recovery"


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    colors = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.SKIP: "dim"}
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for finding in findings:
        text = Text(f"{finding.level:<5}", style=colors[finding.level])
        text.append(f"{line(finding.what)}: {line(finding.detail)}", style="default")
        console.print(text)
        if finding.next_step:
            console.print(Text(f"     try: {line(finding.next_step)}", style="dim"))
