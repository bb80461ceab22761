"""Tasks made of others: a share of one is the method itself, mixtures are as by hand, draws follow from keys."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from draws import draw, shaken
from equal_bits import require_equal_bits
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta.adaptation.losses import OfTwoLabels
from raymeta.adaptation.problem import Learned, Phase, Problem, Vectorize
from raymeta.algorithms.base import Algorithm
from raymeta.errors import ConfigError, DataError
from raymeta.keys import TaskKey
from raymeta.models.layers.convert import convert
from raymeta.models.layers.mixing_points import mark, mixed_call
from raymeta.tasks.episodes import Episode, Examples, one_task, stack_episodes
from raymeta.tasks.mixed_inputs import OWN, PARTNER, PICKED, SHARE
from raymeta.tasks.mixing import Draws, Mixing, aligned

WAY, SHOT, QUERIES, TASKS = 3, 2, 4, 2
KEYS = [TaskKey(0, "train", 5, index) for index in range(TASKS)]
PLACES = 4
VECTORIZE: tuple[Vectorize, ...] = ("vmap", "loop")


def network() -> nn.Sequential:
    layers = [nn.Conv2d(2, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 6, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, WAY)]
    model = shaken(convert(nn.Sequential(*layers)))
    assert len(mark(model, None)) == PLACES
    assert isinstance(model, nn.Sequential)
    return model


def problem(vectorize: Vectorize = "vmap") -> Problem:
    return Problem(network(), goal="classification", vectorize=vectorize, two_labels=True)


def episodes(seed: int = 0) -> Episode:
    def side(each: int, own: int) -> Examples:
        y = torch.arange(WAY).repeat(each)[torch.randperm(WAY * each, generator=torch.Generator().manual_seed(own))]
        return Examples(draw(len(y), 2, 5, 5, seed=own), y)

    return stack_episodes([Episode(side(SHOT, s), side(QUERIES, s + 1)) for s in range(seed, seed + 2 * TASKS, 2)])


def mixing(name: Any, **options: Any) -> Mixing:
    return Mixing(name=name, places=tuple(map(str, range(PLACES))), **options)


def made(how: Mixing, draws: Draws, own: Episode, other: Episode) -> Episode:
    return how.metamix(own, draws) if how.name == "metamix" else how.mlti(own, other, draws)


def computed(algorithm: Algorithm, problem: Problem, batch: Episode) -> dict[str, Tensor]:
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator())
    phase = Phase(way=WAY)
    noise = algorithm.noise(problem, KEYS, batch, phase)
    part = algorithm.contribution(problem, learned, batch, noise=noise, phase=phase)
    return {**part.sums, **part.metrics}


def outputs(model: nn.Module, batch: Episode, side: int, task: int) -> Tensor:
    x = one_task(batch[side], task).x
    assert isinstance(x, dict)
    return mixed_call(model, x).detach()


STEPS: dict[str, Any] = {"inner_lr": 0.1, "inner_steps": 2}
DESCENTS = [
    raymeta.MAML(**STEPS), raymeta.MAML(**STEPS, step_weights=(0.5, 0.5)), raymeta.ANIL(**STEPS), raymeta.MetaSGD(),
    raymeta.IMAML(inner_lr=0.1, inner_steps=2, cg_steps=2),
]  # fmt: skip
CASES: list[tuple[Any, Algorithm]] = [
    *itertools.product(["metamix", "mlti"], DESCENTS),
    *itertools.product(["mlti"], [raymeta.ProtoNet(), raymeta.R2D2(), raymeta.Reptile(**STEPS)]),
]


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize(("name", "algorithm"), CASES, ids=lambda value: getattr(type(value), "__name__", ""))
def test_a_share_of_one_is_the_method_itself(name: Any, algorithm: Algorithm, vectorize: Vectorize) -> None:
    how, plain = mixing(name, shuffle=0.5 if name == "metamix" else 0.0), episodes()
    drawn = how.draws(KEYS, plain)._replace(share=np.ones(TASKS), shuffled=np.zeros(TASKS, bool))
    expected = computed(algorithm, problem(vectorize), plain)
    found = computed(algorithm, problem(vectorize), made(how, drawn, plain, episodes(50)))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("place", range(PLACES))
def test_features_are_mixed_at_the_place_that_was_drawn(place: int) -> None:
    """By hand: both batches up to the place, each with statistics of its own, then the mixture to the end."""
    model, own, other = network(), episodes(), episodes(50)
    how = mixing("mlti")
    drawn = how.draws(KEYS, own)._replace(place=np.full(TASKS, place), alone=np.zeros(TASKS, bool))
    mixed = how.mlti(own, other, drawn)
    layers = [0, *(number + 1 for number, layer in enumerate(model) if isinstance(layer, nn.ReLU | nn.Tanh))]
    for task, side in itertools.product(range(TASKS), (0, 1)):
        mine, theirs = own[side], other[side]
        rows = aligned(mine.y, theirs.y, drawn.pairs)[task]
        assert theirs.y[task][rows].tolist() == drawn.pairs[task][mine.y[task]].tolist()
        share, begin, end = drawn.share[task], model[: layers[place]], model[layers[place] :]
        h = share * begin(mine.x[task]) + (1 - share) * begin(theirs.x[task][rows])  # type: ignore[index]
        torch.testing.assert_close(outputs(model, mixed, side, task), end(h).detach(), rtol=1e-12, atol=1e-13)
        assert torch.equal(mixed[side].y, mine.y)


@pytest.mark.parametrize("place", range(PLACES))
def test_both_sides_are_mixed_where_they_pass_the_network_as_one(place: int) -> None:
    """Prototypes by hand, of mixtures of two batches that each hold support and queries."""
    here, own, other = problem(), episodes(), episodes(50)
    how, model = mixing("mlti"), here.model
    drawn = how.draws(KEYS, own)._replace(place=np.full(TASKS, place), alone=np.zeros(TASKS, bool))
    mixed = how.mlti(own, other, drawn)
    cut = [0, *(number + 1 for number, layer in enumerate(model) if isinstance(layer, nn.ReLU | nn.Tanh))][place]
    for task in range(TASKS):
        rows = [aligned(mine.y, theirs.y, drawn.pairs)[task] for mine, theirs in zip(own, other, strict=True)]
        mine = torch.cat([side.x[task] for side in own])
        theirs = torch.cat([side.x[task][row] for side, row in zip(other, rows, strict=True)])
        share = drawn.share[task]
        z = model[cut:](share * model[:cut](mine) + (1 - share) * model[:cut](theirs))
        z_S, z_Q = z.tensor_split([WAY * SHOT])
        means = torch.stack([z_S[own.support.y[task] == label].mean(0) for label in range(WAY)])
        support, x = one_task(mixed.support, task), one_task(mixed.query, task).x
        learned, phase = Learned(here.initial_params(), {}), Phase(way=WAY)
        predict = raymeta.ProtoNet().adapt(here, learned, support, noise={}, phase=phase).predictors[-1]
        torch.testing.assert_close(predict(x), -torch.cdist(z_Q, means).square(), rtol=1e-9, atol=1e-11)


def test_queries_are_mixed_with_the_support_and_have_both_labels() -> None:
    model, own = network(), episodes()
    how = mixing("metamix")
    drawn = how.draws(KEYS, own)._replace(place=np.full(TASKS, 1))
    support, query = how.metamix(own, drawn)
    assert support is own.support
    for task in range(TASKS):
        picked, share = drawn.queries[task] % (WAY * SHOT), drawn.share[task]
        assert np.bincount(picked).tolist() == [QUERIES // SHOT] * (WAY * SHOT)
        h_Q, h_S = (model[:3](side.x[task]) for side in (own.query, own.support))
        expected = model[3:](share * h_Q + (1 - share) * h_S[picked]).detach()
        torch.testing.assert_close(outputs(model, Episode(support, query), 1, task), expected, rtol=1e-12, atol=1e-13)
        labels = torch.stack(
            [own.query.y[task], own.support.y[task][picked], torch.full((WAY * QUERIES,), share, dtype=torch.float64)],
            1,
        )
        assert torch.equal(query.y[task], labels)


def test_mixing_after_the_last_layer_mixes_outputs() -> None:
    model = network()
    assert mark(model, ["8"]) == ("input", "8")
    x, other, share = draw(4, 2, 5, 5, seed=1), draw(6, 2, 5, 5, seed=2), draw(4, seed=3).sigmoid()
    picked, shares = torch.tensor([5, 0, 0, 2]), torch.stack([torch.ones(4).double(), share], 1)
    found = mixed_call(model, {OWN: x, PARTNER: other, PICKED: picked, SHARE: shares})
    expected = share[:, None] * model(x) + (1 - share[:, None]) * model(other)[picked]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_a_mixture_of_losses_is_the_loss_of_mixed_labels() -> None:
    logits, share = draw(5, WAY, seed=0), 0.3
    y, other = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 1, 0, 1, 1])
    both = torch.stack([y.double(), other.double(), torch.full((5,), share).double()], 1)
    soft = share * F.one_hot(y, WAY) + (1 - share) * F.one_hot(other, WAY)
    loss = OfTwoLabels(F.cross_entropy)
    torch.testing.assert_close(loss(logits, both), F.cross_entropy(logits, soft.double()), rtol=1e-12, atol=0)
    assert torch.equal(loss(logits, y), F.cross_entropy(logits, y))


def test_channels_of_a_class_come_from_its_twin_on_both_sides() -> None:
    """In eight channels, group 3 is channels 4 and 5: the paper's edges 32 and 44, of 64."""
    model, own = network(), episodes()
    how = mixing("metamix", shuffle=1.0)
    twins = np.array([[1, 2, 0], [0, 2, 1]])
    drawn = how.draws(KEYS, own)._replace(
        share=np.ones(TASKS), twins=twins, group=np.full(TASKS, 3), shuffled_place=np.full(TASKS, 1)
    )
    mixed = how.metamix(own, drawn)
    for task, side in itertools.product(range(TASKS), (0, 1)):
        y = own[side].y[task]
        h = model[:3](own[side].x[task])  # type: ignore[index]
        ranks = [int((y[:row] == y[row]).sum()) for row in range(len(y))]
        rows = [int((y == twins[task][y[row]]).nonzero()[ranks[row]]) for row in range(len(y))]
        h = torch.cat([h[:, :4], h[rows][:, 4:6], h[:, 6:]], 1)
        torch.testing.assert_close(outputs(model, mixed, side, task), model[3:](h).detach(), rtol=1e-12, atol=1e-13)


def test_partners_are_shuffled_before_they_are_mixed() -> None:
    model, own = network(), episodes()
    how = mixing("metamix", shuffle=1.0)
    drawn = how.draws(KEYS, own)._replace(place=np.full(TASKS, 3), shuffled_place=np.full(TASKS, 1))
    mixed = how.metamix(own, drawn)
    for task in range(TASKS):
        sides = one_task(mixed.support, task).x, one_task(mixed.query, task).x
        begin, last = model[:8], model[8]
        h_S, h_Q = (
            mixed_call(begin, {n: v for n, v in x.items() if n not in (PARTNER, SHARE, PICKED)})  # type: ignore[union-attr]
            for x in sides
        )
        share, picked = drawn.share[task], sides[1][PICKED]  # type: ignore[index]
        expected = last(share * h_Q + (1 - share) * h_S[picked]).detach()
        torch.testing.assert_close(outputs(model, mixed, 1, task), expected, rtol=1e-12, atol=1e-13)


def test_classes_that_are_their_own_twins_change_nothing() -> None:
    how, plain = mixing("metamix", shuffle=1.0), episodes()
    own = np.arange(WAY)[None].repeat(TASKS, 0)
    drawn = how.draws(KEYS, plain)._replace(share=np.ones(TASKS), twins=own)
    assert drawn.shuffled.all()
    expected, found = (
        computed(raymeta.MAML(**STEPS), problem(), batch) for batch in (plain, how.metamix(plain, drawn))
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_mixture_of_two_tasks_has_no_first() -> None:
    """Where each class is mixed with the other task's of the same label, the order does not matter."""
    model, (one, two) = network(), map(by_class, (episodes(), episodes(50)))
    how, same = mixing("mlti"), np.arange(WAY)[None].repeat(TASKS, 0)
    drawn = how.draws(KEYS, one)._replace(pairs=same, alone=np.zeros(TASKS, bool), place=np.array([0, 2]))
    there = how.mlti(one, two, drawn)
    back = how.mlti(two, one, drawn._replace(share=1 - drawn.share))
    for task, side in itertools.product(range(TASKS), (0, 1)):
        found = (outputs(model, mixed, side, task) for mixed in (there, back))
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)


def by_class(batch: Episode) -> Episode:
    """With the examples of each side class after class."""

    def side(examples: Examples) -> Examples:
        orders = examples.y.argsort(dim=1, stable=True)
        x = torch.stack([x[order] for x, order in zip(examples.x, orders, strict=True)])  # type: ignore[arg-type]
        return Examples(x, examples.y.gather(1, orders))

    return Episode(*map(side, batch))


def test_a_task_mixed_with_itself_class_by_class_is_itself() -> None:
    how, own = Mixing(name="mlti"), episodes()
    same = np.arange(WAY)[None].repeat(TASKS, 0)
    drawn = how.draws(KEYS, own)._replace(alone=np.ones(TASKS, bool), pairs=same)
    mixed = how.mlti(own, episodes(50), drawn)
    for found, expected in zip(mixed, own, strict=True):
        torch.testing.assert_close(found.x, expected.x, rtol=1e-14, atol=1e-15)
        assert torch.equal(found.y, expected.y)


def test_targets_are_mixed_as_inputs_are() -> None:
    one, two = (
        Episode(*(Examples(draw(TASKS, 5, 1, seed=s + t), draw(TASKS, 5, 1, seed=s + t + 2)) for t in (0, 1)))
        for s in (0, 10)
    )
    for name in ("mlti", "metamix"):
        how = Mixing(name=name)
        drawn = how.draws(KEYS, one)
        mixed = made(how, drawn, one, two)
        share, rows = torch.from_numpy(drawn.share)[:, None, None], torch.from_numpy(drawn.queries)[..., None]
        other = two.query if name == "mlti" else Examples(*(value.gather(1, rows) for value in one.support[:2]))
        for found, own, theirs in zip(mixed.query[:2], one.query[:2], other[:2], strict=True):
            torch.testing.assert_close(found, share * own + (1 - share) * theirs, rtol=1e-14, atol=1e-15)


def test_what_is_drawn_follows_from_each_key() -> None:
    """λ has the mean and the variance of Beta(a, a), places are as frequent, and no task depends on those beside it."""
    keys = [TaskKey(3, "train", step, index) for step in range(40) for index in range(50)]
    own = episodes()
    how = mixing("metamix", shuffle=0.25, shuffle_after=20, beta=3)
    drawn = how.draws(keys, own)
    assert abs(drawn.share.mean() - 0.5) < 3 * np.sqrt(1 / 28 / len(keys))
    assert drawn.share.var() == pytest.approx(1 / 28, rel=0.1)
    assert np.bincount(drawn.place) / len(keys) == pytest.approx(1 / PLACES, abs=0.04)
    assert (np.bincount(drawn.shuffled_place, minlength=PLACES)[0], drawn.shuffled[:1000].sum()) == (0, 0)
    assert drawn.shuffled[1000:].mean() == pytest.approx(0.25, abs=0.05)
    assert drawn.alone.mean() == pytest.approx(0.5, abs=0.05)
    for row in (0, 777):
        alone = how.draws([keys[row]], own)
        assert all(np.array_equal(values[0], every[row]) for values, every in zip(alone, drawn, strict=True))


def test_classes_of_unlike_sizes_are_refused() -> None:
    y = torch.tensor([[0, 0, 1]])
    with pytest.raises(DataError, match="unlike numbers"):
        aligned(y, y, np.array([[1, 0]]))


@pytest.mark.parametrize(("name", "shuffle"), [("metamix", 1.0), ("mlti", 0.0)])
def test_the_gradient_is_that_of_finite_differences(name: Any, shuffle: float) -> None:
    how, own, here = mixing(name, shuffle=shuffle), episodes(), problem()
    mixed = made(how, how.draws(KEYS, own), own, episodes(50))
    algorithm, phase = raymeta.MAML(**STEPS), Phase(way=WAY)
    params, step = here.initial_params(), 1e-6
    directions = {n: draw(*p.shape, seed=i) for i, (n, p) in enumerate(params.items())}

    def loss_at(length: float) -> Tensor:
        moved = {n: p + length * directions[n] for n, p in params.items()}
        found = here.map_over_tasks(
            lambda one, _: algorithm.task_loss(here, Learned(moved, {}), one, noise={}, phase=phase), mixed, {}
        )
        return found[0].sum()  # type: ignore[no-any-return]

    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    sums = computed(algorithm, here, mixed)
    torch.testing.assert_close(sum((sums[n] * d).sum() for n, d in directions.items()), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["metamix", "mlti"])
def test_tasks_side_by_side_are_those_one_after_another(name: Any) -> None:
    how, own = mixing(name), episodes()
    mixed = made(how, how.draws(KEYS, own), own, episodes(50))
    found, expected = (computed(raymeta.MAML(**STEPS), problem(vectorize), mixed) for vectorize in VECTORIZE)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-12)


GLYPHS: dict[str, Any] = {"preset": "glyphs-5w1s-maml", "model.width": 6, "tasks.query_shot": 2}
SHUFFLED = {"mixing": "metamix", "channel_shuffle": 0.5, "channel_shuffle_after": 2}


@pytest.mark.slow
@pytest.mark.parametrize("options", [SHUFFLED, {"mixing": "mlti", "algorithm": "protonet"}], ids=["metamix", "mlti"])
def test_whole_runs_have_equal_bits(options: dict[str, Any], local_ray: Any, tmp_path: Path) -> None:
    run = require_equal_bits(tmp_path, **GLYPHS, **options)
    plain = raymeta.meta_train(
        output=str(tmp_path / "plain"), steps=1, meta_batch_size=4, validate_every=0, test_episodes=4, device="cpu",
        **GLYPHS, algorithm=options.get("algorithm", "maml"),
    )  # fmt: skip
    assert run.metrics()[0]["train/query_loss"] != plain.metrics()[0]["train/query_loss"]
    assert not any(module._forward_hooks for module in raymeta.load_run(run.path).model().modules())


@pytest.mark.slow
def test_a_compiled_run_is_near_the_plain_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SHUFFLED, "channel_shuffle": 1.0, "channel_shuffle_after": 0, "model": "mlp"}
    options |= {"preset": "glyphs-5w1s-maml", "tasks.way": 3, "model.hidden": [8], "algorithm.inner_steps": 1}
    plain, compiled = (trained_loss(tmp_path, compile=flag, **options) for flag in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-5)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("use --mixing mlti", {"mixing": "metamix", "algorithm": "protonet"}),
    ("asks which they are", {"mixing": "mlti", "algorithm": "baseline"}),
    ("do not go together", {"mixing": "metamix", "batch_norm": "support"}),
    ("is of --mixing metamix", {"mixing": "mlti", "channel_shuffle": 0.5}),
    ("needs layers", {"mixing": "metamix", "channel_shuffle": 0.5, "mixing_layers": ["input"]}),
    ("reads inputs besides", {"mixing": "mlti", "algorithm": "hsml"}),
    ("matches no layer", {"mixing": "mlti", "mixing_layers": ["block*"]}),
    ("is empty", {"mixing": "mlti", "mixing_layers": []}),
]


@pytest.mark.parametrize(("told", "options"), REFUSED, ids=[told for told, _ in REFUSED])
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_mixed_is_refused(told: str, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        raymeta.meta_train(output=str(tmp_path), steps=1, **GLYPHS, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", ["hsml", "meta_lstm"])
@pytest.mark.filterwarnings("ignore")
def test_queries_are_mixed_beside_networks_of_a_method(algorithm: str, tmp_path: Path) -> None:
    options = {**GLYPHS, "algorithm": algorithm, "algorithm.inner_steps": 1}
    assert 0 < trained_loss(tmp_path, mixing="metamix", **options) != trained_loss(tmp_path, **options)


@pytest.mark.filterwarnings("ignore")
def test_what_reads_inputs_itself_takes_mixed_ones(tmp_path: Path) -> None:
    options = {"preset": "glyphs-5w1s-maml", "algorithm": "mann", "model": "mlp"}
    mixed = trained_loss(tmp_path, mixing="mlti", mixing_layers=["input"], **options)
    assert 0 < mixed != trained_loss(tmp_path, **options)


@pytest.mark.parametrize("name", ["metamix", "mlti"])
def test_numbers_are_trained_on_mixed(name: str, tmp_path: Path) -> None:
    """A target is a number, not one of two labels."""
    plain, mixed = (trained_loss(tmp_path, preset="sinusoid-maml", mixing=mixing) for mixing in (None, name))
    assert 0 < mixed != plain


def trained_loss(folder: Path, **options: Any) -> float:
    """Of the first step."""
    small = {"steps": 1, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 2, "device": "cpu"}
    run = raymeta.meta_train(output=str(folder), **small, **options)
    return float(run.metrics()[0]["train/query_loss"])
