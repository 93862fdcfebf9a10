"""What every test can ask for. The fixtures are in named plugins, one per thing that they give."""

from __future__ import annotations

import pytest

pytest_plugins = [
    "tests.fixtures.backend",
    "tests.fixtures.postgres",
    "tests.fixtures.etcd",
    "tests.fixtures.network",
    "tests.fixtures.deployment",
    "tests.fixtures.previous",
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
