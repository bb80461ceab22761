"""The service in process: what it answers, and that hostile requests get one sentence and harm nothing."""

from __future__ import annotations

import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import SMALL, Service, form, png, support

from raymeta.serve.__main__ import main
from raymeta.use.folder import load_adapted
from raymeta.use.opening import open_model

TOKEN = "a-token-of-the-tests"
PLACE = "/api/classifiers"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def service(exported: Path, tmp_path: Path) -> Iterator[Service]:
    service = Service(open_model(str(exported)), tmp_path / "store", token=TOKEN)
    yield service
    service.stop()


def test_a_classifier_is_created_asked_listed_shown_and_deleted(service: Service, tmp_path: Path) -> None:
    name = service.create()
    _, _, shown = service.ask("GET", f"{PLACE}/{name}")
    assert (shown["classes"], shown["examples"], shown["guessing"]) == (["line", "ring"], 6, 0.5)
    assert service.ask("GET", PLACE)[2] == {"classifiers": [shown]}
    status, _, content = service.predict(name, [("file", "a.png", png("ring", 1)), ("file", "b.png", png("line", 1))])
    assert (status, [a["label"] for a in content["answers"]]) == (200, ["ring", "line"])
    (tmp_path / "a.png").write_bytes(png("ring", 1))
    (ours,) = load_adapted(tmp_path / "store" / name).predict_files([tmp_path / "a.png"])
    assert content["answers"][0]["probability"] == pytest.approx(ours.probability, abs=1e-6)
    assert service.ask("DELETE", f"{PLACE}/{name}")[0] == 204
    assert service.predict(name, [("file", "a.png", png("ring"))])[0] == 404
    assert list((tmp_path / "store").iterdir()) == []


def test_classifiers_survive_a_restart(exported: Path, tmp_path: Path) -> None:
    answers = []
    for turn in range(2):
        service = Service(open_model(str(exported)), tmp_path)
        name = service.create() if turn == 0 else service.ask("GET", PLACE)[2]["classifiers"][0]["id"]
        answers.append((name, service.predict(name, [("file", "a.png", png("ring", 2))])))
        service.stop()
    assert answers[0][0] == answers[1][0]
    assert answers[0][1][2] == answers[1][1][2]


def test_what_a_service_has_is_told(service: Service) -> None:
    service.create()
    for path in ("/", "/docs", "/static/try.js", "/static/style.css", "/health", "/ready", "/openapi.json"):
        status, headers, _ = service.ask("GET", path, headers={"Authorization": ""})
        assert (path, status) == (path, 200)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert set(service.ask("GET", "/openapi.json")[2]["paths"][PLACE]) == {"get", "post"}
    numbers = service.ask("GET", "/metrics")[2].decode()
    assert 'raymeta_serve_answers_total{method="POST",status="201"} 1.0' in numbers
    assert "raymeta_serve_classifiers 1.0" in numbers


def wide_png(side: int) -> bytes:
    """A few bytes that decode to `side` × `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_file(content: bytes, name: str = "x.png", field: str = "ring") -> tuple[bytes, dict[str, str]]:
    return form([*support(), (field, name, content)])


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nquit\n"
HOSTILE: dict[str, tuple[int, str, str, bytes | None, dict[str, str]]] = {
    "not an image": (422, "POST", PLACE, *with_file(b"hello, I am no image")),
    "empty file": (422, "POST", PLACE, *with_file(b"")),
    "cut off image": (422, "POST", PLACE, *with_file(png("ring")[:90])),
    "damaged image": (422, "POST", PLACE, *with_file(png("ring").replace(b"IDAT", b"IDAX"))),
    "decompression bomb": (413, "POST", PLACE, *with_file(wide_png(60_000))),
    "bomb under Pillow's bound": (413, "POST", PLACE, *with_file(wide_png(5_000))),
    "a program in PostScript": (422, "POST", PLACE, *with_file(EPS)),
    "an SVG": (422, "POST", PLACE, *with_file(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
    "a pickle": (422, "POST", PLACE, *with_file(b"\x80\x04\x95\x1a\x00\x00\x00")),
    "huge file": (413, "POST", PLACE, *with_file(bytes(350_000))),
    "huge body": (413, "POST", PLACE, *with_file(bytes(500_000))),
    "one class": (422, "POST", PLACE, *form(support()[:3])),
    "too many classes": (413, "POST", PLACE, *form([(f"c{n}", "a.png", png("ring")) for n in range(5)])),
    "too many examples": (413, "POST", PLACE, *form([("c", "a.png", png("ring"))] * 21)),
    "no examples": (422, "POST", PLACE, *form([])),
    "class named by a path": (422, "POST", PLACE, *with_file(png("ring"), field="../../etc")),
    "class named ..": (422, "POST", PLACE, *with_file(png("ring"), field="..")),
    "class without a name": (422, "POST", PLACE, *with_file(png("ring"), field=" ")),
    "class named unknown": (422, "POST", PLACE, *with_file(png("ring"), field="unknown")),
    "class with a long name": (422, "POST", PLACE, *with_file(png("ring"), field="c" * 41)),
    "class with an escape": (422, "POST", PLACE, *with_file(png("ring"), field="\x1b[31mred")),
    "file named by a path": (422, "POST", PLACE, *with_file(png("ring"), name="../../x.png")),
    "file named by NUL": (422, "POST", PLACE, *with_file(png("ring"), name="x\0.png")),
    "no boundary": (400, "POST", PLACE, b"abc", {"Content-Type": "multipart/form-data"}),
    "boundary that never comes": (422, "POST", PLACE, b"", form([])[1]),
    "form that is none": (400, "POST", PLACE, b"\0" * 100, form([])[1]),
    "text field": (413, "POST", PLACE, form(support())[0].replace(b'; filename="0.png"', b""), form([])[1]),
    "no type": (415, "POST", PLACE, b"abc", {}),
    "XML": (415, "POST", PLACE, b"<!DOCTYPE x>", {"Content-Type": "application/xml"}),
    "no JSON": (400, "POST", PLACE, b"{", JSON),
    "deep JSON": (400, "POST", PLACE, b"[" * 100_000, JSON),
    "JSON of another form": (422, "POST", PLACE, b'{"rows": []}', JSON),
    "rows that are none": (422, "POST", PLACE, b'{"examples": [1, [2]]}', JSON),
    "rows without labels": (422, "POST", PLACE, b'{"examples": [{"x": 1}]}', JSON),
    "rows for a model of images": (415, "POST", PLACE, b'{"examples": [{"x": 1, "label": "a"}]}', JSON),
    "no token": (401, "GET", PLACE, None, {"Authorization": ""}),
    "wrong token": (401, "GET", PLACE, None, {"Authorization": "Bearer a-token-of-the-testz"}),
    "token as a password": (401, "GET", PLACE, None, {"Authorization": f"Basic {TOKEN}"}),
    "another page": (403, "GET", PLACE, None, {"Origin": "https://example.org"}),
    "another site": (403, "GET", PLACE, None, {"Sec-Fetch-Site": "cross-site"}),
    "path for an id": (404, "GET", f"{PLACE}/..%2f..%2fetc", None, {}),
    "dots for an id": (404, "DELETE", f"{PLACE}/..", None, {}),
    "id that is none": (404, "DELETE", f"{PLACE}/0123456789abcdef", None, {}),
    "file elsewhere": (404, "GET", "/static/..%2f__main__.py", None, {}),
    "no such address": (404, "GET", "/admin", None, {}),
    "wrong method": (405, "PUT", PLACE, None, {}),
    "a method made up": (405, "BREW", PLACE, None, {}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_one_sentence_and_harms_nothing(name: str, service: Service) -> None:
    expected, method, path, body, headers = HOSTILE[name]
    status, _, content = service.ask(method, path, body, headers)
    assert (status, list(content)) == (expected, ["error"]), content
    assert "Traceback" not in content["error"]
    assert "/tmp" not in content["error"]
    assert service.ask("GET", PLACE)[2] == {"classifiers": []}


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"POST /api/classifiers HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_never_ends_its_head_is_sent_away(sent: bytes, service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert service.ask("GET", "/health")[0] == 200


def test_a_client_that_never_ends_its_body_is_sent_away(service: Service) -> None:
    head = f"POST {PLACE} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n[".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert service.ask("GET", "/health")[0] == 200


def test_bytes_that_are_no_http_get_400(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert service.ask("GET", "/health")[0] == 200


def test_without_a_token_only_this_machine_is_answered(exported: Path, tmp_path: Path) -> None:
    service = Service(open_model(str(exported)), tmp_path)
    try:
        assert service.ask("GET", PLACE)[0] == 200
        assert service.ask("GET", PLACE, headers={"Host": "rebound.example"})[0] == 403
    finally:
        service.stop()


def test_a_full_store_takes_no_more(service: Service) -> None:
    names = [service.create() for _ in range(SMALL.classifiers)]
    assert service.ask("POST", PLACE, *form(support()))[0] == 409
    service.ask("DELETE", f"{PLACE}/{names[0]}")
    service.create()


def test_a_damaged_classifier_is_told_and_hides_no_other(service: Service, tmp_path: Path) -> None:
    first, second = service.create(), service.create()
    path = tmp_path / "store" / first / "adapted.json"
    content: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "classes": ["a", "b"]}))
    listed = {one["id"]: one for one in service.ask("GET", PLACE)[2]["classifiers"]}
    assert "error" in listed[first]
    assert listed[second]["classes"] == ["line", "ring"]
    assert service.predict(first, [("file", "a.png", png("ring"))])[0] == 500


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere"], 3, "no runs in results"),
        (["MODEL", "--host", "0.0.0.0"], 2, "--token-file"),
        (["MODEL", "--token-file", "none"], 3, "none"),
        (["MODEL", "--port", "99999"], 2, "--port"),
        (["MODEL", "--replicas", "0"], 2, "--replicas"),
    ],
)
def test_a_mistake_is_told_before_ray_starts(
    arguments: list[str], code: int, told: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([str(exported) if a == "MODEL" else a for a in arguments]) == code
    assert told in capsys.readouterr().err


def test_a_busy_port_is_one_error(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        assert main([str(exported), "--port", port, "--store", str(tmp_path / "store")]) == 3
    assert "choose another --port" in capsys.readouterr().err
