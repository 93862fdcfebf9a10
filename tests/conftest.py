"""What every test can ask for. The fixtures are in named plugins, one per thing that they give."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import structlog

pytest_plugins = [
    "tests.fixtures.backend",
    "tests.fixtures.postgres",
    "tests.fixtures.etcd",
    "tests.fixtures.certificates",
    "tests.fixtures.network",
    "tests.fixtures.deployment",
    "tests.fixtures.previous",
    "tests.fixtures.s3",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``."""
    parser.addoption("--long", action="store_true", help="run the tests marked `long`, too: outages and masses in full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it was asked for."""
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: give --long"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With ``TENURE_TEST_SKIP=no`` a test that cannot run here has failed: for a machine that is to run all of them."""
    report = yield
    if report.skipped and os.environ.get("TENURE_TEST_SKIP") == "no" and not item.get_closest_marker("long"):
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """Forget how a test set up logging: a command that runs in this process does so for good."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def _garbage_of_its_own() -> Iterator[None]:
    """Look for garbage as often as before: what a test left open must not be found while another one runs."""
    before = gc.get_threshold()
    yield
    if gc.get_threshold() != before:
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _loggers_that_look_again() -> Iterator[None]:
    """Keep loggers from what was set up when they were used first: later tests would not see what they tell."""
    configure = structlog.configure

    def without_cache(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structlog, "configure", without_cache)
        yield
