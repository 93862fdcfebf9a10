"""Generate docs/CONFIGURATION.md from the settings classes of the coordinator and the worker.

``--check`` compares instead of writing and exits 1 when the committed file is stale. Names, types, defaults and bounds
come from the classes; a meaning comes from the field's own description, else from ``MEANINGS``. Invariant: every
setting has a meaning and every entry of ``MEANINGS`` is used, so that neither can be forgotten.
"""

from __future__ import annotations

import pathlib
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from tenure.coordinator.settings import CoordinatorSettings
from tenure.worker.settings import WorkerSettings

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "CONFIGURATION.md"

HEAD = """# Configuration

<!-- DO NOT EDIT: scripts/generate_reference.py makes this file from coordinator/settings.py and worker/settings.py. -->

Settings come from the environment and are read once, at start. Some have an option on the command line too
(`tenure coordinator --help`, `tenure worker --help`); the option wins. A setting that is missing, malformed or unsafe
ends the process with exit code 78 and a message that names the variable. Variables that are not listed here are
ignored.

- Names ending in `_S` are **seconds**.
- **List** values are separated by commas: `TENURE_ETCD_ENDPOINTS=grpc://a:2379,grpc://b:2379`.
- **Map** values are JSON: `TENURE_WORKER_LABELS={"zone": "a"}`.
- **Secret** values are not shown in logs.

`tenure up` writes a file `tenure.env` into its data directory with the variables that another program needs to join:
`set -a; . .tenure/up/tenure.env; set +a`.
"""

COORDINATOR_RULES = """
Refused together: `TENURE_POSTGRES_POOL_MIN` above `TENURE_POSTGRES_POOL_MAX`; `TENURE_LOCK_TIMEOUT_S` not below
`TENURE_STATEMENT_TIMEOUT_S`; no etcd endpoint at all; one of `TENURE_ETCD_CERT` and `TENURE_ETCD_KEY` without the
other, and the same of `TENURE_TLS_CERT` and `TENURE_TLS_KEY`, of `TENURE_TLS_CLIENT_CERT` and `TENURE_TLS_CLIENT_KEY`;
`TENURE_TLS_CLIENT_CA` without `TENURE_TLS_CERT`; `TENURE_TLS_CLIENT_REQUIRED` without `TENURE_TLS_CLIENT_CA`;
`TENURE_OIDC_ISSUER` without `TENURE_OIDC_AUDIENCE` or without `TENURE_AUTH=required`; `TENURE_OIDC_AUDIENCE`,
`TENURE_OIDC_JWKS_URL` or `TENURE_OIDC_CA` without `TENURE_OIDC_ISSUER`; one of these URLs that is neither HTTPS nor on
loopback; two claims of the same name.

Refused at start: a listener that is not on loopback, unless there is a `TENURE_TLS_CERT` and `TENURE_AUTH=required`, or
`TENURE_ALLOW_INSECURE=true` ([TLS.md](TLS.md)).
"""

WORKER_RULES = """
Refused: no pool at all; a pool that is not a route; a worker id that is not a name; one of `TENURE_ETCD_CERT` and
`TENURE_ETCD_KEY`, or of `TENURE_TLS_CLIENT_CERT` and `TENURE_TLS_CLIENT_KEY`, without the other; a client certificate
without `TENURE_TLS_CA` or `TENURE_TLS`. A worker has no setting for Postgres: it never speaks to it.
"""

TAIL = """
## Other programs

| Variable | Read by | Meaning |
| --- | --- | --- |
| `TENURE_COORDINATOR` | clients, `tenure` | `HOST:PORT` of coordinators, with commas; default `127.0.0.1:7070` |
| `TENURE_TOKEN` | clients, workers, `tenure` | a bearer token to show to coordinators ([ACCESS.md](ACCESS.md)) |
| `TENURE_TOKEN_FILE` | clients, workers, `tenure` | a file with it, read again whenever it has changed |
| `TENURE_TLS`, `TENURE_TLS_CA`, `TENURE_TLS_SERVER_NAME` | clients, `tenure` | TLS to coordinators, as above |
| `TENURE_TLS_CLIENT_CERT`, `TENURE_TLS_CLIENT_KEY` | clients, `tenure` | what to show to them, as above |
| `TENURE_TLS_CERT`, `TENURE_TLS_CA`, `TENURE_TLS_SERVER_NAME` | `tenure health` | HTTPS or not, and whom to trust |
| `TENURE_POSTGRES_DSN`, `TENURE_ETCD_ENDPOINTS` | `tenure db`, `tenure doctor` | as above |
| `TENURE_POSTGRES_DSN_FILE`, `TENURE_ETCD_PASSWORD_FILE` | whoever reads them without `_FILE` | file with the secret |
| `TENURE_HTTP_LISTEN`, `TENURE_WORKER_HTTP_LISTEN` | `tenure health` | whom to ask, as above |
| `TENURE_ALLOW_INSECURE` | `tenure up` | handed on to its coordinators, for `--grpc 0.0.0.0:7070` |
| `TENURE_PG_BIN` | `tenure up`, tests | directory of the Postgres programs to run |
| `TENURE_ETCD_BIN` | `tenure up`, tests | the etcd program to run |
"""

MEANINGS = {
    "postgres_dsn": "address of the database, with user and password",
    "etcd_endpoints": "members of etcd: all `grpc://` or `grpcs://`, or all `http://` or `https://`",
    "etcd_prefix": "prefix of every key; the same for every process of a deployment",
    "etcd_user": "user name, where etcd asks for one",
    "etcd_password": "password of that user",
    "etcd_ca": "file of CA certificates that signed etcd's",
    "etcd_cert": "file of the certificate shown to etcd",
    "etcd_key": "file of that certificate's key",
    "etcd_timeout_s": "bound of one call to etcd",
    "grpc_listen": "`HOST:PORT` for workers and clients",
    "http_listen": "`HOST:PORT` for `/livez`, `/readyz` and `/metrics`",
    "coordinator_id": "name of this coordinator",
    "postgres_pool_min": "connections kept open",
    "postgres_pool_max": "most connections at the same time",
    "postgres_wait_s": "how long a call waits for a free connection",
    "statement_timeout_s": "bound of one statement, kept by Postgres; 8 s later the coordinator hangs up by itself",
    "lock_timeout_s": "bound of one wait for a lock, kept by Postgres",
    "leader_ttl_s": "lease of the leader and of the coordinator's registration: how soon a dead leader is replaced",
    "offers_per_worker": "most jobs offered to one worker in one round; its free capacity bounds them too",
    "compact_every_s": "the leader compacts etcd's history after so long, if it is longer than what is kept",
    "compact_every_revisions": "sooner, once history is longer by so many revisions than what is kept",
    "compact_keep_revisions": "how many of the newest revisions are kept, for watches that resume",
    "done_ttl_s": "how long the mark of a finished job stays in etcd at most, and half of it at least",
    "reflection": "serve gRPC reflection",
    "auth": "`none`, or `required`: callers show a token or a client certificate ([ACCESS.md](ACCESS.md))",
    "log_level": "least severe log lines that are written",
    "labels": "what to show about this worker",
    "allow_command": "serve the kind `command`, which runs any program that a payload names",
    "worker_id": "name of this worker; must be unique",
    "session_ttl_s": "lease of the worker's registration: how soon a dead worker is forgotten",
}

MADE = {"coordinator_id": "host name and a random part", "worker_id": "host name, pid and a random part"}
"""Defaults that differ from process to process."""


def main(arguments: list[str]) -> int:
    """Write the file, or compare it with ``--check``; return the exit code."""
    text = reference()
    if "--check" not in arguments:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET.relative_to(ROOT)} is stale: run .venv/bin/python scripts/generate_reference.py")
        return 1
    return 0


def reference() -> str:
    """Return the document.

    Raises:
        LookupError: a setting without a meaning, or a meaning without a setting.
    """
    names = {name for settings in (CoordinatorSettings, WorkerSettings) for name in settings.model_fields}
    if unused := sorted(MEANINGS.keys() - names):
        raise LookupError(f"MEANINGS speaks of settings that do not exist: {', '.join(unused)}")
    parts = [
        HEAD,
        "\n## Coordinator\n\n",
        *_table(CoordinatorSettings),
        COORDINATOR_RULES,
        "\n## Worker\n\n",
        *_table(WorkerSettings),
        WORKER_RULES,
        TAIL,
    ]
    return "".join(parts)


def _table(settings: type[BaseSettings]) -> Iterator[str]:
    yield "| Variable | Type | Default | Meaning |\n| --- | --- | --- | --- |\n"
    for name, field in settings.model_fields.items():
        meaning = field.description or MEANINGS.get(name)
        if meaning is None:
            raise LookupError(f"{settings.__name__}.{name} has neither a description nor an entry in MEANINGS")
        cells = (f"`{variable(settings, name, field)}`", _type(field), _default(name, field), meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def variable(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """Return the name of a setting in the environment."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def _type(field: FieldInfo) -> str:
    kind = _plain(field.annotation)
    bounds = [text for text in map(_bound, field.metadata) if text]
    return ", ".join([kind, *bounds])


def _plain(annotation: Any) -> str:
    arguments = [one for one in get_args(annotation) if one is not type(None)]
    origin = get_origin(annotation)
    if origin is Literal:
        return " ".join(f"`{one}`" for one in arguments)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "map"
    if arguments and origin is not None and type(None) in get_args(annotation):
        return _plain(arguments[0])
    names: dict[Any, str] = {
        str: "text", int: "integer", float: "number", bool: "`true` `false`", SecretStr: "secret", pathlib.Path: "file",
    }  # fmt: skip
    return names[annotation]


def _bound(constraint: object) -> str:
    match constraint:
        case annotated_types.Ge(ge=least):
            return f"at least {_number(least)}"
        case annotated_types.Gt(gt=least):
            return f"above {_number(least)}"
        case annotated_types.Le(le=most):
            return f"at most {_number(most)}"
        case annotated_types.Lt(lt=most):
            return f"below {_number(most)}"
    pattern = getattr(constraint, "pattern", None)
    return f"matches `{_readable(pattern)}`" if isinstance(pattern, str) else ""


def _readable(pattern: str) -> str:
    """Write control characters of a pattern as escapes: they are none in Markdown."""
    return re.sub(r"[\x00-\x1f]", lambda found: f"\\x{ord(found[0]):02x}", pattern)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(name: str, field: FieldInfo) -> str:
    if name in MADE:
        return MADE[name]
    if field.is_required():
        return "**required**"
    value = typing.cast(Any, field.get_default(call_default_factory=True))
    match value:
        case None | "" | () | {}:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`{','.join(value)}`"
        case int() | float():
            return f"`{_number(value)}`"
    if value == {}:
        return ""
    return f"`{value}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
