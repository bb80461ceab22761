"""What the service answers, as OpenAPI 3.1. The page /docs shows it; no script comes from elsewhere for that."""

from __future__ import annotations

from typing import Any

from raymeta import __version__
from raymeta.serve.limits import Limits

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"}}
_UNKNOWN = {
    "name": "unknown",
    "in": "query",
    "description": "1 calls answers unknown that are less sure than nearly all right ones on the support set",
    "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
}


def openapi(limits: Limits) -> dict[str, Any]:
    """The description of every address, with the limits in it."""
    one = {"get": _call("Show a classifier", 200, "Classifier", path=True)}
    one["delete"] = _call("Delete a classifier", 204, None, path=True)
    ask = _call("Classify queries", 200, "Answers", path=True) | {"requestBody": _body("queries", limits)}
    ask["parameters"] = [_ID, _UNKNOWN]
    create = _call("Create a classifier from a few examples of each class", 201, "Classifier")
    return {
        "openapi": "3.1.0",
        "info": {"title": "raymeta serve", "version": __version__, "description": "Few-shot classification."},
        "security": [{"token": []}, {}],
        "paths": {
            "/api/model": {"get": _call("What the model takes", 200, "Model")},
            "/api/classifiers": {
                "get": _call("List classifiers", 200, "Classifiers"),
                "post": create | {"requestBody": _body("examples", limits)},
            },
            "/api/classifiers/{id}": one,
            "/api/classifiers/{id}/predict": {"post": ask},
            "/health": {"get": _call("The service lives", 200, None)},
            "/ready": {"get": _call("A replica can answer", 200, None)},
            "/metrics": {"get": _call("Numbers for Prometheus", 200, None)},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _call(summary: str, status: int, schema: str | None, *, path: bool = False) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "done"}
    if schema is not None:
        done["content"] = {"application/json": {"schema": _ref(schema)}}
    wrong = {"description": "not done; `error` says why", "content": {"application/json": {"schema": _ref("Error")}}}
    answers = {str(status): done, "4XX": wrong, "503": {**wrong, "description": "try again after Retry-After seconds"}}
    return {"summary": summary, "responses": answers, **({"parameters": [_ID]} if path else {})}


def _body(field: str, limits: Limits) -> dict[str, Any]:
    labelled = field == "examples"
    file = {"type": "string", "contentMediaType": "image/*"}
    form = {"type": "object", "additionalProperties": {"type": "array", "items": file}}
    row: dict[str, Any] = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
    if labelled:
        row |= {"required": ["label"], "properties": {"label": {"type": "string"}}}
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": limits.examples}
    text = {"type": "object", "required": [field], "properties": {field: rows}}
    told = "the field of each file is its class" if labelled else "the fields may have any names"
    bounds = f"at most {limits.examples:,} of them, {limits.body_bytes:,} bytes and {limits.pixels:,} pixels each"
    return {
        "required": True,
        "description": f"{field}: images as files of a form, where {told}; or texts and rows as JSON; {bounds}",
        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": text}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _schemas() -> dict[str, Any]:
    text, number, count, yes = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
    tried = _object(accuracy=number, low=number, high=number, tried=count) | {"type": ["object", "null"]}
    classifier = _object(
        id=text, created=text, classes=_list(text), examples=count, guessing=number, leave_one_out=tried,
        calibrated=yes, unknown=yes, doubts=_list(_object(example=text, rather=text, probability=number)),
    )  # fmt: skip
    others = _list(_object(label=text, probability=number))
    answer = _object(file=text, label=text, probability=number, alternatives=others)
    return {
        "Error": _object(error=text),
        "Model": _object(name=text, kind=text, item=text, limits={"type": "object"}),
        "Classifier": classifier,
        "Classifiers": _object(classifiers=_list(_ref("Classifier"))),
        "Answers": _object(answers=_list(answer)),
    }
