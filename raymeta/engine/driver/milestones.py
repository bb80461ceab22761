"""Validations and checkpoints, each at its step, whatever the moment a validation is done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from raymeta.engine.driver.background import BackgroundStore
from raymeta.engine.driver.checkpoint import Checkpoint
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.memory import tell_halving
from raymeta.engine.driver.scoring import Scoring, begin_scoring
from raymeta.engine.stopwatch import CHECKPOINT, VALIDATION
from raymeta.errors import OutOfMemory
from raymeta.trackers.scores import SCORES


@dataclass(frozen=True)
class Validation:
    """Parameters that are being validated, and their scores on the way."""

    snapshot: Checkpoint
    scoring: Scoring


@dataclass
class Milestones:
    """Validates and saves. A validation may go on beside training; nothing that is written depends on when it ends.

    The best checkpoint follows from all validations before it, so each is done before the next save. A run that dies
    in between resumes from a checkpoint that says that its validation is due.
    """

    driver: Driver
    store: BackgroundStore
    _running: Validation | None = field(default=None, init=False)

    def resume(self) -> None:
        """Make up for the validation that an earlier attempt did not finish."""
        if self.driver.state.validation_due:
            self._begin_validation(urgent=True)
            self._end_validation()
            self.driver.state.validation_due = False

    def after_step(self, *, last: bool) -> None:
        """Whatever is due after the step that was just done."""
        self.tell_saved()
        step, schedule = self.driver.state.step, self.driver.schedule
        validate = bool(schedule.validate_every) and (step % schedule.validate_every == 0 or last)
        save = last or step % schedule.checkpoint_every == 0
        if validate or save or (self._running is not None and not self.driver.executor.unfinished()):
            self._end_validation()
        if validate:
            beside = schedule.overlap_validation and self.driver.executor.concurrent and not last
            self._begin_validation(urgent=not beside)
            if not beside:
                self._end_validation(save=save)
            elif save:
                self._save(replace(self._running.snapshot, validation_due=True))  # type: ignore[union-attr]
        elif save:
            self._save(self.driver.state.checkpoint())

    def stop(self, *, validate: bool) -> None:
        """End the run at this step, before its schedule did."""
        self._end_validation()
        every = self.driver.schedule.validate_every
        if validate and every and self.driver.state.step % every:
            self._begin_validation(urgent=True)
            self._end_validation(save=True)
        else:
            self._save(self.driver.state.checkpoint())

    def rescue(self) -> None:
        """Save what can be continued from, without workers to count on."""
        if self._running is None:
            self._save(self.driver.state.checkpoint())
        else:  # the best checkpoint would not be known; the few steps since are done again
            self._save(replace(self._running.snapshot, validation_due=True))

    def _save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        self.driver.tracker.tell_steps()  # a run that goes on from here has told of all steps before
        with self.driver.stopwatch(CHECKPOINT):
            self.store.save(checkpoint, best=best)

    def out_of_memory(self, error: OutOfMemory) -> None:
        """Half as many tasks at once for meta-gradients from this step on; saved before any bit depends on it.

        Raises `error` where it was a single task.
        """
        halving = self.driver.state.chunks.halve("gradient", self.driver.state.step, error)
        tell_halving(self.driver.tracker.event, halving)
        self._end_validation()
        self._save(self.driver.state.checkpoint())

    def _begin_validation(self, *, urgent: bool) -> None:
        self.driver.tracker.tell_steps()
        with self.driver.stopwatch(VALIDATION):
            scoring = begin_scoring(
                self.driver.state.outer.learned,
                blueprint=self.driver.blueprint,
                executor=self.driver.executor,
                split="val",
                num_episodes=self.driver.schedule.validation_episodes,
                seed=self.driver.schedule.seed,
                shard_size=self.driver.schedule.shard_size,
                urgent=urgent,
                chunks=self.driver.state.chunks,
                step=self.driver.state.step,
                tell=self.driver.tracker.event,
            )
        snapshot = self.driver.state.checkpoint()
        self._running = Validation(snapshot if urgent else snapshot.clone(), scoring)

    def _end_validation(self, *, save: bool = False) -> None:
        """Wait for the validation that is on its way; keep its checkpoint if it is the best so far, or if `save`."""
        if self._running is None:
            return
        snapshot, state = self._running.snapshot, self.driver.state
        with self.driver.stopwatch(VALIDATION):
            scores = self._running.scoring.collect().summary()
        self._running = None
        state.validation = scores.metrics()
        self.driver.tracker.validation(snapshot.step, scores)
        rank = SCORES[scores.name].sign * scores.value
        improved = math.isfinite(rank) and (state.best is None or rank > state.best["rank"])
        if improved:
            state.best = {"step": snapshot.step, "name": scores.name, "value": scores.value, "rank": rank}
            self.driver.tracker.event("best", f"best validation so far at step {snapshot.step}", step=snapshot.step)
        if improved or save or self.store.has(snapshot.step):
            known = replace(snapshot, best=state.best, halvings=tuple(state.chunks.halvings), validation_due=False)
            self._save(known, best=improved)

    def tell_saved(self) -> None:
        """Report the checkpoints that are on the disk by now; raises the error of one that could not be written."""
        for step, best in self.store.finished():
            self.driver.tracker.event("checkpoint", f"checkpoint of step {step}", step=step, best=best)
