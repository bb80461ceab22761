"""A whole run: from a configuration to an evaluated run directory. The command and `meta_train` both enter here."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from raymeta.config.build import Built, build, initial_state, open_executor, schedule_of
from raymeta.config.load import Override, dump, load_config
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.engine.checkpoint import CheckpointStore
from raymeta.engine.driver import RunState, StopReason, train_loop
from raymeta.engine.executors.base import Executor
from raymeta.errors import ConfigError
from raymeta.evaluation import TEST_SEED, Evaluation, evaluate_learned, require_same_shapes
from raymeta.inspection import write_episodes
from raymeta.runs.read import Run, load_run
from raymeta.runs.tensorboard import TensorBoard
from raymeta.runs.tracker import Tracker, Trackers
from raymeta.runs.write import RunWriter, new_run_directory
from raymeta.tree import params_sha256


def meta_train(
    preset: str | None = None, *, file: str | Path | None = None, resume: str | Path | None = None, **options: Any
) -> Run:
    """Train, evaluate, and return the run; what `raymeta train` does, without its terminal.

    Args:
        preset: name of a preset; `glyphs-5w1s-maml` without preset and file.
        file: a configuration file on top of it.
        resume: a run to continue instead of starting one; then only options that keep its result are taken.
        options: configuration keys; dotted ones as `**{"algorithm.inner_lr": 0.1}`, and instances as they are:
            `algorithm=raymeta.MAML(inner_lr=0.1)`, `tasks=MyTasks()`.

    Raises:
        RaymetaError: see `raymeta.errors`.
    """
    if resume is not None:
        run = load_run(resume)
        config = resumed_config(run, options)
        return Training(config, resume=run).execute()
    files = [] if file is None else [Path(file)]
    config = load_config(preset=preset, files=files, overrides=options).config
    return Training(config).execute()


FREE_ON_RESUME = frozenset(
    {
        "steps", "workers", "address", "output", "time_limit", "device", "test_episodes", "keep_checkpoints",
        "checkpoint_every", "tags", "name",
    }
)  # fmt: skip
"""Options that a resumed run may change. All others change its result, so they belong to a new run."""


def resumed_config(run: Run, options: Mapping[str, Any] | Sequence[Override]) -> RunConfig:
    """A run's configuration with the options that may change; raises `ConfigError` for the others."""
    before = load_config(files=[run.path / "config.yaml"]).config
    after = load_config(files=[run.path / "config.yaml"], overrides=options).config
    changed = [key for key in type(after).model_fields if getattr(before, key) != getattr(after, key)]
    if refused := [key for key in changed if key not in FREE_ON_RESUME]:
        raise ConfigError(
            f"--resume {run.id} cannot change {', '.join(refused)}, which would change the result: leave it out, or "
            f"start a new run with -c {run.path / 'config.yaml'}. A resumed run may change "
            f"{', '.join(sorted(FREE_ON_RESUME))}"
        )
    return after


WORST_KEPT = 4
"""Test episodes written out in full: so many of the worst, and besides the middle one and the best."""


class Training:
    """One attempt at a run. Everything is built and checked before the run directory is touched."""

    def __init__(
        self,
        config: RunConfig,
        *,
        resume: Run | None = None,
        notes: Sequence[str] = (),
        command: Sequence[str] = tuple(sys.argv),
        trackers: Callable[[str], Sequence[Tracker]] = lambda title: (),
    ) -> None:
        self.config = config
        self.built: Built = build(config)
        self._resume = resume
        self._notes = notes
        self._command = command
        self._trackers = trackers
        self.reason: StopReason = "steps"

    def execute(self) -> Run:
        """Train and evaluate; the run directory says how it ended, whatever happens."""
        name = run_name(self.config)
        directory = (
            self._resume.path if self._resume else new_run_directory(Path(self.config.output), name, datetime.now())
        )
        writer = RunWriter(directory, steps=self.config.steps, name=name, tags=self.config.tags)
        tracker = Trackers([writer, TensorBoard(directory / "tb"), *self._trackers(f"{name}  {directory}")])
        try:
            writer.write_config(dump(self.config))
            writer.write_command(self._command)
            writer.write_environment()
            self._run(writer, tracker)
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            tracker.event("failed", message)
            writer.finish("failed", message)
            raise
        finally:
            tracker.close()
        return Run.open(directory)

    def _run(self, writer: RunWriter, tracker: Trackers) -> None:
        store = CheckpointStore(writer.directory / "checkpoints", keep=self.config.keep_checkpoints)
        state = initial_state(self.config, self.built)
        for note in self._notes:
            tracker.event("warning", note)
        self._restore(state, store, tracker)
        executor = open_executor(self.config, self.built.blueprint, tracker.event)
        began = time.perf_counter()
        try:
            with stop_signals(tracker) as stop_requested:
                self.reason = train_loop(
                    state,
                    blueprint=self.built.blueprint,
                    executor=executor,
                    schedule=schedule_of(self.config),
                    store=store,
                    tracker=tracker,
                    stop_requested=stop_requested,
                )
            if self.reason == "signal":
                tracker.event("stopped", f"stopped at step {state.step}; a checkpoint is saved", step=state.step)
                writer.finish("stopped", "signal")
                return
            evaluation = self._evaluate(state, store, executor, tracker, writer)
        finally:
            executor.close()
        writer.write_evaluation("test", evaluation.to_json())
        writer.write_summary(
            evaluation.headline,
            params_sha256=params_sha256(state.outer.learned.params),
            tasks_per_s=state.tasks / state.train_s if state.train_s else 0.0,
            wall_s=time.perf_counter() - began,
            steps=state.step,
            stopped_by=self.reason,
            scored_checkpoint=evaluation.settings["checkpoint_step"],
            by_inner_step=evaluation.summary.per_step,
            batch_norm=self.built.batch_norm,
            inner_steps=evaluation.settings["inner_steps"],
        )
        writer.finish("finished", self.reason)
        tracker.event("finished", f"finished after {state.step} steps", step=state.step)

    def _restore(self, state: RunState, store: CheckpointStore, tracker: Trackers) -> None:
        if self._resume is None:
            tracker.event("started", f"{self.config.steps} steps, {worker_text(self.config)}")
            return
        checkpoint, problems = store.load_last()
        for problem in problems:
            tracker.event("warning", f"{problem}: the checkpoint before it is used")
        if checkpoint is not None:
            require_same_shapes(self.built, checkpoint)
            state.restore(checkpoint)
        tracker.event("resumed", f"continues at step {state.step} with {worker_text(self.config)}", step=state.step)

    def _evaluate(
        self, state: RunState, store: CheckpointStore, executor: Executor, tracker: Trackers, writer: RunWriter
    ) -> Evaluation:
        """Score the checkpoint best on validation; without validation, the final parameters."""
        learned, step = state.outer.learned, state.step
        if state.best is not None and state.best["step"] != state.step:
            checkpoint, problems = store.load_best()
            for problem in problems:
                tracker.event("warning", f"{problem}: another checkpoint is scored")
            if checkpoint is not None:
                learned, step = checkpoint.learned, checkpoint.step
        evaluation = evaluate_learned(
            self.config, self.built, learned, executor, run=writer.id, step=step, split="test"
        )
        ranked = evaluation.scores.ranked()
        kept = sorted({*range(min(WORST_KEPT, len(ranked))), len(ranked) // 2, len(ranked) - 1})
        ranks = {ranked[place]: place + 1 for place in kept}
        folder = writer.directory / "eval" / "episodes"
        write_episodes(folder, self.built.blueprint, learned, split="test", seed=TEST_SEED, ranks=ranks)
        return evaluation


def run_name(config: RunConfig) -> str:
    """The run's name: given, or the preset's where its variants are still those, or made of task set and algorithm."""
    if config.name:
        return config.name
    if config.preset and _variants(load_config(preset=config.preset).config) == _variants(config):
        return config.preset
    return f"{name_of(config.tasks)}-{name_of(config.algorithm)}"


def _variants(config: RunConfig) -> list[str]:
    return [name_of(part) for part in (config.tasks, config.model, config.algorithm)]


def worker_text(config: RunConfig) -> str:
    """How many workers, in words."""
    return f"{config.workers} Ray workers" if config.workers else "in this process"


@contextmanager
def stop_signals(tracker: Trackers) -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask for a stop after the current step; a second one quits at once."""
    asked = threading.Event()

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            os._exit(130)
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
