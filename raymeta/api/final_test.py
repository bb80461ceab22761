"""The end of a run: its test, written to its directory before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymeta.adaptation.problem import Learned
from raymeta.api.episodes import ornament, write_episodes
from raymeta.api.evaluate import TEST_SEED, Evaluation, evaluate_learned
from raymeta.api.optimizers import optimizer_curves
from raymeta.api.weights import example_weights
from raymeta.config.build import Built
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.checkpoint import CheckpointStore, checkpoint_name
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.loop import StopReason
from raymeta.engine.driver.state import RunState
from raymeta.errors import CheckpointError
from raymeta.runs import layout
from raymeta.runs.write import RunWriter
from raymeta.trackers.base import Trackers
from raymeta.trackers.scores import drawn_in
from raymeta.tree import params_sha256

WORST_KEPT = 4
"""Test episodes written out in full: so many of the worst, and besides the middle one and the best."""


def tested_parameters(state: RunState, store: CheckpointStore, tracker: Trackers) -> tuple[Learned, int]:
    """What is tested: the checkpoint best on validation; without validation, the final parameters."""
    if state.best is not None and state.best["step"] != state.step:
        try:
            best = store.load(checkpoint_name(state.best["step"]))
            return best.learned, best.step
        except CheckpointError as error:
            text = f"{error}: the parameters of step {state.step} are tested in place of the best"
            tracker.event("warning", text)
    return state.outer.learned, state.step


def final_test(config: RunConfig, built: Built, driver: Driver, learned: Learned, step: int, run: str) -> Evaluation:
    """Score the parameters `learned` of `step` on the run's test episodes."""
    num_episodes = config.tasks.num_episodes("test") or config.test_episodes
    driver.tracker.event("testing", f"scoring {num_episodes:,} test {drawn_in(config.tasks.one_problem)}")
    return evaluate_learned(
        config,
        built,
        learned,
        driver.executor,
        run=run,
        step=step,
        chunks=driver.state.chunks,
        tell=driver.tracker.event,
    )


def found(built: Built, learned: Learned) -> Mapping[str, Any]:
    """What a search found; nothing where the method is none."""
    return built.blueprint.algorithm.found(built.blueprint.problem(), learned)


def record(
    evaluation: Evaluation,
    writer: RunWriter,
    state: RunState,
    *,
    stopped_by: StopReason,
    found: Mapping[str, Any],
    precision: str,
    wall_s: float,
) -> None:
    """The score on the disk, before anything else that could fail, with what a search `found`."""
    writer.write_evaluation("test", evaluation.to_json())
    writer.write_summary(
        evaluation.headline,
        params_sha256=params_sha256(state.outer.learned.params),
        tasks_per_s=state.tasks / state.train_s if state.train_s else 0.0,
        wall_s=wall_s,
        steps=state.step,
        best_step=None if state.best is None else state.best["step"],
        stopped_by=stopped_by,
        scored_checkpoint=evaluation.settings["checkpoint_step"],
        over_classes=evaluation.over_classes,
        by_inner_step=evaluation.summary.per_step,
        axis=evaluation.summary.axis,
        batch_norm=evaluation.settings["batch_norm"],
        inner_steps=evaluation.settings["inner_steps"],
        precision=precision,
        **({"found": found} if found else {}),
    )


def illustrate(evaluation: Evaluation, built: Built, learned: Learned, writer: RunWriter, tracker: Trackers) -> None:
    """Write out a few test episodes, where the method has predictions to show, and what else a page draws of it: the
    weights of training examples, tuned optimisers. The run has its score: what cannot be drawn, or is interrupted, is
    told."""
    problems: dict[str, None] = {}
    blueprint, losses = built.blueprint, evaluation.scores.main
    try:
        with ornament(problems, "weights of training examples"):
            _write(writer, "weights", example_weights(blueprint, learned, seed=TEST_SEED))
        with ornament(problems, "tuned optimisers"):
            curves = optimizer_curves(blueprint, losses, seed=TEST_SEED, tell=tracker.event)
            _write(writer, "optimizers", curves)
        if blueprint.algorithm.predicts:
            ranks = ranks_of(evaluation)
            folder = writer.directory / layout.EPISODES
            left_out = write_episodes(folder, blueprint, learned, split="test", seed=TEST_SEED, ranks=ranks)
            problems |= dict.fromkeys(left_out)
    except KeyboardInterrupt:
        problems["what illustrates the score is left out: interrupted"] = None
    for problem in problems:
        tracker.event("warning", problem)


def _write(writer: RunWriter, name: str, content: Mapping[str, Any] | None) -> None:
    if content is not None:
        writer.write_evaluation(name, content)


def ranks_of(evaluation: Evaluation) -> dict[int, int]:
    """Ranks (1 is the worst) by index of the episodes that are written out: some of the worst, the middle, the best."""
    ranked = evaluation.scores.ranked()
    kept = sorted({*range(min(WORST_KEPT, len(ranked))), len(ranked) // 2, len(ranked) - 1})
    return {ranked[place]: place + 1 for place in kept}
