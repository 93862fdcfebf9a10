"""A sample belongs to the innermost function that a step names."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tenure.bench.costs import _divide_postgres
from tenure.bench.flame import flame_graph
from tenure.bench.results import Results
from tenure.bench.steps import COORDINATOR, REST, WORKER, Profile, Steps, gone

ROOT = Path(__file__).parents[2]
MAIN, LOOP = "main (coordinator/coordinator.py:9)", "BaseEventLoop._run_once (asyncio/base_events.py:1922)"
FETCH = "AsyncCursor.fetchall (psycopg/cursor.py:3)"
START = "WorkerService.StartAttempts (coordinator/api/worker_service.py:50);Starter.start (coordinator/start.py:4)"
RAW = (
    f"{MAIN};Reader._fetch (coordinator/reading.py:180);{FETCH} 5",
    f"{MAIN};Reader._fetch (coordinator/reading.py:199);{FETCH} 1",
    f"{MAIN};{START} 2",
    f"{MAIN};{LOOP} 2",
)


def test_what_a_library_does_is_charged_to_the_step_that_asked_for_it() -> None:
    profile = Profile.parse(RAW)
    assert profile.by_step(COORDINATOR) == pytest.approx({"dispatch: read": 0.6, "start": 0.2, REST: 0.2})
    assert profile.by_function() == pytest.approx(
        {
            "AsyncCursor.fetchall (psycopg/cursor.py)": 0.6,
            "Starter.start (coordinator/start.py)": 0.2,
            "BaseEventLoop._run_once (asyncio/base_events.py)": 0.2,
        }
    )


@pytest.mark.parametrize("steps", [COORDINATOR, WORKER])
def test_every_step_names_what_exists(steps: Steps) -> None:
    """A function that was renamed would move its costs to the event loop's, silently: mend bench/steps.py."""
    assert gone(steps, ROOT) == []


def test_what_a_step_names_in_vain_is_told() -> None:
    steps = {"start": ("coordinator/start.py: Starter NoStarter", "coordinator/no_start.py")}
    assert gone(steps, ROOT) == ["start: NoStarter in coordinator/start.py", "start: coordinator/no_start.py"]


def test_a_flame_graph_is_an_svg_with_a_box_for_each_function_that_can_be_seen() -> None:
    profile = Profile.parse(RAW) + Profile.parse((f"{MAIN};<module> & co (a.py:1) 9999",))
    tree = ElementTree.fromstring(flame_graph("one <process>", profile))
    titles = [title.text or "" for title in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "main (coordinator/coordinator.py), 100.0%" and len(titles) < 8
    assert "<module> & co (a.py), 99.9%" in titles


def test_a_group_of_submits_is_charged_to_the_submit() -> None:
    """It is written by a task of its own, in which no call of a client is to be seen."""
    written = "GroupCommit._commit (coordinator/group_commit.py:95);NewJobs.write (coordinator/new_jobs.py:60)"
    assert Profile.parse((f"{MAIN};{written};{FETCH} 1",)).by_step(COORDINATOR) == {"submit and wait": 1.0}


def test_what_postgres_took_is_divided_by_the_time_of_its_statements() -> None:
    results = Results()
    statements = [("SELECT 1", 4, 30.0), ("SELECT\n  1", 6, 30.0), ("UPDATE job", 5, 20.0)]
    _divide_postgres(results, statements, cpu_us=80.0, jobs=100)
    figures = {case.name: case.figures for case in results.cases.values()}
    assert figures == {
        "SELECT 1": {"us_per_job": [60.0], "jobs_per_call": [10.0]},
        "UPDATE job": {"us_per_job": [20.0], "jobs_per_call": [20.0]},
    }
