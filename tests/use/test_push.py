"""An exported model on a hub: what arrives is the folder, and every refusal is one clear error that loses nothing."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta import export

NAMES = ["README.md", "config.yaml", "model.json", "model.safetensors"]


class Hub(ThreadingHTTPServer):
    """A stand-in for a hub: keeps what is committed, and answers as the real one does, or refuses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            return self.answer(403, {"error": "You may not write here"})
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.answer(200, {"url": f"{self.server.address}/me/mine"})
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.answer(200, {"files": modes})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.address}/me/mine/commit/{'0' * 40}"
            return self.answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url})
        return self.answer(200, {})

    def do_GET(self) -> None:
        self.answer(200, {"id": "me/mine", "sha": "0" * 40, "siblings": []})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    options: dict[str, Any] = {"model.hidden": [4], "meta_batch_size": 2, "validate_every": 0, "test_episodes": 2}
    output = tmp_path_factory.mktemp("runs")
    return str(raymeta.meta_train("sinusoid-maml", steps=1, output=str(output), **options).path)


def test_what_arrives_is_the_folder(hub: Hub, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert export.main([run, "--out", str(out), "--license", "Apache-2.0", "--push", "me/mine"]) == 0
    assert sorted(hub.files) == NAMES
    for name in NAMES:
        assert hub.files[name] == (out / name).read_bytes()
    (created,) = hub.created
    assert created.get("private") or created.get("visibility") == "private"  # the older word, and the newer
    assert hub.tokens == {"Bearer hf_secret"}
    assert "| licence | Apache-2.0 |" in (out / "README.md").read_text()
    assert json.loads((out / "model.json").read_text())["license"] == "Apache-2.0"
    said = capsys.readouterr()
    assert f"pushed to {hub.address}/me/mine" in said.out
    assert "hf_secret" not in said.out + said.err


def test_a_hub_that_refuses_leaves_the_folder(
    hub: Hub, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = True
    assert export.main([run, "--out", str(tmp_path / "model"), "--push", "me/mine"]) == 3
    said = capsys.readouterr().err
    assert "--push me/mine: " in said
    assert "hf auth login" in said
    assert raymeta.from_pretrained(tmp_path / "model").name


@pytest.mark.parametrize("repo", ["mine", "me/", "/mine", "me/mine/more"])
def test_a_name_that_is_none_is_told_before_anything_is_written(repo: str, run: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    assert export.main([run, "--out", str(tmp_path / "model"), "--push", repo]) == 2
    assert not (tmp_path / "model").exists()


def test_without_the_package_it_is_named(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("raymeta.use.push.find_spec", lambda name: None)
    assert export.main([run, "--out", str(tmp_path / "model"), "--push", "me/mine"]) == 3
    assert "pip install 'raymeta[hub]'" in capsys.readouterr().err
