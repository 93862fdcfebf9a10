"""``tenure doctor`` on real parts: it finds nothing where all is well, and each fault that can be provoked."""

from __future__ import annotations

import json
import math
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.certificates import Authority
from tests.fixtures.etcd import EtcdServer
from typer.testing import CliRunner

from tenure.cli import doctor_certificates, doctor_clocks, doctor_etcd, doctor_postgres
from tenure.cli.doctor_certificates import Certificate
from tenure.cli.doctor_clocks import Clock
from tenure.cli.doctor_etcd import Latency, Measured
from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.cli.findings import Finding, Level
from tenure.cli.main import app
from tenure.cli.postgres_faults import faults_of

NOBODY = "127.0.0.1:1"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[Finding]]]:
    """Run it with some addresses; return the findings by their check."""
    for name in ("TENURE_COORDINATOR", "TENURE_POSTGRES_DSN", "TENURE_ETCD_ENDPOINTS", *doctor_certificates.FILES):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> dict[str, list[Finding]]:
        done = CliRunner().invoke(app, ["doctor", "-c", NOBODY, "-o", "json", *arguments])
        assert done.exit_code == 1, "no coordinator answers"
        found: dict[str, list[Finding]] = {}
        for one in json.loads(done.stdout):
            finding = Finding(**{**one, "level": Level(one["level"])})
            assert finding.next_step or finding.level is Level.OK, finding
            found.setdefault(finding.check, []).append(finding)
        return found

    return run


def levels(found: dict[str, list[Finding]], check: str) -> set[Level]:
    return {finding.level for finding in found[check]}


def test_all_is_looked_at(doctor: Any, database: str, etcd_server: EtcdServer) -> None:
    found = doctor("--postgres", database, "--etcd", etcd_server.endpoints[0])
    for check in ("etcd-quota", "etcd-compaction", "clocks", "postgres-connections"):
        assert levels(found, check) == {Level.OK}, found[check]
    assert {"etcd-latency", "etcd-fsync", "postgres-latency"} <= set(found)
    assert "ms" in found["postgres-latency"][0].detail and "commit" in found["postgres-latency"][0].detail
    assert "postgres" in found["clocks"][0].detail and etcd_server.endpoints[0] in found["clocks"][0].detail
    assert levels(found, "etcd-members") == {Level.WARN}, "one endpoint only"


def test_warnings_count_when_asked(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code for scripts."""
    from tenure.cli import doctor as module

    async def fine(*_: Any) -> list[Finding]:
        return [Finding(Level.WARN, "x", "could be better", "do")]

    monkeypatch.setattr(module, "_examine", fine)
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
    assert CliRunner().invoke(app, ["doctor", "--strict"]).exit_code == 1


def test_settings_of_postgres(doctor: Any, database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as connection:
        for setting in ("synchronous_commit = off", "default_transaction_read_only = on"):
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
    found = doctor("--postgres", database)["postgres-settings"]
    told = {finding.detail.split()[0]: finding.level for finding in found}
    assert (told["synchronous_commit"], told["transactions"]) == (Level.WARN, Level.FAIL)


def test_what_blocks_vacuum_and_who_takes_all_connections(
    doctor: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in (("LONG_TRANSACTION_S", 0.0), ("FULL", 0.0), ("KEPT_LOG_BYTES", -1)):
        monkeypatch.setattr(doctor_postgres, limit, value)
    slot = f"s{uuid.uuid4().hex[:10]}"
    with psycopg.connect(database, application_name="forgotten") as idle, psycopg.connect(database) as other:
        idle.execute("SELECT 1")
        other.autocommit = True
        other.execute("SELECT pg_create_physical_replication_slot(%s, true)", (slot,))
        try:
            found = doctor("--postgres", database)
        finally:
            other.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    assert "transaction open" in found["postgres-transactions"][0].detail
    assert levels(found, "postgres-slots") == levels(found, "postgres-connections") == {Level.WARN}


def test_dead_rows(doctor: Any, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_postgres, "DEAD_ROWS", 10)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE tenure.swollen (n int) WITH (autovacuum_enabled = off)")
        connection.execute("INSERT INTO tenure.swollen SELECT generate_series(1, 100)")
        connection.execute("DELETE FROM tenure.swollen")
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
    [finding] = doctor("--postgres", database)["postgres-vacuum"]
    assert "tenure.swollen has 100 dead rows" in finding.detail


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (140_003, ["CONCURRENTLY", "CVE-2023-5869"]),
        (140_009, ["CVE-2023-5869"]),
        (160_000, ["CVE-2023-5869"]),
        (160_001, []),
        (180_001, []),
    ],
)
def test_faults_of_postgres(version: int, words: list[str]) -> None:
    found = faults_of(version)
    assert len(found) == len(words)
    assert all(word in fault for word, fault in zip(words, found, strict=True))


def test_an_old_or_unknown_postgres() -> None:
    def told(version: int) -> list[str]:
        return [finding.detail for finding in doctor_postgres.version(version, date(2027, 1, 1))]

    assert any("maintained no more since 2026-11-12" in text for text in told(140_020))
    assert told(170_007) == []
    assert any("was not tried" in text for text in told(990_000))


def test_history_that_nobody_compacts(doctor: Any, etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_etcd, "LONG_HISTORY", -1)
    [finding] = doctor("--etcd", etcd_server.endpoints[0])["etcd-compaction"]
    assert finding.level is Level.WARN and "revisions of history" in finding.detail


def test_two_clusters_are_not_one(doctor: Any, etcd_server: EtcdServer, own_etcd: Callable[..., EmbeddedEtcd]) -> None:
    with own_etcd() as other:
        found = doctor("--etcd", f"{etcd_server.endpoints[0]},{other.endpoints[0]}")["etcd-members"]
    assert [finding.level for finding in found] == [Level.FAIL]
    assert "different clusters" in found[0].detail


def measured(**changes: Any) -> Measured:
    well: dict[str, Any] = {
        "size_bytes": 1e6, "in_use_bytes": 9e5, "quota_bytes": 2e9, "revision": 100.0, "compacted": -1.0,
        "fsync_p99_s": 0.004,
    }  # fmt: skip
    return Measured(**{**well, **changes})


@pytest.mark.parametrize(
    ("changes", "check", "level"),
    [
        ({}, "etcd-quota", Level.OK),
        ({"size_bytes": 1.6e9}, "etcd-quota", Level.WARN),
        ({"size_bytes": 1.95e9}, "etcd-quota", Level.FAIL),
        ({"size_bytes": 1.2e9, "in_use_bytes": 1e8}, "etcd-fragmentation", Level.WARN),
        ({"revision": 2e6, "compacted": 1e6}, "etcd-compaction", Level.WARN),
        ({"fsync_p99_s": 0.064}, "etcd-fsync", Level.WARN),
        ({"fsync_p99_s": math.inf}, "etcd-fsync", Level.WARN),
    ],
)
def test_what_the_metrics_of_etcd_mean(changes: dict[str, Any], check: str, level: Level) -> None:
    found = {finding.check: finding for finding in doctor_etcd.judge("e", measured(**changes))}
    assert found[check].level is level
    assert level is Level.OK or (found[check].why and found[check].next_step)


def test_metrics_that_are_not_there_are_not_judged() -> None:
    assert doctor_etcd.judge("e", doctor_etcd.measured("# nothing\n")) == []
    assert doctor_etcd.quantile([(0.001, 90), (0.002, 99), (math.inf, 100)], 0.99) == 0.002
    assert doctor_etcd.quantile([(0.001, 0), (math.inf, 100)], 0.99) == math.inf


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (Latency(0.001, 0.002), Level.OK),
        (Latency(0.001, None), Level.OK),
        (Latency(0.06, 0.06), Level.WARN),
        (Latency(0.001, 0.3), Level.WARN),
        (Latency(0.001, 0.9), Level.FAIL),
    ],
)
def test_how_quick_etcd_must_be(found: Latency, level: Level) -> None:
    assert [finding.level for finding in doctor_etcd.judge_latency("e", found)] == [level]


@pytest.mark.parametrize(
    ("ahead_s", "took_s", "level", "words"),
    [
        (0.9, 0.0, Level.OK, ""),
        (2.9, 0.0, Level.OK, ""),
        (3.5, 0.0, Level.WARN, "2.5 s ahead"),
        (-3.5, 0.0, Level.WARN, "2.5 s behind"),
        (3.5, 2.0, Level.OK, ""),
        (-90, 0.1, Level.FAIL, "behind"),
    ],
)
def test_clocks(ahead_s: float, took_s: float, level: Level, words: str) -> None:
    clock = Clock("c1", NOW + timedelta(seconds=ahead_s), NOW, took_s, 1.0)
    [finding] = doctor_clocks.judge([Clock("postgres", NOW, NOW, 0.0), clock][-1:])
    assert finding.level is level
    assert words in finding.detail


@pytest.mark.parametrize(("days", "level"), [(-1, Level.FAIL), (2, Level.FAIL), (20, Level.WARN), (60, Level.OK)])
def test_certificates_that_end(days: int, level: Level) -> None:
    one = Certificate("here", "CN=x", NOW - timedelta(days=90), NOW + timedelta(days=days, hours=1))
    assert [finding.level for finding in doctor_certificates.judge([one], NOW)] == [level]


def test_a_certificate_that_has_not_begun() -> None:
    one = Certificate("here", "CN=x", NOW + timedelta(days=1), NOW + timedelta(days=90))
    [finding] = doctor_certificates.judge([one], NOW)
    assert (finding.level, "only from" in finding.detail) == (Level.FAIL, True)


def test_certificates_in_files(
    doctor: Any, authority: Callable[[str], Authority], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority("ca").issue("/CN=soon", days=10)
    monkeypatch.setenv("TENURE_TLS_CERT", str(pair.cert))
    monkeypatch.setenv("TENURE_ETCD_CA", str(tmp_path / "absent.pem"))
    found = doctor()["certificates"]
    assert any(finding.level is Level.WARN and "CN=soon" in finding.detail for finding in found)
    assert any(finding.level is Level.FAIL and "cannot be read" in finding.detail for finding in found)


@contextmanager
def tls_server(cert: Path, key: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as secured:
                secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def test_a_certificate_that_a_server_shows(authority: Callable[[str], Authority]) -> None:
    pair = authority("ca").issue("/CN=shown", days=10)
    with tls_server(pair.cert, pair.key) as port:
        [found] = doctor_certificates.shown_by("127.0.0.1", port, "there")
    assert found.name == "CN=shown"
    assert 8 <= (found.ends_at - datetime.now(UTC)).days <= 10
