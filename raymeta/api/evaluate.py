"""Meta-test: adapt a trained model to held-out tasks and score it, by one protocol for every run."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raymeta.adaptation.problem import Learned
from raymeta.api.checkpoints import best_checkpoint, run_config, take_fixed_tensors
from raymeta.api.resume import DEFAULT_OUTPUT
from raymeta.api.same_data import on_held_out_data
from raymeta.config.build import Built, build
from raymeta.config.load import dump
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.engine.driver.memory import Chunks
from raymeta.engine.driver.scoring import EpisodeScores, begin_scoring
from raymeta.engine.executors.base import Executor, Tell, silent
from raymeta.engine.worker.compile_rule import compiler_problem
from raymeta.errors import ConfigError, RaymetaWarning
from raymeta.keys import Split
from raymeta.runs.read import Run, resolve_run
from raymeta.runs.write import Headline
from raymeta.system.text import duration
from raymeta.tasks.base import TaskSet
from raymeta.tasks.manifest import sha256_of
from raymeta.trackers.python_warnings import PythonWarnings
from raymeta.trackers.scores import SCORES, Scores, half_width, paired

TEST_SEED = 0
"""Seed of test episodes: the same for every run, whatever seed it trained with. Validation while training draws its
episodes from the run's own seed, so runs of one seed share them."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one checkpoint on one list of episodes, with everything that determines them."""

    run: str
    scores: EpisodeScores
    settings: dict[str, Any]

    @property
    def summary(self) -> Scores:
        """Mean, interval and mean by adaptation step."""
        return self.scores.summary()

    @property
    def headline(self) -> Headline:
        s = self.summary
        return Headline(s.name, s.value, s.ci95, s.episodes, self.scores.split, SCORES[s.name].word, s.of)

    @property
    def over_classes(self) -> dict[str, Any] | None:
        """{classes, ci95}: the interval over classes, where the split has few."""
        found = self.scores.over_classes
        return None if found is None else found._asdict()

    def to_json(self) -> dict[str, Any]:
        """The content of eval/test.json; `values` are per episode after the last inner step."""
        steps = {name: [float(m) for m in values.mean(0)] for name, values in self.scores.values.items()}
        return {
            "headline": self.headline._asdict(),
            "over_classes": self.over_classes,
            "by_inner_step": steps,
            "ci95_by_inner_step": [half_width(column) for column in self.scores.main.T],
            "values": [float(v) for v in self.scores.main[:, -1]],
            "settings": self.settings,
        }


TOLD_EVERY_S = 10.0


class ScoringProgress:
    """Says how far a test is every ten seconds, more rarely in one that takes hours."""

    def __init__(self, split: Split, episodes: int, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._split, self._episodes, self._tell, self._clock = split, episodes, tell, clock
        self._began = self._told = clock()

    def done(self, episodes: int) -> None:
        """So many are scored by now."""
        now = self._clock()
        if now - self._told < max(TOLD_EVERY_S, 0.02 * (now - self._began)) or episodes >= self._episodes:
            return
        self._told = now
        left = duration((now - self._began) * (self._episodes - episodes) / episodes)
        self._tell("testing", f"{episodes:,} of {self._episodes:,} {self._split} episodes scored, {left} left")


def evaluate_learned(
    config: RunConfig,
    built: Built,
    learned: Learned,
    executor: Executor,
    *,
    run: str,
    step: int,
    split: Split = "test",
    episodes: int | None = None,
    seed: int = TEST_SEED,
    inner_steps: int | None = None,
    chunks: Chunks,
    tell: Tell,
) -> Evaluation:
    """Score `learned` on episodes of `split` with workers that are already there.

    `tell` hears of memory that did not suffice for as many tasks at once as `chunks` says.
    """
    num_episodes = config.test_episodes if episodes is None else episodes
    progress = ScoringProgress(split, config.tasks.num_episodes(split) or num_episodes, tell)
    scores = begin_scoring(
        learned,
        blueprint=built.blueprint,
        executor=executor,
        split=split,
        num_episodes=num_episodes,
        seed=seed,
        shard_size=config.shard_size,
        inner_steps=inner_steps,
        chunks=chunks,
        step=max([step, *(halving.step for halving in chunks.halvings)]),
        tell=tell,
        done=progress.done,
    ).collect()
    size = config.tasks.size(split)
    tasks = yaml.safe_load(dump(config))["tasks"]
    settings = {
        "checkpoint_step": step,
        "split": split,
        "seed": seed,
        "way": size.way,
        "shot": size.shot,
        "query_shot": size.query_shot,
        **({"one_problem": True} if config.tasks.one_problem else {}),
        "inner_steps": scores.main.shape[1] - 1,
        "axis": scores.axis,
        "batch_norm": built.batch_norm,
        "tasks": tasks,
        "data_sha256": config.tasks.contents(split).sha256,
        "episodes_sha256": _episodes_sha256(config.tasks, split, seed, num_episodes),
    }
    return Evaluation(run, scores, settings)


def _episodes_sha256(tasks: TaskSet, split: Split, seed: int, num_episodes: int) -> str:
    """Identifies a list of episodes: it follows from the data, wherever they lie, the episodes' size, and the keys."""
    return sha256_of([tasks.drawn_from(split), split, seed, num_episodes])


def meta_test(
    run: Run | str | Path,
    *,
    episodes: int = 600,
    split: Split = "test",
    seed: int = TEST_SEED,
    inner_steps: int | None = None,
    workers: int = 0,
    changed_data: bool = False,
    trust: bool = False,
    tell: Tell | None = None,
    **overrides: Any,
) -> Evaluation:
    """Score a run's best checkpoint on `episodes` episodes of `split`; the run's files are only read.

    Where the best checkpoint cannot be read, the newest readable one is scored, with a `RaymetaWarning` that says so;
    and so it is told where the data are not those that the run recorded.

    Args:
        run: a run, its folder, or its id under `results/`.
        changed_data: score what is there where the run's data changed. Without it this is refused, unless `overrides`
            name other data; a class that the run learned from is refused in any case.
        trust: import the code that the run's configuration names; needed unless it was named in this process before.
        tell: hears of progress and of what went wrong; without it, the latter are warnings.
        overrides: configuration keys that may differ at test, `tasks.way=20` as `**{"tasks.way": 20}`.

    Raises:
        CheckpointError: the run has no checkpoint that can be read.
        ConfigError: an override does not exist, or changes the shape of what was learned; a number is out of range.
        DataError: the data are not what the run held out.
    """
    _require_whole("episodes", episodes, 1)
    _require_whole("seed", seed, 0, 2**63 - 1)
    if inner_steps is not None:
        _require_whole("inner_steps", inner_steps, 0)
    opened = run if isinstance(run, Run) else resolve_run(str(run), DEFAULT_OUTPUT)
    trust = trust or opened.trusted
    # How many workers the training could do with says nothing about a test.
    chosen = {"min_workers": None, "max_workers": None, **overrides, "workers": workers}
    config = run_config(opened, chosen, trust=trust)
    config = _on_held_out_data(opened, config, overrides, split, changed_data)
    if not _computes_its_graphs(config, overrides, inner_steps):
        config = config.model_copy(update={"compile": False})
    built = build(config, [split])
    checkpoint = best_checkpoint(opened)
    take_fixed_tensors(built, checkpoint)
    executor = built.executor()
    chunks = built.chunks()

    def scored(episodes: int, tell: Tell) -> Evaluation:
        where: dict[str, Any] = {"run": opened.id, "step": checkpoint.step, "split": split, "seed": seed}
        how: dict[str, Any] = {"inner_steps": inner_steps, "chunks": chunks, "tell": tell}
        return evaluate_learned(config, built, checkpoint.learned, executor, episodes=episodes, **where, **how)

    try:
        if inner_steps is not None and scored(1, silent).settings["inner_steps"] != inner_steps:
            raise ConfigError(f"{name_of(config.algorithm)} takes no inner steps: leave --inner-steps out")
        return scored(episodes, tell or PythonWarnings().event)
    finally:
        executor.close()


def _computes_its_graphs(config: RunConfig, overrides: Mapping[str, Any], inner_steps: int | None) -> bool:
    """Whether to compile: the run was compiled, its own graphs are asked for, and a compiler works here."""
    if "compile" in overrides:
        return config.compile is True
    if config.compile is not True or inner_steps is not None or not overrides.keys() <= {"address", "tasks.root"}:
        return False
    problem = compiler_problem()
    if problem is not None:
        text = f"the run was compiled, and no compiler works here ({problem}): last digits of scores may differ"
        warnings.warn(text, RaymetaWarning, stacklevel=3)
    return problem is None


_SIZES = ("tasks.way", "tasks.shot", "tasks.query_shot")
"""Options that change episodes and leave the data as they are."""


def _on_held_out_data(
    run: Run, config: RunConfig, overrides: Mapping[str, Any], split: Split, changed_data: bool
) -> RunConfig:
    of_data = {key: value for key, value in overrides.items() if key not in _SIZES}
    own = config.tasks if of_data == overrides else run_config(run, of_data).tasks
    chosen = [key for key in of_data if key.partition(".")[0] == "tasks" and key != "tasks.data"]
    fitted = on_held_out_data(run, config, own, split, chosen=chosen, changed_data=changed_data)
    for note in fitted.notes:
        warnings.warn(note, RaymetaWarning, stacklevel=3)
    return fitted.config


def _require_whole(name: str, value: int, least: int, most: float = math.inf) -> None:
    if not least <= value <= most:
        limit = f"from {least} to {most}" if math.isfinite(most) else f"≥ {least}"
        raise ConfigError(f"{name} {value} is out of range: it is a whole number {limit}")


def same_episodes(first: Evaluation, second: Evaluation) -> bool:
    """Whether both were scored on the same list of episodes, so that they may be compared episode by episode."""
    return bool(first.settings["episodes_sha256"] == second.settings["episodes_sha256"])


def paired_difference(first: Evaluation, second: Evaluation) -> tuple[float, float]:
    """Mean of `second` − `first` over the same episodes, and the half-width of its 95 % interval.

    Raises `ConfigError` where the episodes differ.
    """
    if not same_episodes(first, second):
        raise ConfigError(f"{first.run} and {second.run} were scored on different episodes and cannot be paired")
    return paired(first.scores.main[:, -1], second.scores.main[:, -1])
