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

from raymeta.api.checkpoints import take_fixed_tensors
from raymeta.api.describe import cluster_text, run_name, without_effect, worker_text
from raymeta.api.final_test import final_test, found, illustrate, record, tested_parameters
from raymeta.api.load import RunView
from raymeta.api.resume import last_checkpoint, resumed_config, run_to_resume, spent_s
from raymeta.api.same_data import on_recorded_data, twins
from raymeta.api.start import start_from, starts_of
from raymeta.config.build import Built, build, splits_in_use
from raymeta.config.load import Loaded, dump, load_config
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.loop import StopReason, train_loop
from raymeta.engine.driver.profile import Profile
from raymeta.engine.worker.blueprint import choose_device
from raymeta.engine.worker.compile_rule import COMPILING
from raymeta.errors import EnvironmentProblem, RaymetaError, RunFailed, shortened
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
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`directory` receives the run, instead of a new folder in `config.output`. `stop` may ask for a stop after
        the current step, as a signal does: it answers with the reason. `profiled_steps` are traced, and where the time
        of all steps went is written beside the trace. `say` hears what takes long before there is a run."""
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
        self.built: Built = build(config, say=say)
        self.manifest = config.tasks.manifest(splits_in_use(config))
        doubts = config.algorithm.doubts(config.steps, started=config.start is not None)
        self.warnings += [*twins(self.manifest), *doubts]
        self._unrecorded = resume is None or resume.manifest is None
        # A resumed run keeps what was chosen, since its bits depend on it.
        chosen = {"vectorize": self.built.vectorize.vectorize, "compile": self.built.compiled.compile}
        self.config = config.model_copy(update=chosen)
        self._vectorize_chosen, self._compile_chosen = config.vectorize == "auto", config.compile == "auto"
        self.state = self.built.state()
        if resume is not None:
            self._restore(resume)
        else:
            for start in starts_of(config):
                said = start_from(start, self.built, self.state.outer, output=config.output)
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
        from raymeta.trackers.tensorboard import TensorBoard  # which a dry run does not wait for

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
        executor = self.built.executor(tracker.event)
        driver = Driver(self.state, self.built.blueprint, executor, self.built.schedule, tracker)
        if self.config.workers:
            place = executor.describe()
            tracker.event("cluster", cluster_text(place), **place)
            tracker.add(RayMetrics(writer.id))
        if self._profiled_steps is not None:
            num_workers = len(executor.workers()) if self.config.workers else 0
            self.profile = Profile(writer.directory, traced_steps=self._profiled_steps, num_workers=num_workers)
        if self.built.compiled.compile:
            tracker.event("compile", COMPILING)
        began = time.perf_counter()
        try:
            if not self._train(driver, store):
                self._stop(writer, tracker)
                return
            learned, step = tested_parameters(self.state, store, tracker)
            evaluation = final_test(self.config, self.built, driver, learned, step, writer.id)
            wall_s = self._spent_s + time.perf_counter() - began
            about: dict[str, Any] = {"stopped_by": self.reason, "precision": self.config.precision, "wall_s": wall_s}
            record(evaluation, writer, self.state, found=found(self.built, learned), **about)
        finally:
            executor.close()
        illustrate(evaluation, self.built, learned, writer, tracker)
        writer.finish("finished", self.reason)
        done = f"finished after {self.state.step} steps"
        early = Run.open(writer.directory).ending.text + ", and tested"
        tracker.event("finished", done if self.reason == "steps" else early, step=self.state.step)

    def _train(self, driver: Driver, store: CheckpointStore) -> bool:
        """Whether training came to its end; False where it was asked to stop."""
        signalled = threading.Event()
        with first_signal(signalled.set):
            self.reason = train_loop(
                driver,
                store,
                stop_requested=lambda: signalled.is_set() or self._stop_asked() is not None,
                profile=self.profile,
            )
        return not signalled.is_set() and self.reason != "signal"  # a signal may have come when no step was left

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
        if run.config.get("compile") is True and not self.config.compile:
            text = f"not compiled from step {self.state.step} on: last digits are no longer those of a compiled run"
            self._notes = [*self._notes, text]

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
        if self._compile_chosen:
            tracker.event("compile", self.built.compiled.text())
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


def told(error: BaseException) -> str:
    """How a run failed, for its files: the error, and the line of a person's own code that it came from."""
    text = described(error)
    return shortened(f"{type(error).__name__}: {text}" if isinstance(error, RaymetaError) else text)
