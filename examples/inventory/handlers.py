"""The three kinds of job: ``inventory-discover`` lists and submits, ``-scan`` reads files, ``-policy`` judges.

    tenure worker --import tenure.examples.inventory.handlers

A worker's attempt may be repeated: discover submits its children under names made from their content, so that none
comes twice, and the other two only read.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from tenure.examples.inventory import debian_packages, python_packages
from tenure.examples.inventory.findings import (
    UNKNOWN_LICENCE,
    DiscoverRequest,
    Discovery,
    Ecosystem,
    Package,
    Problem,
    Report,
    ScanRequest,
    ScanResult,
    Summary,
    capped,
    merge,
)
from tenure.examples.inventory.scanning import examine
from tenure.model.jobs import JobSpec
from tenure.worker.context import Context
from tenure.worker.handler import Fail, handler

DISCOVER, SCAN, POLICY = "inventory-discover", "inventory-scan", "inventory-policy"
PACKAGES_PER_SCAN = 4
"""A machine with few packages gets fewer scans, not emptier ones."""
REPORT_EVERY_S = 0.5
MB = 1_000_000


@handler(DISCOVER, timeout_s=300)
def discover(request: DiscoverRequest, ctx: Context) -> Discovery:
    """List what is installed, and submit a scan per group and a policy that waits for them all."""
    ctx.progress(0.1, "listing packages")
    found = {ecosystem: _installed(ecosystem) for ecosystem in request.ecosystems}
    scans = [
        ScanRequest(
            group=f"{ecosystem}-{number:02}", ecosystem=ecosystem, packages=group, hash_mb=request.hash_mb_per_scan
        )
        for ecosystem, packages in found.items()
        for number, group in enumerate(groups(packages, request.scans_per_ecosystem), start=1)
    ]
    if not scans:
        raise Fail("no package was found: neither Python distributions nor dpkg's database")
    ctx.progress(0.8, f"submitting {len(scans)} scans")
    ids = ctx.submit_children(children(scans, namespace=ctx.namespace, route=ctx.route))
    return Discovery(
        packages={ecosystem: len(packages) for ecosystem, packages in found.items()}, scans=ids[:-1], policy=ids[-1]
    )


@handler(SCAN, mode="process", timeout_s=1_800)
def scan(request: ScanRequest, ctx: Context) -> ScanResult:
    """Read the files of a group of packages; in a process, so that a stop ends it in the middle of a large file."""
    began = time.monotonic()
    summary = Summary(packages=len(request.packages))
    licences: Counter[str] = Counter()
    budget_bytes = math.inf if request.hash_mb is None else request.hash_mb * MB
    reported = began
    source = python_packages if request.ecosystem is Ecosystem.PYTHON else debian_packages

    def tick() -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= REPORT_EVERY_S:
            reported = now
            ctx.progress(done / len(request.packages), f"{package.name}: {summary.hashed_bytes / MB:.0f} MB read")

    for done, package in enumerate(request.packages):  # noqa: B007 - tick tells it
        licence = source.licence(package)
        licences[licence] += 1
        if licence == UNKNOWN_LICENCE:
            summary.add(Problem.UNKNOWN_LICENCE, package.name)
        budget_bytes = examine(package.name, source.promises(package), summary, budget_bytes=budget_bytes, tick=tick)
    summary.licences = capped(licences)
    return ScanResult(
        group=request.group, ecosystem=request.ecosystem, seconds=time.monotonic() - began, summary=summary
    )


@handler(POLICY, mode="process", timeout_s=300)
def policy(ctx: Context) -> Report:
    """Gather what the scans of the same discovery found (a coordinator is asked: TENURE_COORDINATOR)."""
    # In a process of its own, where gRPC is not running yet; the worker's own must not be shared with a handler's.
    from tenure.client import Client

    by_ecosystem: dict[str, list[Summary]] = defaultdict(list)
    with Client() as client:
        scans = list(client.list(parent_id=ctx.parent_id, kind=SCAN, namespace=ctx.namespace))
        for number, job in enumerate(scans):
            result = ScanResult.model_validate(client.get(job.id).result)
            by_ecosystem[result.ecosystem].append(result.summary)
            if number % 10 == 0:
                ctx.progress(number / len(scans), f"{number} of {len(scans)} scans read")
    return Report(
        scans=len(scans),
        by_ecosystem={
            name: merge(found).model_copy(update={"findings": []}) for name, found in sorted(by_ecosystem.items())
        },
        total=merge([summary for found in by_ecosystem.values() for summary in found]),
    )


def groups(packages: Sequence[tuple[Package, int]], most: int) -> list[tuple[Package, ...]]:
    """Split packages into at most ``most`` groups with about as many files each (the largest to the least full)."""
    count = min(most, math.ceil(len(packages) / PACKAGES_PER_SCAN))
    filled: list[tuple[int, int, list[Package]]] = [(0, number, []) for number in range(count)]
    for package, files in sorted(packages, key=lambda item: (-item[1], item[0].place)):
        least = min(range(count), key=lambda number: filled[number][:2])
        size, number, members = filled[least]
        members.append(package)
        filled[least] = (size + files, number, members)
    return [tuple(members) for _, _, members in filled]


def children(scans: Sequence[ScanRequest], *, namespace: str, route: str) -> list[JobSpec]:
    """Return the jobs of a discovery: the scans, and last the policy that depends on them all."""
    specs = []
    for request in scans:
        payload = request.model_dump_json()
        digest = hashlib.sha256(payload.encode()).hexdigest()[:12]
        specs.append(
            JobSpec(
                kind=SCAN,
                payload=payload,
                namespace=namespace,
                route=route,
                ref=f"{request.group}-{digest}",
                labels={"group": request.group},
            )
        )
    refs = tuple(spec.ref for spec in specs if spec.ref)
    together = hashlib.sha256(" ".join(refs).encode()).hexdigest()[:12]
    specs.append(JobSpec(kind=POLICY, namespace=namespace, route=route, depends_on=refs, ref=f"policy-{together}"))
    return specs


def _installed(ecosystem: Ecosystem) -> list[tuple[Package, int]]:
    if ecosystem is Ecosystem.PYTHON:
        return python_packages.installed(python_packages.folders())
    return debian_packages.installed()
