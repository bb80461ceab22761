"""The terminal shows a run, and nothing it is connected to can hold up or end the training."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from raymeta.errors import ConfigError
from raymeta.system.streams import QuietStream
from raymeta.system.text import clean, duration
from raymeta.trackers import names
from raymeta.trackers.axes import AXES, axis_of
from raymeta.trackers.base import Tracker, WorkerRow
from raymeta.trackers.progress import adaptation_text, sparkline
from raymeta.trackers.scores import Scores, score_text
from raymeta.trackers.terminal import open_terminal

SCORES = Scores("accuracy", [0.2, 0.8, 0.9731], 0.9731, 0.0042, 600)
METRICS = {names.TRAIN_QUERY_LOSS: 0.4123, names.TRAIN_QUERY_ACCURACY: 0.871, names.TASKS_PER_S: 312.4}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)


def opened(mode: str, stream: io.StringIO, clock: Clock, *, quiet: bool = False, title: str = "my run") -> Tracker:
    return open_terminal(
        mode,  # type: ignore[arg-type]
        quiet=quiet,
        title=title,
        steps=100,
        stream=stream,
        clock=clock,
        now=lambda: datetime(2026, 11, 20, 9, 15),
    )


def play(terminal: Tracker, clock: Clock, scores: Scores = SCORES) -> None:
    """100 steps of a second each, and one of everything else."""
    terminal.event("started", "2 workers")
    for step in range(1, 101):
        clock.now += 1.0
        terminal.workers([WorkerRow("w0", "node-a", 1, 8, 156.2, 0), WorkerRow("w1", "node-b", 2, 8, 156.2, 3)])
        terminal.step(step, METRICS)
    terminal.validation(100, scores)
    terminal.event("worker_lost", "w1 on node-b")
    terminal.close()


def test_plain_writes_a_stamped_line_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    play(opened("auto", stream, clock), clock)
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("2026-11-20 09:15:00  ") for line in lines)
    steps = [line for line in lines if "  step " in line]
    assert [re.search(r"step (\d+)/100", line)[1] for line in steps] == [  # type: ignore[index]
        *(str(step) for step in range(1, 100, 10)),
        "100",
    ]
    assert "query loss 0.4123  query accuracy 87.10 %  312 tasks/s  49 s left" in steps[5]
    assert "accuracy 97.31 ± 0.42 % over 600 episodes  adapting 20.00 -> 97.31 % ▁▆█" in lines[-2]
    assert lines[-1].endswith("worker lost: w1 on node-b")


def test_regression_shows_mse() -> None:
    stream, clock = io.StringIO(), Clock()
    play(opened("plain", stream, clock), clock, Scores("mse", [3.2, 0.4, 0.0312], 0.0312, 0.002, 600))
    assert "mse 0.0312 ± 0.002 over 600 episodes  adapting 3.2 -> 0.0312 █▂▁" in stream.getvalue()


def test_json_writes_one_object_a_report() -> None:
    stream, clock = io.StringIO(), Clock()
    play(opened("json", stream, clock), clock)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    kinds = [row["type"] for row in rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"event": 2, "step": 11, "workers": 10, "validation": 1}
    step = next(row for row in rows if row["type"] == "step")
    assert (step["step"], step["steps"], step[names.TRAIN_QUERY_LOSS]) == (1, 100, 0.4123)
    assert next(row for row in rows if row["type"] == "validation")["per_step"] == SCORES.per_step


def test_live_shows_everything_and_ends_with_the_cursor_visible() -> None:
    stream, clock = Screen(), Clock()
    play(opened("auto", stream, clock), clock)
    text = stream.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[text.rindex("my run") :])
    for piece in ("100/100", "query loss 0.4123", "accuracy 97.31 ± 0.42 %", "20.00 -> 97.31 % ▁▆█", "node-b", "156"):
        assert piece in last
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.index("2 workers") < text.rindex("my run")


def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d)(?:;\d+)*m")
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        stream, clock = Screen(), Clock()
        play(opened("live", stream, clock), clock)
        assert bool(colour.search(stream.getvalue())) == (no_color == "")


@pytest.mark.parametrize("mode", ["plain", "live", "json"])
def test_quiet_leaves_only_trouble(mode: str) -> None:
    stream, clock = Screen(), Clock()
    play(opened(mode, stream, clock, quiet=True), clock)
    (line,) = stream.getvalue().splitlines()
    assert "w1 on node-b" in line


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ConfigError, match="«fancy» is none of auto, live, plain, json"):
        opened("fancy", io.StringIO(), Clock())


@pytest.mark.parametrize("mode", ["plain", "live", "json"])
def test_hostile_titles_and_messages_stay_text(mode: str) -> None:
    stream, clock = Screen(), Clock()
    terminal = opened(mode, stream, clock, title="[red]a[/red]\x1b]0;pwned\x07[/]")
    terminal.event("warning", "[/nonsense] \x1b[2J\x9b2J line\nnext")
    terminal.step(100, METRICS)
    terminal.close()
    text = stream.getvalue()
    assert "[red]a[/red]" in text
    assert "[/nonsense]" in text
    assert "\x1b]0;" not in text
    assert "\x1b[2J" not in text
    assert "\x9b" not in text


def test_an_ascii_stream_gets_ascii() -> None:
    raw = io.BytesIO()
    stream, clock = io.TextIOWrapper(raw, encoding="ascii"), Clock()
    play(opened("plain", stream, clock), clock)  # type: ignore[arg-type]
    assert "97.31 +- 0.42 % over 600 episodes  adapting 20.00 -> 97.31 % 168" in raw.getvalue().decode("ascii")


# Streams that break


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A pipe that is full to the brim and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    stream = io.TextIOWrapper(io.FileIO(writing, "wb", closefd=False), encoding="utf-8", write_through=True)
    yield reading, stream
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("mode", ["plain", "live", "json"])
@pytest.mark.parametrize("closing", ["reader", "stream"])
def test_a_closed_stream_makes_the_terminal_quiet(mode: str, closing: str) -> None:
    reading, writing = os.pipe()
    stream, clock = io.TextIOWrapper(io.FileIO(writing, "wb"), encoding="utf-8", write_through=True), Clock()
    terminal = opened(mode, stream, clock)  # type: ignore[arg-type]
    os.close(reading)
    if closing == "stream":
        stream.close()
    play(terminal, clock)


def test_a_stream_closed_before_makes_a_quiet_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    stream.close()
    play(opened("auto", stream, clock), clock)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["plain", "live", "json"])
def test_a_full_pipe_does_not_hold_up_the_training(mode: str, full_pipe: tuple[int, io.TextIOWrapper]) -> None:
    reading, stream = full_pipe
    clock = Clock()
    terminal = opened(mode, stream, clock)  # type: ignore[arg-type]
    for _ in range(2_000):
        terminal.event("warning", "x" * 100)
    terminal.close()
    # Once someone reads, the thread that waited ends: nothing is delivered after the close.
    os.set_blocking(reading, False)
    while any(thread.name == "raymeta-terminal" for thread in threading.enumerate()):
        with contextlib.suppress(BlockingIOError):
            os.read(reading, 65536)


def test_text_arrives_again_once_someone_reads(full_pipe: tuple[int, io.TextIOWrapper]) -> None:
    reading, stream = full_pipe
    outlet = QuietStream(stream)
    outlet.write("hello\n")
    time.sleep(0.05)
    read = b""
    while not read.endswith(b"hello\n"):
        read += os.read(reading, 65536)
    outlet.drain()
    assert not [thread for thread in threading.enumerate() if thread.name == "raymeta-terminal"]


def test_a_process_with_a_full_stderr_ends_by_itself() -> None:
    code = (
        "from raymeta.trackers.terminal import open_terminal\n"
        "terminal = open_terminal('plain', quiet=False, title='t', steps=1)\n"
        "for _ in range(5000): terminal.event('warning', 'x' * 1000)\n"
        "print('trained')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.wait(timeout=60) == 0
    assert process.stdout is not None
    assert process.stdout.read() == b"trained\n"
    process.communicate()


# Texts


def test_texts() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([1.0, 1.0, float("nan")]) == "▁▁?"
    assert sparkline([]) == ""
    assert duration(3_725.4) == "1 h 2 min"
    assert duration(90_061) == "1 d 1 h"
    assert clean("a\x00\x1b[1mb\nc\td") == "a[1mb\n    c d"
    assert score_text("accuracy", 0.5) == "accuracy 50.00 %"
    assert adaptation_text(SCORES._replace(per_step=[])) == ""


def test_a_method_without_inner_steps_is_not_told_of_adapting_and_others_by_their_axis() -> None:
    assert adaptation_text(SCORES._replace(per_step=[0.8648])) == ""
    assert adaptation_text(SCORES).startswith("adapting 20.00 -> 97.31 % ")
    assert adaptation_text(SCORES._replace(axis="instance")).startswith("instances 20.00 -> 97.31 % ")
    assert adaptation_text(SCORES._replace(axis="unroll step")).startswith("optimising ")
    assert [AXES[name].end(4) for name in AXES] == [
        "after 3 inner steps",
        "at instance 4",
        "after 3 steps of the optimisee",
    ]
    assert axis_of("inner step", [0.1, 0.2]) is axis_of(None, [0.1, 0.2]) is AXES["inner step"]  # older files
