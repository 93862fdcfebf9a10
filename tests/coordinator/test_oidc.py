"""Tokens of an OIDC issuer, over HTTP, with keys made here: what is taken, what is refused, how often keys are read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response
from structlog.testing import capture_logs
from tests.coordinator.conftest import Parts, running, signer_of, until
from tests.fixtures.certificates import Authority
from tests.fixtures.issuer import AUDIENCE, KEYS, P256, RSA, Issuer, issuing, published

from tenure.coordinator import issuer_keys, oidc
from tenure.coordinator.api.grpc_server import GrpcServer
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.authenticate import Authenticator
from tenure.coordinator.issuer_keys import ALGORITHMS, IssuerKeys, keys_of
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.oidc import Claims, IssuedTokens, issued_tokens
from tenure.coordinator.rest.app import RestApi
from tenure.coordinator.rest.runner_service import RunnerService
from tenure.coordinator.runners import Runners
from tenure.coordinator.settings import CoordinatorSettings
from tenure.model.access import Identity, Role
from tenure.model.clock import SystemClock
from tenure.model.credentials import validate_credential
from tenure.model.errors import ConfigurationError, InvalidInput, Unauthenticated, Unavailable
from tenure.probes.server import HttpServer, application
from tenure.probes.tls import ServerTLS
from tenure.store.etcd.sessions import Sessions
from tenure.v1.job_service_pb2 import ListJobsRequest, SubmitJobRequest
from tenure.v1.job_service_pb2_grpc import JobServiceStub

OTHER_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
WEAK_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
NOT_VALID = "the credentials are not valid"


class Hand(SystemClock):
    """A clock that is moved on by hand, too."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as made:
        yield made


@dataclass
class World:
    issuer: Issuer
    clock: Hand
    authenticator: Authenticator
    issued: IssuedTokens

    async def who(self, token: str) -> Identity:
        return await self.authenticator.identify(bearer=token)

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.who(token)
        return caught.value.message


@asynccontextmanager
async def trusting(issuer: Issuer, parts: Parts) -> AsyncIterator[World]:
    clock = Hand()
    issued = IssuedTokens(issuer.url, AUDIENCE, IssuerKeys(issuer.url, clock), clock)
    authenticator = Authenticator(parts.db, parts.clock, issued)
    async with running(authenticator.run()):
        yield World(issuer, clock, authenticator, issued)


@pytest_asyncio.fixture
async def world(issuer: Issuer, parts: Parts) -> AsyncIterator[World]:
    async with trusting(issuer, parts) as made:
        yield made


# -- what is taken --


@pytest.mark.parametrize(
    ("key", "alg"),
    [("rsa", "RS256"), ("rsa", "RS512"), ("rsa", "PS384"), ("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA")],
)
async def test_a_good_token_is_an_identity(world: World, key: str, alg: str) -> None:
    token = world.issuer.token(KEYS[key], alg, key)
    assert await world.who(token) == Identity("oidc:alice", Role.OPERATOR, ("ns-a",), ("*",))


async def test_claims_make_the_scope_and_what_they_leave_out_is_not_given(world: World) -> None:
    token = world.issuer.token
    admin = await world.who(token(tenure_role="admin", tenure_namespaces=None))
    assert admin == Identity("oidc:alice", Role.ADMIN)
    worker = await world.who(token(tenure_role="worker", tenure_namespaces=None, tenure_pools=["scan", "a/b"]))
    assert worker == Identity("oidc:alice", Role.WORKER, (), ("scan", "a/b")), "children: in their parent's namespace"
    runner = await world.who(token(tenure_role="runner", tenure_pools=["*"]))
    assert (runner.namespaces, runner.pools) == (("ns-a",), ("*",))
    assert (await world.who(token(aud=["another", AUDIENCE]))).name == "oidc:alice"
    now = time.time()
    late = token(exp=int(now - oidc.LEEWAY_S / 2), nbf=int(now + oidc.LEEWAY_S / 2), iat=int(now + oidc.LEEWAY_S / 2))
    assert (await world.who(late)).name == "oidc:alice", "clocks may differ by so much"


async def test_claims_may_have_other_names(issuer: Issuer, parts: Parts) -> None:
    clock = Hand()
    claims = Claims(role="https://x.example/role", namespaces="ns", pools="pools", name="email")
    issued = IssuedTokens(issuer.url, AUDIENCE, IssuerKeys(issuer.url, clock), clock, claims)
    async with running(issued.run()):
        told: dict[str, Any] = {"https://x.example/role": "viewer", "ns": ["b"], "email": "a@x.example"}
        token = issuer.token(**told)
        assert await issued.identify(token) == Identity("oidc:a@x.example", Role.VIEWER, ("b",), ("*",))
        assert await issued.identify(issuer.token()) is None


def test_no_stored_credential_can_look_like_an_issuers() -> None:
    with pytest.raises(InvalidInput, match="oidc:"):
        validate_credential(name="oidc:alice", role="viewer", namespaces=["a"])


# -- what is not --


def _part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _by_hand(header: Any, claims: Any, sign: Callable[[bytes], bytes] = lambda data: b"") -> str:
    signed = f"{_part(header)}.{_part(claims)}"
    return f"{signed}.{_part(sign(signed.encode()))}"


def _with_the_public_key(issuer: Issuer) -> str:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
    return _by_hand(header, issuer.claims(), lambda data: hmac.digest(pem, data, hashlib.sha256))


def _tampered(issuer: Issuer) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{_part(issuer.claims(tenure_role='admin', tenure_namespaces=None))}.{signature}"


def _with_own_key(issuer: Issuer) -> str:
    headers = {"kid": "mine", "jwk": published(OTHER_RSA, "mine"), "jku": f"{issuer.url}/mine"}
    return jwt.encode(issuer.claims(), OTHER_RSA, algorithm="RS256", headers=headers)


def _symmetric(issuer: Issuer) -> str:
    return jwt.encode(issuer.claims(), b"k" * 32, algorithm="HS256", headers={"kid": "shared"})


BAD: dict[str, Callable[[Issuer], str]] = {
    "no algorithm": lambda i: _by_hand({"alg": "none", "kid": "rsa"}, i.claims()),
    "no algorithm, in capitals": lambda i: _by_hand({"alg": "NONE", "kid": "rsa"}, i.claims()),
    "algorithm left out": lambda i: _by_hand({"kid": "rsa"}, i.claims()),
    "a list as algorithm": lambda i: _by_hand({"alg": ["RS256"], "kid": "rsa"}, i.claims()),
    "HS256 with the public key": _with_the_public_key,
    "HS256 with a key of the set": _symmetric,
    "its own key in the header": _with_own_key,
    "algorithm of another kind of key": lambda i: i.token(P256, "ES256", "rsa"),
    "a key too short": lambda i: i.token(WEAK_RSA, "RS256", "weak"),
    "a key for encryption": lambda i: i.token(OTHER_RSA, "RS256", "encrypts"),
    "an algorithm that the key is not for": lambda i: i.token(OTHER_RSA, "PS256", "rs256-only"),
    "key of another": lambda i: i.token(OTHER_RSA),
    "unknown key": lambda i: i.token(OTHER_RSA, kid="nobody"),
    "no key id": lambda i: i.token(kid=None),
    "a number as key id": lambda i: _by_hand({"alg": "RS256", "kid": 7}, i.claims()),
    "critical extension": lambda i: jwt.encode(
        i.claims(), RSA, algorithm="RS256", headers={"kid": "rsa", "crit": ["exp"]}
    ),
    "other issuer": lambda i: i.token(iss="https://else.example"),
    "issuer with a slash": lambda i: i.token(iss=f"{i.url}/"),
    "no issuer": lambda i: i.token(iss=None),
    "other audience": lambda i: i.token(aud="else.example"),
    "part of the audience": lambda i: i.token(aud=AUDIENCE[:-1]),
    "no audience": lambda i: i.token(aud=None),
    "expired": lambda i: i.token(exp=int(time.time() - 60)),
    "never expires": lambda i: i.token(exp=None),
    "expires with words": lambda i: i.token(exp="never"),
    "expires in infinity": lambda i: i.token(exp=float("inf")),
    "expires after all numbers": lambda i: i.token(exp=10**400),
    "not yet valid": lambda i: i.token(nbf=int(time.time() + 120)),
    "issued in the future": lambda i: i.token(iat=int(time.time() + 120)),
    "tampered with": _tampered,
    "signature cut": lambda i: i.token()[:-4],
    "without signature": lambda i: i.token().rpartition(".")[0] + ".",
    "huge": lambda i: i.token(more="x" * oidc.MAX_CHARS_OF_TOKEN),
    "empty parts": lambda i: "..",
    "not base64": lambda i: "!!!.???.###",
    "not ASCII": lambda i: "é.é.é",
    "not JSON": lambda i: f"{_part(b'{')}.{_part(b'{')}.{_part(b'x')}",
    "nested without end": lambda i: f"{_part(b'[' * 5_000)}.e30.e30",
    "claims that are a list": lambda i: jwt.api_jws.encode(b"[]", RSA, "RS256", {"kid": "rsa"}),
    "four parts": lambda i: i.token() + ".x",
    "spaces": lambda i: i.token().replace(".", ". "),
    "role coordinator": lambda i: i.token(tenure_role="coordinator"),
    "unknown role": lambda i: i.token(tenure_role="root"),
    "no role": lambda i: i.token(tenure_role=None),
    "a list of roles": lambda i: i.token(tenure_role=["admin"]),
    "no namespaces": lambda i: i.token(tenure_namespaces=None),
    "an empty list of namespaces": lambda i: i.token(tenure_namespaces=[]),
    "namespaces as text": lambda i: i.token(tenure_namespaces="ns-a"),
    "namespaces as numbers": lambda i: i.token(tenure_namespaces=[1]),
    "namespaces as an object": lambda i: i.token(tenure_namespaces={"ns-a": True}),
    "a wildcard in a namespace": lambda i: i.token(tenure_namespaces=["ns-*"]),
    "a namespace with a line end": lambda i: i.token(tenure_namespaces=["ns-a\n"]),
    "too many namespaces": lambda i: i.token(tenure_namespaces=[f"ns-{n}" for n in range(101)]),
    "a worker without pools": lambda i: i.token(tenure_role="worker", tenure_namespaces=None),
    "pools as text": lambda i: i.token(tenure_role="worker", tenure_pools="*"),
    "a wildcard in a pool": lambda i: i.token(tenure_role="worker", tenure_pools=["a/*"]),
    "pools with a way out": lambda i: i.token(tenure_role="worker", tenure_pools=["a/../b"]),
    "no name": lambda i: i.token(sub=None),
    "an empty name": lambda i: i.token(sub=""),
    "a name that is no text": lambda i: i.token(sub=["alice"]),
    "a name with a line end": lambda i: i.token(sub="al\nice"),
    "a name that is too long": lambda i: i.token(sub="a" * 128),
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_bad_tokens_are_refused_and_all_alike(world: World) -> None:
    oct_key = {"kty": "oct", "k": _part(b"k" * 32), "kid": "shared"}
    world.issuer.keys += [
        oct_key,
        published(WEAK_RSA, "weak"),
        published(OTHER_RSA, "encrypts", use="enc"),
        published(OTHER_RSA, "rs256-only", alg="RS256"),
    ]
    assert await world.who(world.issuer.token(OTHER_RSA, "RS256", "rs256-only")), "the keys are there"
    for name, make in BAD.items():
        token = make(world.issuer)
        assert await world.refused(token) == NOT_VALID, name
        assert await world.refused(token) == NOT_VALID, f"{name}, again"
    assert len(BAD) >= 20
    assert world.issuer.asked == ["description", "keys"]


async def test_without_an_issuer_a_jwt_is_nothing(issuer: Issuer, parts: Parts) -> None:
    authenticator = Authenticator(parts.db, parts.clock)
    async with running(authenticator.run()):
        with pytest.raises(Unauthenticated, match=NOT_VALID):
            await authenticator.identify(bearer=issuer.token())
    assert issuer.asked == []


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_the_log_says_why_and_shows_no_token(world: World) -> None:
    bad = [make(world.issuer) for make in BAD.values()]
    await world.who(world.issuer.token())
    with capture_logs() as logs:
        for token in bad:
            world.clock.ahead_s += oidc.LOG_EVERY_S
            await world.refused(token)
        for _ in range(50):
            await world.refused(bad[0])
    refusals = [one for one in logs if one["event"] == "issued_token_refused"]
    assert len(bad) - 1 <= len(refusals) <= len(bad) + 30, "four parts are no JWT, and are refused without"
    said = json.dumps(logs, default=str)
    assert "ExpiredSignatureError" in said and "InvalidAudienceError" in said and "'root' is none of" in said
    for token in bad:
        assert not [part for part in token.split(".") if len(part) > 20 and part in said]


def test_no_algorithm_is_symmetric_or_none() -> None:
    assert ALGORITHMS == ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
    assert not keys_of([{"kty": "oct", "k": "a2V5", "kid": "k", "alg": name} for name in ("HS256", "none", "RS256")])


# -- the issuer's keys --


async def test_a_token_is_verified_once_and_not_after_it_has_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    decode = jwt.decode

    def counted(token: str, *args: Any, **options: Any) -> Any:
        verified.append(token)
        return decode(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    long, short = world.issuer.token(), world.issuer.token(exp=int(time.time() - oidc.LEEWAY_S + 20))
    for _ in range(100):
        await world.who(long)
        await world.who(short)
    assert verified == [long, short]
    world.clock.ahead_s += 25
    await world.who(long)
    assert verified == [long, short]
    await world.who(short)
    assert verified == [long, short, short], "what has expired is not kept"
    world.clock.ahead_s += oidc.FRESH_S
    await world.who(long)
    assert verified[3:] == [long]


async def test_keys_change_hands(world: World) -> None:
    await world.who(world.issuer.token())
    world.issuer.keys = [published(OTHER_RSA, "next")]
    token = world.issuer.token(OTHER_RSA, kid="next")
    assert await world.refused(token) == NOT_VALID, "keys were read a moment ago"
    world.clock.ahead_s += issuer_keys.UNKNOWN_S
    assert (await world.who(token)).name == "oidc:alice"
    assert world.issuer.asked.count("keys") == 2
    assert await world.refused(world.issuer.token(sub="bob")) == NOT_VALID, (
        "what is published no more is good for nothing"
    )


async def test_old_keys_are_read_again_and_nobody_waits_for_it(world: World) -> None:
    await world.who(world.issuer.token())
    world.issuer.gate.clear()
    world.clock.ahead_s += issuer_keys.FRESH_S
    assert (await world.who(world.issuer.token(sub="bob"))).name == "oidc:bob"
    stranger = asyncio.create_task(world.refused(world.issuer.token(OTHER_RSA, kid="nobody")))

    async def asked_twice() -> bool:
        return world.issuer.asked.count("keys") == 2

    await until(asked_twice)
    assert (await world.who(world.issuer.token(sub="carol"))).name == "oidc:carol"
    assert not stranger.done(), "only for who has an unknown key"
    world.issuer.gate.set()
    assert await stranger == NOT_VALID


async def test_a_flood_of_unknown_keys_asks_once(world: World) -> None:
    await world.who(world.issuer.token())
    world.clock.ahead_s += issuer_keys.UNKNOWN_S
    strangers = [world.issuer.token(OTHER_RSA, kid=f"nobody-{n}") for n in range(200)]
    assert {*await asyncio.gather(*map(world.refused, strangers))} == {NOT_VALID}
    assert {*[await world.refused(token) for token in strangers]} == {NOT_VALID}
    assert world.issuer.asked.count("keys") == 2


async def test_while_the_issuer_is_away_its_keys_go_on_for_an_hour(world: World) -> None:
    await world.who(world.issuer.token())
    world.issuer.answer = lambda: Response(status_code=503)
    world.clock.ahead_s += issuer_keys.TRUST_S - 60
    assert (await world.who(world.issuer.token(sub="bob"))).name == "oidc:bob"
    with pytest.raises(Unavailable):
        await world.who(world.issuer.token(OTHER_RSA, kid="next"))
    world.clock.ahead_s += 120
    with pytest.raises(Unavailable):
        await world.who(world.issuer.token(sub="carol"))
    assert await world.refused(BAD["HS256 with the public key"](world.issuer)) == NOT_VALID
    world.issuer.answer = None
    world.clock.ahead_s += issuer_keys.AGAIN_S
    assert (await world.who(world.issuer.token(sub="carol"))).name == "oidc:carol"


async def test_an_issuer_that_comes_late_is_asked_again(issuer: Issuer, parts: Parts) -> None:
    issuer.answer = lambda: Response(status_code=500)
    async with trusting(issuer, parts) as world:
        with pytest.raises(Unavailable):
            await world.who(issuer.token())
        issuer.answer = None
        with pytest.raises(Unavailable):
            await world.who(issuer.token())
        assert issuer.asked.count("keys") == 1, "it is left alone for a while"
        world.clock.ahead_s += issuer_keys.AGAIN_S
        assert (await world.who(issuer.token())).name == "oidc:alice"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: RedirectResponse("/elsewhere"),
        lambda: Response(b" " * (issuer_keys.MAX_BYTES + 1) + b'{"keys": []}'),
        lambda: Response(b"packed", headers={"content-encoding": "gzip"}),
        lambda: Response(b"no JSON"),
        lambda: JSONResponse({"keys": {}}),
        lambda: JSONResponse({"keys": [{"kty": "RSA", "kid": "rsa", "n": "!", "e": "AQAB"}]}),
        lambda: JSONResponse({"keys": []}),
    ],
    ids=["elsewhere", "too long", "packed", "no JSON", "another shape", "no key", "nothing"],
)
async def test_what_is_no_key_set_is_not_taken(issuer: Issuer, parts: Parts, answer: Callable[[], Response]) -> None:
    issuer.answer = answer
    async with trusting(issuer, parts) as world:
        with pytest.raises(Unavailable):
            await world.who(issuer.token())


@pytest.mark.parametrize(
    "described",
    [{"issuer": "https://else.example"}, {"jwks_uri": "http://keys.example/keys"}, {"jwks_uri": "file:///etc/passwd"}],
    ids=["another issuer", "keys in the open", "a file"],
)
async def test_a_description_that_leads_elsewhere_is_not_followed(
    issuer: Issuer, parts: Parts, described: dict[str, Any]
) -> None:
    issuer.described = described
    async with trusting(issuer, parts) as world:
        with pytest.raises(Unavailable):
            await world.who(issuer.token())
    assert issuer.asked == ["description"]


async def test_an_issuer_that_never_answers_is_given_up(
    issuer: Issuer, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_S", 0.2)
    issuer.gate.clear()
    async with trusting(issuer, parts) as world:
        with pytest.raises(Unavailable):
            await world.who(issuer.token())
        issuer.gate.set()


async def test_an_issuer_is_verified_by_its_authority(authority: Callable[[str], Authority]) -> None:
    ours, others = authority("ours"), authority("others")
    pair = ours.issue("/CN=issuer", names="IP:127.0.0.1", days=1)
    clock = SystemClock()
    async with issuing(ServerTLS(pair.cert, pair.key)) as issuer:

        async def who(ca_file: Path | None) -> Identity | None:
            issued = IssuedTokens(issuer.url, AUDIENCE, IssuerKeys(issuer.url, clock, ca_file=ca_file), clock)
            async with running(issued.run()):
                return await issued.identify(issuer.token())

        assert (await who(ours.ca)) == Identity("oidc:alice", Role.OPERATOR, ("ns-a",), ("*",))
        issuer.asked.clear()
        for wrong in (others.ca, None):
            with pytest.raises(ExceptionGroup) as refused:
                await who(wrong)
            assert isinstance(refused.value.exceptions[0], Unavailable)
        assert issuer.asked == []


# -- settings --


def _settings(**given: Any) -> CoordinatorSettings:
    return CoordinatorSettings(postgres_dsn="postgresql://h/d", **given)  # type: ignore[arg-type]


WHOLE = {"auth": "required", "oidc_issuer": "https://issuer.example/x", "oidc_audience": AUDIENCE}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"auth": "none"}, "auth=required"),
        ({"oidc_audience": None}, "needs oidc_audience"),
        ({"oidc_issuer": None}, "needs oidc_issuer"),
        ({"oidc_issuer": "http://issuer.example"}, "is not an https:// URL"),
        ({"oidc_issuer": "http://127.0.0.1.example"}, "is not an https:// URL"),
        ({"oidc_issuer": "issuer.example"}, "is not an https:// URL"),
        ({"oidc_issuer": "https://me:secret@issuer.example"}, "neither a user"),
        ({"oidc_issuer": "https://issuer.example/#x"}, "nor a fragment"),
        ({"oidc_issuer": "https://issuer.example/?x"}, "no query"),
        ({"oidc_jwks_url": "http://127.0.0.1/keys"}, "is HTTPS, as"),
        ({"oidc_jwks_url": "file:///keys"}, "is not an https:// URL"),
        ({"oidc_role_claim": "sub"}, "must differ"),
        ({"oidc_name_claim": ""}, "at least 1"),
    ],
)
def test_unsafe_settings_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _settings(**{**WHOLE, **given})


def test_safe_settings_are_taken(tmp_path: Path) -> None:
    clock = SystemClock()
    assert issued_tokens(_settings(auth="required"), clock) is None
    assert issued_tokens(_settings(**WHOLE), clock) is not None
    for url in ("http://localhost:1/", "http://[::1]:8080/realms/x", "http://127.0.0.1:1"):
        assert issued_tokens(_settings(**{**WHOLE, "oidc_issuer": url, "oidc_jwks_url": f"{url}/k?a=b"}), clock)
    with pytest.raises(ConfigurationError, match="TENURE_OIDC_CA"):
        issued_tokens(_settings(**WHOLE, oidc_ca=tmp_path / "none.pem"), clock)


# -- the wire --


async def test_a_call_by_grpc(world: World, parts: Parts) -> None:
    jobs = parts.job_service()
    server = GrpcServer((jobs,), listen="127.0.0.1:0", with_reflection=False, authenticator=world.authenticator)
    await server.start()
    async with running(parts.submitter.run(), jobs.run()), grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = JobServiceStub(channel)

        async def listed(token: str, namespace: str) -> Any:
            metadata = (("authorization", f"Bearer {token}"),)
            try:
                await stub.ListJobs(ListJobsRequest(filter={"namespace": namespace}), metadata=metadata, timeout=30)
            except grpc.aio.AioRpcError as exc:
                return exc.code(), exc.details()
            return grpc.StatusCode.OK, None

        assert (await listed(world.issuer.token(), "ns-a"))[0] is grpc.StatusCode.OK
        code, text = await listed(world.issuer.token(), "ns-b")
        assert code is grpc.StatusCode.PERMISSION_DENIED and "oidc:alice (operator)" in text
        bad = BAD["tampered with"](world.issuer)
        assert await listed(bad, "ns-a") == (grpc.StatusCode.UNAUTHENTICATED, NOT_VALID)
        viewer = world.issuer.token(tenure_role="viewer")
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await stub.SubmitJob(SubmitJobRequest(), metadata=(("authorization", f"Bearer {viewer}"),), timeout=30)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await server.stop(0)


async def test_a_runner_over_https_alone(world: World, parts: Parts) -> None:
    runners = Runners(parts.etcd, parts.keys, parts.clock)
    workers = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter)
    rest = RestApi()
    server = HttpServer(application({}, REGISTRY, more=rest.routes()), listen="127.0.0.1:0", variable="-")
    server.bind()
    service = RunnerService(runners, Sessions(parts.etcd, parts.keys), await signer_of(parts), workers)
    rest.open(service, world.authenticator)
    async with running(server.run()), httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60) as http:

        async def opened(token: str) -> httpx.Response:
            runner = {"name": "far", "pools": ["default"], "kinds": ["k"], "capacity": 1}
            headers = {"Authorization": f"Bearer {token}"}
            return await http.post("/v1/runner/session", json={"runner": runner}, headers=headers)

        good = await opened(world.issuer.token(tenure_role="runner", tenure_namespaces=None, tenure_pools=["default"]))
        assert good.status_code == 200 and good.json()["session"]
        other = await opened(world.issuer.token(tenure_role="runner", tenure_namespaces=None, tenure_pools=["else"]))
        assert other.status_code == 403
        assert (await opened(world.issuer.token())).status_code == 403, "an operator is no runner"
        bad = await opened(BAD["expired"](world.issuer))
        assert bad.status_code == 401 and NOT_VALID in bad.text
        runners.close()
