"""Tenure beside its peers, with peers that need no installing: the table holds what each did, or why it did not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tenure.bench.comparison import peers
from tenure.bench.peers.installing import NotInstalledError
from tenure.bench.peers.peer import PEERS, YARDSTICK, Peer
from tenure.bench.plan import quick
from tenure.bench.results import Results
from tenure.bench.stage import Stage

HERE = Path(__file__).parent
RATES = {"drain, 2 workers", "submit singly", "submit in bulk"} | {
    f"end to end, submitted {how}" for how in ("singly", "in bulk")
}


def _not_to_be_had(name: str) -> Path:
    raise NotInstalledError("there is none")


@pytest.fixture
def local_peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    here = Peer("plain", lambda name: Path(sys.executable), programs=HERE)
    monkeypatch.setitem(PEERS, YARDSTICK, here)
    monkeypatch.setitem(PEERS, "broken", replace(here, name="broken"))
    monkeypatch.setitem(PEERS, "missing", replace(here, install=_not_to_be_had))
    yield


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_peers")
async def test_tenure_is_divided_by_the_yardstick_and_what_fails_is_named(tmp_path: Path) -> None:
    results = Results()
    plan = replace(quick(1), peers=(YARDSTICK, "broken", "missing"))
    async with Stage(tmp_path, plan) as stage:
        await peers(stage, results)
        assert stage.plan is plan

    cases = {name: case for (_, name), case in results.cases.items()}
    for what in RATES:
        own, beside = cases[f"{what}: tenure"], cases[f"{what}: {YARDSTICK}"]
        assert own.figures["of_pgqueuer"] == [own.figures["jobs_per_s"][0] / beside.figures["jobs_per_s"][0]]
        assert beside.figures["of_pgqueuer"] == beside.figures["cpu_of_pgqueuer"] == [1.0]
        assert {"client", "postgres", "workers", "submitter", "all"} == beside.cpu_us_per_job.keys()
    for name in ("tenure", YARDSTICK):
        assert cases[f"latency: {name}"].figures["submit_to_start_p99_ms"][0] > 0
    assert results.left_out.keys() == {"missing", "broken, run 1"}
    assert "broken on purpose" in results.left_out["broken, run 1"]
    assert not [each.pid for each in psutil.process_iter(["environ"]) if _is_of_a_peer(each)]


def _is_of_a_peer(process: psutil.Process) -> bool:
    environ = process.info["environ"] or {}
    return "PEER_PLACE" in environ and environ.get("PYTHONPATH") == str(HERE)
