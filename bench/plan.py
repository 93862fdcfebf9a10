"""How much is measured: the sizes of every scenario, full and quick."""

from __future__ import annotations

from dataclasses import dataclass

from tenure.bench.peers.peer import PEERS

COORDINATORS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes. Recorded with the results: numbers of different plans do not compare."""

    runs: int = 3
    long_runs: int = 1
    """Runs of what takes minutes: failover, takeover, held, and peers that nothing is divided by."""
    submit_s: float = 4.0
    """How long each way of submitting is measured."""
    submits_in_flight: tuple[int, ...] = (1, 20, 50)
    batch_jobs: int = 1_000
    batches_in_flight: tuple[int, ...] = (1, 4)
    drain_jobs: int = 20_000
    drain_workers: tuple[int, ...] = (1, 2)
    blocked_jobs: int = 100_000
    """Jobs that cannot run, in front of those that are drained."""
    capacity: int = 1_000
    """Jobs that each worker takes at once in the scenarios that measure rates."""
    singles: int = 6_000
    singles_in_flight: tuple[int, ...] = (20, 50)
    """With the first of them peers are measured; with the last, what half of the rate is."""
    half_load_s: float = 10.0
    bulk_jobs: int = 10_000
    backlog_jobs: int = 1_000_000
    """Ready jobs beside those that are drained."""
    held_jobs: int = 5_000
    held_ttl_s: float = 10.0
    held_s: float = 30.0
    passing_jobs_per_s: int = 500
    """Jobs that pass beside those that are held."""
    latency_samples: int = 200
    latency_warmup: int = 30
    ttls_s: tuple[float, ...] = (2.0, 10.0)
    kills: int = 6
    """Workers killed per TTL and run, and leaders killed per run."""
    failover_workers: int = 3
    takeover_jobs: int = 5_000
    """Jobs whose claims are lost at once."""
    takeover_workers: tuple[int, ...] = (2, 4)
    """Workers that hold them, and as many again that take over: too few for the leader's brake, and enough."""
    leader_ttl_s: float = 5.0
    history_jobs: int = 10_000_000
    history_days: int = 70
    """Over which they ended, up to the week before last."""
    history_drains: int = 3
    history_removal_s: float = 60.0
    """How long their removal is watched, at least."""
    fleet_workers: tuple[int, ...] = (20, 100, 200)
    fleet_claims: tuple[int, ...] = (5_000, 10_000, 20_000)
    """Held by the largest fleet."""
    fleet_ttl_s: float = 30.0
    fleet_s: float = 20.0
    waiters: int = 5_000
    watchers: int = 500
    waited_jobs_per_s: tuple[int, ...] = (125, 250, 500)
    waited_s: float = 30.0
    waited_workers: int = 2
    waiting_clients: int = 2
    """Processes of those who wait."""
    workflow_jobs: tuple[int, ...] = (1_000, 10_000, 100_000)
    schedules: int = 50_000
    schedules_every_s: float = 60.0
    schedules_rounds: int = 3
    schedules_lead_s: float = 30.0
    """Until the first tick: the time to write them."""
    limits: int = 1_000
    limited_each: int = 20
    """Jobs that wait for each limit."""
    namespaces: int = 10_000
    slow_jobs: int = 20_000
    slow_held_s: float = 25.0
    peers: tuple[str, ...] = tuple(PEERS)
    """What tenure is measured beside."""


def quick(runs: int) -> Plan:
    """Return sizes that show that everything works; the numbers mean little."""
    return Plan(
        runs=runs,
        submit_s=0.3,
        submits_in_flight=(1, 20),
        batch_jobs=100,
        drain_jobs=300,
        drain_workers=(2,),
        blocked_jobs=600,
        backlog_jobs=2_000,
        held_jobs=100,
        held_s=1.0,
        passing_jobs_per_s=50,
        capacity=200,
        singles=60,
        half_load_s=1.0,
        bulk_jobs=200,
        latency_samples=20,
        latency_warmup=3,
        ttls_s=(2.0,),
        kills=1,
        failover_workers=2,
        takeover_jobs=60,
        takeover_workers=(2, 3),
        leader_ttl_s=2.0,
        history_jobs=2_000,
        history_drains=1,
        history_removal_s=1.0,
        fleet_workers=(1, 2),
        fleet_claims=(20, 40),
        fleet_ttl_s=3.0,
        fleet_s=1.0,
        waiters=20,
        watchers=4,
        waited_jobs_per_s=(10, 20),
        waited_s=1.0,
        workflow_jobs=(30, 120),
        schedules=100,
        schedules_every_s=2.0,
        schedules_rounds=1,
        schedules_lead_s=2.0,
        limits=5,
        limited_each=2,
        namespaces=20,
        slow_jobs=200,
        slow_held_s=1.0,
        peers=(),
    )
