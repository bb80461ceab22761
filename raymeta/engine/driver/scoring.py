"""Episodes adapted to and scored: validation while training, and the test at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from raymeta.adaptation.problem import Learned
from raymeta.algorithms.base import CLASS_ID, RIGHT
from raymeta.engine.driver.memory import Chunks, tell_halving
from raymeta.engine.executors.base import Executor, Tell
from raymeta.engine.job import Job, Result
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.errors import OutOfMemory
from raymeta.keys import Block, Split, plan
from raymeta.trackers.axes import INNER_STEP, AxisName
from raymeta.trackers.over_classes import FEW_CLASSES, OverClasses, over_classes
from raymeta.trackers.scores import EPISODES, LOSS, SCORES, ScoreName, Scores, drawn_in, half_width, headline_name
from raymeta.tree import FloatArray


@dataclass(frozen=True)
class EpisodeScores:
    """Scores of every episode [N, K + 1] before adapting and after each inner step, by metric name."""

    values: dict[str, FloatArray]
    split: Split
    seed: int
    score: ScoreName | None = None
    """of the algorithm's own; that of the tasks' goal unless given"""
    axis: AxisName = INNER_STEP
    of: str = EPISODES
    """what a score is of: an episode, or a batch of one training problem"""
    over_classes: OverClasses | None = None
    """of a split with few classes, where the method tells which queries it classified rightly"""

    @property
    def name(self) -> ScoreName:
        return self.score or headline_name(self.values)

    @property
    def main(self) -> FloatArray:
        """The score of the headline [N, K + 1]."""
        return self.values[self.name if self.name in self.values else LOSS]

    def ranked(self) -> list[int]:
        """Indices of the episodes by their score after the last inner step, worst first."""
        last = SCORES[self.name].sign * self.main[:, -1]
        return [int(i) for i in np.argsort(last, kind="stable")]

    def summary(self) -> Scores:
        """Mean over episodes after the last inner step with its 95 % interval."""
        last = self.main[:, -1]
        means = [float(m) for m in self.main.mean(0)]
        others = {
            name: float(values[:, -1].mean()) for name, values in self.values.items() if name not in (self.name, LOSS)
        }
        return Scores(self.name, means, float(last.mean()), half_width(last), len(last), others, self.axis, self.of)


@dataclass
class Scoring:
    """Scores that are being computed; computed again in smaller chunks if memory runs out."""

    begin: Callable[[], Iterator[tuple[Block, Result]]]
    halve: Callable[[OutOfMemory], None]
    split: Split
    seed: int
    score: ScoreName | None = None
    axis: AxisName = INNER_STEP
    of: str = EPISODES
    """what a score is of: an episode, or a batch of one training problem"""
    num_classes: int = 0
    done: Callable[[int], None] = lambda num_tasks: None
    """hears of the tasks that were scored, some at a time"""

    def __post_init__(self) -> None:
        self._results = self.begin()

    def collect(self) -> EpisodeScores:
        """Wait for all of them. Raises `OutOfMemory` where memory does not suffice for a single task."""
        while True:
            try:
                results = sorted(self._told(), key=lambda pair: pair[0].index)
                break
            except OutOfMemory as error:
                self.halve(error)
                self._results = self.begin()
        ordered = [result.rows for _, result in results]
        values = {name: np.concatenate([scores[name] for scores in ordered]) for name in ordered[0]}
        right, class_id = values.pop(RIGHT, None), values.pop(CLASS_ID, None)
        few = 0 < self.num_classes <= FEW_CLASSES
        classes = over_classes(right, class_id) if few and right is not None and class_id is not None else None
        return EpisodeScores(values, self.split, self.seed, self.score, self.axis, self.of, classes)

    def _told(self) -> Iterator[tuple[Block, Result]]:
        num_tasks = 0
        for block, result in self._results:
            num_tasks += result.shard.num_tasks
            self.done(num_tasks)
            yield block, result


def begin_scoring(
    learned: Learned,
    *,
    blueprint: Blueprint,
    executor: Executor,
    split: Split,
    num_episodes: int,
    seed: int,
    shard_size: int,
    inner_steps: int | None = None,
    urgent: bool = True,
    chunks: Chunks,
    step: int,
    tell: Tell,
    done: Callable[[int], None] = lambda num_tasks: None,
) -> Scoring:
    """Adapt to `num_episodes` episodes of `split` and score each; the same episodes for every model and checkpoint.

    Where the task set has finitely many, all of them are scored instead.

    The parameters are those of now, after outer step `step`, however they change while the scores are on their way.
    """
    num_tasks = blueprint.tasks.num_episodes(split) or num_episodes
    shards = plan(seed=seed, split=split, step=0, num_tasks=num_tasks, shard_size=shard_size)
    payload = blueprint.payload(learned)

    def begin() -> Iterator[tuple[Block, Result]]:
        return executor.map(Job("scores", inner_steps, chunks.at("scores", step)), payload, shards, urgent=urgent)

    def halve(error: OutOfMemory) -> None:
        tell_halving(tell, chunks.halve("scores", step, error))

    algorithm, tasks = blueprint.algorithm, blueprint.tasks
    num_classes = 0 if tasks.one_problem else tasks.num_classes(split)  # all there are, and no sample of others
    score, of = algorithm.score_of(blueprint.tasks.goal), drawn_in(tasks.one_problem)
    return Scoring(begin, halve, split, seed, score, algorithm.axis, of, num_classes, done)
