"""Small laws of what lies between a task and a result: sums, means, their order, and the scores of a test."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from clouds import WAY, Clouds, drawn
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta.adaptation.head import require_head
from raymeta.adaptation.inner_rules import InnerRule
from raymeta.adaptation.problem import COLUMNS, Learned, Part, Phase, Problem, Vectorize
from raymeta.engine.driver.scoring import EpisodeScores, Scoring
from raymeta.engine.fold import Fold, Total
from raymeta.engine.job import Result
from raymeta.errors import ConfigError
from raymeta.keys import SPLITS, Block, Shard, TaskKey
from raymeta.tasks.episodes import Episode, Examples
from raymeta.trackers.axes import AXES
from raymeta.trackers.scores import better_before
from raymeta.tree import Layout


def result(start: int, values: list[float], rows: list[float] | None = None) -> Result:
    """What one task gives."""
    named = {} if rows is None else {"loss": np.array([rows])}
    return Result(Shard(0, "train", 0, start, start + 1), np.array(values, dtype=np.float32), {}, named)


def test_small_gradients_are_not_scaled_up() -> None:
    """Clipping bounds a norm; it does not set it."""
    short = {"w": torch.tensor([3.0, 4.0])}
    found, _ = InnerRule(clip_norm=10.0).direction(short, {}, 0)
    torch.testing.assert_close(found, short)
    found, _ = InnerRule(clip_norm=1.0).direction(short, {}, 0)
    torch.testing.assert_close(found["w"], torch.tensor([0.6, 0.8]))


def test_the_first_outputs_of_a_wide_head_count() -> None:
    outputs = torch.arange(10.0).view(2, 5)
    wide = Problem(nn.Linear(4, 5), goal="classification", wide_head=True)
    assert wide.of_way(outputs, Phase(way=3)).tolist() == [[0, 1, 2], [5, 6, 7]]
    assert wide.of_way(outputs, Phase(way=5)) is outputs


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_sums_over_tasks_are_wide(vectorize: Vectorize) -> None:
    """In single precision, 1 would be lost beside 10⁸."""
    values = torch.tensor([1e8, 1.0, -1e8]).view(3, 1, 1)
    side = Examples(values, torch.zeros(3, 1, dtype=torch.int64))

    def one(episode: Episode, noise: dict[str, Tensor]) -> Part:
        value = episode.support.x.sum()
        return Part({"gradient": value}, {"metric": value})

    problem = Problem(nn.Linear(1, 1), goal="classification", vectorize=vectorize)
    found = problem.sum_over_tasks(one, Episode(side, side), {})
    assert (found.sums["gradient"].item(), found.metrics["metric"].item()) == (1.0, 1.0)


@pytest.mark.parametrize("num_tasks", [1, 3, 33, 64])
def test_many_columns_are_summed_as_few(num_tasks: int) -> None:
    """Some at a time, with the bits of one sum: numbers of many sizes, whose order would show."""
    generator = torch.Generator().manual_seed(0)
    for size in (COLUMNS, *[COLUMNS + 1] * 9, 2 * COLUMNS + 1, 3 * COLUMNS - 5, 9 * COLUMNS):
        values = torch.randn(num_tasks, size, generator=generator)
        values *= (8 * torch.randn(num_tasks, size, generator=generator)).exp()
        side = Examples(values, torch.zeros(num_tasks, 1, dtype=torch.int64))
        problem = Problem(nn.Linear(1, 1), goal="classification", vectorize="vmap")
        found = problem.sum_over_tasks(
            lambda episode, noise: Part({"gradient": episode.support.x}), Episode(side, side), {}
        )
        assert torch.equal(found.sums["gradient"], values.sum(0, dtype=torch.float64))


def test_what_a_task_gives_stays_as_it_is() -> None:
    """Also where it is wide already, and one tensor under two names."""
    value = torch.ones(2, dtype=torch.float64)
    side = Examples(torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.int64))
    problem = Problem(nn.Linear(1, 1), goal="classification", vectorize="loop")
    found = problem.sum_over_tasks(lambda episode, noise: Part({"a": value, "b": value}), Episode(side, side), {})
    assert [value.tolist(), found.sums["a"].tolist(), found.sums["b"].tolist()] == [[1, 1], [3, 3], [3, 3]]


def test_what_a_later_task_lacks_is_told() -> None:
    side = Examples(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1, dtype=torch.int64))
    problem = Problem(nn.Linear(1, 1), goal="classification", vectorize="loop")

    def one(episode: Episode, noise: dict[str, Tensor]) -> Part:
        return Part({"a": torch.ones(1)} if episode.support.x.any() else {"a": torch.ones(1), "b": torch.ones(1)})

    with pytest.raises(KeyError, match="b"):
        problem.sum_over_tasks(one, Episode(side, side), {})


def test_the_fold_is_in_double_precision() -> None:
    fold = Fold(3)
    for index, value in enumerate((1e8, 1.0, -1e8)):
        fold.add(Block(0, index), Total.of(result(index, [value])))
    assert fold.total().vector.tolist() == [1.0]


def test_rows_are_in_the_order_of_tasks() -> None:
    for order in itertools.permutations(range(4)):
        fold = Fold(4)
        for index in order:
            fold.add(Block(0, index), Total.of(result(index, [0.0], [float(index)])))
        assert fold.total().joined()["loss"][:, 0].tolist() == [0, 1, 2, 3]


def test_a_mean_is_the_sum_over_the_number_of_tasks() -> None:
    total = Total(4, np.array([2.0, 6.0]), {}, (), layout=Layout({"w": (1, 2)}))
    assert total.sums()["w"].tolist() == [[2.0, 6.0]]
    assert total.means()["w"].tolist() == [[0.5, 1.5]]


def test_seeds_of_torch_differ_between_tasks() -> None:
    places = list(itertools.product((0, 1), SPLITS, (0, 1, 2), (0, 1, 2)))
    assert len({TaskKey(*place).torch_seed() for place in places}) == len(places)


def test_scores_are_in_the_order_of_episodes() -> None:
    parts = [(Block(0, index), result(index, [], [float(index), 10.0 + index])) for index in (2, 0, 1)]
    scoring = Scoring(lambda: iter(parts), lambda error: None, "test", 0)
    assert scoring.collect().values["loss"].tolist() == [[0, 10], [1, 11], [2, 12]]


def test_the_worst_episode_comes_first() -> None:
    """By the score after the last inner step, whichever way it is better."""
    last = np.array([[9.0, 0.5], [0.0, 0.9], [5.0, 0.1]])
    loss = np.zeros((3, 2))
    assert EpisodeScores({"loss": loss, "accuracy": last}, "test", 0).ranked() == [2, 0, 1]
    assert EpisodeScores({"loss": last}, "test", 0).ranked() == [1, 0, 2]


class Tail(nn.Module):
    """Something follows the linear layer, which is thus no head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(torch.tanh(self.first(x))))


def test_a_head_that_is_not_the_end_is_refused() -> None:
    for model, fails in ((Tail(), True), (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)), False)):
        problem = Problem(model.double(), goal="classification")
        learned, x = Learned(problem.initial_params(), {}), torch.randn(5, 4, dtype=torch.float64)
        if fails:
            with pytest.raises(ConfigError, match="the outputs change"):
                require_head(problem, learned, x)
        else:
            require_head(problem, learned, x)


def test_dropout_is_off_at_test(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, WAY)).double()
    run = raymeta.meta_train(
        tasks=Clouds(), model=model, algorithm=raymeta.JointTraining(test_inner_steps=0), steps=1, meta_batch_size=2,
        validate_every=0, test_episodes=3, device="cpu", output=str(tmp_path),
    )  # fmt: skip
    found = raymeta.meta_test(run, episodes=3, model=model).scores.values["loss"][:, 0]
    trained = run.model(model).eval()
    episodes = [drawn(0, "test", 0, index) for index in range(3)]
    with torch.no_grad():
        expected = [float(F.cross_entropy(trained(episode.query.x), episode.query.y)) for episode in episodes]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "scores", "ci95", "best"),
    [
        ("accuracy", [0.2, 0.63, 0.5, 0.38], 0.02, 1),
        ("accuracy", [0.2, 0.39, 0.38, 0.38], 0.02, None),
        ("accuracy", [0.9, 0.38, 0.38], 0.02, None),
        ("mse", [4.0, 1.0, 0.5, 0.9], 0.1, 2),
        ("mse", [4.0, 1.0, 1.5, 0.9], 0.1, None),
    ],
)
def test_more_inner_steps_that_make_it_worse_are_told(
    name: str, scores: list[float], ci95: float, best: int | None
) -> None:
    """Not what is before adapting: a method that adapts is asked to."""
    text = better_before(name, AXES["inner step"], scores, ci95)
    assert (f"--inner-steps {best} tests that" in text) if best else not text
    assert better_before(name, AXES["instance"], scores, ci95) == ""
