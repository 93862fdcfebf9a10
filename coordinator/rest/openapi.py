"""The OpenAPI document of the HTTP API, made from the structs that the calls take and give."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from tenure.model.jobs import JobSpec
from tenure.v1 import runner_api as api

_REF = "#/components/schemas/{name}"
_STATUSES = {
    400: "a field is malformed: `fields` names it",
    401: "no credentials, or none that are valid",
    403: "not allowed to whoever calls, or a token of somebody else",
    404: "what was named is not there (any more)",
    409: "the attempt is not the runner's any more, or the request does not fit the state of things",
    413: "the request is too long",
    429: "a bound is reached; try later",
    503: "try again, perhaps with another coordinator",
}


def document(calls: Mapping[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]]) -> dict[str, Any]:
    """Describe calls: path to what is taken and given."""
    types = [kind for pair in calls.values() for kind in pair]
    schemas, components = msgspec.json.schema_components([*types, api.Refusal], ref_template=_REF)
    refs: dict[type, dict[str, Any]] = dict(zip([*types, api.Refusal], schemas, strict=True))
    job = JobSpec.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))
    components |= job.pop("$defs", {})
    job["properties"]["payload"] = {"title": "Payload", "description": "any JSON"}
    components["JobSpec"] = job
    components["SubmitChildren"]["properties"]["jobs"]["items"] = {"$ref": "#/components/schemas/JobSpec"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tenure: the API of runners",
            "version": version("tenure"),
            "description": inspect.getdoc(api) or "",
        },
        "paths": {path: {"post": _operation(path, *pair, refs)} for path, pair in calls.items()},
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}, {}],
    }


def _operation(
    path: str, takes: type[msgspec.Struct], gives: type[msgspec.Struct], refs: Mapping[type, dict[str, Any]]
) -> dict[str, Any]:
    refusals = {
        str(status): {"description": meaning, "content": _json(refs[api.Refusal])}
        for status, meaning in _STATUSES.items()
    }
    if gives is api.FinishedAll:
        refusals["409"] = {"description": "every report is lost", "content": _json(refs[gives])}
    return {
        "operationId": path.rsplit("/", 1)[1],
        "summary": inspect.getdoc(takes) or "",
        "requestBody": {"required": True, "content": _json(refs[takes])},
        "responses": {"200": {"description": inspect.getdoc(gives) or "", "content": _json(refs[gives])}, **refusals},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
