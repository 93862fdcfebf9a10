"""What every test can ask for. The fixtures are in named plugins, one per thing that they give."""

from __future__ import annotations

pytest_plugins = [
    "tests.fixtures.backend",
    "tests.fixtures.postgres",
    "tests.fixtures.etcd",
    "tests.fixtures.network",
    "tests.fixtures.deployment",
]
