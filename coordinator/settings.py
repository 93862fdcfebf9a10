"""The settings of a coordinator: typed, parsed once from the environment, unsafe relations refused."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from tenure.coordinator.issuer_url import require_url
from tenure.model.ids import new_id
from tenure.model.listen import listened
from tenure.store.objects.opening import StoreOptions, store_url_error
from tenure.store.secrets import SecretFiles


class CoordinatorSettings(BaseSettings):
    """``TENURE_…`` in the environment; durations in seconds."""

    model_config = SettingsConfigDict(env_prefix="TENURE_", extra="ignore", frozen=True)

    postgres_dsn: SecretStr
    etcd_endpoints: Annotated[tuple[str, ...], NoDecode] = ("grpc://127.0.0.1:2379",)
    etcd_prefix: str = Field(default="/tenure/v1/", pattern=r"^/[^\x00-\x20]*/$")
    etcd_user: str | None = None
    etcd_password: SecretStr | None = None
    etcd_ca: Path | None = Field(default=None, description="file of CA certificates that signed etcd's")
    etcd_cert: Path | None = None
    etcd_key: Path | None = None
    etcd_timeout_s: float = Field(default=5.0, gt=0)
    grpc_listen: str = "127.0.0.1:7070"
    http_listen: str = "127.0.0.1:7071"
    grpc_advertise: str = Field(
        default="",
        description="address that workers and other coordinators reach; default: grpc_listen, "
        "with this host's address in the place of 0.0.0.0",
    )
    http_advertise: str = Field(
        default="",
        description="URL, such as `https://tenure.example.com`, at which workers and clients reach the HTTP of one of "
        "the coordinators, for objects that lie in a folder; default: this one's http_listen, with this host's address "
        "in the place of 0.0.0.0",
    )
    object_store: str | None = Field(
        default=None,
        description="`file:///folder`, shared by all coordinators, or `s3://bucket/prefix`: where large results, "
        "artifacts and logs go ([OBJECTS.md](OBJECTS.md)); default: there is none",
    )
    object_store_endpoint: str | None = Field(
        default=None, description="URL of an S3 that is not AWS', such as `https://minio.example.com:9000`"
    )
    object_store_region: str | None = Field(
        default=None, description="default: as AWS' own tools find it, else us-east-1"
    )
    object_store_path_style: bool | None = Field(
        default=None, description="the bucket in the path, not in the host's name; default: where there is an endpoint"
    )
    object_store_access_key_id: SecretStr | None = Field(
        default=None,
        description="default: as AWS' own tools find it (environment, files, the role of the machine or pod)",
    )
    object_store_secret_access_key: SecretStr | None = Field(default=None, description="belongs to that id")
    object_store_sse: Literal["AES256", "aws:kms"] | None = Field(
        default=None, description="encryption that is asked for with each object; default: as the bucket says"
    )
    object_store_sse_kms_key_id: str | None = Field(default=None, description="the key, for aws:kms")
    object_store_ca: Path | None = Field(
        default=None, description="file of CA certificates that signed the endpoint's; default: public ones"
    )
    object_max_bytes: int = Field(
        default=5 * 1024**3, ge=1024, description="the most that one artifact, or large result, may have; at most 1 TiB"
    )
    auth: Literal["none", "required"] = "none"
    tls_cert: Path | None = Field(
        default=None,
        description="file of the certificate, with its chain, that both listeners show; with it they speak TLS alone",
    )
    tls_key: Path | None = Field(default=None, description="file of that certificate's key, not encrypted")
    tls_client_ca: Path | None = Field(
        default=None, description="file of CA certificates that sign callers'; HTTP takes such a certificate"
    )
    tls_client_required: bool = Field(
        default=False, description="gRPC demands a certificate signed by TENURE_TLS_CLIENT_CA"
    )
    tls: bool = Field(
        default=False, description="speak TLS to other coordinators; TENURE_TLS_CA and TENURE_TLS_CERT say so, too"
    )
    tls_ca: Path | None = Field(
        default=None, description="file of CA certificates that signed other coordinators'; default: public ones"
    )
    tls_client_cert: Path | None = Field(
        default=None, description="file of the certificate shown to other coordinators"
    )
    tls_client_key: Path | None = Field(default=None, description="file of that certificate's key")
    tls_server_name: str | None = Field(
        default=None, description="name in other coordinators' certificates, where it differs from their addresses"
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="URL of an OIDC issuer whose tokens (JWT) are taken beside tenure's own ([ACCESS.md](ACCESS.md)); "
        "HTTPS, or HTTP on loopback",
    )
    oidc_audience: str | None = Field(default=None, description="what `aud` in its tokens must hold")
    oidc_jwks_url: str | None = Field(
        default=None, description="where its keys are; default: what its `/.well-known/openid-configuration` says"
    )
    oidc_ca: Path | None = Field(
        default=None, description="file of CA certificates that signed the issuer's; default: public ones"
    )
    oidc_role_claim: str = Field(default="tenure_role", min_length=1, description="claim that holds the role")
    oidc_namespaces_claim: str = Field(
        default="tenure_namespaces", min_length=1, description="claim that holds the list of namespaces"
    )
    oidc_pools_claim: str = Field(
        default="tenure_pools", min_length=1, description="claim that holds the list of pools"
    )
    oidc_name_claim: str = Field(
        default="sub", min_length=1, description="claim that holds the name, which is shown as `oidc:` and the name"
    )
    dashboard: bool = Field(
        default=True,
        description="serve the dashboard for operators at `/ui/` of http_listen ([DASHBOARD.md](DASHBOARD.md))",
    )
    oidc_client_id: str | None = Field(
        default=None,
        description="as which the issuer knows the dashboard, which then lets people log in there; needs "
        "http_advertise, and the issuer must allow `/ui/login/oidc/back` below it",
    )
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="belongs to that id; default: the dashboard is a public client, with PKCE alone"
    )
    oidc_scopes: str = Field(default="openid profile", description="what the dashboard asks the issuer for")
    allow_insecure: bool = Field(
        default=False, description="listen elsewhere than on loopback without TLS, or without TENURE_AUTH=required"
    )
    coordinator_id: str = Field(default_factory=lambda: f"{socket.gethostname()}-{str(new_id())[-12:]}")
    postgres_pool_min: int = Field(default=2, ge=1)
    postgres_pool_max: int = Field(default=10, ge=2)
    postgres_wait_s: float = Field(default=5.0, gt=0)
    statement_timeout_s: float = Field(default=15.0, gt=0)
    lock_timeout_s: float = Field(default=2.0, gt=0)
    leader_ttl_s: float = Field(default=5.0, ge=2)
    poll_s: float = Field(default=0.5, gt=0, description="how often the leader looks for ready jobs without a hint")
    sweep_s: float = Field(default=2.0, gt=0, description="how often the reaper compares all rows with all claims")
    cancel_grace_s: float = Field(
        default=30.0,
        ge=1,
        le=86_400,
        description="how long a worker may take to stop an attempt that is canceled; then the leader ends it",
    )
    offer_timeout_s: float = Field(
        default=1.0, gt=0, description="an offer not answered by then goes to another worker"
    )
    offers_per_worker: int = Field(default=500, ge=1)
    compact_every_s: float = Field(default=60.0, gt=0)
    compact_every_revisions: int = Field(default=50_000, ge=1_000)
    compact_keep_revisions: int = Field(default=20_000, ge=1_000)
    done_ttl_s: float = Field(default=30.0, ge=2)
    audit_keep_days: int = Field(
        default=365,
        ge=1,
        description="how long entries of the audit log are kept; then the leader drops them",
    )
    retention_share: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="of the time of one Postgres connection, at most, that removing and archiving history takes",
    )
    grace_s: float = Field(default=10.0, ge=0, description="how long a stop waits for calls under way")
    max_calls: int = Field(
        default=20_000, ge=100, description="gRPC calls under way at a time, waiting ones too; more are refused"
    )
    max_watches: int = Field(
        default=2_000, ge=1, description="streams of answers (WatchJob and its like) among them; each may hold 256 KiB"
    )
    max_submit_streams: int = Field(
        default=200, ge=1, description="StreamSubmitJobs among them; each may hold 16 MiB of jobs"
    )
    max_http_connections: int = Field(
        default=4_096,
        ge=64,
        description="connections to the HTTP side at a time, at most half of the files that may be open; one more ends "
        "the one that has waited longest for its client. Calls of runners leave 32 of them to probes, "
        "and with a dashboard a quarter of the rest, 400 at most, to its pages",
    )
    migrate: bool = Field(default=True, description="bring the schema up to date at start")
    reflection: bool = True
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
    def _split_endpoints(cls, values: dict[str, object]) -> dict[str, object]:
        endpoints = values.get("etcd_endpoints")
        if isinstance(endpoints, str):
            values["etcd_endpoints"] = tuple(part.strip() for part in endpoints.split(",") if part.strip())
        return values

    @field_validator("grpc_listen", "http_listen")
    @classmethod
    def _listened(cls, value: str) -> str:
        return listened(value)

    @model_validator(mode="after")
    def _safe(self) -> CoordinatorSettings:
        if self.postgres_pool_min > self.postgres_pool_max:
            raise ValueError(
                f"postgres_pool_min {self.postgres_pool_min} is above postgres_pool_max {self.postgres_pool_max}"
            )
        if self.lock_timeout_s >= self.statement_timeout_s:
            raise ValueError(
                f"lock_timeout_s {self.lock_timeout_s:g} must be below statement_timeout_s {self.statement_timeout_s:g}"
            )
        if not self.etcd_endpoints:
            raise ValueError("etcd_endpoints must name at least one endpoint")
        if bool(self.etcd_cert) != bool(self.etcd_key):
            raise ValueError("etcd_cert and etcd_key belong together")
        self._require_whole_tls()
        self._require_whole_oidc()
        self._require_whole_objects()
        return self

    def _require_whole_objects(self) -> None:
        if self.http_advertise:
            require_base_url(self.http_advertise, "http_advertise")
        if self.object_store and (problem := store_url_error(self.object_store)):
            raise ValueError(f"object_store {problem}")
        if not (self.object_store or "").startswith("s3:"):
            for name in ("endpoint", "access_key_id", "secret_access_key", "sse", "sse_kms_key_id", "ca"):
                if getattr(self, f"object_store_{name}") is not None:
                    raise ValueError(f"object_store_{name} needs object_store=s3://…")
        if self.object_store_endpoint is not None:
            require_base_url(self.object_store_endpoint, "object_store_endpoint")
        if bool(self.object_store_access_key_id) != bool(self.object_store_secret_access_key):
            raise ValueError("object_store_access_key_id and object_store_secret_access_key belong together")
        if self.object_max_bytes > 1024**4:
            raise ValueError(f"object_max_bytes {self.object_max_bytes} is above {1024**4}, what S3 takes in parts")
        if self.object_store_sse_kms_key_id and self.object_store_sse != "aws:kms":
            raise ValueError("object_store_sse_kms_key_id needs object_store_sse=aws:kms")

    def store_options(self) -> StoreOptions:
        """Return what there is to say of the object store beside its URL."""
        key, secret = self.object_store_access_key_id, self.object_store_secret_access_key
        return StoreOptions(
            endpoint=self.object_store_endpoint,
            region=self.object_store_region,
            path_style=self.object_store_path_style,
            access_key_id=key.get_secret_value() if key else None,
            secret_access_key=secret.get_secret_value() if secret else None,
            sse=self.object_store_sse,
            sse_kms_key_id=self.object_store_sse_kms_key_id,
            ca_file=self.object_store_ca,
        )

    def _require_whole_tls(self) -> None:
        for cert, key, names in (
            (self.tls_cert, self.tls_key, "tls_cert and tls_key"),
            (self.tls_client_cert, self.tls_client_key, "tls_client_cert and tls_client_key"),
        ):
            if bool(cert) != bool(key):
                raise ValueError(f"{names} belong together")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if self.tls_client_required and not self.tls_client_ca:
            raise ValueError("tls_client_required needs tls_client_ca")
        if self.tls_client_cert and not (self.tls or self.tls_ca or self.tls_cert):
            raise ValueError("tls_client_cert is shown over TLS only: set tls_ca, or tls")

    def _require_whole_oidc(self) -> None:
        if self.oidc_client_secret and not self.oidc_client_id:
            raise ValueError("oidc_client_secret needs oidc_client_id")
        if self.oidc_issuer is None:
            for name in ("oidc_audience", "oidc_jwks_url", "oidc_ca", "oidc_client_id"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs oidc_issuer")
            return
        if self.auth != "required":
            raise ValueError("oidc_issuer needs auth=required: without it nobody is asked for a token")
        if not self.oidc_audience:
            raise ValueError("oidc_issuer needs oidc_audience, or tokens that were made for others are taken")
        require_url(self.oidc_issuer)
        if "?" in self.oidc_issuer:
            raise ValueError("oidc_issuer has no query")
        if self.oidc_jwks_url is not None:
            require_url(self.oidc_jwks_url)
            if self.oidc_jwks_url.startswith("http:") and self.oidc_issuer.startswith("https:"):
                raise ValueError("oidc_jwks_url is HTTPS, as oidc_issuer is")
        if self.oidc_client_id and not self.http_advertise:
            raise ValueError("oidc_client_id needs http_advertise: the issuer sends browsers back there")
        claims = (self.oidc_role_claim, self.oidc_namespaces_claim, self.oidc_pools_claim, self.oidc_name_claim)
        if len(set(claims)) < len(claims):
            raise ValueError("oidc_role_claim, oidc_namespaces_claim, oidc_pools_claim and oidc_name_claim must differ")


def require_base_url(url: str, name: str) -> None:
    """Refuse what is no URL of a host.

    Raises:
        ValueError: it says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{name} must be such as https://tenure.example.com")
