"""TLS with client certificates, and users: what is right passes, what is wrong is told and not retried for ever."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.etcd.conftest import Connector

from tenure.cli.embedded import binaries, ports
from tenure.cli.embedded.etcd import EmbeddedEtcd, EtcdSettings
from tenure.model.errors import ConfigurationError, Unavailable
from tenure.store.etcd.connect import connect
from tenure.store.etcd.options import EtcdOptions
from tenure.store.etcd.port import Put, Txn

Servers = Callable[..., EmbeddedEtcd]


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Give a folder with ca.pem, server.pem/.key and client.pem/.key, and another authority's client."""
    for ca in ("ca", "other"):
        openssl(
            *f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN={ca}".split(),
            *f"-keyout {ca}.key -out {ca}.pem".split(),
            cwd=tmp_path,
        )
    (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl(
            *f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name}".split(),
            *f"-keyout {name}.key -out {name}.csr".split(),
            cwd=tmp_path,
        )
        openssl(
            *f"x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 1".split(),
            *f"-extfile san -out {name}.pem".split(),
            cwd=tmp_path,
        )
    return tmp_path


@pytest.fixture
def tls_address(certificates: Path) -> Iterator[str]:
    """Give the address of a server that demands client certificates."""
    client, peer = ports.choose_many(2)
    command = [
        str(binaries.etcd_program()),
        f"--data-dir={certificates / 'data'}",
        f"--listen-client-urls=https://127.0.0.1:{client}",
        f"--advertise-client-urls=https://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        f"--cert-file={certificates / 'server.pem'}",
        f"--key-file={certificates / 'server.key'}",
        f"--trusted-ca-file={certificates / 'ca.pem'}",
        "--client-cert-auth",
        "--logger=zap",
        "--log-level=error",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    yield f"127.0.0.1:{client}"
    process.kill()
    process.wait()


async def test_tls_with_a_client_certificate(connection: Connector, certificates: Path, tls_address: str) -> None:
    etcd = await connection(
        tls_address,
        tls=True,
        ca_file=certificates / "ca.pem",
        cert_file=certificates / "client.pem",
        key_file=certificates / "client.key",
    )
    assert (await etcd.status(timeout_s=30)).version
    grant = await etcd.grant(30)
    watch = etcd.watch("/k")
    await anext(watch)
    await etcd.txn(Txn(then=(Put("/k", b"v", grant.lease),)))
    assert (await anext(watch)).events[0].item.value == b"v"
    assert len(await etcd.renew([grant.lease], timeout_s=5)) == 1
    for ca, client in (("other", "client"), ("ca", "stranger")):
        wrong = await connection(
            tls_address,
            tls=True,
            ca_file=certificates / f"{ca}.pem",
            cert_file=certificates / f"{client}.pem",
            key_file=certificates / f"{client}.key",
        )
        with pytest.raises(Unavailable):
            await wrong.get("/k", timeout_s=1)


def test_tls_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.pem"):
        connect(["grpcs://127.0.0.1:1"], ca_file=tmp_path / "nothing.pem")
    with pytest.raises(ConfigurationError, match="key"):
        connect(["https://127.0.0.1:1"], cert_file=tmp_path / "nothing.pem")


@pytest.mark.parametrize("transport", ["grpc"])
async def test_tls_files_that_hold_something_else_are_told_as_that(connection: Connector, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate\n")
    etcd = await connection("127.0.0.1:1", tls=True, ca_file=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match="TLS files"):
        await etcd.get("/k", timeout_s=1)


def test_the_password_is_not_shown() -> None:
    assert "s3cret" not in repr(EtcdOptions(("grpc://127.0.0.1:1",), user="u", password="s3cret"))


def admin(address: str, path: str, token: str = "", **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{address}/v3/auth/{path}", json.dumps(body).encode(), {"Authorization": token} if token else {}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, Any] = json.loads(answer.read())
        return told


@pytest.fixture
def guarded(own_etcd: Servers) -> str:
    """Give the address of a server with user ``tenure``, who may do all under /tenure/; tokens last a second or two."""
    server = own_etcd(settings=EtcdSettings(fsync=False, extra=("--auth-token-ttl=1",)))
    address = server.endpoints[0].removeprefix("grpc://")
    admin(address, "user/add", name="root", password="root")
    admin(address, "user/grant", user="root", role="root")
    admin(address, "role/add", name="all")
    span = {"key": "L3RlbnVyZS8=", "range_end": "L3RlbnVyZTA="}  # /tenure/ to /tenure0
    admin(address, "role/grant", name="all", perm={"permType": "READWRITE", **span})
    admin(address, "user/add", name="tenure", password="right")
    admin(address, "user/grant", user="tenure", role="all")
    admin(address, "enable")
    return address


async def test_a_user_with_a_password(connection: Connector, guarded: str) -> None:
    etcd = await connection(guarded, user="tenure", password="right")
    grant = await etcd.grant(30)
    watch = etcd.watch("/tenure/")
    await anext(watch)
    await etcd.txn(Txn(then=(Put("/tenure/k", b"v", grant.lease),)))
    assert (await anext(watch)).events[0].item.value == b"v"
    assert len(await etcd.renew([grant.lease], timeout_s=5)) == 1
    with pytest.raises(ConfigurationError):
        await etcd.txn(Txn(then=(Put("/elsewhere", b""),)))
    with pytest.raises(ConfigurationError):
        await etcd.list("/elsewhere")
    with pytest.raises(ConfigurationError):
        async with asyncio.timeout(20):
            await anext(etcd.watch("/elsewhere"))


async def test_an_old_token_is_replaced(connection: Connector, guarded: str) -> None:
    etcd = await connection(guarded, user="tenure", password="right")
    await etcd.txn(Txn(then=(Put("/tenure/k", b"1"),)))
    # Changing anything about users makes every token of before too old; waiting for its end would take longer.
    root = admin(guarded, "authenticate", name="root", password="root")["token"]
    admin(guarded, "user/add", token=root, name="another", password="x")
    await etcd.txn(Txn(then=(Put("/tenure/k", b"2"),)))
    root = admin(guarded, "authenticate", name="root", password="root")["token"]
    admin(guarded, "user/delete", token=root, name="another")
    watch = etcd.watch("/tenure/")
    async with asyncio.timeout(20):
        await anext(watch)
    item = await etcd.get("/tenure/k")
    assert item is not None and item.value == b"2"


async def test_wrong_passwords_are_told(connection: Connector, guarded: str) -> None:
    for user, password in (("tenure", "wrong"), ("nobody", "right"), (None, None)):
        etcd = await connection(guarded, user=user, password=password)
        with pytest.raises(ConfigurationError):
            await etcd.get("/tenure/k")
