"""The settings of a worker: typed, parsed once from the environment and flags, unsafe relations refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from tenure.model.ids import new_id
from tenure.model.listen import listened
from tenure.model.routes import DEFAULT_ROUTE, name_error, route_error
from tenure.store.secrets import SecretFiles
from tenure.v1.bearer import Bearer
from tenure.v1.transfer import Files

_LISTS = ("etcd_endpoints", "coordinator", "runner_url", "imports", "pools")


class WorkerSettings(BaseSettings):
    """``TENURE_…`` in the environment (pools: ``TENURE_WORKER_POOLS``); durations in seconds."""

    model_config = SettingsConfigDict(env_prefix="TENURE_", extra="ignore", frozen=True, populate_by_name=True)

    etcd_endpoints: Annotated[tuple[str, ...], NoDecode] = ("grpc://127.0.0.1:2379",)
    etcd_prefix: str = Field(default="/tenure/v1/", pattern=r"^/[^\x00-\x20]*/$")
    etcd_user: str | None = None
    etcd_password: SecretStr | None = None
    etcd_ca: Path | None = None
    etcd_cert: Path | None = None
    etcd_key: Path | None = None
    etcd_timeout_s: float = Field(default=5.0, gt=0)
    coordinator: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="addresses of coordinators; empty: those that etcd lists"
    )
    runner_url: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="HTTPS addresses of coordinators: remote mode, without etcd; see `tenure runner`",
    )
    tls: bool = Field(default=False, description="speak TLS to coordinators; TENURE_TLS_CA says so, too")
    tls_ca: Path | None = Field(
        default=None, description="file of CA certificates that signed the coordinators'; default: public ones"
    )
    tls_client_cert: Path | None = Field(default=None, description="file of the certificate shown to coordinators")
    tls_client_key: Path | None = Field(default=None, description="file of that certificate's key")
    tls_server_name: str | None = Field(
        default=None, description="name in the coordinators' certificates, where it differs from their addresses"
    )
    object_store_ca: Path | None = Field(
        default=None,
        description="file of CA certificates that signed the object store's, beside public ones; for what it uploads",
    )
    token: SecretStr | None = Field(default=None, description="shown to coordinators, where they ask for one")
    token_file: Path | None = Field(default=None, description="file with that token; read again when it has changed")
    imports: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias="TENURE_WORKER_IMPORTS", description="modules that declare handlers"
    )
    pools: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(DEFAULT_ROUTE,), validation_alias="TENURE_WORKER_POOLS", description="route prefixes to serve"
    )
    capacity: int = Field(
        default=32, ge=1, le=20_000, validation_alias="TENURE_WORKER_CAPACITY", description="jobs at the same time"
    )
    labels: dict[str, str] = Field(default_factory=dict, validation_alias="TENURE_WORKER_LABELS")
    allow_command: bool = Field(default=False, validation_alias="TENURE_WORKER_ALLOW_COMMAND")
    http_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias="TENURE_WORKER_HTTP_ALLOW",
        description="hosts and networks that the http kind may reach although they are not public",
    )
    worker_id: str = Field(
        default_factory=lambda: f"{_host_name()}-{os.getpid()}-{str(new_id())[-8:]}",
        validation_alias="TENURE_WORKER_ID",
    )
    session_ttl_s: float = Field(default=10.0, ge=2, validation_alias="TENURE_WORKER_SESSION_TTL_S")
    grace_s: float = Field(
        default=30.0,
        ge=0,
        validation_alias="TENURE_WORKER_GRACE_S",
        description="time for attempts to finish on SIGTERM",
    )
    # With `worker_` in its own name: under an alias a worker would take up TENURE_HTTP_LISTEN, the coordinator's, too.
    worker_http_listen: str = Field(
        default="", description="`HOST:PORT` for `/livez`, `/readyz` and `/metrics`; empty: not served"
    )
    verify_s: float = Field(
        default=2.0,
        gt=0,
        validation_alias="TENURE_WORKER_VERIFY_S",
        description="how often own claims and holds are read",
    )

    handler_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO",
        validation_alias="TENURE_WORKER_HANDLER_LOG_LEVEL",
        description="lines that handlers log below it are not kept with their attempts",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, else JSON"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, and secrets from the files that it names."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: dict[str, object]) -> dict[str, object]:
        for name, value in list(values.items()):
            plain = name.lower().removeprefix("tenure_").removeprefix("worker_")
            if isinstance(value, str) and plain in (*_LISTS, "http_allow"):
                values[name] = tuple(part.strip() for part in value.split(",") if part.strip())
        return values

    @field_validator("worker_http_listen")
    @classmethod
    def _listened(cls, value: str) -> str:
        return listened(value) if value else value

    @field_validator("runner_url")
    @classmethod
    def _urls(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for url in values:
            if problem := runner_url_error(url):
                raise ValueError(f"{url!r} {problem}")
        return tuple(url.rstrip("/") for url in values)

    @model_validator(mode="after")
    def _checked(self) -> WorkerSettings:
        if not self.pools:
            raise ValueError("pools must name at least one pool")
        for pool in self.pools:
            if problem := route_error(pool):
                raise ValueError(f"pool {pool!r}: {problem}")
        if problem := name_error(self.worker_id):
            raise ValueError(f"worker_id {self.worker_id!r} {problem}")
        if bool(self.etcd_cert) != bool(self.etcd_key):
            raise ValueError("etcd_cert and etcd_key belong together")
        if bool(self.tls_client_cert) != bool(self.tls_client_key):
            raise ValueError("tls_client_cert and tls_client_key belong together")
        if self.tls_client_cert and not (self.tls or self.tls_ca):
            raise ValueError("tls_client_cert is shown over TLS only: set tls_ca, or tls")
        return self


def bearer_of(settings: WorkerSettings) -> Bearer:
    """Return what the worker shows to coordinators.

    Raises:
        ConfigurationError: the token's file cannot be read.
    """
    return Bearer(settings.token.get_secret_value() if settings.token else None, file=settings.token_file)


def files_of(settings: WorkerSettings) -> Files:
    """Return what moves files between the worker and the object store."""
    cert, key = settings.tls_client_cert, settings.tls_client_key
    return Files(
        ca_files=(settings.tls_ca, settings.object_store_ca),
        client_cert=(str(cert), str(key)) if cert and key else None,
    )


def runner_url_error(url: str) -> str | None:
    """Say what is wrong with the address of a coordinator, or None: without TLS only what is near may be called."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        host, port_is_right = None, False
    if host is None or not port_is_right or parts.query or parts.fragment or parts.username:
        return "is not an address such as https://tenure.example.com"
    if parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1")):
        return None
    return "must begin with https:// (http:// is for loopback alone: tokens and payloads would travel in the open)"


def _host_name() -> str:
    """Return the host's name as a key segment."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "-" for c in socket.gethostname().lower())
    return name.strip("-._")[:40] or "host"
