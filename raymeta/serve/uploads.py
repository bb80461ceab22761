"""The examples of a request, from multipart files or from JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from raymeta.serve.classifiers import Item
from raymeta.serve.limits import Limits, Refused


async def examples(request: Request, limits: Limits) -> list[Item]:
    """Labelled ones: the field of a file is its class; in JSON `label` is, and all else is the row."""
    items = await _items(request, limits, "examples")
    for item in items:
        _require_name(item.label, "class", limits)
    classes = len({item.label for item in items})
    if classes > limits.classes:
        raise Refused(413, f"there are {classes} classes, and at most {limits.classes} are taken")
    return items


async def queries(request: Request, limits: Limits) -> list[Item]:
    """Without labels: the fields of files may have any names."""
    return await _items(request, limits, "queries")


async def _items(request: Request, limits: Limits, field: str) -> list[Item]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        items = await _of_form(request, limits)
    elif kind == "application/json":
        items = _of_json(await request.body(), field, labelled=field == "examples")
    else:
        raise Refused(415, "send images as multipart/form-data, or texts and rows as application/json")
    if not items:
        raise Refused(422, f"there are no {field} in the request")
    if len(items) > limits.examples:
        raise Refused(413, f"there are {len(items)} {field}, and at most {limits.examples} are taken")
    return items


async def _of_form(request: Request, limits: Limits) -> list[Item]:
    parser = MultiPartParser(request.headers, request.stream(), max_files=limits.examples, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        many = "Too many" in error.message
        reason = f"{error.message.rstrip('.')}: send only files, at most {limits.examples}"
        raise Refused(413 if many else 400, reason if many else f"the form is no multipart data: {reason}") from error
    except (KeyError, ValueError, UnicodeError, AssertionError) as error:
        raise Refused(400, "the form is no multipart data: it has no boundary, or a part without a name") from error
    try:
        return [await _of_file(label, file, limits) for label, file in form.multi_items()]
    finally:
        await form.close()


async def _of_file(label: str, file: UploadFile | str, limits: Limits) -> Item:
    if isinstance(file, str):
        raise Refused(400, "the form holds a field that is no file: send only files")
    name = file.filename or "unnamed"
    _require_name(name, "file", limits)
    if (file.size or 0) > limits.file_bytes:
        raise Refused(413, f"{name} has more than {limits.file_bytes:,} bytes")
    return Item(name, await file.read(), label)


def _of_json(body: bytes, field: str, *, labelled: bool) -> list[Item]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON") from error
    rows = content.get(field) if isinstance(content, dict) else None
    if not isinstance(rows, list) or set(content) != {field}:
        raise Refused(422, f'send one object {{"{field}": [...]}}')
    return [_of_row(row, number, labelled=labelled) for number, row in enumerate(rows, 1)]


def _of_row(row: Any, number: int, *, labelled: bool) -> Item:
    if not isinstance(row, dict) or not all(isinstance(v, (str, int, float, bool, type(None))) for v in row.values()):
        raise Refused(422, f"row {number} is no object of texts and numbers")
    label = row.get("label") if labelled else ""
    if not isinstance(label, str):
        raise Refused(422, f"row {number} has no label that is a text")
    return Item(f"row {number}", {k: v for k, v in row.items() if not (labelled and k == "label")}, label)


def _require_name(name: str, what: str, limits: Limits) -> None:
    """It is shown to people and in files, and never becomes a path; nothing that looks like one is taken."""
    if not name.strip() or len(name) > limits.name_letters or not name.isprintable():
        raise Refused(422, f"the name of a {what} is not 1 to {limits.name_letters} printable letters")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise Refused(422, f"the name of a {what} is a path: send a plain name")
