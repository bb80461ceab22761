"""The dashboard's server, as a real process: what it serves, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from looking import HOSTILE

from raymeta.dashboard.guard import host_of, inside

LookedAt = tuple[Path, dict[str, Any]]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`python -m raymeta.dashboard` at a free port of this machine."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "raymeta.dashboard", str(folder), "--port", "0", "--ray", "", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.port = int(self.line.split("http://")[1].split("/")[0].rsplit(":", 1)[1])

    def get(self, target: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, target, skip_host="Host" in named, skip_accept_encoding=True)
        for name, value in named.items():
            connection.putheader(name, value)
        connection.endheaders()
        found = connection.getresponse()
        answer = Answer(found.status, dict(found.getheaders()), found.read())
        connection.close()
        return answer

    def raw(self, data: bytes, *, last: bool = False) -> int:
        """The status of an answer to bytes that no client would send; 0 for a connection that was closed.

        `last`: say that nothing more comes.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            if last:
                connection.shutdown(socket.SHUT_WR)
            line = connection.makefile("rb").readline()
        return int(line.split()[1]) if line else 0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def server(looked_at: LookedAt) -> Iterator[Server]:
    server = Server(looked_at[0])
    yield server
    assert server.stop() == 0


def test_runs_are_a_json_list_newest_first(server: Server, looked_at: LookedAt) -> None:
    rows = server.get("/api/runs").json()
    assert {row["id"] for row in rows} == {run.id for run in looked_at[1].values()}
    assert [row["created"] for row in rows] == sorted((row["created"] for row in rows), reverse=True)
    by_id = {row["id"]: row for row in rows}
    assert by_id[looked_at[1]["maml0"].id]["headline"] == looked_at[1]["maml0"].headline
    assert by_id[looked_at[1]["lost"].id]["status"] == "lost"
    assert by_id[looked_at[1]["hostile"].id]["name"] == HOSTILE


def test_files_of_a_run_are_served_as_text_that_cannot_act(server: Server, looked_at: LookedAt) -> None:
    run = looked_at[1]["maml0"]
    for name in ("config.yaml", "metrics.jsonl", "summary.json", "eval/test.json"):
        answer = server.get(f"/files/{run.id}/{name}")
        assert answer.status == 200
        assert answer.body == (run.path / name).read_bytes()
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    picture = min((run.path / "eval" / "episodes").glob("*.png"))
    assert server.get(f"/files/{run.id}/eval/episodes/{picture.name}").headers["Content-Type"] == "image/png"
    saved = server.get(f"/files/{run.id}/checkpoints/index.json")
    assert saved.status == 200


@pytest.mark.parametrize(
    "path", ["runs", "compare?runs={maml0},{maml1},{gone}", "cluster", "run/{maml0}", "run/{hostile}"]
)
def test_a_page_changes_its_tag_only_when_it_changes(path: str, server: Server, looked_at: LookedAt) -> None:
    ids = {name: quote(run.id, safe="") for name, run in looked_at[1].items()} | {"gone": "gone"}
    target = "/api/pages/" + path.format(**ids)
    first = server.get(target)
    assert first.status == 200
    assert first.json()["title"]
    if not path.startswith("cluster"):  # which tells the machine's load
        again = server.get(target, If_None_Match=first.headers["ETag"])
        assert (again.status, again.body) == (304, b"")


def test_a_trial_of_a_sweep_is_a_run_like_any_other(server: Server) -> None:
    page = server.get("/api/pages/sweep/2026-11-20_0930_rates_abcd").json()
    (table,) = [b for s in page["sections"] if s["id"] == "trials" for b in s["blocks"] if b["type"] == "table"]
    trial = table["rows"][0][0]["run"]
    assert server.get("/api/pages/run/" + quote(trial, safe="")).json()["status"] == "finished"
    assert server.get(f"/files/{quote(trial, safe='')}/config.yaml").status == 200


def test_every_answer_carries_the_headers_of_safety(server: Server, looked_at: LookedAt) -> None:
    for target in (
        "/",
        "/run/x",
        "/api/runs",
        "/static/app.js",
        "/static/plotly.min.js",
        "/api/pages/run/none",
        "/none",
    ):
        headers = server.get(target).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy.pop("style-src") == "'self' 'unsafe-inline'"  # which plotly.js needs; scripts may not be inline
        assert policy.pop("img-src") == "'self' data: blob:"
        assert policy.pop("script-src") == policy.pop("connect-src") == "'self'"
        assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
        assert set(policy.values()) == {"'none'"}
        assert headers["Server"] == "raymeta"


OUTSIDE = [
    "/files/{run}/../../secret.txt", "/files/{run}/..%2f..%2fsecret.txt", "/files/{run}/%2e%2e/%2e%2e/secret.txt",
    "/files/{run}/%2e%2e%2f%2e%2e%2fsecret.txt", "/files/{run}/..%252f..%252fsecret.txt", "/files/{run}/....//secret",
    "/files/{run}/eval/../../../secret.txt", "/files/{run}/..\\..\\secret.txt", "/files/{run}/..%5c..%5csecret.txt",
    "/files/{run}//etc/passwd", "/files/{run}/%2fetc%2fpasswd", "/files/{run}/etc/passwd", "/files/{run}/x%00",
    "/files/{run}/link.txt", "/files/{run}/folder-link/secret.txt", "/files/{run}/loop", "/files/{run}/.hidden",
    "/files/{run}/.git/config", "/files/{run}/", "/files/{run}/eval", "/files/{run}/pipe", "/files/{run}/" + "a" * 3000,
    "/files/{run}/" + "a/" * 1500 + "b", "/files/..%2f/secret.txt", "/files/%2e%2e/secret.txt", "/files/../secret.txt",
    "/files/sweeps/2026-11-20_0930_rates_abcd/summary.json", "/files/sweeps%2f2026-11-20_0930_rates_abcd/summary.json",
    "/files/2026-11-20_0930_rates_abcd~..%2f..%2f/secret.txt", "/files/2026-11-20_0930_rates_abcd~/summary.json",
    "/files/{run}%2f..%2f/secret.txt", "/files/*/config.yaml", "/files/.gitignore/x", "/files/none/config.yaml",
    "/static/..%2fserver.py", "/static/../server.py", "/static/%2e%2e%2f%2e%2e%2ferrors.py", "/static/..%5cserver.py",
    "/static/guard.py", "/api/pages/run/..%2f..", "/api/pages/run/%00", "/api/pages/run/.", "/api/pages/sweep/..%2f..",
    "/api/pages/sweep/.", "/api/pages/compare", "/api/pages/compare?runs=..%2f,.,%00", "/api/pages/none", "/api",
]  # fmt: skip


@pytest.fixture
def besieged(looked_at: LookedAt, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server over a folder beside a secret, with links and pipes that lead out of a run."""
    folder = tmp_path / "results"
    shutil.copytree(looked_at[0], folder)
    (tmp_path / "secret.txt").write_text("SECRET")
    (folder / "secret.txt").write_text("SECRET")
    run = folder / looked_at[1]["maml0"].id
    (run / "link.txt").symlink_to(tmp_path / "secret.txt")
    (run / "folder-link").symlink_to(tmp_path)
    (run / "loop").symlink_to(run / "loop")
    (run / ".hidden").write_text("SECRET")
    os.mkfifo(run / "pipe")
    server = Server(folder)
    yield server, run.name
    assert server.stop() == 0
    assert server.process.stderr is not None
    assert "Traceback" not in server.process.stderr.read()


def test_hostile_requests_are_refused_and_the_server_lives(besieged: tuple[Server, str]) -> None:
    server, run = besieged
    assert len(OUTSIDE) >= 40
    for target in OUTSIDE:
        status = server.raw(f"GET {target.format(run=run)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert status in (400, 403, 404, 414), (target, status)
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7007", "", "169.254.169.254",
                 "localhost:99999evil", "[::1].evil", "127.0.0.1@evil.example", "LOCALHOST/evil"):  # fmt: skip
        assert server.get("/api/runs", Host=host).status in (400, 403), host
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"):
        assert server.get("/api/runs", method).status in (400, 403, 404, 405), method
    assert server.get("/api/runs", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 403
    for data in (
        b"\r\n\r\n", b"GET\r\n\r\n", b"\x00" * 500, b"GET / HTTP/9.9\r\n\r\n", b"GET http://evil/ HTTP/1.1\r\n\r\n",
        b"GET /api/runs HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"z" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):  # fmt: skip
        assert server.raw(data, last=True) in (0, 400, 403, 431, 505), data[:60]
    assert server.get("/api/runs").status == 200


def test_a_run_that_is_deleted_while_it_is_open_is_gone_and_nothing_else(besieged: tuple[Server, str]) -> None:
    server, run = besieged
    before = len(server.get("/api/runs").json())
    assert server.get(f"/api/pages/run/{run}").status == 200
    folder = Path(server.process.args[3])  # type: ignore[index]
    shutil.rmtree(folder / run)
    assert server.get(f"/api/pages/run/{run}").status == 404
    assert len(server.get("/api/runs").json()) == before - 1
    shutil.rmtree(folder)
    assert server.get("/api/runs").json() == []
    assert server.get("/api/pages/runs").json()["runs"] == []


def test_what_a_running_run_writes_is_there_at_the_next_look(tmp_path: Path) -> None:
    from raymeta.runs.write import RunWriter

    server = Server(tmp_path)
    try:
        writer = RunWriter(tmp_path / "live", steps=10, name="live")
        first = server.get("/api/pages/run/live")
        assert first.json()["live"]
        assert server.get("/api/pages/run/live", If_None_Match=first.headers["ETag"]).status == 304
        writer.step(1, {"train/query_loss": 1.0, "tasks_per_s": 3.0})
        writer.step(2, {"train/query_loss": 0.5, "tasks_per_s": 3.0})
        second = server.get("/api/pages/run/live", If_None_Match=first.headers["ETag"])
        (loss,) = [b for s in second.json()["sections"] for b in s["blocks"] if b.get("key") == "losses"]
        assert loss["spec"]["data"][0]["y"] == [1.0, 0.5]
        writer.finish("finished")
        writer.close()
        assert not server.get("/api/pages/run/live").json()["live"]
    finally:
        server.stop()


def test_any_other_host_needs_the_token(tmp_path: Path) -> None:
    server = Server(tmp_path, "--host", "0.0.0.0")
    try:
        token = server.line.split("token=")[1].split()[0]
        assert len(token) >= 20
        assert server.get("/api/runs").status == 401
        assert server.get("/static/app.js").status == 401
        assert server.get("/api/runs?token=wrong", Host="evil.example").status == 401
        assert server.get("/api/runs", Cookie="raymeta_token=wrong").status == 401
        assert server.get("/api/runs", Authorization="Bearer wrong").status == 401
        let_in = server.get(f"/?token={token}&filter=a")
        assert (let_in.status, let_in.headers["Location"]) == (303, "/?filter=a")
        cookie = let_in.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert server.get("/api/runs", Cookie=cookie.split(";")[0]).status == 200
        assert server.get("/api/runs", Authorization=f"Bearer {token}").status == 200
    finally:
        server.stop()


def test_mistakes_of_the_command_are_told_in_one_line(looked_at: LookedAt, tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    run = str(looked_at[1]["maml0"].path)
    cases = {
        (run,): (2, "is a single run"),
        (str(tmp_path), "--port", str(taken.getsockname()[1])): (3, "choose another --port"),
        (str(tmp_path), "--port", "70000"): (2, "between 0 and 65535"),
        (str(tmp_path), "--token", "short"): (2, "at least 8 characters"),
        (str(tmp_path), "--ray", "ftp://x"): (2, "--ray ftp://x"),
    }
    for options, (code, text) in cases.items():
        done = subprocess.run(
            [sys.executable, "-m", "raymeta.dashboard", *options], capture_output=True, text=True, check=False
        )
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
    taken.close()


def test_hosts_and_paths() -> None:
    assert [host_of(h) for h in ("127.0.0.1:7007", "LocalHost", "[::1]:80", "[::1]x", "a:b", "a:1:2")] == [
        "127.0.0.1", "localhost", "::1", "", "", "",
    ]  # fmt: skip
    assert inside(Path("/nowhere"), "a") is None


def test_the_ray_dashboard_is_asked_and_its_absence_is_calm(tmp_path: Path) -> None:
    import asyncio

    from aiohttp import web

    from raymeta.dashboard.ray_nodes import nodes

    summary = {
        "data": {"summary": [{"hostname": "a", "cpu": 12.34, "mem": [8, 4, 50.0], "raylet": {"state": "ALIVE"}}]}
    }

    async def healthy(request: web.Request) -> web.Response:
        return web.json_response(summary)

    async def sick(request: web.Request) -> web.Response:
        return web.json_response({"data": [1]})

    async def ask() -> list[Any]:
        app = web.Application()
        app.router.add_get("/nodes", healthy)
        app.router.add_get("/sick/nodes", sick)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found = [
            await nodes(url),
            await nodes(f"{url}/sick"),
            await nodes(f"{url}/none"),
            await nodes("http://127.0.0.1:9"),
        ]
        await runner.cleanup()
        return found

    assert asyncio.run(ask()) == [
        [{"name": "a", "state": "alive", "cpu": 12.3, "memory": 50.0, "gpus": 0}], None, None, None,
    ]  # fmt: skip
