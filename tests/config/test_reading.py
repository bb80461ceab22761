"""Files that never answer, never end or are nested without end: each is one clear error, wherever it is read."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import raymeta
from raymeta.config.__main__ import main as config
from raymeta.dashboard.library import Library
from raymeta.errors import DataError
from raymeta.evaluate import main as evaluate
from raymeta.report import main as report
from raymeta.runs.__main__ import main as runs
from raymeta.runs.read import Run
from raymeta.runs.restore import fetch
from raymeta.system.reading import open_regular, parse_json, read_regular
from raymeta.system.remote import Remote
from raymeta.train import main as train
from raymeta.tune import main as tune
from raymeta.views.pages.run import run_page
from raymeta.views.pages.runs import runs_page
from raymeta.views.pages.sweep import sweep_page
from raymeta.views.sources.bench import BenchSource
from raymeta.views.sources.run import RunSource
from raymeta.views.sources.sweep import SweepSource

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
SMALL: dict[str, Any] = {"model.hidden": [8], "meta_batch_size": 2, "shard_size": 1, "steps": 2, "test_episodes": 4}
DEEP = 100_000
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
AT_ONCE_S = 20.0
"""Hostile files cost no more than the import of what reads them."""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def folder(path: Path) -> None:
    path.mkdir()


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 40 * 2**30)


def text(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)

    return make


KINDS: dict[str, Callable[[Path], None]] = {
    **{make.__name__: make for make in (pipe, device, listening, folder, sparse)},
    "lists": text("[" * DEEP),
    "closed lists": text("[" * DEEP + "]" * DEEP),
    "mappings": text('{"a":' * DEEP),
    "mappings of YAML": text("".join(f"{' ' * i}a:\n" for i in range(500))),
    "keys": text(".".join("a" * DEEP) + ": 1\n"),
    "aliases": text(LAUGHS),
    "an alias of itself": text("a: &a [*a]\n"),
    "digits": text(f'{{"seed": {"1" * 5000}}}'),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = str(tmp_path_factory.mktemp("runs"))
    return raymeta.meta_train("sinusoid-maml", output=output, validate_every=0, **SMALL)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    shutil.copytree(finished.path, tmp_path / finished.id)
    return Run.open(tmp_path / finished.id)


def put(kind: str, path: Path) -> None:
    if path.exists():
        path.unlink()
    KINDS[kind](path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "command",
    [
        lambda path: config(["check", str(path)]),
        lambda path: config(["diff", str(path), "sinusoid-maml"]),
        lambda path: train(["-c", str(path), "--dry-run"]),
        lambda path: tune(["-c", str(path), "--dry-run"]),
    ],
    ids=["check", "diff", "train", "tune"],
)
def test_configurations(
    kind: str, command: Callable[[Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(kind, tmp_path / "file.yaml")
    began = time.process_time()
    assert command(tmp_path / "file.yaml") == 2
    assert time.process_time() - began < AT_ONCE_S
    told = capsys.readouterr().err
    assert str(tmp_path / "file.yaml") in told
    assert "Error" not in told
    assert len(told) < 5_000


FILES = ["run.json", "config.yaml", "summary.json", "metrics.jsonl", "events.jsonl", "eval/test.json", "command.txt"]
FILES += ["checkpoints/index.json", "checkpoints/step-00000002/state.json"]
FILES += ["checkpoints/step-00000002/params.safetensors", "checkpoints/step-00000002/outer.safetensors"]
READERS: dict[str, Callable[[Run], object]] = {
    "ls": lambda run: runs(["ls", str(run.path.parent)]),
    "show": lambda run: runs(["show", str(run.path)]),
    "compare": lambda run: runs(["compare", str(run.path), str(run.path)]),
    "export": lambda run: runs(["export", str(run.path), "-o", str(run.path.parent / "out")]),
    "report": lambda run: report([str(run.path), "-o", str(run.path.parent / "report.html")]),
    "evaluate": lambda run: evaluate([str(run.path), "--episodes", "2", "--no-save"]),
    "resume": lambda run: train(["--resume", str(run.path), "--dry-run"]),
    "page": lambda run: run_page(RunSource(run.path)),
    "list": lambda run: runs_page("runs", Library(run.path.parent).runs(), []),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_files_of_a_run(kind: str, file: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever reads the run comes to an end, without an error that nobody raised on purpose."""
    put(kind, run.path / file)
    for name, read in READERS.items():
        began = time.process_time()
        code = read(run)
        assert time.process_time() - began < AT_ONCE_S, name
        told = capsys.readouterr().err
        if isinstance(code, int):
            assert code in (0, 2, 3), (name, told)
        assert "run again with -v" not in told, (name, told)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", ["sweep.yaml", "base.yaml", "summary.json", "trials.csv", "records/0000.json"])
def test_files_of_a_sweep(kind: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "records").mkdir(parents=True)
    (sweep / "sweep.yaml").write_text(
        "base: base.yaml\nspace: {algorithm.inner_lr: {choice: [0.1, 0.01]}}\nsamples: 2\n"
    )
    (sweep / "base.yaml").write_text("preset: sinusoid-maml\nsteps: 20\nvalidate_every: 10\n")
    (sweep / "summary.json").write_text("{}")
    put(kind, sweep / file)
    began = time.process_time()
    sweep_page(SweepSource(sweep))
    assert tune(["--resume", str(sweep), "--dry-run"]) in (0, 2, 3)
    assert report([str(sweep), "-o", str(tmp_path / "report.html")]) == 0
    assert time.process_time() - began < AT_ONCE_S
    assert "run again with -v" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "digits"])
def test_measurements(kind: str, tmp_path: Path) -> None:
    put(kind, tmp_path / "bench.json")
    assert BenchSource(tmp_path / "bench.json", "bench.json").problem


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_images(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val", "test"):
        for label in range(2):
            (tmp_path / split / f"{split}{label}").mkdir(parents=True)
            for number in range(4):
                pixels = np.full((8, 8), 20 * number, np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / f"{split}{label}" / f"{number}.png")
    put(kind, tmp_path / "train" / "train0" / "0.png")
    options = ["--tasks", "images", "--tasks.root", str(tmp_path), "--tasks.way", "2", "--tasks.query_shot", "2"]
    began = time.process_time()
    passed_over = kind in ("pipe", "device")  # as no image, and told; a file is one that cannot be read
    assert train([*options, "--dry-run"]) == (0 if passed_over else 3)
    assert time.process_time() - began < AT_ONCE_S
    told = capsys.readouterr()
    assert "0.png" in told.out + told.err


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    put(kind, tmp_path / "it")
    with pytest.raises(OSError, match="no regular file"):
        open_regular(tmp_path / "it")


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"12345")
    assert read_regular(tmp_path / "it", 5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "it", 4)


@pytest.mark.parametrize(("depth", "good"), [(64, True), (65, False), (900, False), (10**6, False)])
def test_depth(depth: int, good: bool) -> None:
    content = "[" * depth + "]" * depth
    if good:
        assert parse_json(content)
    else:
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(content)


def test_aliases_that_end_are_fine_in_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("preset: sinusoid-maml\nsteps: &n 7\nvalidate_every: *n\n")
    assert config(["check", str(tmp_path / "file.yaml")]) == 0


def test_names_in_a_store_lead_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store takes `..` for an ordinary name."""
    (tmp_path / "store").mkdir()
    remote = Remote.open((tmp_path / "store").as_uri())
    monkeypatch.setattr(Remote, "files", lambda self: {"../outside": object()})
    with pytest.raises(DataError, match="outside of the run"):
        fetch(remote, tmp_path / "here")


def test_escape_sequences_never_reach_the_terminal(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    evil = run.path.with_name("evil\x1b]0;pwned\x07\x9b31m")
    run.path.rename(evil)
    events = evil / "events.jsonl"
    row = {"time": 1.0, "attempt": 1, "step": 1, "kind": "warning\x1b[2J", "message": "\x1b[31mred\x07"}
    events.write_text(events.read_text() + json.dumps(row) + "\n")
    for read in [*READERS.values(), lambda run: train(["--resume", str(run.path), "--steps", "3"])]:
        read(Run.open(evil))
    said = capsys.readouterr()
    for stream in (said.out, said.err):
        assert stream
        assert not {c for c in stream if not c.isprintable()} - {"\n", "\t"}
