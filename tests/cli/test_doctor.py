"""``tenure doctor`` on real parts: it finds nothing where all is well, and each fault that can be provoked."""

from __future__ import annotations

import json
import math
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.certificates import Authority
from tests.fixtures.etcd import FAST, EtcdServer
from typer.testing import CliRunner

from tenure.cli import doctor as examined
from tenure.cli import doctor_certificates, doctor_clocks, doctor_etcd, doctor_postgres
from tenure.cli.doctor_certificates import Certificate
from tenure.cli.doctor_clocks import Clock
from tenure.cli.doctor_etcd import Latency, Measured
from tenure.cli.embedded import binaries, ports
from tenure.cli.embedded.etcd import EmbeddedEtcd
from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.cli.etcd_faults import ADVICE
from tenure.cli.findings import Finding, Level
from tenure.cli.main import app
from tenure.cli.postgres_faults import faults_of
from tenure.model.errors import Unavailable
from tenure.store.postgres.migrate import SchemaStatus

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


def test_a_transaction_that_was_prepared_and_forgotten(
    doctor: Any, own_postgres: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_postgres, "LONG_TRANSACTION_S", 0.0)
    server = own_postgres(settings={"max_prepared_transactions": "2"})
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for statement in ("BEGIN", "CREATE TABLE left_behind ()", "PREPARE TRANSACTION 'forgotten'"):
            connection.execute(statement.encode())
    found = doctor("--postgres", server.dsn)["postgres-transactions"]
    assert any("transaction 'forgotten' is prepared for" in finding.detail for finding in found), found


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
def tls_server(cert: Path, key: Path, *, begins: bool = False) -> Iterator[int]:
    """Serve TLS once; with ``begins`` after a client of Postgres has asked for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            if begins:
                assert plain.recv(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
                plain.sendall(b"S")
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


def test_a_certificate_of_etcd_that_ends_soon(
    doctor: Any, authority: Callable[[str], Authority], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = authority("ca")
    pair = ours.issue("/CN=etcd-soon", days=10)
    client, peer = ports.choose_many(2)
    command = [
        str(binaries.etcd_program()), f"--data-dir={tmp_path / 'data'}", f"--cert-file={pair.cert}",
        f"--key-file={pair.key}", f"--listen-client-urls=https://127.0.0.1:{client}",
        f"--advertise-client-urls=https://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--log-level=error",
    ]  # fmt: skip
    monkeypatch.setenv("TENURE_ETCD_CA", str(ours.ca))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            listens(client)
            found = doctor("--etcd", f"grpcs://127.0.0.1:{client}")
        finally:
            server.kill()
    assert any(
        finding.level is Level.WARN and f"grpcs://127.0.0.1:{client}: CN=etcd-soon is valid until" in finding.detail
        for finding in found["certificates"]
    )


def test_the_certificate_of_postgres_is_asked_for_as_its_clients_ask(authority: Callable[[str], Authority]) -> None:
    """The embedded server is built without TLS: this one begins as Postgres does."""
    pair = authority("ca").issue("/CN=postgres-soon", days=2)
    with tls_server(pair.cert, pair.key, begins=True) as port:
        findings = examined._together(examined._Seen(servers=[("127.0.0.1", port, "postgres")]), {})
    [finding] = [finding for finding in findings if finding.check == "certificates"]
    assert (finding.level, "postgres: CN=postgres-soon" in finding.detail) == (Level.FAIL, True), finding


def test_a_postgres_without_tls_shows_no_certificate(database: str) -> None:
    address = psycopg.conninfo.conninfo_to_dict(database)
    seen = doctor_certificates.shown_by(str(address["host"]), int(str(address["port"])), "postgres", is_postgres=True)
    assert seen == []


def listens(port: int) -> None:
    """Return when somebody does."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nobody listens on {port}")


@pytest.mark.parametrize(
    ("schema", "level", "words", "step"),
    [
        (SchemaStatus("0003", "0003"), Level.OK, "0003", ""),
        (SchemaStatus("0004", "0003", oldest="0003"), Level.OK, "0004, newer than 0003", ""),
        (SchemaStatus("0005", "0003", oldest="0004"), Level.FAIL, "is 0005, this release wants 0003", "newer release"),
        (SchemaStatus("0005", "0003"), Level.FAIL, "is 0005, this release wants 0003", "run a newer release"),
        (SchemaStatus("0002", "0003"), Level.FAIL, "is 0002, this release wants 0003", "tenure db migrate"),
        (SchemaStatus(None, "0003"), Level.FAIL, "is none, this release wants 0003", "tenure db migrate"),
    ],
)
def test_schemas(schema: SchemaStatus, level: Level, words: str, step: str) -> None:
    finding = examined._schema(schema)
    assert finding.level is level
    assert words in finding.detail and step in finding.next_step


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("3.5.1", ["issue 13766, fixed in 3.5.3", "issue 14370, fixed in 3.5.5"]),
        ("3.4.37", ["issue 20653, fixed in 3.4.38"]),
        ("3.3.9", ["was not tried, 3.4 to 3.6 were"]),
        ("3.9.0", ["was not tried"]),
        ("main", ["cannot be read"]),
        ("3.6.5", []),
    ],
)
def test_versions_of_etcd(version: str, words: list[str]) -> None:
    found = examined._version_findings("e", version)
    assert {(finding.level, finding.next_step) for finding in found} == ({(Level.WARN, ADVICE)} if words else set())
    told = "\n".join(finding.detail for finding in found)
    assert all(word in told for word in words)


def test_a_fault_of_postgres_is_a_warning() -> None:
    found = list(doctor_postgres.version(140_003, date(2026, 1, 1)))
    assert [finding.level for finding in found] == [Level.WARN, Level.WARN]
    assert "version 14.3 has a known fault: an index built" in found[0].detail
    assert "fixed in 14.4" in found[0].detail and "newest minor release" in found[0].next_step


def test_an_etcd_that_grants_longer_leases(doctor: Any, own_etcd: Callable[..., EmbeddedEtcd]) -> None:
    server = own_etcd(settings=replace(FAST, extra=("--election-timeout=3000",)))
    found = [finding for finding in doctor("--etcd", server.endpoints[0])[""] if "grants" in finding.detail]
    assert [finding.level for finding in found] == [Level.WARN]
    assert "grants 5 s where 2 s were asked" in found[0].detail
    assert "--election-timeout" in found[0].next_step


@pytest.mark.parametrize(
    "exc", [ValueError("odd"), OSError("away"), Unavailable("down"), TimeoutError(), KeyError("k")]
)
async def test_a_check_that_breaks_fails_and_stops_no_other(exc: Exception) -> None:
    async def check() -> list[Finding]:
        raise exc

    [finding] = await examined._guarded("part", check, "")
    assert finding.level is Level.FAIL
    assert finding.what == "part" and finding.detail


@pytest.mark.parametrize(
    "part",
    ["_coordinators", "_object_store", "_postgres", "_schema", "_etcd", "_etcd_metrics", "_granted", "_together"],
)
def test_no_check_that_breaks_passes_for_well(
    part: str, database: str, etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else is well; what breaks is a fault of the check's own, which nobody foresaw."""
    fine = [Finding(Level.OK, "coordinator", "answers")]

    async def answers(*_: Any) -> list[Finding]:
        return fine

    def breaks(*_: Any) -> Any:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(examined, "_coordinators", answers)
    monkeypatch.setattr(examined, "_object_store", answers)
    monkeypatch.setattr(examined, part, breaks)
    done = CliRunner().invoke(
        app, ["doctor", "-c", NOBODY, "--postgres", database, "--etcd", etcd_server.endpoints[0], "-o", "json"]
    )
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert [one["level"] for one in told if "unforeseen" in one["detail"]] == ["fail"]
    assert len({one["what"] for one in told}) > 2, "the others were looked at"


def test_a_certificate_that_cannot_be_read_or_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = examined._Seen(servers=[("127.0.0.1", 1, "c1")])
    assert [(one.level, "c1" in one.detail) for one in examined._together(seen, {}) if one.check == "certificates"] == [
        (Level.SKIP, True)
    ]

    def odd(*_: Any, **__: Any) -> Any:
        raise ValueError("no certificate")

    monkeypatch.setattr(doctor_certificates, "shown_by", odd)
    assert Level.FAIL in {one.level for one in examined._together(seen, {})}
