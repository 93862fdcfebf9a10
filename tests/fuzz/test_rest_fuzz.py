"""Whatever is sent to the API of runners is answered or refused with a reason, as its document says.

Requests are right ones in which something is not: a value is replaced by any JSON, left out, or joined by another. The
tokens in them are real, so that what lies behind them is met. ``make fuzz`` does more of it, with schemathesis.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.test_grpc_fuzz import EXAMPLES

from tenure.cli.embedded.deployment import Deployment
from tenure.client import Client, NewJob

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["", "\x00", "a/b//c", "../..", "%", "x" * 5_000, "0" * 16, "NaN", -1, 2**63, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
SEEN = {200, 400, 401, 403, 404, 409, 413, 429, 503}


class Service:
    """The API, and a right request for each call of it."""

    def __init__(self, http: httpx.Client, client: Client) -> None:
        self.http = http
        self.document = http.get("/openapi.json").json()
        runner = {"name": "fuzz", "pools": ["fuzz"], "kinds": ["fuzz"], "capacity": 100}
        client.submit_many([NewJob(kind="fuzz", route="fuzz") for _ in range(2)])
        session = self.post("session", {"runner": runner, "ttl_s": 3_600}).json()["session"]
        claims: list[str] = []
        while len(claims) < 2:
            claims += [one["claim"] for one in self.post("claim", {"session": session}).json()["claims"]]
        [attempt] = self.post("start", {"claims": claims[:1]}).json()["attempts"]
        token = {"attempt_token": attempt["attempt_token"]}
        self.requests: dict[str, Any] = {
            "session": {"runner": runner, "session": session, "ttl_s": 10},
            "claim": {"session": session, "wait_s": 0},
            "start": {"claims": claims},
            "renew": {"tokens": [session, *claims]},
            "release": {"tokens": claims},
            "progress": {**token, "fraction": 0.5, "message": "m"},
            "checkpoint": {**token, "checkpoint": {"a": [1]}},
            "children": {**token, "jobs": [{"kind": "k", "ref": "r", "payload": {}, "route": "fuzz/child"}]},
            "upstream": {**token, "after": ""},
            "logs": {"batches": [{**token, "first_seq": 1, "lines": [{"message": "m", "fields": {"n": 1}}]}]},
            "upload": {**token, "name": "a.txt", "size_bytes": 3, "sha256": "0" * 64, "content_type": "text/plain"},
            "uploaded": {**token, "upload": "x", "part_tags": ["t"]},
            "finish": {
                "reports": [
                    {**token, "outcome": "failed", "error": {"type": "T", "message": "m"}, "error_bases": ["B"]},
                    {**token, "outcome": "parked", "park": {"children": [], "trigger": "any_completed"}},
                ]
            },
            "close": {"session": session},
        }

    def post(self, path: str, body: Any) -> httpx.Response:
        """Call."""
        return self.http.post(f"/v1/runner/{path}", content=json.dumps(body).encode())


@pytest.fixture(scope="module")
def service(target: Deployment) -> Any:
    with (
        Client(target.coordinator_addresses) as client,
        httpx.Client(base_url=f"http://{target.http_addresses[0]}", timeout=60) as http,
    ):
        yield Service(http, client)


def test_every_call_is_fuzzed(service: Service) -> None:
    assert {f"/v1/runner/{path}" for path in service.requests} == service.document["paths"].keys()


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


def _spoiled(data: st.DataObject, request: Any) -> Any:
    place = data.draw(st.sampled_from(_places(request)[1:]))
    spoiled = copy.deepcopy(request)
    parent = spoiled
    for key in place[:-1]:
        parent = parent[key]
    how = data.draw(st.sampled_from(["replace", "replace", "drop", "more"]))
    if how == "drop":
        del parent[place[-1]]
    elif how == "more" and isinstance(parent, dict):
        parent[data.draw(st.text(max_size=9))] = data.draw(JSON)
    else:
        parent[place[-1]] = data.draw(JSON)
    return spoiled


PATHS = (
    "session",
    "claim",
    "start",
    "renew",
    "progress",
    "checkpoint",
    "children",
    "upstream",
    "logs",
    "finish",
    "release",
)


@pytest.mark.parametrize("path", [*PATHS, "close"])
def test_what_is_not_right_is_answered_or_refused_as_documented(service: Service, path: str) -> None:
    @settings(
        max_examples=3 * EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        body = _spoiled(data, service.requests[path])
        response = service.post(path, body)
        assert response.status_code in SEEN, (body, response.text)
        operation = service.document["paths"][f"/v1/runner/{path}"]["post"]
        schema = operation["responses"][str(response.status_code)]["content"]["application/json"]["schema"]
        components = {"components": service.document["components"]}
        jsonschema.Draft202012Validator({**schema, **components}).validate(response.json())

    fuzz()


@pytest.mark.parametrize("path", [*PATHS, "close"])
def test_bytes_that_are_no_json_are_refused(service: Service, path: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.binary(max_size=200))
    def fuzz(body: bytes) -> None:
        response = service.http.post(f"/v1/runner/{path}", content=body)
        assert response.status_code == 400, (body, response.text)

    fuzz()
