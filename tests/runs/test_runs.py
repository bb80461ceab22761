"""Run directories: what is written can be read, by one writer, whatever happens to it."""

from __future__ import annotations

import builtins
import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from raymeta import load_run
from raymeta.errors import ConfigError, DataError, EnvironmentProblem, RaymetaWarning
from raymeta.runs.__main__ import main
from raymeta.runs.read import Run, find_runs, resolve_run
from raymeta.runs.rows import DENSE_STEPS, JsonLines, current_rows, keeps_row, read_rows, row_stride
from raymeta.runs.write import Headline, RunWriter, new_run_directory, slug
from raymeta.system.files import json_text, nan_for_null, write_json, write_whole
from raymeta.trackers import names
from raymeta.trackers.base import Trackers, WorkerRow
from raymeta.trackers.scores import Scores
from raymeta.trackers.tensorboard import TensorBoard

SCORES = Scores("accuracy", [0.2, 0.8, 0.9], 0.9, 0.01, 600)
NOW = datetime(2026, 11, 20, 9, 15)


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A tracker that notes its calls, and raises in those it is told to."""

    def __init__(self, *sick: str) -> None:
        self.sick = sick
        self.calls: list[tuple[object, ...]] = []

    def _note(self, name: str, *values: object) -> None:
        self.calls.append((name, *values))
        if name in self.sick:
            raise OSError(errno.ENOSPC, "No space left on device")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("step", step)

    def event(self, kind: str, message: str, **fields: object) -> None:
        self._note("event", kind, message)

    def validation(self, step: int, scores: Scores) -> None:
        self._note("validation", step)

    def workers(self, rows: object) -> None:
        self._note("workers")

    def close(self) -> None:
        self._note("close")


def finished_run(output: Path, name: str, *, value: float = 0.9, algorithm: str = "maml", created: float = 1e9) -> Path:
    writer = RunWriter(new_run_directory(output, name, NOW), name=name, steps=3, clock=Clock(created))
    writer.write_config(f"algorithm: {{name: {algorithm}, inner_lr: 0.4}}\nseed: 7\n")
    for step in (1, 2, 3):
        writer.step(step, {names.TRAIN_QUERY_LOSS: 1 / step})
    headline = Headline("accuracy", value, 0.01, 600, "test", "higher")
    writer.write_summary(headline, params_sha256="ab", tasks_per_s=10.0, wall_s=1.0)
    writer.finish("finished")
    writer.close()
    return writer.directory


# Whole files


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match=r"summary\.json.*No space left.*free some space") as caught:
        write_whole(path, "new")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_json_is_valid_and_has_null_for_what_is_not_finite() -> None:
    value = {"a": math.nan, "b": [math.inf, -math.inf, np.float32("nan")], "c": torch.tensor(1.5), "d": np.int64(3)}

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    back = json.loads(json_text(value), parse_constant=refuse)
    assert back == {"a": None, "b": [None, None, None], "c": 1.5, "d": 3}
    read = nan_for_null(back)
    assert [math.isnan(number) for number in (read["a"], *read["b"])] == [True] * 4
    assert (read["c"], read["d"]) == (1.5, 3)


# The directory


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b\\c", "x\x1b[31m\n", "....", "", "ü" * 500, "-rf *", ".hidden"]
)
def test_hostile_names_make_one_harmless_folder(tmp_path: Path, name: str) -> None:
    output = tmp_path / "results"
    directory = new_run_directory(output, name, NOW)
    assert directory.parent == output
    assert sorted(os.listdir(output)) == sorted([".gitignore", directory.name])
    assert os.listdir(tmp_path) == ["results"]
    piece = slug(name)
    assert directory.name.startswith(f"2026-11-20_0915_{piece}_")
    assert 0 < len(piece) <= 60
    assert ".." not in piece
    assert set(piece) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_runs_of_the_same_minute_and_name_differ(tmp_path: Path) -> None:
    assert len({new_run_directory(tmp_path, "a", NOW) for _ in range(20)}) == 20


def test_git_ignores_a_folder_of_ours_and_nothing_of_others(tmp_path: Path) -> None:
    """`--output .` in somebody's project must not hide the project."""
    new_run_directory(tmp_path, "a", NOW)
    assert not (tmp_path / ".gitignore").exists()
    for _ in range(2):
        new_run_directory(tmp_path / "made" / "here", "a", NOW)
    assert (tmp_path / "made" / "here" / ".gitignore").read_text().splitlines()[-1] == "*"
    assert os.listdir(tmp_path / "made") == ["here"]


def test_an_output_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*results.*--output"):
        new_run_directory(tmp_path / "results", "a", NOW)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_is_not_writable_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentProblem, match=r"Permission denied; choose a folder you may write to"):
        new_run_directory(tmp_path / "results", "a", NOW)


def test_all_files_can_be_read_back(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", name="My run", steps=10, tags=["a"])
    writer.write_config("algorithm: {name: maml}\n")
    writer.write_command(["python", "-m", "raymeta.train", "--name", "My run"])
    writer.write_environment()
    writer.event("started", "on 2 workers", workers=2)
    writer.step(1, {names.TRAIN_QUERY_LOSS: math.nan, names.OUTER_LR: 1e-3})
    writer.validation(1, SCORES)
    writer.workers([WorkerRow("w0", "node", 1, 8, 4.0, 0)])
    writer.write_evaluation("test", {"per_step": [0.2, 0.9]})
    headline = Headline("accuracy", 0.9, math.nan, 600, "test", "higher")
    writer.write_summary(headline, params_sha256="ab", tasks_per_s=4.0, wall_s=2.0, headline_again="more")
    assert Run.open(writer.directory).status == "running"
    writer.finish("finished")
    writer.close()

    run = Run.open(tmp_path / "run")
    assert (run.id, run.name, run.status, run.info["attempt"]) == ("run", "My run", "finished", 1)
    assert run.config == {"algorithm": {"name": "maml"}}
    assert (run.path / "command.txt").read_text() == "python -m raymeta.train --name 'My run'\n"
    env = json.loads((run.path / "env.json").read_text())
    assert torch.__version__.startswith(env["torch"])
    assert set(env) >= {"python", "platform", "numpy", "ray", "cpu_count", "cuda_devices", "git_commit"}
    (row,) = run.metrics()
    assert math.isnan(row[names.TRAIN_QUERY_LOSS])
    assert (row["step"], row["attempt"], row[names.VAL_ACCURACY], row[names.VAL_ACCURACY_CI95]) == (1, 1, 0.9, 0.01)
    assert [(e["kind"], e["step"]) for e in run.events()] == [("started", 0), ("validation", 1)]
    assert run.events()[1]["per_step"] == SCORES.per_step
    assert run.workers()[0]["workers"][0]["node"] == "node"
    summary = run.summary
    assert summary is not None
    assert set(summary) >= {"headline", "params_sha256", "tasks_per_s", "wall_s"}
    assert set(summary["headline"]) == {"name", "value", "ci95", "episodes", "split", "better", "of"}
    assert math.isnan(summary["headline"]["ci95"])
    assert json.loads((run.path / "eval/test.json").read_text()) == {"per_step": [0.2, 0.9]}
    assert not [path for path in run.path.rglob("*") if path.name.endswith(".tmp")]


# Thinning


@pytest.mark.parametrize("steps", [1, 1_999, 2_000, 2_001, 4_999, 60_000, 1_000_000, 123_456_789])
def test_a_run_of_any_length_stays_under_5000_rows(steps: int) -> None:
    stride = row_stride(1, steps)
    late = range(DENSE_STEPS + 1, steps + 1)
    # Beyond the dense part only multiples of the stride and the last step count.
    rows = min(steps, DENSE_STEPS) + steps // stride - DENSE_STEPS // stride + 1 if late else steps
    if steps <= 1_000_000:
        rows = sum(keeps_row(step, stride=stride, steps=steps) for step in range(1, steps + 1))
    assert rows <= 4_002
    assert all(keeps_row(step, stride=stride, steps=steps) for step in (1, min(steps, DENSE_STEPS), steps))


def test_resumed_and_extended_runs_stay_under_5000_rows(tmp_path: Path) -> None:
    rows = 0
    for first, steps in ((1, 10_000), (9_001, 10_000), (10_001, 50_000), (40_001, 1_000_000)):
        stride = row_stride(first, steps, rows)
        rows += sum(keeps_row(step, stride=stride, steps=steps) for step in range(first, steps + 1))
    assert rows < 5_000


def test_a_writer_thins_but_keeps_validations_and_the_first_row_of_an_attempt(tmp_path: Path) -> None:
    for attempt, steps in ((1, range(1, 2_500)), (2, range(2_101, 2_300))):
        writer = RunWriter(tmp_path, steps=1_000_000, clock=Clock())
        assert writer.attempt == attempt
        for step in steps:
            writer.step(step, {"val/loss": 0.0} if step == 2_222 else {})
        writer.close()
    rows, _ = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows[:2_000]] == list(range(1, 2_001))
    assert [(row["attempt"], row["step"]) for row in rows[2_000:]] == [
        (1, 2_222),
        (1, 2_495),  # the first multiple of the stride, 499
        (2, 2_101),
        (2, 2_222),
    ]


def test_worker_snapshots_are_spread_over_the_run(tmp_path: Path) -> None:
    clock = Clock()
    writer = RunWriter(tmp_path, steps=10, clock=clock)
    for second in range(200_000):
        clock.now += 1.0
        restarts = 1 if second >= 100_001 else 0
        writer.workers([WorkerRow("w0", "node", 1, 8, 4.0, restarts)])
    writer.close()
    seconds = [row["time"] - 1_800_000_000 for row in Run.open(tmp_path).workers()]
    assert len(seconds) < 1_000
    assert seconds[:3] == [1, 11, 21]
    assert 100_002 in seconds  # a restart is written at once


# Killed writers and resume

KILLED = """
import sys
from pathlib import Path
from raymeta.runs.write import RunWriter
writer = RunWriter(Path(sys.argv[1]), steps=10**9)
writer.step(1, {"train/query_loss": 1.0})
print("ready", flush=True)
step = 1
while True:
    step += 1
    writer.step(step % 2000, {f"pad{i}": 0.123456789 for i in range(2000)} | {"train/query_loss": step})
"""


def killed_writer(directory: Path) -> int:
    """Start a writer of long rows, kill it in the middle of its work; returns the id it had."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    assert Run.open(directory).status == "running"
    with pytest.raises(EnvironmentProblem, match=rf"written by process {process.pid} on \S+"):
        RunWriter(directory, steps=10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return process.pid


def test_a_killed_run_is_lost_readable_and_goes_on(tmp_path: Path) -> None:
    killed_writer(tmp_path)
    assert Run.open(tmp_path).status == "lost"  # at once: this host knows that the process is gone
    before, _ = read_rows(tmp_path / "metrics.jsonl")
    assert before[0]["train/query_loss"] == 1.0
    assert all(len(row) >= 2_000 for row in before[1:])
    with open(tmp_path / "metrics.jsonl", "ab") as file:  # the kill may have missed the middle of a line
        file.write(b'{"step": 5, "attempt": 1, "train/que')

    writer = RunWriter(tmp_path, steps=10)
    assert writer.attempt == 2
    writer.step(1, {"train/query_loss": -1.0})
    writer.step(2, {"train/query_loss": -2.0})
    writer.close()
    rows, _ = read_rows(tmp_path / "metrics.jsonl")
    assert rows[: len(before)] == before
    assert [row["train/query_loss"] for row in rows[len(before) :]] == [-1.0, -2.0]
    assert [row["train/query_loss"] for row in Run.open(tmp_path).metrics() if row["step"] >= 1] == [-1.0, -2.0]


def test_a_torn_line_is_skipped_until_it_is_whole_and_reading_goes_on_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_rows(path) == ([], 0)
    path.write_bytes(b'{"a": 1}\n{"a": "\xc3')
    rows, offset = read_rows(path)
    assert (rows, offset) == ([{"a": 1}], 9)
    with open(path, "ab") as file:
        file.write(b'\xbc"}\n{"a": 3}\n')
    assert read_rows(path, offset)[0] == [{"a": "ü"}, {"a": 3}]
    path.write_bytes(b'{"a": 1}\n{"a": 2}')  # whole by chance: read once its end is there, not twice
    assert read_rows(path) == ([{"a": 1}], 9)


def test_appending_after_a_torn_line_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    for value in (3, 4):
        file = JsonLines(path)
        file.append({"a": value})
        file.close()
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2\n{"a": 3}\n{"a": 4}\n'
    assert read_rows(path)[0] == [{"a": 1}, {"a": 3}, {"a": 4}]


def test_rows_that_a_newer_attempt_computed_again_are_superseded() -> None:
    def row(attempt: int, step: int, **more: object) -> dict[str, object]:
        return {"attempt": attempt, "step": step, **more}

    rows = [row(1, s) for s in range(1, 11)] + [row(1, 4, val=0.5)]
    rows += [row(2, s) for s in (6, 7)]
    rows += [row(3, s) for s in (5, 6)]
    assert [(r["step"], r["attempt"]) for r in current_rows(rows)] == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 3), (6, 3)]
    assert current_rows(rows)[3]["val"] == 0.5
    assert current_rows([]) == []


# One writer; lost runs


def test_two_writers_refuse_unless_the_first_is_dead(tmp_path: Path) -> None:
    finished_run(tmp_path, "a")
    (run,) = find_runs(tmp_path)

    def claim(**changes: object) -> None:
        write_json(run.path / "run.json", {**run.info, "status": "running", **changes})

    claim(pid=os.getppid())
    with pytest.raises(EnvironmentProblem, match=f"process {os.getppid()}"):
        RunWriter(run.path, steps=3)
    claim(pid=1, host="elsewhere")  # another host: only the heartbeat can tell
    with pytest.raises(EnvironmentProblem, match="elsewhere"):
        RunWriter(run.path, steps=3)
    os.utime(run.path / "run.json", (time.time() - 30, time.time() - 30))
    RunWriter(run.path, steps=3).close()


def test_a_run_without_heartbeat_is_lost_and_a_beating_one_is_running(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, steps=3, heartbeat_s=0.02)
    long_ago = time.time() - 60
    os.utime(tmp_path / "run.json", (long_ago, long_ago))
    deadline = time.monotonic() + 10
    while Run.open(tmp_path).status == "lost" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Run.open(tmp_path).status == "running"
    writer.heartbeat.stop()
    os.utime(tmp_path / "run.json", (long_ago, long_ago))
    assert Run.open(tmp_path).status == "lost"
    writer.close()
    assert (Run.open(tmp_path).status, Run.open(tmp_path).info["reason"]) == (
        "stopped",
        "closed before it was finished",
    )


def test_an_unreadable_run_json_reads_as_lost_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.json").write_text("{")
    (run,) = find_runs(tmp_path)
    assert run.status == "lost"
    assert "run.json cannot be read" in run.info["reason"]


# Trackers


def test_a_sick_tracker_is_switched_off_with_one_warning_and_still_closed() -> None:
    sick, well = Recorder("step", "close"), Recorder()
    trackers = Trackers([sick, well], together_s=0)
    for step in (1, 2, 3):
        trackers.step(step, {})
    trackers.close()
    assert sick.calls == [("step", 1), ("close",)]
    assert [call for call in well.calls if call[0] == "step"] == [("step", 1), ("step", 2), ("step", 3)]
    (warning,) = [call for call in well.calls if call[0] == "event"]
    assert warning[1] == "warning"
    assert "Recorder is switched off" in str(warning[2])
    assert "No space left" in str(warning[2])
    assert well.calls[-1] == ("close",)


def test_trackers_that_fail_at_the_warning_of_others_end_quietly() -> None:
    trackers = Trackers([Recorder("step"), Recorder("event")])
    trackers.add(Recorder("event"))
    with pytest.warns(RaymetaWarning, match="switched off"):
        trackers.step(1, {})
    trackers.step(2, {})
    trackers.close()


@pytest.mark.parametrize("what", ["event", "validation", "workers", "close", "tell_steps"])
def test_steps_in_quick_succession_are_told_together_before_anything_else(what: str) -> None:
    one, other = Recorder(), Recorder()
    trackers = Trackers([one, other], together_s=math.inf)
    for step in (1, 2, 3):
        trackers.step(step, {})
    assert one.calls == other.calls == [("step", 1)], "the first at once"
    arguments = {"event": ("note", "text"), "validation": (3, SCORES), "workers": ([],)}
    getattr(trackers, what)(*arguments.get(what, ()))
    for recorder in (one, other):
        assert recorder.calls[:3] == [("step", 1), ("step", 2), ("step", 3)]
        assert [call[0] for call in recorder.calls[3:]] == [what] * (what != "tell_steps")


def test_what_is_told_at_a_step_comes_at_that_step_to_all() -> None:
    class Telling(Recorder):
        def step(self, step: int, metrics: Mapping[str, float]) -> None:
            super().step(step, metrics)
            if step == 2:
                trackers.event("warning", "the store is away")
            if step == 4:
                raise OSError(errno.ENOSPC, "No space left on device")

    telling, other, late = Telling(), Recorder(), Recorder()
    trackers = Trackers([telling, other], together_s=math.inf)
    for step in (1, 2, 3, 4, 5):
        trackers.step(step, {})
    trackers.add(late)
    trackers.step(6, {})
    trackers.close()
    assert [call[:2] for call in other.calls] == [
        *[("step", 1), ("event", "warning"), ("step", 2), ("step", 3), ("event", "warning"), ("step", 4), ("step", 5)],
        *[("step", 6), ("close",)],
    ]
    assert late.calls == [("step", 6), ("close",)], "from then on"


def test_an_interrupt_between_steps_loses_none_of_those_after() -> None:
    class Once(Recorder):
        def step(self, step: int, metrics: Mapping[str, float]) -> None:
            if step == 2:
                raise KeyboardInterrupt

    other = Recorder()
    trackers = Trackers([other, Once()], together_s=math.inf)
    for step in (1, 2, 3):
        trackers.step(step, {})
    with pytest.raises(KeyboardInterrupt):
        trackers.tell_steps()
    trackers.close()
    assert other.calls == [("step", 1), ("step", 2), ("step", 3), ("close",)]


def test_a_step_waits_no_longer_than_it_may() -> None:
    one = Recorder()
    trackers = Trackers([one], together_s=0.02)
    trackers.step(1, {})
    trackers.step(2, {})
    assert one.calls == [("step", 1)]
    time.sleep(0.03)
    trackers.step(3, {})
    assert one.calls == [("step", 1), ("step", 2), ("step", 3)]


def test_an_interrupt_is_not_swallowed() -> None:
    class Interrupted(Recorder):
        def step(self, step: int, metrics: Mapping[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trackers([Interrupted()]).step(1, {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_rows_but_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer, well = RunWriter(tmp_path, steps=3), Recorder()
    trackers = Trackers([writer, well], together_s=0)
    trackers.step(1, {})
    trackers.step(2, {})
    (warning,) = [call for call in well.calls if call[0] == "event"]
    assert "No space left" in str(warning[2])
    writer.finish("finished")
    trackers.close()
    assert Run.open(tmp_path).status == "finished"


def test_metric_names_are_a_closed_list_without_repetition() -> None:
    constants = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    of_operations = {*names.OPERATION_SHARES, *names.OPERATION_USES}
    assert constants - {names.ARCHITECTURE, names.AUGMENTATION} == set(names.METRICS) - of_operations
    assert len(names.METRICS) == len(set(names.METRICS))
    assert set(SCORES.metrics()) | set(SCORES._replace(name="mse").metrics()) <= set(names.METRICS)


def test_tensorboard_events_are_written_and_purged_on_resume(tmp_path: Path) -> None:
    def written() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    def purges() -> int:
        return written().count(b"brain.Event:2") - len(os.listdir(tmp_path))  # each file begins with one, too

    for attempt, first_step in ((1, 1), (2, 3)):
        tracker = TensorBoard(tmp_path)
        tracker.event("started", f"attempt {attempt}")
        for step in range(first_step, 6):
            tracker.step(step, {names.TRAIN_QUERY_LOSS: 0.5})
        tracker.validation(5, SCORES)
        tracker.close()
        assert purges() == attempt - 1
        assert f"attempt {attempt}".encode() in written()
    assert written().count(names.TRAIN_QUERY_LOSS.encode()) == 5 + 3
    assert names.VAL_ACCURACY.encode() in written()


# Reading


def test_find_and_resolve(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no runs in"):
        resolve_run("latest", tmp_path / "nowhere")
    old = finished_run(tmp_path, "omniglot", created=1e9)
    new = finished_run(tmp_path, "sinusoid", created=2e9)
    (tmp_path / "sweeps").mkdir()
    assert [run.path for run in find_runs(tmp_path)] == [new, old]
    assert resolve_run("latest", tmp_path).path == new
    assert resolve_run(old.name, tmp_path).path == old
    assert load_run(old).path == old
    assert load_run("latest", output=tmp_path).path == new
    assert resolve_run("2026-11-20_0915_omni", tmp_path).path == old
    with pytest.raises(ConfigError, match="beginning of 2 runs"):
        resolve_run("2026", tmp_path)
    assert resolve_run("omniglot", tmp_path).path == old, "by its name"
    with pytest.raises(ConfigError, match=rf"no run «omniglo»[^,]*{old.name}$"):
        resolve_run("omniglo", tmp_path)
    finished_run(tmp_path, "omniglot", created=3e9)
    with pytest.raises(ConfigError, match=rf"«omniglot» is the name of 2 runs: .*{old.name}"):
        resolve_run("omniglot", tmp_path)
    with pytest.raises(ConfigError, match="no run «»"):
        resolve_run("", tmp_path)


def test_frame_has_a_row_a_step_and_names_the_extra_without_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    run = Run.open(finished_run(tmp_path, "a"))
    frame = run.frame()
    assert frame["step"].tolist() == [1, 2, 3]
    assert frame[names.TRAIN_QUERY_LOSS].tolist() == [1.0, 0.5, 1 / 3]
    real_import = builtins.__import__

    def without_pandas(name: str, *rest: object, **more: object) -> object:
        if name == "pandas":
            raise ImportError(name)
        return real_import(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'raymeta\[frames\]'"):
        run.frame()


def test_a_pickle_in_a_run_is_never_loaded(tmp_path: Path) -> None:
    run = Run.open(finished_run(tmp_path, "a"))
    (run.path / "config.yaml").write_text("!!python/object/apply:os.system ['touch hacked']\n")
    with pytest.raises(DataError, match=r"config\.yaml cannot be read"):
        _ = run.config


# The command


def test_ls_lists_sorts_filters_and_speaks_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = finished_run(tmp_path, "a", value=0.7, created=1e9).name
    b = finished_run(tmp_path, "b", value=0.9, created=2e9).name
    c = finished_run(tmp_path, "c", value=0.8, created=3e9, algorithm="protonet").name

    def ids(*arguments: str) -> list[str]:
        assert main(["ls", str(tmp_path), *arguments, "--json"]) == 0
        return [row["id"] for row in json.loads(capsys.readouterr().out)]

    assert ids() == [c, b, a]
    assert ids("--sort", "headline") == [b, c, a]
    assert ids("--sort", "algorithm.name") == [b, a, c]
    assert ids("--filter", "algorithm.name=maml", "--filter", "algorithm.inner_lr=4e-1") == [b, a]
    assert ids("--filter", "status=lost") == []
    assert main(["ls", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", c, b, a]
    assert "accuracy 80.00 ± 1.00 %" in lines[1]
    assert main(["ls", str(tmp_path), "--filter", "algorithm.nme=maml"]) == 2
    assert "did you mean algorithm.name" in capsys.readouterr().err


def test_ls_is_helpful_without_runs_and_with_damaged_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(tmp_path / "results")]) == 0
    assert "results/: start one with raymeta train" in capsys.readouterr().out
    damaged = finished_run(tmp_path, "a")
    (damaged / "summary.json").write_text("{")
    finished_run(tmp_path, "b")
    assert main(["ls", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "finished (damaged)" in out
    assert len(out.splitlines()) == 3


def test_show_tells_status_headline_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished_run(tmp_path, "a")
    assert main(["show", "latest", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for text in (path.name, "finished", "test accuracy 90.00 ± 1.00 % over 600 episodes", "step 3 of 3", "name: maml"):
        assert text in out
    assert main(["show", path.name, "--output", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["summary"]["headline"]["value"]) == ("finished", 0.9)
    assert main(["show", "nothing", "--output", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert path.name in captured.err
    assert "Traceback" not in captured.err


def test_a_hostile_message_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = RunWriter(tmp_path / "run", steps=1)
    writer.event("warning", "evil \x1b]0;title\x07\x1b[2J text")
    writer.finish("failed", "bad \x1b[31m reason")
    writer.close()
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_ls_into_a_closed_pipe_is_calm_and_imports_nothing_heavy(tmp_path: Path) -> None:
    for index in range(3):
        finished_run(tmp_path, f"run{index}")
    code = (
        "import sys; from raymeta.runs.__main__ import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'ray', 'torchvision', 'pandas'} & set(sys.modules); sys.exit(code)"
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code, "ls", str(tmp_path)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_streams_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a table drawn by rich, and hostile markup in it stays text."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    finished_run(tmp_path, "a", algorithm="'[bold]x[/bold]'")
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["ls", str(tmp_path)]) == 0
    assert "[bold]x[/bold]" in screen.getvalue()


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("run.json", '{"status": 3, "step": "x", "name": {"a": 1}, "attempt": "two"}', "run.json is damaged: name is"),
        ("run.json", "[1, 2]", "run.json is not a JSON object"),
        ("run.json", b"\xff\xfe\x00", "run.json cannot be read"),
        ("summary.json", '{"headline": {"name": null, "value": "abc"}}', "name of its headline is None"),
        ("summary.json", '{"headline": [1]}', "its headline is no mapping"),
        ("summary.json", '{"headline": {"na', "summary.json cannot be read"),
        ("config.yaml", b"\x01\x02", "config.yaml cannot be read"),
        ("config.yaml", '"text"', "holds no mapping"),
        ("events.jsonl", '{"time": 1e300, "kind": 3}\n{"time": "x"}\n[]\n\xff\n', ""),
    ],
)
def test_what_is_not_ours_is_named_and_the_rest_is_shown(
    file: str, content: str | bytes, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torn or foreign files of a run: no traceback, no other run hidden, the rest of this one shown."""
    well, sick = finished_run(tmp_path, "well"), finished_run(tmp_path, "sick")
    (sick / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in ([], ["--json"], ["--sort", "headline"], ["--sort", "created"], ["--filter", "seed=7"]):
        assert main(["ls", str(tmp_path), *arguments]) == 0
        assert well.name in capsys.readouterr().out
    code = main(["show", str(sick)])
    said = capsys.readouterr()
    assert word in said.out
    assert code == (3 if word and file != "run.json" else 0)
    assert "step 3 of 3" in said.out or file == "run.json"
    assert main(["show", str(sick), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["id"] == sick.name
