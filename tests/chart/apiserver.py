"""A real kube-apiserver on an etcd of its own: what a cluster would say of a manifest, without nodes or controllers.

Owns the two processes, their keys and a REST client. Nothing is scheduled and nothing runs: it serves the admission,
the defaults and the validation of that release. Used by the chart's tests; built by ``make tools ARGS=kube-apiserver``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.chart.rendering import Object

from tenure.cli.embedded import ports
from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdSettings
from tenure.cli.embedded.folder import write_private
from tenure.cli.embedded.processes import Child, spawn

TOOLS = Path(__file__).parents[2] / ".cache" / "tools"
READY_S = 300.0
"""It takes some ten seconds on an idle machine."""


def program() -> Path | None:
    """Return the kube-apiserver to run: the one built here, else that on PATH, None where there is neither."""
    found = shutil.which("kube-apiserver", path=os.pathsep.join([str(TOOLS), *os.get_exec_path()]))
    return Path(found) if found else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server said of an object."""

    error: str
    """Empty where it was accepted."""
    warnings: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether it would have been stored."""
        return not self.error


class ApiServer:
    """A client of a running server, as its administrator. Objects that name no namespace go into ``namespace``."""

    def __init__(self, client: httpx.Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}
        """Per group and version, the kinds: what their folder is called, and whether it is in a namespace."""

    def create(self, made: Object) -> None:
        """Make it for good; one that exists already stays as it is."""
        answer = self._client.post(self._folder(made), json=made)
        assert answer.status_code in (201, 409), answer.text

    def knows(self, made: Object) -> bool:
        """Return whether it serves this kind: those of custom resources it does not."""
        return made["kind"] in self._kinds(made["apiVersion"])

    def dry_run(self, made: Object) -> Verdict:
        """Apply it without storing it, as ``kubectl apply --server-side --dry-run=server --validate=strict`` does."""
        # JSON is YAML, too.
        answer = self._client.patch(
            self._path(made),
            params={"dryRun": "All", "fieldManager": "tenure-tests", "fieldValidation": "Strict"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=json.dumps(made),
        )
        error = "" if answer.is_success else answer.json().get("message", answer.text)
        return Verdict(error, tuple(answer.headers.get_list("Warning")))

    def exists(self, made: Object) -> bool:
        """Return whether an object of this kind and name is stored."""
        return self._client.get(self._path(made)).is_success

    def _path(self, made: Object) -> str:
        return f"{self._folder(made)}/{made['metadata']['name']}"

    def _folder(self, made: Object) -> str:
        group = made["apiVersion"]
        name, is_namespaced = self._kinds(group)[made["kind"]]
        namespace = f"/namespaces/{made['metadata'].get('namespace', self._namespace)}" if is_namespaced else ""
        return f"{_root(group)}{namespace}/{name}"

    def _kinds(self, group: str) -> dict[str, tuple[str, bool]]:
        if group not in self._resources:
            answer = self._client.get(_root(group))
            found = answer.json()["resources"] if answer.status_code != 404 else []
            # A name with a slash is a part of another: deployments/scale.
            self._resources[group] = {
                each["kind"]: (each["name"], each["namespaced"]) for each in found if "/" not in each["name"]
            }
        return self._resources[group]


def _root(group: str) -> str:
    return f"/apis/{group}" if "/" in group else f"/api/{group}"


@contextmanager
def running(folder: Path, binary: Path, namespace: str) -> Iterator[ApiServer]:
    """Run a server in ``folder`` until the block ends, with a namespace in which pods must be restricted."""
    folder.mkdir(parents=True, exist_ok=True)
    port, token = ports.choose(), secrets.token_hex(16)
    key, certificate = _make_key(folder)
    client = httpx.Client(
        base_url=f"https://127.0.0.1:{port}",
        verify=ssl.create_default_context(cafile=str(certificate)),
        headers={"Authorization": f"Bearer {token}"},
        timeout=60.0,
        trust_env=False,
    )
    with client, EmbeddedEtcd(folder / "etcd", settings=EtcdSettings(fsync=False)) as etcd:
        flags = {
            "etcd-servers": etcd.http_endpoints[0],
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": str(port),
            "tls-cert-file": str(certificate),
            "tls-private-key-file": str(key),
            "cert-dir": str(folder),
            "token-auth-file": str(_write_token(folder, token)),
            "authorization-mode": "AlwaysAllow",
            "service-account-issuer": "https://127.0.0.1",
            "service-account-key-file": str(certificate),
            "service-account-signing-key-file": str(key),
            "service-cluster-ip-range": "10.0.0.0/24",
            # Else it forbids privileged pods by itself, before their level is judged.
            "allow-privileged": "true",
            # Nobody makes the accounts that pods name, nor the endpoints of the server itself.
            "disable-admission-plugins": "ServiceAccount",
            "endpoint-reconciler-type": "none",
        }
        command = [str(binary), *(f"--{name}={value}" for name, value in flags.items())]
        child = spawn("kube-apiserver", command, log=folder / "kube-apiserver.log", env={"PATH": os.defpath})
        try:
            _wait_until_ready(child, client)
            server = ApiServer(client, namespace)
            levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
            server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": levels}})
            yield server
        finally:
            child.stop()


def _make_key(folder: Path) -> tuple[Path, Path]:
    """Make one key for all: the server's certificate, which clients trust as it is, and the accounts' tokens."""
    key, certificate = folder / "server.key", folder / "server.pem"
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=127.0.0.1"
    # Newer Pythons refuse a certificate that signs itself and does not say that it may.
    extensions = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=digitalSignature,keyCertSign"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *arguments.split(), *extensions, *files], check=True, capture_output=True)
    return key, certificate


def _write_token(folder: Path, token: str) -> Path:
    path = folder / "tokens.csv"
    write_private(path, f"{token},admin,admin,system:masters\n")
    return path


def _wait_until_ready(child: Child, client: httpx.Client) -> None:
    deadline = time.monotonic() + READY_S
    while not _is_ready(client):
        assert child.alive and time.monotonic() < deadline, child.said()
        time.sleep(0.2)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False
