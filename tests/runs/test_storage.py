"""Runs in a store: the mirror equals the run, a run goes on from the mirror alone, outages, errors, no secrets.

The server is a real one, see `s3_server`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from s3_server import BUCKET, KEY, SECRET, S3Server

import raymeta
from raymeta.adaptation.problem import Learned
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.errors import ConfigError, DataError, EnvironmentProblem
from raymeta.evaluate import main as evaluate
from raymeta.runs.__main__ import main as runs
from raymeta.runs.mirror import Mirror
from raymeta.runs.restore import last_checkpoint, restore
from raymeta.runs.rows import JsonLines
from raymeta.system.files import write_json
from raymeta.system.redact import without_secrets
from raymeta.system.remote import Remote
from raymeta.train import main as train

SMALL: dict[str, Any] = {
    "model.width": 4,
    "meta_batch_size": 4,
    "shard_size": 2,
    "validate_every": 0,
    "test_episodes": 4,
    "checkpoint_every": 2,
    "steps": 8,
}
OPTIONS = [f"{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    running = S3Server(tmp_path_factory.mktemp("s3") / "log")
    running.start()
    running.make_bucket()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and no credentials but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def content(place: Path | Remote) -> dict[str, bytes]:
    """All files of a folder, its lock apart, or of a store, by name."""
    if isinstance(place, Remote):
        return {name: place.read(name) or b"" for name in place.files()}
    files = [path for path in place.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(place)): path.read_bytes() for path in files}


def sha256(run: raymeta.Run) -> str:
    return str((run.summary or {})["params_sha256"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> raymeta.Run:
    return raymeta.meta_train(output=str(tmp_path_factory.mktemp("undisturbed")), **SMALL)


# A run and its mirror


def test_the_printed_configuration_holds_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--print-config", "--mirror", f"s3://{KEY}:SECRET@bucket/x"]) == 0
    assert "mirror: s3://bucket/x\n" in capsys.readouterr().out


def test_the_mirror_equals_the_run_and_holds_no_secret(
    server: S3Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another/SECRET+of40charactersinthisvariable")
    assert train(["--output", server.uri("equal"), "--log-format", "plain", *OPTIONS]) == 0
    (run,) = Path("results").glob("2*")
    remote = Remote.open(server.uri("equal")) / run.name
    local = content(run)
    assert content(remote) == local
    assert {name.split("/")[1] for name in local if name.endswith("state.json")} == {
        "step-00000004",
        "step-00000006",
        "step-00000008",
    }
    written = b"".join([*local.values(), *map(str.encode, local), *map(str.encode, capfd.readouterr())])
    assert f"s3://{BUCKET}/equal?endpoint".encode() in written
    for secret in (KEY, SECRET, remote.uri.split("@")[0].split(":")[2], "another/SECRET"):
        assert secret.encode() not in written


def test_a_failed_run_is_mirrored_and_holds_no_secret(server: S3Server, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--output", server.uri("failed"), *OPTIONS, "algorithm.inner_lr=1e30", "--verbose"]
    assert train(options) == 1
    (run,) = Path("results").glob("2*")
    remote = Remote.open(server.uri("failed")) / run.name
    assert json.loads(remote.read("run.json") or b"")["status"] == "failed"
    assert content(remote) == content(run)
    written = b"".join([*content(run).values(), *map(str.encode, capfd.readouterr())])
    assert KEY.encode() not in written
    assert SECRET.encode() not in written


def test_a_run_goes_on_from_the_mirror_alone(server: S3Server, undisturbed: raymeta.Run) -> None:
    first = raymeta.meta_train(output=server.uri("resumed"), **{**SMALL, "steps": 5})
    shutil.rmtree("results")
    uri = server.uri(f"resumed/{first.id}")
    resumed = raymeta.meta_train(resume=uri, steps=8)
    assert resumed.path == Path("results") / first.id
    assert sha256(resumed) == sha256(undisturbed)
    assert [row["step"] for row in resumed.metrics()] == list(range(1, 9))
    assert resumed.info["attempt"] == 2
    assert content(Remote.open(uri)) == content(resumed.path), "it is mirrored where it came from"


def test_commands_read_a_run_from_its_uri(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    run = raymeta.meta_train(output=server.uri("read"), **{**SMALL, "steps": 2})
    shutil.rmtree("results")
    folder, uri = server.uri("read"), server.uri(f"read/{run.id}")
    assert runs(["ls", folder, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["status"], row["step"]) == (run.id, "finished", 2)
    for arguments in (["show", uri], ["show", "latest", "--output", folder]):
        assert runs(arguments) == 0
        out = capsys.readouterr().out
        assert "finished after 2 steps" in out
        assert f"s3://{BUCKET}/read/{run.id}" in out
        assert SECRET not in out
    assert evaluate([uri, "--episodes", "4", "--json"]) == 0
    (scored,) = json.loads(capsys.readouterr().out)["runs"]
    assert scored["headline"]["episodes"] == 4
    assert any(name.startswith("eval/test-5w1s") for name in Remote.open(uri).files()), "the scores are stored there"
    assert [row["step"] for row in raymeta.load_run(uri).metrics()] == [1, 2]
    assert not Path("results").exists()
    with pytest.raises(DataError, match=r"read/nothing\?.* holds no run; raymeta runs ls s3://meta-learning/read\?"):
        raymeta.load_run(server.uri("read/nothing"))


def test_any_file_system_of_pyarrow_will_do(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    run = raymeta.meta_train(output="here", mirror=store, **{**SMALL, "steps": 2})
    assert run.path.parent == Path("here")
    assert content(tmp_path / "store" / run.id) == content(run.path)
    shutil.rmtree("here")
    assert raymeta.meta_train(resume=f"{store}/{run.id}", steps=3).info["step"] == 3


# Errors at the start: one clear text, exit code 3 or 2, and nothing written


def fails(capsys: pytest.CaptureFixture[str], code: int, options: list[str], *texts: str) -> None:
    assert train([*options, *OPTIONS]) == code
    error = capsys.readouterr().err
    assert error.startswith("raymeta train: ")
    assert error.count("\n") == 1
    for text in texts:
        assert text in error
    assert SECRET not in error
    assert not Path("results").exists()


def test_a_wrong_bucket_is_named(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 3, ["--output", server.uri("x", bucket="no-such-one")], "no bucket «no-such-one»", "create it")
    fails(capsys, 3, ["--dry-run", "--output", server.uri("x", bucket="no-such-one")], "no bucket «no-such-one»")


def test_no_credentials(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    uri = server.uri("x", credentials="")
    fails(capsys, 3, ["--output", uri], "access was refused", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")


def test_refused_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strict = S3Server(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="0")
    strict.start()
    try:
        fails(capsys, 3, ["--output", strict.uri("x")], "access was refused", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
    finally:
        strict.stop()


def test_a_port_that_nobody_listens_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = S3Server(tmp_path / "log").uri("x")
    fails(capsys, 3, ["--output", uri], "does not answer", "endpoint_override", "127.0.0.1")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--output", "s4://bucket/x"], ["s4:// is not known", "s3, gs"]),
        (["--output", f"s3://{KEY}:{SECRET}@bucket/x"], ["no URI", "%2F"]),
        (["--output", "s3://bucket/x?bogus=1"], ["bogus"]),
        (["--mirror", "results"], ["a mirror is a URI"]),
        (["--mirror", "s3://bucket/x", "--output", "s3://bucket/y"], ["local folder"]),
    ],
)
def test_a_uri_that_is_none(options: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 2, options, *texts)


# The mirror by itself


class Writer:
    """A run's folder written by hand: rows, checkpoints, `run.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = CheckpointStore(folder / "checkpoints", keep=2)
        self._rows = JsonLines(folder / "metrics.jsonl")

    def step(self, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows.append({"step": step})
        self.store.save(Checkpoint(step, Learned({"w": torch.full((3,), float(step))}, {}), {}))
        write_json(self.folder / "run.json", {"step": step})


def wait_for(remote: Remote, checkpoint: str) -> None:
    deadline = time.monotonic() + 60
    while last_checkpoint(remote) < checkpoint:
        assert time.monotonic() < deadline, remote.files()
        time.sleep(0.05)


def test_a_checkpoint_ends_with_its_state_and_comes_after_its_rows(server: S3Server, tmp_path: Path) -> None:
    run = Writer(tmp_path / "order")
    run.step(1)
    (run.folder / "events.jsonl").write_text('{"kind": "checkpoint"}\n')
    before = len(server.requests("PUT"))
    with Mirror(run.folder, Remote.open(server.uri("order")), every_s=60):
        pass
    sent = [path.partition("/order/")[2] for path in server.requests("PUT")[before:]]
    step = "checkpoints/step-00000001"
    assert sent == [
        "metrics.jsonl",
        f"{step}/outer.safetensors",
        f"{step}/params.safetensors",
        f"{step}/state.json",
        "checkpoints/index.json",
        "events.jsonl",
        "run.json",
    ]


def test_old_checkpoints_are_deleted_in_the_store_too(server: S3Server, tmp_path: Path) -> None:
    run, remote = Writer(tmp_path / "pruned"), Remote.open(server.uri("pruned"))
    run.step(1)
    with Mirror(run.folder, remote, every_s=0.05):
        for step in range(2, 6):
            run.step(step)
            wait_for(remote, f"step-{step:08d}")
    assert content(remote) == content(run.folder)
    assert run.store.names() == ["step-00000005", "step-00000004"]
    shutil.rmtree(run.folder)
    run.folder.mkdir()
    with Mirror(run.folder, remote, every_s=60):
        pass
    assert last_checkpoint(remote) == "step-00000005", "an emptied disk deletes nothing in the store"


def test_half_a_checkpoint_is_none(server: S3Server, tmp_path: Path) -> None:
    run, remote = Writer(tmp_path / "torn"), Remote.open(server.uri("torn"))
    run.step(1)
    with Mirror(run.folder, remote):
        pass
    run.step(2)
    for name in ("params.safetensors", "outer.safetensors"):  # and then the machine died
        name = f"checkpoints/step-00000002/{name}"
        remote.write(name, run.folder / name)
    path, _ = restore(remote, tmp_path / "fresh")
    checkpoint, problems = CheckpointStore(path / "checkpoints").load_last()
    assert checkpoint is not None
    assert (checkpoint.step, problems) == (1, [])
    assert not (path / "checkpoints" / "step-00000002").exists()
    with Mirror(path, remote):
        pass
    assert not [name for name in remote.files() if "step-00000002" in name], "the torn one is cleared away"


def test_a_damaged_upload_is_noticed(server: S3Server, tmp_path: Path) -> None:
    run, remote = Writer(tmp_path / "damaged"), Remote.open(server.uri("damaged"))
    run.step(1)
    run.step(2)
    with Mirror(run.folder, remote):
        pass
    remote.write("checkpoints/step-00000002/params.safetensors", b"half")
    path, _ = restore(remote, tmp_path / "fresh")
    checkpoint, problems = CheckpointStore(path / "checkpoints").load_last()
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert "damaged" in problems[0]


def test_restore_keeps_what_is_newer_here_and_moves_aside_what_is_older(server: S3Server, tmp_path: Path) -> None:
    run, remote = Writer(tmp_path / "both"), Remote.open(server.uri("both"))
    run.step(1)
    with Mirror(run.folder, remote):
        pass
    run.step(2)
    path, notes = restore(remote, tmp_path)
    assert path == run.folder
    assert "as new as" in notes[0]
    assert last_checkpoint(path) == "step-00000002"
    with Mirror(run.folder, remote):
        pass
    shutil.rmtree(run.folder / "checkpoints" / "step-00000002")
    path, notes = restore(remote, tmp_path)
    assert last_checkpoint(path) == "step-00000002"
    (aside,) = tmp_path.glob("both_replaced_*")
    assert str(aside) in notes[0]
    assert last_checkpoint(aside) == "step-00000001"


def test_a_store_that_is_gone_at_the_end_is_an_error_that_lists_the_rest(tmp_path: Path) -> None:
    gone = Remote.open("file:///proc/nobody-can-write-here")
    run = Writer(tmp_path / "gone")
    run.step(1)

    def end(error: Exception | None = None) -> None:
        with Mirror(run.folder, gone, patience_s=0):
            if error is not None:
                raise error

    with pytest.raises(EnvironmentProblem, match=r"6 files .* are not in its mirror: .*cannot be written.*--resume"):
        end()
    with pytest.raises(ConfigError, match="the first error") as caught:
        end(ConfigError("the first error"))
    assert "are not in its mirror" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_store_that_goes_and_comes_back_without_its_files(tmp_path: Path) -> None:
    server = S3Server(tmp_path / "log")
    server.start()
    server.make_bucket()
    run, remote = Writer(tmp_path / "outage"), Remote.open(server.uri("outage"))
    notices: list[str] = []
    try:
        with Mirror(run.folder, remote, every_s=0.1) as mirror:
            run.step(1)
            wait_for(remote, "step-00000001")
            server.stop()
            for step in range(2, 5):
                run.step(step)
            deadline = time.monotonic() + 60
            while not notices and time.monotonic() < deadline:
                notices += mirror.notices()
                time.sleep(0.1)
            server.start()
            server.make_bucket()
            wait_for(remote, "step-00000004")
        notices += mirror.notices()
        assert content(remote) == content(run.folder)
        assert len(notices) == 2
        assert "does not answer" in notices[0]
        assert "up to date again" in notices[1]
    finally:
        server.stop()


# Kills and outages of whole runs


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "raymeta.train", "--log-format", "plain", *options]


def wait_for_mirrored_checkpoint(folder: Remote, process: subprocess.Popen[str]) -> Remote:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for name in folder.folders():
            if last_checkpoint(folder / name) and (folder / name).read("run.json"):
                return folder / name
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no checkpoint in the store")


@pytest.mark.slow
def test_driver_killed_and_its_disk_lost_the_mirror_ends_with_the_same_bits(server: S3Server, tmp_path: Path) -> None:
    options = [*OPTIONS, "steps=150", "validate_every=25", "validation_episodes=4", "threads_per_worker=1"]
    assert train(["--output", "quiet", *options, "-q"]) == 0
    expected = raymeta.load_run("latest", output="quiet")
    killed = subprocess.Popen(
        command("--output", server.uri("killed"), *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    remote = wait_for_mirrored_checkpoint(Remote.open(server.uri("killed")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (lost,) = Path("results").glob("2*")
    assert not (lost / "summary.json").exists(), "killed before it was done"
    shutil.rmtree("results")
    resumed = raymeta.meta_train(resume=remote.uri)
    assert sha256(resumed) == sha256(expected)
    assert (resumed.summary or {})["headline"] == (expected.summary or {})["headline"]
    assert [row["step"] for row in resumed.metrics()] == list(range(1, 151))
    assert content(remote) == content(resumed.path)


@pytest.mark.slow
def test_a_server_that_stops_during_a_run_costs_no_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = S3Server(tmp_path / "log")
    server.start()
    server.make_bucket()
    process = subprocess.Popen(
        command("--output", server.uri("outage"), *OPTIONS, "steps=100000", "time_limit=40s"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        remote = wait_for_mirrored_checkpoint(Remote.open(server.uri("outage")), process)
        server.stop()
        time.sleep(12)
        server.start()
        server.make_bucket()
        out, error = process.communicate(timeout=120)
    finally:
        process.kill()
        server_content = content(remote)
        server.stop()
    assert process.returncode == 0, error
    assert "warning: the mirror waits" in error
    assert "up to date again" in error
    (run,) = Path("results").glob("2*")
    assert server_content == content(run)
    assert SECRET not in out + error


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_with_what_is_missing(tmp_path: Path) -> None:
    server = S3Server(tmp_path / "log")
    server.start()
    server.make_bucket()
    process = subprocess.Popen(
        command("--output", server.uri("away"), *OPTIONS, "steps=100000", "compile=false"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_mirrored_checkpoint(Remote.open(server.uri("away")), process)
        server.stop()
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 3, error
        assert "are not in its mirror" in error
        server.start()
        server.make_bucket()
        (run,) = Path("results").glob("2*")
        step = raymeta.load_run(run).info["step"]
        again = subprocess.run(
            command("--resume", str(run), "--mirror", server.uri("away"), "--steps", str(step + 1)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 0, again.stderr
        assert content(Remote.open(server.uri(f"away/{run.name}"))) == content(run)
    finally:
        process.kill()
        server.stop()


# Text without credentials


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("s3://KEY:SEC%2FRET@bucket/a b", "s3://bucket/a b"),
        ("s3://KEY:SEC/RET@bucket/a", "s3://bucket/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/a"),
        ("abfs://account:pass@box/x?client_secret=abc&y=1", "abfs://box/x?client_secret=***&y=1"),
        ("x?X-Amz-Signature=abc https://u:p@h/", "x?X-Amz-Signature=*** https://h/"),
        ("hdfs://host:8020/data", "hdfs://host:8020/data"),
        ("token abcd-efgh-1234 of HF", "token *** of HF"),
        ("a short one: true", "a short one: true"),
    ],
)
def test_text_without_secrets(text: str, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "abcd-efgh-1234")
    monkeypatch.setenv("SOME_API_KEY", "true")
    assert without_secrets(text) == clean
