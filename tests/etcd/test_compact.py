"""Compaction by growth and by time, with a margin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.etcd.conftest import Connector

from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.store.etcd.compact import CompactionPolicy, Compactor
from tenure.store.etcd.port import Compacted, Put, Txn

POLICY = CompactionPolicy(every_revisions=100, every_s=60.0, keep_revisions=50)


@pytest.mark.parametrize(
    ("revision", "compacted", "elapsed_s", "target"),
    [
        (40, 0, 1000.0, None),  # less than the margin
        (149, 0, 1.0, None),  # neither grown enough nor time
        (150, 0, 1.0, 100),  # grown
        (60, 0, 60.0, 10),  # time
        (60, 10, 1000.0, None),  # nothing to forget
        (249, 100, 1.0, None),
        (250, 100, 1.0, 200),
    ],
)
def test_the_policy(revision: int, compacted: int, elapsed_s: float, target: int | None) -> None:
    assert POLICY.target(revision, compacted, elapsed_s) == target


class Clock:
    """A clock that is set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_steps_compact_and_keep_the_margin(connection: Connector, own_etcd: Callable[..., EmbeddedEtcd]) -> None:
    etcd = await connection(own_etcd().endpoints[0].removeprefix("grpc://"))
    clock = Clock()
    compactor = Compactor(etcd, clock, POLICY)

    async def write(count: int) -> int:
        for _ in range(count):
            revision = (await etcd.txn(Txn(then=(Put("/k", b""),)))).revision
        return revision

    await write(120)
    assert await compactor.step() is None
    revision = await write(60)
    assert await compactor.step() == revision - 50
    assert await compactor.step() is None
    with pytest.raises(Compacted):
        await etcd.list("/k", revision=revision - 51)
    assert (await etcd.list("/k", revision=revision - 50)).items
    revision = await write(5)
    clock.now += 61.0
    assert await compactor.step() == revision - 50
