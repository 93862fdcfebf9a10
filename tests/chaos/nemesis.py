"""The nemesis: does harm by plan, one or two faults at a time, and heals each.

Owns: the faults by name, and the plan, which depends on the seed alone (what then happens, and when exactly, does not).
Invariants: every fault heals what it did, also when the run is broken off; two faults never share a victim, so that one
does not heal the other; each is written down with its victim. Faults that this machine cannot do are left out
(``available``). Called by ``run``.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from tests.chaos.cluster import POSTGRES, Cluster
from tests.chaos.history import Fault, Recorder
from tests.chaos.network import Cut

from tenure.cli.embedded.member import Member
from tenure.model.errors import TenureError
from tenure.store.etcd.port import Etcd

ETCD = "etcd"
"""Etcd as a whole, as a victim."""
SLOW_DISK_US = 300_000
TAKE_OVER_S = 10.0
BEGIN_S = 0.5
"""What an attempt may take from its claim to its handler's first write."""
JUMP_S = ("+3600", "-3600", "+2592000")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of the plan: when it begins, how long it lasts, and the dice that choose the victim."""

    at_s: float
    fault: str
    seconds: float
    roll: float


def plan(rng: random.Random, names: Sequence[str], seconds: float) -> list[Step]:
    """Draw the faults of a run: a stream of them, and a second, sparser one over it.

    Faults are drawn like cards, so that each comes once before any comes again.
    """
    deck: list[str] = []
    steps: list[Step] = []
    for first_s, pauses in ((3.0, (1.0, 4.0)), (12.0, (4.0, 15.0))):
        at_s = first_s
        while True:
            if not deck:
                deck = rng.sample(list(names), len(names))
            fault = deck.pop()
            lasting_s = rng.uniform(*FAULTS[fault].seconds)
            if at_s + lasting_s > seconds:
                break
            steps.append(Step(round(at_s, 2), fault, round(lasting_s, 2), rng.random()))
            at_s += lasting_s + rng.uniform(*pauses)
    return sorted(steps, key=lambda step: step.at_s)


class Nemesis:
    """Carries out a plan. ``run`` is the body of a task."""

    def __init__(self, cluster: Cluster, etcd: Etcd, recorder: Recorder, taken_from: Mapping[str, int]) -> None:
        self.cluster = cluster
        self.etcd = etcd
        self.taken_from = taken_from
        """Worker's id to how many of its jobs others have taken over."""
        self.done: Counter[str] = Counter()
        self.current: dict[str, str] = {}
        """Victims to what befalls them now."""
        self._recorder = recorder

    async def run(self, steps: Sequence[Step]) -> None:
        """Do all of it, each at its time."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for step in steps:
                await asyncio.sleep(max(0.0, began + step.at_s - time.monotonic()))
                group.create_task(self._do(step))

    async def _do(self, step: Step) -> None:
        fault = FAULTS[step.fault]
        candidates = [one for one in await fault.victims(self) if one not in self.current]
        if not candidates:
            return  # all of them are in other hands
        victim = candidates[int(step.roll * len(candidates))]
        self.current[victim] = step.fault
        member = self.cluster.members.get(victim)
        name = f"{step.fault} {member.id if member is not None else victim}"
        try:
            async with fault.harm(self, victim, step.roll):
                self.done[step.fault] += 1
                self._recorder.write(Fault(at=time.monotonic(), fault=name, step="begin"))
                await asyncio.sleep(step.seconds)
        finally:
            self._recorder.write(Fault(at=time.monotonic(), fault=name, step="end"))
            del self.current[victim]

    def member(self, name: str) -> Member:
        """Return the process of a participant."""
        return self.cluster.members[name]

    @property
    def etcd_names(self) -> list[str]:
        """The participants that are etcds."""
        return [one.name for one in self.cluster.etcds]


Harm = Callable[[Nemesis, str, float], AbstractAsyncContextManager[None]]
Victims = Callable[[Nemesis], Awaitable[list[str]]]


# -- whom it may befall --


async def _workers(nemesis: Nemesis) -> list[str]:
    return [name for name in nemesis.cluster.worker_names if nemesis.member(name).alive]


async def _leader(nemesis: Nemesis) -> list[str]:
    return [await nemesis.cluster.leader(nemesis.etcd)]


async def _followers(nemesis: Nemesis) -> list[str]:
    leader = await nemesis.cluster.leader(nemesis.etcd)
    return [name for name in nemesis.cluster.coordinator_names if name != leader and nemesis.member(name).alive]


async def _coordinators(nemesis: Nemesis) -> list[str]:
    return [name for name in nemesis.cluster.coordinator_names if nemesis.member(name).alive]


async def _clocks(nemesis: Nemesis) -> list[str]:
    return [name for name in nemesis.cluster.members if nemesis.cluster.clock_file(name).exists()]


async def _etcd(nemesis: Nemesis) -> list[str]:
    return [ETCD]


async def _postgres(nemesis: Nemesis) -> list[str]:
    return [POSTGRES]


# -- processes --


@asynccontextmanager
async def _killed(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    """SIGKILL the process alone; its supervisor starts another when the fault is over."""
    with nemesis.cluster.absent(victim):
        await asyncio.to_thread(nemesis.member(victim).kill)
        yield


@asynccontextmanager
async def _paused(nemesis: Nemesis, victim: str, roll: float, *, tree: bool) -> AsyncIterator[None]:
    """SIGSTOP, later SIGCONT: a process that does not know how much time has passed.

    A worker sleeps on, for a while, until another has taken over one of its jobs: else it is no zombie.
    """
    member = nemesis.member(victim)
    before = nemesis.taken_from.get(member.id, 0)
    member.pause(tree=tree)
    try:
        yield
        deadline = time.monotonic() + TAKE_OVER_S
        while victim in nemesis.cluster.worker_names and time.monotonic() < deadline:
            if nemesis.taken_from.get(member.id, 0) > before:
                await asyncio.sleep(BEGIN_S)
                break
            await asyncio.sleep(0.1)
    finally:
        member.resume()


@asynccontextmanager
async def _told_to_stop(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    """SIGTERM: a worker drains, a leader steps down; another takes its place when the fault is over."""
    with nemesis.cluster.absent(victim):
        nemesis.member(victim).terminate()
        yield


@asynccontextmanager
async def _wrong_clock(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    """The wall clock jumps, there and back; the monotonic clock goes on."""
    file = nemesis.cluster.clock_file(victim)
    file.write_text(f"{JUMP_S[int(roll * 997) % len(JUMP_S)]}\n")
    try:
        yield
    finally:
        file.write_text("+0\n")


# -- network --


@asynccontextmanager
async def _cut(
    nemesis: Nemesis, victim: str, roll: float, *, make: Callable[[Nemesis, str], Cut]
) -> AsyncIterator[None]:
    network = nemesis.cluster.network
    cut = await asyncio.to_thread(make, nemesis, victim)
    try:
        yield
    finally:
        await asyncio.to_thread(network.heal, cut)


def _from_etcd(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.cut(victim, *nemesis.etcd_names)


def _from_coordinators(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.cut(victim, *nemesis.cluster.coordinator_names)


def _from_postgres(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.cut(victim, POSTGRES)


def _from_all(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.cut(victim, *nemesis.etcd_names, *nemesis.cluster.coordinator_names)


def _requests_lost(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.cut_one_way([victim], nemesis.etcd_names)


def _answers_lost(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.cut_one_way(nemesis.etcd_names, [victim])


def _some_lost(nemesis: Nemesis, victim: str) -> Cut:
    return nemesis.cluster.network.lose([victim, *nemesis.cluster.coordinator_names], 0.25)


# -- stores --


@asynccontextmanager
async def _etcd_member_killed(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    async with _etcds_killed(nemesis, [int(roll * len(nemesis.etcd_names))]):
        yield


@asynccontextmanager
async def _quorum_lost(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    spared = int(roll * len(nemesis.etcd_names))
    async with _etcds_killed(nemesis, [place for place in range(len(nemesis.etcd_names)) if place != spared]):
        yield


@asynccontextmanager
async def _etcds_killed(nemesis: Nemesis, places: Sequence[int]) -> AsyncIterator[None]:
    for place in places:
        await asyncio.to_thread(nemesis.cluster.etcds[place].running().kill)
    try:
        yield
    finally:
        for place in places:
            nemesis.cluster.start_etcd(place)


@asynccontextmanager
async def _etcd_leader_paused(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    child = nemesis.cluster.etcds[await nemesis.cluster.etcd_leader()].running()
    child.pause()
    try:
        yield
    finally:
        child.resume()


@asynccontextmanager
async def _etcd_leader_cut(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    """Its clients still reach it; the other members do not, and elect another."""
    leader = nemesis.etcd_names[await nemesis.cluster.etcd_leader()]
    others = [name for name in nemesis.etcd_names if name != leader]
    async with _cut(nemesis, leader, roll, make=lambda nemesis, one: nemesis.cluster.network.cut(one, *others)):
        yield


@asynccontextmanager
async def _slow_disk(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    """Every fdatasync of etcd's leader takes a third of a second longer."""
    pid = nemesis.cluster.etcds[await nemesis.cluster.etcd_leader()].running().pid
    inject = f"inject=fdatasync:delay_enter={SLOW_DISK_US}"
    argv = ["strace", "-f", "-qq", "-p", str(pid), "-e", "trace=fdatasync", "-e", inject, "-o", "/dev/null"]
    tracer = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it ends by itself where another fault kills that member meanwhile
            tracer.send_signal(signal.SIGINT)
        await tracer.wait()


@asynccontextmanager
async def _postgres_killed(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    server = nemesis.cluster.postgres
    assert server.child is not None
    await asyncio.to_thread(server.child.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def _compacted(nemesis: Nemesis, victim: str, roll: float) -> AsyncIterator[None]:
    """All history is forgotten at once, under watchers that may lag."""
    with suppress(TenureError):  # etcd has another fault just now
        await nemesis.etcd.compact((await nemesis.etcd.status()).revision)
    yield


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault is: whom it may befall, what it does, how long it lasts, what it needs of the machine."""

    victims: Victims
    harm: Harm
    seconds: tuple[float, float]
    needs: str = ""
    """``network``, ``strace`` or ``clock``; empty: nothing."""


def _cutting(make: Callable[[Nemesis, str], Cut]) -> Harm:
    return partial(_cut, make=make)


LONGER_THAN_TTL = (6.5, 10.0)
FAULTS: dict[str, Kind] = {
    "kill-worker": Kind(_workers, _killed, (1.0, 5.0)),
    "pause-worker": Kind(_workers, partial(_paused, tree=False), LONGER_THAN_TTL),
    "pause-worker-tree": Kind(_workers, partial(_paused, tree=True), LONGER_THAN_TTL),
    "drain-worker": Kind(_workers, _told_to_stop, (3.0, 8.0)),
    "kill-leader": Kind(_leader, _killed, (1.0, 5.0)),
    "kill-coordinator": Kind(_followers, _killed, (1.0, 5.0)),
    "pause-leader": Kind(_leader, partial(_paused, tree=False), (5.0, 9.0)),
    "stop-leader": Kind(_leader, _told_to_stop, (2.0, 5.0)),
    "cut-worker-etcd": Kind(_workers, _cutting(_from_etcd), LONGER_THAN_TTL, "network"),
    "cut-worker-coordinators": Kind(_workers, _cutting(_from_coordinators), (4.0, 10.0), "network"),
    "cut-worker": Kind(_workers, _cutting(_from_all), LONGER_THAN_TTL, "network"),
    "cut-coordinator-postgres": Kind(_coordinators, _cutting(_from_postgres), (4.0, 8.0), "network"),
    "cut-leader-etcd": Kind(_leader, _cutting(_from_etcd), (4.0, 8.0), "network"),
    "lose-worker-to-etcd": Kind(_workers, _cutting(_requests_lost), LONGER_THAN_TTL, "network"),
    "lose-etcd-to-worker": Kind(_workers, _cutting(_answers_lost), LONGER_THAN_TTL, "network"),
    "lose-packets": Kind(_workers, _cutting(_some_lost), (5.0, 10.0), "network"),
    "kill-etcd": Kind(_etcd, _etcd_member_killed, (2.0, 6.0)),
    "pause-etcd-leader": Kind(_etcd, _etcd_leader_paused, (4.0, 8.0)),
    "cut-etcd-leader": Kind(_etcd, _etcd_leader_cut, (4.0, 8.0), "network"),
    "slow-etcd-disk": Kind(_etcd, _slow_disk, (4.0, 8.0), "strace"),
    "lose-quorum": Kind(_etcd, _quorum_lost, (3.0, 8.0)),
    "compact": Kind(_etcd, _compacted, (0.1, 0.5)),
    "kill-postgres": Kind(_postgres, _postgres_killed, (0.5, 4.0)),
    "jump-clock": Kind(_clocks, _wrong_clock, (3.0, 8.0), "clock"),
}


def available(cluster: Cluster) -> list[str]:
    """Return the faults that can be done here."""
    has = {
        "": True,
        "network": cluster.network.can_cut,
        "strace": shutil.which("strace") is not None,
        "clock": any(cluster.clock_file(name).exists() for name in cluster.members),
    }
    return [name for name, kind in FAULTS.items() if has[kind.needs]]
