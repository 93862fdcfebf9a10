"""``tenure doctor``: looks at every part that it has an address of, and says what is wrong and what to do.

Reads only, but for leases that it grants and revokes, for commits that it times, which change nothing, and for one
object that a coordinator writes and deletes. Each check is by itself: one that fails, or breaks, stops no other.
Invariant: it exits 0 only if every check was done; what could not be looked at from here is said to be left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli.db import Dsn, told_dsn
from tenure.cli.etcd import Endpoints, opened, options
from tenure.cli.etcd_faults import ADVICE, NEWEST, OLDEST, faults_of, parsed
from tenure.cli.findings import Finding, Level
from tenure.cli.output import Format, Output, line, print_data
from tenure.cli.session import Address
from tenure.model.errors import PermissionDenied, TenureError

if TYPE_CHECKING:
    from tenure.cli.doctor_certificates import Certificate
    from tenure.cli.doctor_clocks import Clock
    from tenure.client import Cluster
    from tenure.store.etcd.port import Etcd
    from tenure.store.postgres.migrate import SchemaStatus

LEAST_POSTGRES = 140_000
MIN_TTL_S = 2
DB_WARN_BYTES = 1_500_000_000
ASK_S = 5.0
LOOKS = 16
LOOK_S = 2.0
"""For what is only looked at beside: an address may be one that cannot be reached from here."""
CHECK_S = 70.0
"""Backstop: each check bounds its own calls, but a busy machine is slow to import what they need."""


@dataclass(slots=True)
class _Seen:
    """What several checks see together: judged when all have looked."""

    clocks: list[Clock] = field(default_factory=list)
    clusters: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    servers: list[tuple[str, int, str]] = field(default_factory=list)
    """Host, port and name of what shows a certificate."""


def doctor(
    postgres: Dsn = None,
    etcd: Endpoints = None,
    coordinator: Address = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings, too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Check coordinators, workers, Postgres and etcd, as far as their addresses are known. Exits 1 if one is broken."""
    findings = asyncio.run(_examine(coordinator, told_dsn(postgres), etcd))
    if output.is_data:
        print_data(findings, output)
    else:
        _print(findings)
    bad = (Level.FAIL, Level.WARN) if strict else (Level.FAIL,)
    if any(finding.level in bad for finding in findings):
        raise typer.Exit(1)


async def _examine(coordinator: str | None, postgres: str | None, etcd: str | None) -> list[Finding]:
    findings: list[Finding] = []
    seen = _Seen()
    findings += await _guarded(
        "coordinator", lambda: _coordinators(coordinator, seen), "is it running? `tenure up` starts all"
    )
    if findings[0].level is Level.FAIL:
        findings.append(Finding(Level.SKIP, "object store", "no coordinator answers", "only they have its credentials"))
    else:
        findings += await _guarded("object store", lambda: _object_store(coordinator), "see TENURE_OBJECT_STORE")
    if postgres:
        findings += await _guarded(
            "postgres", lambda: asyncio.to_thread(_postgres, postgres, seen), "check its address"
        )
    else:
        findings.append(Finding(Level.SKIP, "postgres", "no address", "set TENURE_POSTGRES_DSN to check it"))
    if etcd:
        for endpoint in (part.strip() for part in etcd.split(",") if part.strip()):
            findings += await _guarded(endpoint, lambda at=endpoint: _etcd(at, seen), "is it running?")  # type: ignore[misc]
    else:
        findings.append(Finding(Level.SKIP, "etcd", "no address", "set TENURE_ETCD_ENDPOINTS to check it"))
    return findings + await _guarded("certificates", lambda: asyncio.to_thread(_together, seen, os.environ), "")


def _together(seen: _Seen, environment: Mapping[str, str]) -> list[Finding]:
    """Judge what several checks have seen: members of etcd, clocks, certificates."""
    from tenure.cli import doctor_certificates as certificates
    from tenure.cli import doctor_clocks, doctor_etcd

    findings = doctor_etcd.judge_members(seen.clusters, seen.versions) if seen.clusters else []
    findings += doctor_clocks.judge(seen.clocks)
    found = []
    for one in certificates.in_files(environment):
        if isinstance(one, Finding):
            findings.append(one)
        else:
            found.append(one)
    with ThreadPoolExecutor(LOOKS) as pool:
        for shown in pool.map(_shown, seen.servers):
            if isinstance(shown, Finding):
                findings.append(shown)
            else:
                found += shown
    return findings + list(certificates.judge(found, datetime.now(UTC)))


def _shown(server: tuple[str, int, str]) -> list[Certificate] | Finding:
    """Return the certificates that a server shows, or why they were not seen."""
    from tenure.cli.doctor_certificates import shown_by

    host, port, name = server
    try:
        return shown_by(host, port, name, is_postgres=name == "postgres")
    except OSError as exc:
        told, step = f"{name}: its certificate was not seen: {exc}", f"look from where {host}:{port} can be reached"
        return Finding(Level.SKIP, "certificates", told, step, check="certificates")
    except ValueError as exc:
        told = f"{name}: its certificate cannot be read: {exc}"
        return Finding(Level.FAIL, "certificates", told, "issue it anew", check="certificates")


async def _guarded(what: str, check: Callable[[], Awaitable[list[Finding]]], next_step: str) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TenureError as exc:
        return [Finding(Level.FAIL, what, exc.message, exc.hint or next_step)]
    except TimeoutError:
        return [Finding(Level.FAIL, what, f"no answer within {CHECK_S:g} s", next_step)]
    except Exception as exc:  # the top of a check: whatever breaks it must neither end the others nor pass for well
        told = f"could not be looked at: {type(exc).__name__}: {exc}"
        return [Finding(Level.FAIL, what, told, next_step or "if all is well there, it is a fault of tenure")]


async def _coordinators(address: str | None, seen: _Seen) -> list[Finding]:
    from tenure.client import AsyncClient

    async with AsyncClient(address, timeout_s=ASK_S) as client:
        cluster = await client.cluster()
        workers = await client.workers()
    await _look_at_coordinators(cluster, seen)
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


async def _object_store(address: str | None) -> list[Finding]:
    """Have a coordinator try it out: nobody else holds its credentials."""
    from tenure.client import AsyncClient
    from tenure.client.errors import UnknownCall

    async with AsyncClient(address, timeout_s=ASK_S) as client:
        try:
            steps = await client.check_object_store()
        except PermissionDenied:
            told = "is tried out only for who may operate everywhere"
            return [Finding(Level.SKIP, "object store", told, "use an operator's token")]
        except UnknownCall:
            return [
                Finding(
                    Level.SKIP, "object store", "the coordinator is of a release that tries nothing out", "update it"
                )
            ]
    if not steps:
        return [Finding(Level.SKIP, "object store", "there is none", "set TENURE_OBJECT_STORE for the coordinators")]
    failed = [step for step in steps if step.problem]
    if failed:
        return [
            Finding(Level.FAIL, "object store", f"{step.name}: {step.problem}", step.hint or "see TENURE_OBJECT_STORE")
            for step in failed
        ]
    times = ", ".join(f"{step.name} {step.took_s * 1_000:.0f} ms" for step in steps)
    return [Finding(Level.OK, "object store", f"works for the coordinator that answers: {times}")]


async def _look_at_coordinators(cluster: Cluster, seen: _Seen) -> None:
    """Read the clock of each, and note where it shows a certificate. One that is not reached from here is left out."""
    import httpx

    from tenure.cli.doctor_clocks import Clock

    is_tls = bool(os.environ.get("TENURE_TLS_CA") or os.environ.get("TENURE_TLS"))

    async def look(client: httpx.AsyncClient, name: str, address: str) -> None:
        before = datetime.now(UTC)
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError, KeyError):
            answer = await client.get(f"http{'s' * is_tls}://{address}/livez")
            after = datetime.now(UTC)
            theirs = parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
            middle = before + (after - before) / 2
            seen.clocks.append(Clock(name, theirs, middle, (after - before).total_seconds(), 1.0))

    if is_tls:
        for one in cluster.coordinators:
            host, _, port = one.grpc.rpartition(":")
            seen.servers.append((host.strip("[]"), int(port), one.id))
    # A clock is read and nothing is sent: whose certificate it is does not matter here.
    async with httpx.AsyncClient(timeout=LOOK_S, verify=False, trust_env=False) as client:  # noqa: S501
        await asyncio.gather(*(look(client, one.id, one.http) for one in cluster.coordinators if one.http))


def _postgres(dsn: str, seen: _Seen) -> list[Finding]:
    import psycopg

    from tenure.cli.doctor_postgres import examine
    from tenure.store.postgres.dsn import checked
    from tenure.store.postgres.migrate import status

    try:
        with psycopg.connect(
            checked(dsn), connect_timeout=round(ASK_S), application_name="tenure-doctor", autocommit=True
        ) as connection:
            number = connection.info.server_version
            in_recovery = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            more, clock = examine(connection)
            seen.clocks.append(clock)
            if connection.pgconn.ssl_in_use:
                seen.servers.append((connection.info.host, connection.info.port, "postgres"))
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
    findings += more
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


async def _etcd(endpoint: str, seen: _Seen) -> list[Finding]:
    from tenure.cli import doctor_etcd

    async with opened(endpoint) as etcd:
        status = await etcd.status()
        granted = await _granted(etcd)
        quick = await doctor_etcd.latency(etcd)
    seen.clusters[endpoint], seen.versions[endpoint] = status.cluster_id, status.version
    findings = [Finding(Level.OK, endpoint, f"answers, version {status.version}, revision {status.revision}")]
    if not status.leader_id:
        findings.append(Finding(Level.FAIL, endpoint, "sees no leader", "are most of its members up and connected?"))
    findings += [Finding(Level.FAIL, endpoint, f"alarm {alarm}", _alarm_step(alarm)) for alarm in status.alarms]
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
    findings += doctor_etcd.judge_latency(endpoint, quick)
    findings += await asyncio.to_thread(_etcd_metrics, endpoint, status.db_size_bytes, seen)
    return findings + _version_findings(endpoint, status.version)


def _etcd_metrics(endpoint: str, size_bytes: int, seen: _Seen) -> list[Finding]:
    """Judge what a member says of itself over HTTP, and note its clock and its certificate."""
    import httpx

    from tenure.cli import doctor_etcd
    from tenure.cli.doctor_clocks import Clock

    chosen = options(endpoint)
    _, (address,) = chosen.addresses()
    if address.tls:
        seen.servers.append((address.host, address.port, endpoint))
    try:
        began = datetime.now(UTC)
        text, theirs, took_s = doctor_etcd.metrics(endpoint, chosen)
    except (httpx.HTTPError, OSError) as exc:
        findings = [
            Finding(
                Level.SKIP, endpoint, f"its metrics cannot be read here: {exc}", "see them where they are collected",
                "disk latency, quota and history are read from them", "etcd-metrics",
            )
        ]  # fmt: skip
        if size_bytes > DB_WARN_BYTES:
            size = f"{size_bytes / 1e9:.1f} GB of database, the usual quota is 2.1 GB"
            findings.append(Finding(Level.WARN, endpoint, size, "etcdctl defrag; is a leader there to compact?"))
        return findings
    if theirs is not None:
        seen.clocks.append(Clock(endpoint, theirs, began + timedelta(seconds=took_s / 2), took_s, 1.0))
    return doctor_etcd.judge(endpoint, doctor_etcd.measured(text))


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
        if finding.why and finding.level in (Level.WARN, Level.FAIL):
            console.print(Text(f"     why: {line(finding.why)}", style="dim"))
        if finding.next_step:
            console.print(Text(f"     try: {line(finding.next_step)}", style="dim"))
