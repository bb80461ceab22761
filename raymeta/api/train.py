"""A whole run: from a configuration to an evaluated run directory. The command and `meta_train` both enter here."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from raymeta.adaptation.problem import Learned
from raymeta.api.checkpoints import take_fixed_tensors
from raymeta.api.describe import cluster_text, run_name, without_effect, worker_text
from raymeta.api.episodes import write_episodes
from raymeta.api.evaluate import TEST_SEED, Evaluation, evaluate_learned
from raymeta.api.load import RunView
from raymeta.api.resume import last_checkpoint, resumed_config, run_to_resume, spent_s
from raymeta.api.same_data import on_recorded_data, twins
from raymeta.api.start import start_from
from raymeta.config.build import Built, build, initial_state, open_executor, schedule_of, splits_in_use
from raymeta.config.load import Loaded, dump, load_config
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.checkpoint import CheckpointStore, checkpoint_name
from raymeta.engine.driver.loop import StopReason, train_loop
from raymeta.engine.driver.profile import Profile
from raymeta.engine.executors.base import Executor
from raymeta.engine.worker.blueprint import choose_device
from raymeta.errors import CheckpointError, EnvironmentProblem, RaymetaError, RunFailed, shortened
from raymeta.runs import layout
from raymeta.runs.lock import RunLock, require_no_writer
from raymeta.runs.mirror import Mirror, MirrorNotices
from raymeta.runs.read import Run
from raymeta.runs.write import RunWriter, new_run_directory
from raymeta.system.remote import Remote
from raymeta.system.signals import first_signal, termination_interrupts
from raymeta.system.text import clean, duration
from raymeta.system.their_code import described
from raymeta.tasks.manifest import Manifest
from raymeta.trackers.base import TOGETHER_S, Tracker, Trackers
from raymeta.trackers.python_warnings import PythonWarnings
from raymeta.trackers.ray_metrics import RayMetrics
from raymeta.trackers.tensorboard import TensorBoard
from raymeta.tree import params_sha256


def meta_train(
    preset: str | None = None,
    *,
    file: str | Path | None = None,
    resume: str | Path | None = None,
    trust: bool = False,
    **options: Any,
) -> RunView:
    """Train, evaluate, and return the run; what `raymeta train` does, without its terminal.

    Args:
        preset: name of a preset; `glyphs-5w1s-maml` without preset and file.
        file: a configuration file on top of it.
        resume: a run to continue, a folder or a URI, instead of starting one; then only options that keep its
            result are taken.
        trust: import the code that the configuration of a run (`resume`, or `file` in its folder) names. Paths that
            were given in this process are trusted.
        options: configuration keys; dotted ones as `**{"algorithm.inner_lr": 0.1}`, and instances as they are:
            `algorithm=raymeta.MAML(inner_lr=0.1)`, `tasks=MyTasks()`.

    Raises:
        RaymetaError: see `raymeta.errors`.
    """
    if resume is not None:
        resumed = run_to_resume(str(resume))
        loaded = resumed_config(resumed.run, resumed.mirror | options, trust=trust)
        loaded = loaded._replace(notes=resumed.notes)
    else:
        files = [] if file is None else [Path(file)]
        loaded = load_config(preset=preset, files=files, overrides=options, trust=trust)
    run = None if resume is None else resumed.run
    return RunView.of(Training.of(loaded, resume=run, trackers=lambda title: [PythonWarnings()]).execute(), trust=trust)


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
        directory: Path | None = None,
        stop: Callable[[], str | None] = lambda: None,
        profiled_steps: int | None = None,
    ) -> None:
        """`directory` receives the run, instead of a new folder in `config.output`. `stop` may ask for a stop after
        the current step, as a signal does: it answers with the reason. `profiled_steps` are traced, and where the time
        of all steps went is written beside the trace."""
        self.warnings = without_effect(config)
        self.reason: StopReason = "steps"
        self._resume = resume
        self._notes = notes
        self._command = command
        self._trackers = trackers
        self._directory = directory
        self._stop_asked = stop
        self._profiled_steps = profiled_steps
        self.profile: Profile | None = None
        self._spent_s = 0.0
        if resume is not None:
            require_no_writer(resume.path)
            config, told = on_recorded_data(resume, config)
            self._notes = [*self._notes, *told]
        if config.device == "cuda" and config.address is None:  # workers are started on this machine
            choose_device("cuda")
        self.store = None if config.mirror is None else Remote.open(config.mirror)
        self.built: Built = build(config)
        self.manifest = config.tasks.manifest(splits_in_use(config))
        self.warnings += twins(self.manifest)
        self._unrecorded = resume is None or resume.manifest is None
        # A resumed run keeps what was chosen, since its bits depend on it.
        self.config = config.model_copy(update={"vectorize": self.built.vectorize.vectorize})
        self._vectorize_chosen = config.vectorize == "auto"
        self.state = initial_state(config, self.built)
        if resume is not None:
            self._restore(resume)
        elif config.start is not None:
            said = start_from(config.start, self.built, self.state.outer, output=config.output)
            self._notes = [*self._notes, said]
        if self.store is not None:
            self.store.check()

    @classmethod
    def of(cls, loaded: Loaded, **options: Any) -> Training:
        """The training of a configuration that was loaded, with what a person should know about that."""
        training = cls(loaded.config, notes=loaded.notes, **options)
        training.warnings = [*loaded.left_out.values(), *training.warnings]
        return training

    def execute(self) -> Run:
        """Train and evaluate; the run directory says how it ended, whatever happens.

        A finished run of which nothing more is asked is given back as it is.
        """
        if self.nothing_is_left and self._resume is not None:
            return self._resume
        name = run_name(self.config)
        if self._resume is None:
            directory = self._directory or new_run_directory(Path(self.config.output), name, datetime.now())
            claim = None
        else:
            directory, claim = self._resume.path, self._claim(self._resume)
        if self.store is None:
            self._attempt(directory, name, claim)
        else:
            with Mirror(directory, self.store / directory.name) as mirror:
                self._attempt(directory, name, claim, mirror)
        return Run.open(directory)

    @property
    def nothing_is_left(self) -> bool:
        """Whether the run that is to go on has all of its steps, and its test, already."""
        run, asked = self._resume, self.config
        if run is None or self.store is not None or run.status != "finished" or self.state.step != asked.steps:
            return False
        summary = run.summary or {}
        same_test = run.config.get("test_episodes") == asked.test_episodes
        return same_test and run.headline is not None and summary.get("steps") == asked.steps

    def _attempt(self, directory: Path, name: str, claim: RunLock | None, mirror: Mirror | None = None) -> None:
        writer = RunWriter(directory, steps=self.config.steps, name=name, tags=self.config.tags, claim=claim)
        listeners: list[Tracker] = [
            writer,
            TensorBoard(directory / layout.TENSORBOARD),
            *self._trackers(f"{name}  {directory}"),
        ]
        tracker = Trackers(listeners, together_s=0.0 if self.config.workers else TOGETHER_S)
        if mirror is not None:
            tracker.add(MirrorNotices(mirror, tracker.event))
        store = CheckpointStore(directory / layout.CHECKPOINTS, keep=self.config.keep_checkpoints)
        try:
            with termination_interrupts():
                writer.write_config(dump(self.config))
                writer.write_command(self._command)
                writer.write_environment()
                if self._unrecorded:
                    writer.write_data(self._recorded())
                self._begin(tracker)
                self._run(writer, store, tracker)
        except KeyboardInterrupt:  # while workers start or the test runs; the loop ends by itself, after its step
            tracker.tell_steps()
            store.save(self.state.checkpoint())
            self._stop(writer, tracker)
        except BaseException as error:
            message = told(error)
            tracker.event("failed", message)
            writer.finish("failed", message)
            if isinstance(error, SystemExit):  # a person's own code, which would end the process as if all were well
                raise RunFailed(message) from error
            raise
        finally:
            tracker.close()

    def _run(self, writer: RunWriter, store: CheckpointStore, tracker: Trackers) -> None:
        state = self.state
        executor = open_executor(self.config, self.built.blueprint, tracker.event)
        if self.config.workers:
            place = executor.describe()
            tracker.event("cluster", cluster_text(place), **place)
            tracker.add(RayMetrics(writer.id))
        if self._profiled_steps is not None:
            num_workers = len(executor.workers()) if self.config.workers else 0
            self.profile = Profile(writer.directory, traced_steps=self._profiled_steps, num_workers=num_workers)
        began = time.perf_counter()
        try:
            signalled = threading.Event()
            with first_signal(signalled.set):
                self.reason = train_loop(
                    state,
                    blueprint=self.built.blueprint,
                    executor=executor,
                    schedule=schedule_of(self.config),
                    store=store,
                    tracker=tracker,
                    stop_requested=lambda: signalled.is_set() or self._stop_asked() is not None,
                    profile=self.profile,
                )
            if signalled.is_set() or self.reason == "signal":  # also one that came when no step was left
                self._stop(writer, tracker)
                return
            learned, step = self._scored(store, tracker)
            evaluation = self._evaluate(learned, step, executor, tracker, writer)
            self._record(evaluation, writer, wall_s=self._spent_s + time.perf_counter() - began)
        finally:
            executor.close()
        self._illustrate(evaluation, learned, tracker, writer)
        writer.finish("finished", self.reason)
        done = f"finished after {state.step} steps"
        early = Run.open(writer.directory).ending.text + ", and tested"
        tracker.event("finished", done if self.reason == "steps" else early, step=state.step)

    def _stop(self, writer: RunWriter, tracker: Trackers) -> None:
        self.reason = "signal"
        step = self.state.step
        tracker.event("stopped", f"stopped at step {step}; a checkpoint is saved", step=step)
        writer.finish("stopped", self._stop_asked() or "signal")

    def _restore(self, run: Run) -> None:
        checkpoint, problems = last_checkpoint(run, self.config.steps)
        if "attempt" not in run.info:
            problems = [str(run.info.get("reason", "run.json is damaged")), *problems]
        self.warnings += problems
        if checkpoint is not None:
            take_fixed_tensors(self.built, checkpoint)
            self.state.restore(checkpoint)
        self._spent_s = spent_s(run)

    def _claim(self, run: Run) -> RunLock:
        """The right to go on with `run`, which nobody else may have done since its checkpoint was read."""
        claim = RunLock(run.path)
        if claim.previous.get("attempt") != run.info.get("attempt"):
            claim.release()
            raise EnvironmentProblem(
                f"{run.path} was continued by another process meanwhile: look at it, and try again"
            )
        return claim

    def _begin(self, tracker: Trackers) -> None:
        """Say how this attempt begins."""
        for kind, texts in (("note", [*self._notes, *self.manifest.notes]), ("warning", self.warnings)):
            for text in texts:
                tracker.event(kind, text)
        if self._vectorize_chosen:
            tracker.event("vectorize", "{} by rule: {}".format(*self.built.vectorize))
        tracker.event("started" if self._resume is None else "resumed", self.plan())
        tracker.event("data", self.manifest.text())

    def _recorded(self) -> Manifest:
        """What is written down of the data; of a run of an earlier version, that it came late."""
        if self._resume is None:
            return self.manifest
        late = f"recorded when the run went on at step {self.state.step}: what its data were before is not known"
        return replace(self.manifest, notes=(*self.manifest.notes, late))

    def data_lines(self) -> list[tuple[str, str]]:
        """What the data are, for people, and what was passed over."""
        return [("data", self.manifest.text()), *(("note", clean(note)) for note in self.manifest.notes)]

    def plan(self) -> str:
        """What is going to happen, in words: `450 steps on 2 Ray workers`."""
        steps, done, where = self.config.steps, self.state.step, worker_text(self.config)
        if self.config.time_limit is not None:
            where += f", at most {duration(self.config.time_limit)}"
        if self._resume is None:
            return f"{steps} steps {where}"
        if self.nothing_is_left:
            return f"all {steps} steps are done and tested: nothing is left to do; --steps N goes on"
        return f"continues at step {done} of {steps} {where}" + (": only the test is left" if done == steps else "")

    def _scored(self, store: CheckpointStore, tracker: Trackers) -> tuple[Learned, int]:
        """What is tested: the checkpoint best on validation; without validation, the final parameters."""
        state = self.state
        if state.best is not None and state.best["step"] != state.step:
            try:
                best = store.load(checkpoint_name(state.best["step"]))
                return best.learned, best.step
            except CheckpointError as error:
                text = f"{error}: the parameters of step {state.step} are tested in place of the best"
                tracker.event("warning", text)
        return state.outer.learned, state.step

    def _evaluate(
        self, learned: Learned, step: int, executor: Executor, tracker: Trackers, writer: RunWriter
    ) -> Evaluation:
        num_episodes = self.config.tasks.num_episodes("test") or self.config.test_episodes
        tracker.event("testing", f"scoring {num_episodes:,} test episodes")
        return evaluate_learned(
            self.config,
            self.built,
            learned,
            executor,
            run=writer.id,
            step=step,
            split="test",
            chunks=self.state.chunks,
            notify=tracker.event,
        )

    def _record(self, evaluation: Evaluation, writer: RunWriter, *, wall_s: float) -> None:
        """The score on the disk, before anything else that could fail."""
        state = self.state
        writer.write_evaluation("test", evaluation.to_json())
        writer.write_summary(
            evaluation.headline,
            params_sha256=params_sha256(state.outer.learned.params),
            tasks_per_s=state.tasks / state.train_s if state.train_s else 0.0,
            wall_s=wall_s,
            steps=state.step,
            best_step=None if state.best is None else state.best["step"],
            stopped_by=self.reason,
            scored_checkpoint=evaluation.settings["checkpoint_step"],
            over_classes=evaluation.over_classes,
            by_inner_step=evaluation.summary.per_step,
            axis=evaluation.summary.axis,
            batch_norm=self.built.batch_norm,
            inner_steps=evaluation.settings["inner_steps"],
            precision=self.config.precision,
        )

    def _illustrate(self, evaluation: Evaluation, learned: Learned, tracker: Trackers, writer: RunWriter) -> None:
        """Write a few test episodes out, where the method has predictions to show. The run has its score: what cannot
        be drawn, or is interrupted, is told."""
        if not self.config.algorithm.predicts:
            return
        ranked = evaluation.scores.ranked()
        kept = sorted({*range(min(WORST_KEPT, len(ranked))), len(ranked) // 2, len(ranked) - 1})
        ranks = {ranked[place]: place + 1 for place in kept}
        folder = writer.directory / layout.EPISODES
        try:
            problems = write_episodes(folder, self.built.blueprint, learned, split="test", seed=TEST_SEED, ranks=ranks)
        except KeyboardInterrupt:
            problems = ["test episodes are left out: interrupted"]
        for problem in problems:
            tracker.event("warning", problem)


def told(error: BaseException) -> str:
    """How a run failed, for its files: the error, and the line of a person's own code that it came from."""
    text = described(error)
    return shortened(f"{type(error).__name__}: {text}" if isinstance(error, RaymetaError) else text)
