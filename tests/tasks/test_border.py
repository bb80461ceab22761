"""Episodes of one's own: what they are not is told by name before anything is computed, and what they may be passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import Episode, Examples
from raymeta.errors import ConfigError, DataError
from raymeta.keys import TaskKey
from raymeta.tasks.border import cross_entropy, squared_error
from raymeta.tasks.episodes import Size

WAY = 3
SHAPE = (7,)


def side(n: int = 2, shape: tuple[int, ...] = SHAPE, way: int = WAY, seed: int = 0) -> Examples:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(way).repeat_interleave(n)
    return Examples(torch.randn(way * n, *shape, generator=g), y, y.clone())


def episode(n: int = 2, way: int = WAY, seed: int = 0) -> Episode:
    return Episode(side(n, way=way, seed=seed), side(n + 1, way=way, seed=seed + 100))


def x(change: Callable[[Tensor], Any]) -> Callable[[Episode], Any]:
    return lambda e: Episode(*(s._replace(x=change(s.x)) for s in e))


def y(change: Callable[[Tensor], Any]) -> Callable[[Episode], Any]:
    return lambda e: Episode(*(s._replace(y=change(s.y)) for s in e))


def spoilt(value: Tensor, bad: float) -> Tensor:
    value = value.clone()
    value[1, 0] = bad
    return value


MISTAKES: dict[str, tuple[Callable[[Episode], Any], str]] = {
    "plain tuples": (lambda e: ((e.support.x, e.support.y), (e.query.x, e.query.y)), r"an episode is a tuple"),
    "tuples inside": (lambda e: Episode((e.support.x, e.support.y), e.query), r"support is a tuple"),  # type: ignore[arg-type]
    "nothing": (lambda e: None, r"an episode is missing"),
    "numpy inputs": (x(Tensor.numpy), r"support: x is a numpy\.ndarray"),
    "numpy labels": (y(Tensor.numpy), r"support: y is a numpy\.ndarray"),
    "lists": (y(Tensor.tolist), r"support: y is a list"),
    "no targets": (y(lambda v: None), r"support: y is missing"),
    "pictures of bytes": (x(lambda v: (v * 9 + 99).to(torch.uint8)), r"x is uint8 \[6, 7\].*x\.float\(\) / 255"),
    "truth values": (x(lambda v: v > 0), r"x is bool"),
    "int32 labels": (y(Tensor.int), r"y is int32 \[6\].*int64"),
    "uint8 labels": (y(Tensor.byte), r"y is uint8 \[6\].*int64"),
    "labels from 1": (y(lambda v: v + 1), r"labels in support are 1, 2, 3"),
    "gaps": (y(lambda v: 2 * v), r"labels in support are 0, 2, 4"),
    "negative labels": (y(lambda v: v - 1), r"labels in support are -1, 0, 1"),
    "columns": (y(lambda v: v[:, None]), r"y is int64 \[6, 1\].*y\.flatten\(\)"),
    "no support of a class": (
        lambda e: e._replace(support=Examples(*(v[2:] for v in e.support if v is not None))),
        r"labels in support are 1, 2",
    ),
    "a query of no class": (
        lambda e: e._replace(query=e.query._replace(y=e.query.y + 1)),
        r"query has the labels 3; needed is those of support",
    ),
    "NaN": (x(lambda v: spoilt(v, float("nan"))), r"support x holds NaN or infinity"),
    "infinity": (lambda e: e._replace(query=x(lambda v: spoilt(v, float("inf")))(e).query), r"query x holds NaN"),
    "targets too few": (y(lambda v: v[:-1]), r"x has 6 examples and y 5"),
    "no support": (
        lambda e: e._replace(support=Examples(*(v[:0] for v in e.support if v is not None))),
        r"no examples",
    ),
    "no query": (lambda e: e._replace(query=Examples(*(v[:0] for v in e.query if v is not None))), r"no examples"),
    "inputs with a graph": (x(lambda v: v.clone().requires_grad_()), r"support: x requires gradients.*x\.detach\(\)"),
    "types differ": (lambda e: e._replace(query=e.query._replace(x=e.query.x.double())), r"x is float32 .* float64"),
}


@dataclass(frozen=True, kw_only=True)
class Own(raymeta.TaskSet):
    """Episodes with one mistake, in one split or in all, from some step of training on."""

    mistake: str = ""
    only: str = ""
    from_step: int = 0
    goal, input_shape, num_outputs = "classification", SHAPE, WAY

    def size(self, split: str) -> Size:
        return Size(WAY, 2, 3)

    def num_classes(self, split: str) -> int:
        return WAY

    def episode(self, key: TaskKey) -> Episode:
        found = episode(seed=int(key.generator().integers(99)))
        is_spoilt = key.step >= self.from_step and (not self.from_step or key.index == 1)
        if self.mistake and is_spoilt and self.only in ("", key.split):
            change = OTHERS.get(self.mistake) or MISTAKES[self.mistake]
            return change[0](found)  # type: ignore[no-any-return]
        return found


OTHERS: dict[str, tuple[Callable[[Episode], Any], str]] = {
    "float labels": (y(Tensor.float), r"y is float32 \[6\].*y\.flatten\(\)\.long\(\)"),
    "one-hot": (y(lambda v: torch.eye(WAY)[v]), r"y is one-hot, float32 \[6, 3\].*y\.argmax\(1\)"),
    "whole one-hot": (y(lambda v: torch.eye(WAY, dtype=torch.int64)[v]), r"y is one-hot"),
    "other inputs": (x(lambda v: v[:, :5]), r"x is float32 \[6, 5\]; needed is \[n, 7\], its input_shape"),
    "too many": (lambda e: Episode(side(3), e.query), r"support: there are 3 examples of one class; .*at most 2"),
    "uneven": (
        lambda e: Episode(side(int(e.support.x[0, 0] > 0) + 1, seed=3), e.query),
        r"episodes of one step differ in size: x is \[\d, 7\] and \[\d, 7\]",
    ),
    "class ids too high": (lambda e: Episode(*(s._replace(class_id=s.y + 1) for s in e)), r"class_id goes from 1 to 3"),
    "class ids that are floats": (
        lambda e: Episode(*(s._replace(class_id=s.y / 1) for s in e)),
        r"class_id is float32",
    ),
    "no class ids": (lambda e: Episode(*(Examples(s.x, s.y) for s in e)), r"there is no class_id"),
}
SMALL: dict[str, Any] = {"model": "mlp", "steps": 1, "meta_batch_size": 4, "shard_size": 4, "test_episodes": 2}
SMALL |= {"validation_episodes": 2, "algorithm": "protonet"}


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("mistake", [*MISTAKES, *OTHERS])
def test_a_task_set_is_told_its_mistake_before_the_run_is_made(mistake: str, tmp_path: Path) -> None:
    text = (OTHERS.get(mistake) or MISTAKES[mistake])[1]
    options = SMALL | ({"algorithm": "baseline"} if "class ids" in mistake else {})
    with pytest.raises(DataError, match=rf"tasks Own, train split: .*{text}|tasks Own, train split: {text}"):
        raymeta.meta_train(tasks=Own(mistake=mistake), output=str(tmp_path), **options)
    assert not list(tmp_path.iterdir())


LATER = sorted({*MISTAKES, *OTHERS} - {"NaN", "infinity"})  # which a gradient that is not finite tells


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("mistake", LATER)
def test_a_mistake_in_a_later_step_is_told_with_its_task(mistake: str, tmp_path: Path) -> None:
    tasks = Own(mistake=mistake, only="train", from_step=2)
    options = SMALL | {"steps": 3} | ({"algorithm": "baseline"} if "class ids" in mistake else {})
    with pytest.raises(
        DataError, match=r"tasks Own, train split, step 2, task 1: |some episodes of this task set have a class_id"
    ):
        raymeta.meta_train(tasks=tasks, output=str(tmp_path), **options)


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("split", ["val", "test"])
def test_every_split_that_is_used_is_looked_at(split: str, tmp_path: Path) -> None:
    tasks = Own(mistake="labels from 1", only=split)
    with pytest.raises(DataError, match=f"tasks Own, {split} split: labels"):
        raymeta.meta_train(tasks=tasks, output=str(tmp_path), **SMALL)
    unused = Own(mistake="labels from 1", only="val")
    raymeta.meta_train(tasks=unused, output=str(tmp_path), **SMALL, validate_every=0)


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("algorithm", ["maml", "baseline", "protonet", "reptile", "anil", "joint"])
def test_a_sound_task_set_trains(algorithm: str, tmp_path: Path) -> None:
    run = raymeta.meta_train(tasks=Own(), output=str(tmp_path), **SMALL | {"algorithm": algorithm})
    assert run.summary["steps"] == 1


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("input_shape", 7, r"input_shape is 7; needed is a tuple"),
        ("input_shape", (7.0,), r"input_shape is \(7\.0,\)"),
        ("num_outputs", None, r"num_outputs is None"),
        ("size", lambda self, split: (WAY, 2, 3), r"train split: size gives \(3, 2, 3\); needed is Size"),
        ("num_classes", lambda self, split: None, r"train split: num_classes gives None"),
    ],
)
def test_what_a_task_set_says_of_itself(name: str, value: Any, text: str, tmp_path: Path) -> None:
    tasks = type("Odd", (Own,), {name: value})()
    with pytest.raises(DataError, match=f"tasks Odd.*{text}"):
        raymeta.meta_train(tasks=tasks, output=str(tmp_path), **SMALL)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("algorithm", [raymeta.ProtoNet(), raymeta.MAML(inner_lr=0.1)], ids=["protonet", "maml"])
def test_meta_gradient_is_told_too(mistake: str, algorithm: Any) -> None:
    change, text = MISTAKES[mistake]
    with pytest.raises(DataError, match=rf"episode 1.*{text}|episode 1.*{text}"):
        raymeta.meta_gradient(nn.Linear(7, WAY), algorithm, [episode(), change(episode(seed=5))])


def test_baseline_needs_class_ids_in_meta_gradient() -> None:
    plain = [Episode(*(Examples(s.x, s.y) for s in episode()))]
    with pytest.raises(DataError, match="there is no class_id"):
        raymeta.meta_gradient(nn.Linear(7, WAY), raymeta.Baseline(), plain)
    assert raymeta.meta_gradient(nn.Linear(7, WAY), raymeta.Baseline(), [episode()])


def test_algorithms_of_classes_get_no_values() -> None:
    floats = [y(Tensor.float)(episode())]
    with pytest.raises(ConfigError, match=r"ProtoNet does classification, but y is torch\.float32"):
        raymeta.meta_gradient(nn.Linear(7, WAY), raymeta.ProtoNet(), floats)


# Targets


def values(shape: tuple[int, ...]) -> Episode:
    return Episode(
        Examples(torch.randn(5, 7), torch.randn(5, *shape)), Examples(torch.randn(5, 7), torch.randn(5, *shape))
    )


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_targets_of_a_task_set_are_those_of_its_outputs(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lines(raymeta.TaskSet):
        flat: bool = False
        n: int = 6
        goal, input_shape, num_outputs = "regression", (7,), 1

        def size(self, split: str) -> Size:
            return Size(3, 2, 2)

        def num_classes(self, split: str) -> int:
            return 0

        def episode(self, key: TaskKey) -> Episode:
            x = torch.from_numpy(key.generator().normal(size=(2 * self.n, 7))).float()
            target = x.sum(1) if self.flat else x.sum(1, keepdim=True)
            return Episode(Examples(x[: self.n], target[: self.n]), Examples(x[self.n :], target[self.n :]))

    options = {"steps": 1, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 2, "output": str(tmp_path)}
    with pytest.raises(DataError, match=r"y is float32 \[6\]; needed is targets \[n, 1\] .*y\[:, None\]"):
        raymeta.meta_train("sinusoid-maml", tasks=Lines(flat=True), **options)
    with pytest.raises(DataError, match=r"there are 7 examples; needed is at most 6, the shot of its size"):
        raymeta.meta_train("sinusoid-maml", tasks=Lines(n=7), **options)
    assert raymeta.meta_train("sinusoid-maml", tasks=Lines(), **options).summary["steps"] == 1


@pytest.mark.parametrize(("outputs", "targets"), [(1, ()), (3, ()), (3, (1,)), (1, (3,)), (3, (3, 1))])
def test_targets_are_shaped_like_outputs(outputs: int, targets: tuple[int, ...]) -> None:
    for vectorize in ("vmap", "loop"):
        with pytest.raises(DataError, match=r"targets \[5.* do not fit outputs \[5"):
            raymeta.meta_gradient(
                nn.Linear(7, outputs),
                raymeta.MAML(inner_lr=0.1),
                [values(targets)],
                vectorize=vectorize,  # type: ignore[arg-type]
            )


def test_what_fits_passes_with_torchs_own_value() -> None:
    outputs, places = torch.randn(5, 3), torch.randn(5, 3, 4, 4)
    labels, dense = torch.randint(0, 3, (5,)), torch.randint(0, 3, (5, 4, 4))
    assert torch.equal(squared_error(outputs, places[..., 0, 0]), F.mse_loss(outputs, places[..., 0, 0]))
    assert torch.equal(cross_entropy(outputs, labels), F.cross_entropy(outputs, labels))
    assert torch.equal(cross_entropy(places, dense), F.cross_entropy(places, dense))
    for wrong in (dense[..., 0], dense[:, None], labels):
        with pytest.raises(DataError, match="do not fit outputs"):
            cross_entropy(places, wrong)


def test_a_loss_of_ones_own_decides_what_labels_are() -> None:
    def one_hot_loss(outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs.softmax(-1) - F.one_hot(target % WAY, WAY)).square().mean()

    labels = [y(lambda v: v + 4)(episode()), y(lambda v: v + 4)(episode(seed=7))]
    found = raymeta.meta_gradient(
        nn.Linear(7, WAY), raymeta.MAML(inner_lr=0.1), labels, loss=one_hot_loss, vectorize="loop"
    )
    assert all(bool(g.isfinite().all()) for g in found.values())
    with pytest.raises(DataError, match="labels in support"):
        raymeta.meta_gradient(nn.Linear(7, WAY), raymeta.ProtoNet(), labels, loss=one_hot_loss)


# Labels for every pixel or token


def dense(shape: tuple[int, ...], classes: int, seed: int) -> Episode:
    g = torch.Generator().manual_seed(seed)
    sides = [
        Examples(torch.randn(4, 2, *shape, generator=g), torch.randint(0, classes, (4, *shape), generator=g))
        for _ in range(2)
    ]
    return Episode(*sides)


@pytest.mark.parametrize(("model", "shape"), [(nn.Conv2d(2, 3, 1), (8, 8)), (nn.Conv1d(2, 3, 1), (6,))])
def test_labels_for_every_place_are_let_in(model: nn.Module, shape: tuple[int, ...]) -> None:
    from raymeta.tasks.border import require_episode, require_labels

    for seed in range(3):
        found = dense(shape, 3, seed)
        require_episode(found, "here")
        require_labels(found, "here")
    ignored = y(lambda v: torch.where(v == 1, -100, v))(dense(shape, 3, 0))
    require_labels(ignored, "here")
    with pytest.raises(DataError, match="labels are -1; needed is class ids from 0, or -100"):
        require_labels(y(lambda v: v - 1)(dense(shape, 3, 0)), "here")


def test_methods_of_class_means_take_one_label_for_each_example() -> None:
    with pytest.raises(DataError, match=r"y is int64 \[4, 8, 8\]; needed is one label for each example"):
        raymeta.meta_gradient(nn.Conv2d(2, 3, 1), raymeta.ProtoNet(), [dense((8, 8), 3, 0)])


def test_sequences_of_one_token_are_no_columns() -> None:
    from raymeta.tasks.border import require_labels

    require_labels(dense((1,), 3, 0), "here")
    with pytest.raises(DataError, match=r"y\.flatten\(\)"):
        require_labels(y(lambda v: v[:, None])(episode()), "here")


@pytest.mark.parametrize("loss", [F.cross_entropy])
def test_the_gradient_of_dense_labels_is_that_of_autograd(loss: Any) -> None:
    model = nn.Conv2d(2, 3, 1).double()
    episodes = [x(Tensor.double)(dense((8, 8), 3, seed)) for seed in range(3)]
    found = raymeta.meta_gradient(model, raymeta.MAML(inner_lr=0.1), episodes, loss=loss)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for support, query in episodes:
        theta = dict(model.named_parameters())
        for _ in range(1):
            inner = loss(torch.func.functional_call(model, theta, (support.x,)), support.y)
            steps = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
            theta = {n: p - 0.1 * g for (n, p), g in zip(theta.items(), steps, strict=True)}
        outer = loss(torch.func.functional_call(model, theta, (query.x,)), query.y)
        for name, g in zip(total, torch.autograd.grad(outer, list(model.parameters())), strict=True):
            total[name] += g / 3
    for name, value in total.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)


# Uneven tasks


@pytest.mark.parametrize(
    "algorithm",
    [
        raymeta.ProtoNet(),
        raymeta.MAML(inner_lr=0.1, inner_loss_reduction="sum_over_classes"),
        raymeta.MAML(inner_lr=0.1),
    ],
    ids=["protonet", "sum over classes", "maml"],
)
def test_tasks_of_several_ways_are_the_mean_of_separate_calls(algorithm: Any) -> None:
    """2-way 3-shot beside 3-way 2-shot: equal shapes, and another way."""

    def task(way: int, shot: int, seed: int) -> Episode:
        found = Episode(side(shot, way=way, seed=seed), side(shot, way=way, seed=seed + 50))
        return x(Tensor.double)(found)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = nn.Linear(7, 4).double()
    episodes = [task(2, 3, 0), task(3, 2, 1), task(2, 3, 2), task(1, 6, 3)]
    together = raymeta.meta_gradient(model, algorithm, episodes)
    alone = [raymeta.meta_gradient(model, algorithm, [e]) for e in episodes]
    for name, value in together.items():
        expected = torch.stack([g[name] for g in alone]).mean(0)
        assert bool(value.isfinite().all())
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


def test_each_pattern_of_what_adapts_must_match() -> None:
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, WAY))
    for patterns in (("0.*", "haed.*"), ("haed.*",)):
        with pytest.raises(ConfigError, match=r"adapt_only haed\.\* matches no parameter; the model has 0\.bias, 0\.w"):
            raymeta.meta_gradient(model, raymeta.MAML(inner_lr=0.1, adapt_only=patterns), [episode()])


@pytest.mark.parametrize("seed", range(3))
def test_numpy_of_the_same_numbers_passes_as_tensors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = [Examples(torch.from_numpy(rng.normal(size=(6, 7))).float(), torch.arange(3).repeat(2)) for _ in range(2)]
    assert raymeta.meta_gradient(nn.Linear(7, WAY), raymeta.MAML(inner_lr=0.1), [Episode(*sides)])
