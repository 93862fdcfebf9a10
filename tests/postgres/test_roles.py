"""The roles of least privilege: each may do what it is there for, and nothing else. On a server of its own, as roles
belong to the whole of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from typer.testing import CliRunner

from tenure.cli.embedded.postgres import EmbeddedPostgres
from tenure.cli.main import app
from tenure.model.errors import ConfigurationError, Locked, NotFound
from tenure.store.postgres import roles
from tenure.store.postgres.migrate import migrate, status

PASSWORD = "of-a-test"
USERS = {
    "app_migrator": "tenure_migrator",
    "app_coordinator": "tenure_coordinator",
    "app_submitter": "tenure_submitter",
    "app_reader": "tenure_readonly",
}
SUBMIT = "SELECT tenure.submit_job('k', '{\"a\": 1}', unique_key => 'u', on_duplicate => 'replace')"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("roles"), fsync=False, database="maintenance") as running:
        with psycopg.connect(running.dsn, autocommit=True) as admin:
            for user in (*USERS, "app_owner"):
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(user), PASSWORD))
            admin.execute("ALTER ROLE app_owner CREATEROLE")
        yield running


@dataclass(frozen=True, slots=True)
class Place:
    """A database with roles, and how each user reaches it."""

    server: EmbeddedPostgres
    name: str
    stack: ExitStack
    connections: dict[str | None, psycopg.Connection[Any]] = field(default_factory=dict)

    @property
    def admin(self) -> str:
        return self.server.dsn_of(self.name)

    def dsn(self, user: str) -> str:
        return re.sub(r"//[^@]*@", f"//{user}:{PASSWORD}@", self.admin)

    def connection(self, user: str | None) -> psycopg.Connection[Any]:
        """Return the connection of a user, open until the end of the module."""
        if user not in self.connections:
            dsn = self.dsn(user) if user else self.admin
            made = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
            self.connections[user] = self.stack.enter_context(made)
        return self.connections[user]

    def run(self, user: str | None, *statements: str) -> list[Any]:
        """Run statements as a user, each in its own transaction; return the rows of the last."""
        for statement in statements:
            cursor = self.connection(user).execute(statement.encode())
        return cursor.fetchall() if cursor.description is not None else []


MakePlace = Callable[..., Place]


@pytest.fixture(scope="module")
def make_place(server: EmbeddedPostgres) -> Iterator[MakePlace]:
    """Make databases: ``make_place(name, owner)``."""
    with ExitStack() as stack:

        def make(name: str, owner: str = "tenure") -> Place:
            with psycopg.connect(server.dsn, autocommit=True) as admin:
                words = (sql.Identifier(name), sql.Identifier(owner))
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*words))
            return Place(server, name, stack)

        yield make


@pytest.fixture(scope="module")
def place(make_place: MakePlace) -> Place:
    """A database that was migrated first and given its roles then, by the command."""
    made = make_place("after")
    _wait(migrate(made.admin))
    made.run(None, SUBMIT)
    arguments = [part for user, role in USERS.items() for part in ("--user", f"{user}={role}")]
    for _ in range(2):
        done = CliRunner().invoke(app, ["db", "roles", "--postgres", made.admin, *arguments])
        assert done.exit_code == 0, done.output
    assert PASSWORD not in done.output
    return made


def _wait(body: Any) -> Any:
    return asyncio.run(body)


def tables(place: Place) -> set[str]:
    rows = place.run(
        None,
        "SELECT relname FROM pg_class WHERE relnamespace = 'tenure'::regnamespace AND relkind IN ('r', 'p', 'v')"
        " AND NOT relispartition",
    )
    return {name for (name,) in rows}


def granted(place: Place, role: str) -> set[tuple[str, str]]:
    rows = place.run(
        None,
        "SELECT c.relname, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = "
        f"'{role}'::regrole AND c.relnamespace = 'tenure'::regnamespace AND c.relkind IN ('r', 'p', 'v')",
    )
    return set(rows)


def test_every_table_has_its_grants(place: Place) -> None:
    """A table that a migration adds is named in grants.sql, if only as one that nobody but the owner touches."""
    assert {table for table, _ in granted(place, "tenure_coordinator")} == tables(place)
    assert {p for _, p in granted(place, "tenure_coordinator")} == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    readonly = granted(place, "tenure_readonly")
    assert {privilege for _, privilege in readonly} == {"SELECT"}
    assert tables(place) - {table for table, _ in readonly} == {"token", "signing_key", "audit", "idempotency"}
    assert not granted(place, "tenure_submitter")


def test_the_schema_belongs_to_the_migrator(place: Place) -> None:
    owners = place.run(
        None,
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'tenure'::regnamespace"
        " AND relkind <> 't' UNION SELECT proowner::regrole::text FROM pg_proc"
        " WHERE pronamespace = 'tenure'::regnamespace",
    )
    assert owners == [("tenure_migrator",)]
    acting_as_owner = place.run(
        None, "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'tenure'::regnamespace AND prosecdef"
    )
    names = {"make_partitions", "submit_job", "drop_old_audit", "drop_empty_partition", "remove_history"}
    names.add("advance_fences")
    assert {name for name, _ in acting_as_owner} == names
    assert all("search_path=pg_catalog, pg_temp" in config for _, config in acting_as_owner)
    public = place.run(
        None,
        "SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a"
        " WHERE pronamespace = 'tenure'::regnamespace AND a.grantee = 0",
    )
    assert public == []


QUERIES = sorted(file.name for file in resources.files("tenure.store.postgres").joinpath("queries").iterdir())


def test_a_coordinator_may_run_every_query(place: Place) -> None:
    assert [name for name in QUERIES if not _may(place, name)] == []


def _may(place: Place, name: str) -> bool:
    """Have Postgres plan a query and look at its rights, without running it."""
    text = _text(name)
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, parameter in enumerate(names, 1):
        text = text.replace(f"%({parameter})s", f"${number}")
    arguments = f"({', '.join(['NULL'] * len(names))})" if names else ""
    try:
        place.run("app_coordinator", "DEALLOCATE ALL", f"PREPARE q AS {text.replace('%%', '%')}")
        place.run("app_coordinator", f"EXPLAIN EXECUTE q{arguments}")
    except errors.InsufficientPrivilege:
        return False
    return True


def _text(name: str) -> str:
    return resources.files("tenure.store.postgres").joinpath("queries", name).read_text()


READ_ELSEWHERE = {
    ("schema_version", "SELECT"),  # store/postgres/migrate.py
    ("schema_oldest", "SELECT"),
    ("signing_key", "SELECT"),
    *((("token", privilege)) for privilege in ("SELECT", "INSERT", "UPDATE")),
    *((("audit", privilege)) for privilege in ("SELECT", "INSERT")),
}


def test_a_coordinator_has_nothing_that_no_query_needs(make_place: MakePlace) -> None:
    place = make_place("tight")
    _wait(migrate(place.admin))
    _wait(roles.apply(place.admin, list(USERS.items())))
    for table, privilege in sorted(granted(place, "tenure_coordinator") - READ_ELSEWHERE):
        place.run(None, f"REVOKE {privilege} ON tenure.{table} FROM tenure_coordinator")
        if all(_may(place, name) for name in QUERIES if table in _text(name)):
            pytest.fail(f"no query needs {privilege} on {table}")
        place.run(None, f"GRANT {privilege} ON tenure.{table} TO tenure_coordinator")


COORDINATOR_MAY_NOT = [
    "CREATE TABLE tenure.mine ()",
    "CREATE TABLE public.mine ()",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION tenure.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE tenure.job ADD COLUMN mine int",
    "ALTER TABLE tenure.job DISABLE TRIGGER ALL",
    "DROP TABLE tenure.history_default",
    "DROP FUNCTION tenure.assert_fence",
    "CREATE INDEX ON tenure.job (kind)",
    "TRUNCATE tenure.job",
    "DELETE FROM tenure.history",
    "DELETE FROM tenure.attempt",
    "UPDATE tenure.attempt SET outcome = 'completed'",
    "DELETE FROM tenure.history_default",
    "UPDATE tenure.audit SET caller = 'somebody else'",
    "DELETE FROM tenure.audit",
    "UPDATE tenure.signing_key SET key = sha256('mine')",
    "SELECT tenure.replace_signing_key(0, 0)",
    "DELETE FROM tenure.token",
    "UPDATE tenure.schema_version SET version_num = '9999'",
    "SELECT setval('tenure.fence_sequence', 1)",
    "SET ROLE tenure_migrator",
    "GRANT tenure_migrator TO app_coordinator",
    "CREATE ROLE mine",
    "COPY tenure.job TO PROGRAM 'cat'",
    "SELECT pg_read_file('postgresql.conf')",
]


def test_a_coordinator_changes_neither_schema_nor_story(place: Place) -> None:
    for statement in COORDINATOR_MAY_NOT:
        refused(place, "app_coordinator", statement)


def refused(place: Place, user: str, statement: str) -> None:
    try:
        place.run(user, statement)
    except (errors.InsufficientPrivilege, errors.WrongObjectType, errors.ObjectNotInPrerequisiteState):
        return  # a view is no table to truncate, nor to delete from
    pytest.fail(f"{user} may: {statement}")


def test_a_coordinator_has_partitions_made(place: Place) -> None:
    before = place.run(None, "SELECT count(*) FROM pg_inherits")[0][0]
    assert place.run("app_coordinator", "SELECT tenure.make_partitions(8)") == [(8,)]
    assert place.run(None, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tenure.history'::regclass")[0][0] >= 8
    assert place.run(None, "SELECT count(*) FROM pg_inherits")[0][0] > before


def test_whoever_submits_by_sql_submits_and_nothing_else(place: Place) -> None:
    [(job,)] = place.run("app_submitter", SUBMIT)
    assert place.run(None, f"SELECT state FROM tenure.jobs WHERE id = '{job}'") == [("ready",)]
    for table in sorted(tables(place)):
        for statement in (f"SELECT FROM tenure.{table}", f"DELETE FROM tenure.{table}", f"TRUNCATE tenure.{table}"):
            refused(place, "app_submitter", statement)
    for statement in (
        *COORDINATOR_MAY_NOT,
        "INSERT INTO tenure.job (kind) VALUES ('k')",
        "UPDATE tenure.job SET priority = 100",
        "SELECT key FROM tenure.signing_key",
        "SELECT hash FROM tenure.token",
        "SELECT tenure.make_partitions(1)",
        "SELECT tenure.insert_edges('{}', '{}')",
        "SELECT tenure.stop_for(gen_random_uuid(), '{}')",
        "SELECT nextval('tenure.fence_sequence')",
    ):
        refused(place, "app_submitter", statement)


def test_a_reader_reads_jobs_and_no_secrets(place: Place) -> None:
    assert place.run("app_reader", "SELECT payload FROM tenure.jobs LIMIT 1") == [({"a": 1},)]
    readable = {table for table, _ in granted(place, "tenure_readonly")}
    for table in sorted(tables(place)):
        if table in readable:
            place.run("app_reader", f"SELECT * FROM tenure.{table} LIMIT 1")
        else:
            with pytest.raises(errors.InsufficientPrivilege):
                place.run("app_reader", f"SELECT * FROM tenure.{table} LIMIT 1")
        refused(place, "app_reader", f"DELETE FROM tenure.{table}")
    for statement in (
        *COORDINATOR_MAY_NOT,
        SUBMIT,
        "SELECT key FROM tenure.signing_key",
        "SELECT hash FROM tenure.token",
        "SELECT FROM tenure.job FOR SHARE",
    ):
        refused(place, "app_reader", statement)


def test_roles_first_and_the_migrator_migrates(make_place: MakePlace) -> None:
    """On an empty database: what the migrator makes comes with its grants."""
    place = make_place("before")
    _wait(roles.apply(place.admin, list(USERS.items())))
    with pytest.raises(ConfigurationError, match="permission denied"):
        _wait(migrate(place.dsn("app_coordinator")))
    done = CliRunner().invoke(app, ["db", "migrate", "--postgres", place.dsn("app_migrator")])
    assert done.exit_code == 0, done.output
    test_every_table_has_its_grants(place)
    test_the_schema_belongs_to_the_migrator(place)
    place.run("app_submitter", SUBMIT)
    assert _wait(status(place.dsn("app_coordinator"))).is_current
    assert _wait(migrate(place.dsn("app_coordinator"))).applied == ()  # nothing to do needs no right


def test_an_owner_who_is_no_superuser_sets_them_up(server: EmbeddedPostgres, make_place: MakePlace) -> None:
    """As on a hosted Postgres: the owner of the database may make roles, and goes on working afterwards."""
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        for role in roles.ROLES:  # those of a release, or another database, are there and are the owner's to give
            admin.execute(
                sql.SQL(
                    "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {0}) THEN CREATE ROLE {1}; END IF;"
                    " END $$"
                ).format(role, sql.Identifier(role))
            )
            admin.execute(sql.SQL("GRANT {} TO app_owner WITH ADMIN OPTION").format(sql.Identifier(role)))
    place = make_place("hosted", "app_owner")
    _wait(migrate(place.dsn("app_owner")))
    for _ in range(2):
        _wait(roles.apply(place.dsn("app_owner"), list(USERS.items())))
    test_every_table_has_its_grants(place)
    test_the_schema_belongs_to_the_migrator(place)
    assert not place.run(None, "SELECT has_database_privilege('tenure_coordinator', 'hosted', 'CREATE')")[0][0]
    assert _wait(migrate(place.dsn("app_owner"))).is_current
    place.run("app_owner", "CREATE TABLE tenure.later ()", "DROP TABLE tenure.later")


def test_a_user_who_is_not_there_is_named(make_place: MakePlace) -> None:
    place = make_place("nobody")
    with pytest.raises(NotFound, match='role "nobody-here" does not exist') as refused:
        _wait(roles.apply(place.admin, [("nobody-here", "tenure_readonly")]))
    assert "CREATE ROLE" in str(refused.value.hint)


def test_a_table_that_is_held_is_not_waited_for_for_ever(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms';\n")
    place = make_place("held")
    _wait(migrate(place.admin))
    with psycopg.connect(place.admin) as holder:
        holder.execute("LOCK TABLE tenure.job")
        with pytest.raises(Locked):
            _wait(roles.apply(place.admin))


def test_what_is_printed_is_what_is_run(make_place: MakePlace) -> None:
    done = CliRunner().invoke(app, ["db", "roles", "--dry-run", "--user", 'o"dd=tenure_readonly'])
    assert done.exit_code == 0
    assert done.stdout == roles.script([('o"dd', "tenure_readonly")])
    assert done.stdout.endswith('GRANT "tenure_readonly" TO "o""dd";\n')
    wrong = CliRunner().invoke(app, ["db", "roles", "--dry-run", "--user", "app=root"])
    assert wrong.exit_code == 78 and "root is no role of tenure" in wrong.output
    assert CliRunner().invoke(app, ["db", "roles", "--dry-run", "--user", "app"]).exit_code == 2
    place = make_place("printed")
    _wait(migrate(place.admin))
    with psycopg.connect(place.admin) as connection:
        connection.execute(roles.script().encode())
    test_every_table_has_its_grants(place)
