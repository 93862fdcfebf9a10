"""The API of runners on real stores: its wire, who may do what, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
import pytest_asyncio
from tests.coordinator.conftest import Parts, running, until

from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.metrics import REGISTRY
from tenure.coordinator.objects import access_to
from tenure.coordinator.rest.app import ENDPOINTS, MAX_BODY_BYTES, RestApi
from tenure.coordinator.rest.runner_service import RunnerService
from tenure.coordinator.runner_tokens import Signer, signer_of
from tenure.coordinator.runners import Runners
from tenure.coordinator.uploads import Uploads
from tenure.model.access import Identity, Role
from tenure.model.errors import ConfigurationError, Unauthenticated
from tenure.model.states import JobState
from tenure.probes.server import HttpServer, application
from tenure.store.etcd.keyspace import CancelRequest, HoldValue, Offer, Offers, WorkerValue
from tenure.store.etcd.port import Put, Renewal, Txn, TxnResult
from tenure.store.etcd.sessions import Sessions
from tenure.store.objects.opening import open_store
from tenure.v1 import runner_api as wire

RUNNER = Identity("runner-a", Role.RUNNER, pools=("default",))
IDENTITIES = {
    "a": RUNNER,
    "same-pool": Identity("runner-b", Role.RUNNER, pools=("default",)),
    "other-pool": Identity("runner-a", Role.RUNNER, pools=("elsewhere",)),
    "worker": Identity("runner-a", Role.WORKER),
    "viewer": Identity("runner-a", Role.VIEWER),
}
TTL_S = 10.0


class Identities:
    """Knows the callers of these tests."""

    async def identify(self, *, bearer: str | None, subjects: Sequence[str] = ()) -> Identity:
        """Look a token up."""
        if bearer not in IDENTITIES:
            raise Unauthenticated("no credentials, or none that are valid")
        return IDENTITIES[bearer]


class Renewing:
    """Real etcd that notes which leases were renewed."""

    def __init__(self, parts: Parts) -> None:
        self._etcd = parts.etcd
        self.renewed: list[int] = []
        self.on_txn: Callable[[Txn], Awaitable[None]] | None = None
        """Called before each transaction."""

    async def renew(self, leases: Sequence[int], *, timeout_s: float) -> Sequence[Renewal]:
        """Note, and pass on."""
        self.renewed.extend(leases)
        return await self._etcd.renew(leases, timeout_s=timeout_s)

    async def txn(self, txn: Txn, **options: Any) -> TxnResult:
        """Pass on, when the test lets it."""
        if self.on_txn is not None:
            await self.on_txn(txn)
        return await self._etcd.txn(txn, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._etcd, name)


class Far:
    """A runner that knows nothing but HTTP, and what others do about its jobs."""

    def __init__(
        self, parts: Parts, http: httpx.AsyncClient, renewing: Renewing, signer: Signer, runners: Runners
    ) -> None:
        self.parts = parts
        self._runners = runners
        self.http = http
        self.renewing = renewing
        self.signer = signer
        self._messages = 0

    async def post(self, path: str, body: Any, *, who: str | None = "a", **options: Any) -> httpx.Response:
        """Call, whatever becomes of it."""
        headers = {"Authorization": f"Bearer {who}"} if who else {}
        return await self.http.post(f"/v1/runner/{path}", json=body, headers=headers, **options)

    async def call(self, path: str, body: Any) -> Any:
        """Call, and return the answer."""
        response = await self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    async def open(self, **more: Any) -> dict[str, Any]:
        """Open a session."""
        runner = {"name": "far", "pools": ["default"], "kinds": ["k"], "capacity": 10}
        session: dict[str, Any] = await self.call("session", {"runner": runner, **more})
        return session

    async def offer(self, runner: str, *ids: uuid.UUID, ttl_s: float = TTL_S, attempt: int = 0) -> None:
        """Offer jobs, as the leader does."""
        offers = tuple(Offer(str(id), attempt, ttl_s, "default", "k", "default") for id in ids)
        await self.put(runner, Offers(1, offers).to_json())

    async def polling(self, session: dict[str, Any]) -> None:
        """Wait until the coordinator has a poll of this runner."""
        await until(lambda: self._has_poll(session))

    async def nobody_polls(self, session: dict[str, Any]) -> None:
        """Wait until it has none."""

        async def none() -> bool:
            return not await self._has_poll(session)

        await until(none)

    async def _has_poll(self, session: dict[str, Any]) -> bool:
        return session["runner"] in self._runners._polls

    async def put(self, runner: str, message: bytes) -> None:
        """Put a message into an inbox."""
        self._messages += 1
        await self.parts.etcd.txn(Txn((), (Put(self.parts.keys.message(runner, self._messages), message),)))

    async def claimed(self, session: dict[str, Any], *ids: uuid.UUID, **offer: Any) -> list[dict[str, Any]]:
        """Have jobs offered and claimed."""
        await self.offer(session["runner"], *ids, **offer)
        polled = await self.call("claim", {"session": session["session"], "wait_s": 20})
        claims: list[dict[str, Any]] = polled["claims"]
        assert [claim["job_id"] for claim in claims] == [str(id) for id in ids]
        return claims

    async def started(self, id: uuid.UUID, *, seen: int = 0) -> dict[str, Any]:
        """Have a job started in a session of its own."""
        session = await self.open()
        [claim] = await self.claimed(session, id, attempt=seen)
        [attempt] = (await self.call("start", {"claims": [claim["claim"]]}))["attempts"]
        return {"session": session["session"], **attempt}


@asynccontextmanager
async def _serving(parts: Parts, folder: Path) -> AsyncIterator[Far]:
    renewing = Renewing(parts)
    runners = Runners(renewing, parts.keys, parts.clock)
    signer = await signer_of(parts.db)
    uploads = Uploads(parts.db, 1_000_000)
    uploads.objects = await access_to(open_store(folder.as_uri()), parts.db, parts.clock)
    workers = WorkerService(parts.db, parts.starter, parts.finisher, parts.submitter, uploads)
    rest = RestApi()
    rest.open_objects(uploads.objects)
    server = HttpServer(application({}, REGISTRY, more=rest.routes()), listen="127.0.0.1:0", variable="-")
    server.bind()
    rest.open(RunnerService(runners, Sessions(parts.etcd, parts.keys), signer, workers), Identities())
    async with (
        running(server.run()),
        httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60) as http,
    ):
        yield Far(parts, http, renewing, signer, runners)
        runners.close()


@pytest_asyncio.fixture
async def far(parts: Parts, tmp_path: Path) -> AsyncIterator[Far]:
    async with running(parts.submitter.run()), _serving(parts, tmp_path) as one:
        yield one


# -- the life of an attempt --


async def test_an_attempt_lives_from_offer_to_result(far: Far) -> None:
    id = await far.parts.submit(payload='{"deep": [1, 2.50, {"ü": null}]}')
    attempt = await far.started(id)
    assert (attempt["job_id"], attempt["attempt"], attempt["kind"]) == (str(id), 1, "k")
    assert attempt["payload"] == {"deep": [1, 2.5, {"ü": None}]}
    assert (await far.parts.row(id)).worker == far.signer.read_any(attempt["attempt_token"]).runner
    token = attempt["attempt_token"]
    await far.call("progress", {"attempt_token": token, "fraction": 0.5, "message": "half"})
    await far.call("checkpoint", {"attempt_token": token, "checkpoint": {"at": 7}})
    [row] = await far.parts.sql("SELECT progress, progress_message, checkpoint::text FROM tenure.job WHERE id = %s", id)
    assert tuple(row) == (0.5, "half", '{"at":7}')
    report = {"attempt_token": token, "outcome": "completed", "result": {"n": 1}}
    assert await far.call("finish", {"reports": [report]}) == {
        "reports": [{"verdict": "recorded", "state": "completed"}]
    }
    assert await far.parts.state(id) is JobState.COMPLETED
    assert await far.parts.claim_of(id) is None


async def test_lines_of_logs_are_kept_under_the_attempts_token(far: Far) -> None:
    id = await far.parts.submit()
    attempt = await far.started(id)
    token = attempt["attempt_token"]
    half = '{"message": "half \\ud800", "level": "odd", "fields": {"n": 1}, "logger": "l", "code": "c:1"}'
    body = f'{{"batches": [{{"attempt_token": "{token}", "first_seq": 1, "lines": [{{"message": "one"}}, {half}]}}]}}'
    headers = {"Authorization": "Bearer a"}
    for verdict in ("recorded", "repeated"):
        response = await far.http.post("/v1/runner/logs", content=body, headers=headers)
        assert response.json() == {"batches": [{"verdict": verdict}]}
    [row] = await far.parts.sql("SELECT lines FROM tenure.log WHERE job_id = %s", id)
    first, second = map(msgspec.json.decode, row.lines.splitlines())
    assert (first["message"], first["level"]) == ("one", "info")
    assert {name: second[name] for name in ("message", "level", "fields", "logger", "code")} == {
        "message": "half ?", "level": "info", "fields": {"n": 1}, "logger": "l", "code": "c:1",
    }  # fmt: skip
    other = await far.started(await far.parts.submit())
    batches = [
        {"attempt_token": token, "first_seq": 3, "lines": [{"message": "three"}]},
        {"attempt_token": "forged", "first_seq": 1, "lines": [{"message": "x"}]},
        {"attempt_token": other["attempt_token"], "first_seq": 1, "lines": [{"message": "own"}]},
    ]
    answer = await far.call("logs", {"batches": batches})
    assert [one["verdict"] for one in answer["batches"]] == ["recorded", "invalid", "recorded"]
    assert (await far.post("logs", {"batches": batches[1:2]})).status_code == 403
    await far.call("finish", {"reports": [{"attempt_token": token, "outcome": "completed"}]})
    late = {"attempt_token": token, "first_seq": 4, "lines": [{"message": "late"}]}
    assert (await far.call("logs", {"batches": [late]}))["batches"][0]["verdict"] == "lost"


async def test_numbers_and_texts_arrive_as_they_were_written(far: Far) -> None:
    """What JavaScript and floats cannot hold is not touched on its way."""
    text = '{"big": 123456789012345678901234567890, "exact": 0.10000000000000000555, "text": "\\u0041\\n"}'
    id = await far.parts.submit(payload=text)
    session = await far.open()
    [claim] = await far.claimed(session, id)
    response = await far.post("start", {"claims": [claim["claim"]]})
    assert text in response.text
    token = response.json()["attempts"][0]["attempt_token"]
    body = f'{{"reports": [{{"attempt_token": "{token}", "outcome": "completed", "result": {text}}}]}}'
    answer = await far.http.post("/v1/runner/finish", content=body, headers={"Authorization": "Bearer a"})
    assert answer.status_code == 200
    [row] = await far.parts.sql("SELECT result::text AS result FROM tenure.history WHERE id = %s", id)
    assert row.result == text


async def test_a_start_that_is_repeated_is_the_same_attempt(far: Far) -> None:
    session = await far.open()
    [claim] = await far.claimed(session, await far.parts.submit())
    [first] = (await far.call("start", {"claims": [claim["claim"]]}))["attempts"]
    [again] = (await far.call("start", {"claims": [claim["claim"]]}))["attempts"]
    assert (again["fence"], again["attempt"]) == (first["fence"], 1)


async def test_a_claim_whose_job_is_gone_does_not_start_and_is_given_back(far: Far) -> None:
    id = await far.parts.submit()
    session = await far.open()
    [claim] = await far.claimed(session, id)
    await far.parts.canceler.cancel(id, "")
    assert await far.call("start", {"claims": [claim["claim"]]}) == {"attempts": []}
    assert await far.parts.claim_of(id) is None


async def test_a_released_claim_is_free_at_once(far: Far) -> None:
    id = await far.parts.submit()
    session = await far.open()
    [claim] = await far.claimed(session, id)
    await far.call("release", {"tokens": [claim["claim"]]})
    assert await far.parts.claim_of(id) is None
    assert await far.parts.state(id) is JobState.READY


async def test_children_and_what_became_of_them(far: Far) -> None:
    attempt = await far.started(await far.parts.submit())
    jobs = [{"kind": "k", "payload": {"n": n}, "ref": f"c{n}", "priority": 3} for n in range(2)]
    ids = (await far.call("children", {"attempt_token": attempt["attempt_token"], "jobs": jobs}))["ids"]
    again = (await far.call("children", {"attempt_token": attempt["attempt_token"], "jobs": jobs}))["ids"]
    assert ids == again
    assert len(set(ids)) == 2
    row = await far.parts.row(uuid.UUID(ids[0]))
    assert (row.priority, row.payload, str(row.parent_id)) == (3, '{"n":0}', attempt["job_id"])
    page = await far.call("upstream", {"attempt_token": attempt["attempt_token"]})
    assert page == {"jobs": [], "next": ""}  # it waited for nothing


async def test_a_bad_child_is_named(far: Far) -> None:
    attempt = await far.started(await far.parts.submit())
    jobs = [{"kind": "k", "ref": "a"}, {"kind": "no kind!", "ref": "b", "unknown": 1}]
    response = await far.post("children", {"attempt_token": attempt["attempt_token"], "jobs": jobs})
    assert response.status_code == 400
    fields = {one["field"] for one in response.json()["error"]["fields"]}
    assert fields == {"jobs[1].kind", "jobs[1].unknown"}


# -- leases --


async def test_a_renewal_is_one_keepalive_for_each_lease_and_nothing_else_renews(far: Far) -> None:
    session = await far.open(ttl_s=60)
    claims = await far.claimed(session, *[await far.parts.submit() for _ in range(3)], ttl_s=60)
    attempts = (await far.call("start", {"claims": [claim["claim"] for claim in claims]}))["attempts"]
    far.renewing.renewed.clear()
    tokens = [session["session"], *(attempt["attempt_token"] for attempt in attempts)]
    renewed = await far.call("renew", {"tokens": tokens})
    assert [one["ttl_s"] for one in renewed["leases"]] == [60.0] * 4
    leases = [int(session["lease"], 16), *(int(attempt["lease"], 16) for attempt in attempts)]
    assert far.renewing.renewed == leases
    for attempt in attempts:
        token = attempt["attempt_token"]
        await far.call("progress", {"attempt_token": token, "fraction": 0.1})
        await far.call("finish", {"reports": [{"attempt_token": token, "outcome": "completed"}]})
    await far.call("claim", {"session": session["session"], "wait_s": 0.1})
    assert far.renewing.renewed == leases, "something else renewed a lease"


async def test_a_renewal_says_what_became_of_claims(far: Far) -> None:
    ids = [await far.parts.submit() for _ in range(3)]
    session = await far.open()
    claims = await far.claimed(session, *ids)
    attempts = (await far.call("start", {"claims": [claim["claim"] for claim in claims]}))["attempts"]
    await far.parts.etcd.revoke(int(attempts[0]["lease"], 16))
    await far.parts.etcd.txn(Txn((), (Put(far.parts.keys.hold(str(ids[1])), HoldValue("stop").to_json()),)))
    tokens = [attempt["attempt_token"] for attempt in attempts]
    answers = (await far.call("renew", {"tokens": tokens}))["leases"]
    assert answers == [{"ttl_s": 0.0, "stop": "lost"}, {"ttl_s": TTL_S, "stop": "held"}, {"ttl_s": TTL_S}]


async def test_one_lease_is_renewed_once_in_a_call(far: Far) -> None:
    session = await far.open()
    response = await far.post("renew", {"tokens": [session["session"]] * 2})
    assert response.status_code == 400
    assert "twice" in response.text


async def test_who_does_not_renew_loses_its_session_whatever_coordinators_do(far: Far) -> None:
    session = await far.open(ttl_s=2)

    async def gone() -> bool:
        return await far.parts.etcd.get(far.parts.keys.worker(session["runner"])) is None

    await until(gone)
    response = await far.post("claim", {"session": session["session"], "wait_s": 0})
    assert response.status_code == 404
    again = await far.open(session=session["session"])
    assert (again["runner"], again["is_new"]) == (session["runner"], True)


# -- the inbox --


async def test_a_poll_waits_for_an_offer(far: Far) -> None:
    id = await far.parts.submit()
    session = await far.open()
    polling = asyncio.create_task(far.call("claim", {"session": session["session"], "wait_s": 30}))
    await far.polling(session)
    assert not polling.done()
    await far.offer(session["runner"], id)
    assert [claim["job_id"] for claim in (await polling)["claims"]] == [str(id)]


async def test_a_poll_hands_on_cancel_requests_once(far: Far) -> None:
    session = await far.open()
    await far.put(session["runner"], CancelRequest("j", 2**60 + 1, "no more").to_json())
    poll = {"session": session["session"], "wait_s": 0.5}
    assert (await far.call("claim", poll))["cancels"] == [{"job_id": "j", "fence": str(2**60 + 1), "reason": "no more"}]
    assert (await far.call("claim", poll))["cancels"] == []


async def test_a_newer_poll_takes_the_place_of_an_older_one(far: Far) -> None:
    """The older one may be a connection that is dead and does not know it: what it claimed would reach nobody."""
    id = await far.parts.submit()
    session = await far.open()
    poll = {"session": session["session"], "wait_s": 30}
    older = asyncio.create_task(far.call("claim", poll))
    await far.polling(session)
    newer = asyncio.create_task(far.call("claim", poll))
    assert await older == {"claims": [], "cancels": []}
    await far.offer(session["runner"], id)
    assert len((await newer)["claims"]) == 1


async def test_a_poll_whose_caller_has_gone_claims_nothing(far: Far) -> None:
    id = await far.parts.submit()
    session = await far.open()
    polling = asyncio.create_task(far.call("claim", {"session": session["session"], "wait_s": 30}))
    await far.polling(session)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    await far.nobody_polls(session)
    await far.offer(session["runner"], id)
    assert await far.parts.claim_of(id) is None


async def test_what_is_won_for_a_caller_that_goes_meanwhile_is_free_at_once(far: Far) -> None:
    """Nobody would renew it; a claim's TTL may be an hour."""
    id = await far.parts.submit()
    session = await far.open()
    claiming, going = asyncio.Event(), asyncio.Event()

    async def hold_back(txn: Txn) -> None:
        claiming.set()
        await going.wait()

    far.renewing.on_txn = hold_back
    await far.offer(session["runner"], id, ttl_s=3_600.0)
    poll = asyncio.ensure_future(far.call("claim", {"session": session["session"], "wait_s": 20}))
    await claiming.wait()
    second = asyncio.ensure_future(far.post("claim", {"session": session["session"], "wait_s": 0}))
    await second  # it is there, and has ended the first
    far.renewing.on_txn = None
    going.set()
    assert (await poll)["claims"] == []

    async def free() -> bool:
        return await far.parts.claim_of(id) is None

    await until(free)


async def test_what_was_won_is_handed_on_although_the_next_offer_fails(far: Far) -> None:
    first, second = await far.parts.submit(), await far.parts.submit()
    session = await far.open()
    txns = 0

    async def fail_second(txn: Txn) -> None:
        nonlocal txns
        txns += 1
        if txns == 2:
            raise ConfigurationError("etcd refuses the user, as the test wishes")

    await far.offer(session["runner"], first)
    await far.offer(session["runner"], second)
    far.renewing.on_txn = fail_second
    polled = await far.call("claim", {"session": session["session"], "wait_s": 20})
    far.renewing.on_txn = None
    assert [claim["job_id"] for claim in polled["claims"]] == [str(first)]
    polled = await far.call("claim", {"session": session["session"], "wait_s": 20})
    assert [claim["job_id"] for claim in polled["claims"]] == [str(second)]


async def test_a_renewal_does_not_wait_for_a_look_that_takes_long(far: Far) -> None:
    attempt = await far.started(await far.parts.submit())

    async def stall(txn: Txn) -> None:
        await asyncio.sleep(60)

    far.renewing.on_txn = stall
    async with asyncio.timeout(30):
        [renewed] = (await far.call("renew", {"tokens": [attempt["attempt_token"]]}))["leases"]
    assert renewed["ttl_s"] > 0


async def test_a_job_that_is_claimed_already_is_not_claimed_again(far: Far) -> None:
    id = await far.parts.submit()
    await far.parts.claim(id)
    session = await far.open()
    await far.offer(session["runner"], id)
    assert (await far.call("claim", {"session": session["session"], "wait_s": 5}))["claims"] == []


async def test_a_token_of_somebody_else_costs_the_other_leases_nothing(far: Far) -> None:
    """As after a change of pools: what is left of them is kept."""
    attempt = await far.started(await far.parts.submit())
    token = far.signer.read_any(attempt["attempt_token"])
    foreign = far.signer.sign(msgspec.structs.replace(token, caller="somebody"))
    answers = (await far.call("renew", {"tokens": [foreign, attempt["session"]]}))["leases"]
    assert answers == [{"ttl_s": 0.0, "stop": "lost"}, {"ttl_s": 10.0}]
    assert int(attempt["lease"], 16) not in far.renewing.renewed[-1:]


# -- sessions --


async def test_a_runner_is_seen_as_a_worker_and_changes_within_its_session(far: Far) -> None:
    session = await far.open()
    key = far.parts.keys.worker(session["runner"])
    item = await far.parts.etcd.get(key)
    assert item is not None
    value = WorkerValue.from_json(item.value)
    assert (value.mode, value.pools, value.capacity, value.draining) == ("remote", ("default",), 10, False)
    runner = {"name": "far", "pools": ["default"], "kinds": [], "capacity": 10, "draining": True}
    again = await far.call("session", {"runner": runner, "session": session["session"]})
    assert (again["runner"], again["lease"], again["is_new"]) == (session["runner"], session["lease"], False)
    item = await far.parts.etcd.get(key)
    assert item is not None
    assert WorkerValue.from_json(item.value).draining
    await far.call("close", {"session": session["session"]})
    assert await far.parts.etcd.get(key) is None


async def test_nobody_takes_the_place_of_another_worker(far: Far) -> None:
    """The name is a wish: every session has an id of its own, unless it shows the token of the one before."""
    assert (await far.open())["runner"] != (await far.open())["runner"]


# -- who may do what --


async def _requests(far: Far) -> dict[str, Any]:
    """Return a right request for each call, all of one runner."""
    attempt = await far.started(await far.parts.submit())
    session = await far.open()
    [claim] = await far.claimed(session, await far.parts.submit())
    token = {"attempt_token": attempt["attempt_token"]}
    file = {**token, "name": "a.txt", "size_bytes": 4, "sha256": hashlib.sha256(b"data").hexdigest()}
    upload = await far.call("upload", file)
    assert (await far.http.put(upload["url"], content=b"data", headers=upload["headers"])).status_code == 201
    return {
        "session": {"runner": {"name": "far", "pools": ["default"], "kinds": [], "capacity": 1}},
        "close": {"session": session["session"]},
        "claim": {"session": session["session"], "wait_s": 0},
        "start": {"claims": [claim["claim"]]},
        "renew": {"tokens": [session["session"], claim["claim"], attempt["attempt_token"]]},
        "release": {"tokens": [claim["claim"], attempt["attempt_token"]]},
        "progress": {**token, "fraction": 0.5},
        "checkpoint": {**token, "checkpoint": 1},
        "children": {**token, "jobs": [{"kind": "k", "ref": "c"}]},
        "upstream": token,
        "logs": {"batches": [{**token, "first_seq": 1, "lines": [{"message": "m"}]}]},
        "upload": file,
        "uploaded": {**token, "upload": upload["upload"], "part_tags": []},
        "finish": {"reports": [{**token, "outcome": "completed"}]},
    }


@pytest.mark.parametrize(
    ("who", "status"),
    [(None, 401), ("nobody", 401), ("same-pool", 403), ("other-pool", 403), ("worker", 403), ("viewer", 403)],
)
async def test_every_call_is_refused_to_whoever_may_not(far: Far, who: str | None, status: int) -> None:
    requests = await _requests(far)
    assert requests.keys() == ENDPOINTS.keys(), "a call without a row here"
    before = await far.parts.sql("SELECT id, state, fence, progress, checkpoint::text FROM tenure.job ORDER BY id")
    for path, body in requests.items():
        if (path, who) == ("session", "same-pool"):
            continue  # it may: in its own name
        response = await far.post(path, body, who=who)
        assert response.status_code == status, (path, response.text)
        assert response.json()["error"]["status"] == {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}[status]
        assert ("www-authenticate" in response.headers) == (status == 401)
    after = await far.parts.sql("SELECT id, state, fence, progress, checkpoint::text FROM tenure.job ORDER BY id")
    assert before == after


async def test_every_call_is_done_for_whom_it_belongs_to(far: Far) -> None:
    """The same requests, so that the refusals above are for who asks, not for what is asked."""
    for path, body in (await _requests(far)).items():
        if path in ("release", "close"):
            continue  # these would take from the others what they need
        response = await far.post(path, body)
        assert response.status_code == 200, (path, response.text)


@pytest.mark.parametrize("token", ["", "x", "A" * 200, "ä", "=" * 8, "A" * 4_000])
async def test_a_token_that_nobody_signed_is_refused(far: Far, token: str) -> None:
    response = await far.post("claim", {"session": token, "wait_s": 0})
    assert response.status_code == (403 if token else 400)


async def test_a_token_that_was_changed_anywhere_is_refused(far: Far) -> None:
    session = (await far.open())["session"]
    for at in range(0, len(session) - 1, 7):
        changed = session[:at] + ("A" if session[at] != "A" else "B") + session[at + 1 :]
        assert (await far.post("claim", {"session": changed, "wait_s": 0})).status_code == 403


async def test_a_token_has_one_text(far: Far) -> None:
    """Others that decode to the same would name a lease twice in a call."""
    text = (await far.open())["session"]
    for other in (text[:10] + "!" + text[10:], text + "=", " " + text, text + "\n"):
        assert (await far.post("renew", {"tokens": [other]})).status_code == 403


async def test_a_token_of_another_kind_is_refused(far: Far) -> None:
    requests = await _requests(far)
    session, claim = requests["close"]["session"], requests["start"]["claims"][0]
    for path, body in {
        "claim": {"session": claim},
        "start": {"claims": [session]},
        "progress": {"attempt_token": claim, "fraction": 0},
        "finish": {"reports": [{"attempt_token": session, "outcome": "completed"}]},
    }.items():
        assert (await far.post(path, body)).status_code == 403, path


async def test_an_attempts_token_says_nothing_of_another_attempt(far: Far) -> None:
    """It names one attempt: of the job's next one it authorises nothing."""
    id = await far.parts.submit()
    attempt = await far.started(id)
    failed = {"attempt_token": attempt["attempt_token"], "outcome": "released"}
    await far.call("finish", {"reports": [failed]})
    newer = await far.started(id, seen=1)
    assert int(newer["fence"]) > int(attempt["fence"])
    token = {"attempt_token": attempt["attempt_token"]}
    for path, body in {
        "upload": {**token, "name": "a", "size_bytes": 1, "sha256": "0" * 64},
        "uploaded": {**token, "upload": "x"},
        "progress": {**token, "fraction": 0.5},
        "checkpoint": {**token, "checkpoint": 1},
        "children": {**token, "jobs": [{"kind": "k", "ref": "c"}]},
        "upstream": token,
        "finish": {"reports": [{**token, "outcome": "completed", "result": "mine"}]},
    }.items():
        response = await far.post(path, body)
        assert response.status_code == 409, (path, response.text)
    assert (await far.parts.row(id)).fence == int(newer["fence"])


async def test_a_finish_that_is_repeated_changes_nothing(far: Far) -> None:
    id = await far.parts.submit()
    attempt = await far.started(id)
    report = {"attempt_token": attempt["attempt_token"], "outcome": "completed", "result": 1}
    await far.call("finish", {"reports": [report]})
    again = await far.call("finish", {"reports": [{**report, "result": 2}]})
    assert again["reports"][0]["verdict"] == "repeated"
    [row] = await far.parts.sql("SELECT result::text AS result FROM tenure.history WHERE id = %s", id)
    assert row.result == "1"


async def test_tokens_of_another_installation_are_refused(far: Far) -> None:
    session = far.signer.read_any((await far.open())["session"])
    forged = Signer(b"another key of 32 bytes, or so...").sign(session)
    assert (await far.post("claim", {"session": forged, "wait_s": 0})).status_code == 403


# -- bad input --


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff\xfe", "body"),
        (b'{"session": 1}', "session"),
        (b'{"wait_s": 1}', "body"),
        (b'{"session": "x", "wait_s": -1}', "wait_s"),
        (b'{"session": "x", "wait_s": 1e9}', "wait_s"),
        (b'{"session": "x", "wait_s": NaN}', "body"),
        (b"[" * 200_000, "body"),
        (b'{"session": "x", "more": ' + b"[" * 200_000, "body"),
    ],
)
async def test_what_is_no_request_is_refused_by_field(far: Far, body: bytes, field: str) -> None:
    response = await far.http.post("/v1/runner/claim", content=body, headers={"Authorization": "Bearer a"})
    assert response.status_code == 400, response.text
    assert [one["field"] for one in response.json()["error"]["fields"]] == [field]


@pytest.mark.parametrize(
    ("runner", "field"),
    [
        ({"name": "No!"}, "runner.name"),
        ({"pools": []}, "runner.pools"),
        ({"pools": ["a", "b//c"]}, "runner.pools[1]"),
        ({"kinds": ["a b"]}, "runner.kinds[0]"),
        ({"capacity": 0}, "runner.capacity"),
        ({"capacity": 1.5}, "runner.capacity"),
        ({"labels": {"a": 1}}, "runner.labels[...]"),
    ],
)
async def test_what_no_runner_can_say_of_itself_is_refused_by_field(far: Far, runner: Any, field: str) -> None:
    whole = {"name": "far", "pools": ["default"], "kinds": [], "capacity": 1, **runner}
    response = await far.post("session", {"runner": whole})
    assert response.status_code == 400, response.text
    assert [one["field"] for one in response.json()["error"]["fields"]] == [field]


async def test_a_request_that_is_too_long_is_refused_before_it_is_read(far: Far) -> None:
    headers = {"Authorization": "Bearer a"}
    body = b" " * (MAX_BODY_BYTES + 1)
    assert (await far.http.post("/v1/runner/claim", content=body, headers=headers)).status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65_536 + 10):
            yield b" " * 65_536

    assert (await far.http.post("/v1/runner/claim", content=endless(), headers=headers)).status_code == 413


async def test_a_compressed_body_is_not_unpacked(far: Far) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Authorization": "Bearer a", "Content-Encoding": "gzip"}
    response = await far.http.post("/v1/runner/claim", content=bomb, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["fields"][0]["field"] == "content-encoding"


async def test_a_coordinator_that_is_starting_says_so() -> None:
    server = HttpServer(application({}, REGISTRY, more=RestApi().routes()), listen="127.0.0.1:0", variable="-")
    server.bind()
    async with running(server.run()), httpx.AsyncClient(base_url=f"http://{server.address}", timeout=20) as http:
        response = await http.post("/v1/runner/claim", json={})
        assert (response.status_code, response.json()["error"]["status"]) == (503, "UNAVAILABLE")
        assert (await http.get("/v1/runner/claim")).status_code == 405


# -- the document --


async def test_the_document_describes_every_call(far: Far) -> None:
    document = (await far.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert document["paths"].keys() == {f"/v1/runner/{path}" for path in ENDPOINTS}
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name
    references = {ref.rpartition("/")[2] for ref in _references(document)}
    assert references <= schemas.keys()


async def test_what_is_sent_and_answered_is_as_the_document_says(far: Far) -> None:
    document = (await far.http.get("/openapi.json")).json()
    for path, body in (await _requests(far)).items():
        operation = document["paths"][f"/v1/runner/{path}"]["post"]
        _validate(document, operation["requestBody"], body)
        if path in ("release", "close"):
            continue
        _validate(document, operation["responses"]["200"], await far.call(path, body))
        refused = await far.post(path, {"session": 1, "runner": 1, "claims": 1, "tokens": 1, "attempt_token": 1})
        assert refused.status_code == 400
        _validate(document, operation["responses"]["400"], refused.json())


def _validate(document: Any, part: Any, value: Any) -> None:
    schema = part["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [ref for one in value.values() for ref in _references(one)]
    return [ref for one in value for ref in _references(one)] if isinstance(value, list) else []


def test_the_wire_has_no_number_that_javascript_cannot_hold() -> None:
    for endpoint in ENDPOINTS.values():
        for kind in (endpoint.takes, endpoint.gives):
            names = set(kind.__struct_fields__)
            assert not names & {"fence", "revision"} or kind.__annotations__["fence"] == "str"
    assert wire.Attempt.__annotations__["fence"] == "str"
    assert wire.Cancel.__annotations__["fence"] == "str"
