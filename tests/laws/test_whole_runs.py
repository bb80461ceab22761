"""Whole runs equal a second implementation: a plain loop of autograd in this file, which uses no part of raymeta.

The loop has its own optimisers, its own batch norm, its own draws of what a task draws, and its own test. Runs and loop
are in double precision, so they agree to all but the last digits. The second half is about schedules: rates equal their
formulas, and a run that stops and goes on is the run that did not stop.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clouds import NUM_CLASSES, SPLITS, WAY, Clouds, drawn
from equal_bits import last_params
from torch import Tensor, nn

import raymeta
from raymeta import ANIL, MAML, Baseline, JointTraining, MetaSGD, ProtoNet, Reptile
from raymeta.algorithms.base import Algorithm
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.errors import RaymetaWarning

SEED, STEPS, TASKS, TEST_EPISODES = 3, 4, 5, 6
WIDTH = 6
Values = dict[str, Tensor]
Statistics = tuple[Tensor, Tensor]


def module(num_outputs: int, *, norm: bool = False, momentum: float | None = 0.1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        middle = nn.BatchNorm1d(WIDTH, momentum=momentum) if norm else nn.Identity()
        model = nn.Sequential(nn.Linear(4, WIDTH), middle, nn.Tanh(), nn.Linear(WIDTH, num_outputs)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.7)
    return model


# The second implementation: the network


def body(values: Values, x: Tensor, given: Statistics | None = None) -> tuple[Tensor, Statistics | None]:
    """Features of x, and the batch's mean and unbiased variance; normalised by those, or by (mean, var) if `given`."""
    z, statistics = x @ values["0.weight"].T + values["0.bias"], None
    if "1.weight" in values:
        mean, var = (z.mean(0), ((z - z.mean(0)) ** 2).mean(0)) if given is None else given
        statistics = (z.mean(0), ((z - z.mean(0)) ** 2).sum(0) / (len(z) - 1))
        z = (z - mean) / (var + 1e-5).sqrt() * values["1.weight"] + values["1.bias"]
    return torch.tanh(z), statistics


def head(values: Values, z: Tensor) -> Tensor:
    return z @ values["3.weight"].T + values["3.bias"]


def biased(values: Values, x: Tensor) -> Statistics:
    z = x @ values["0.weight"].T + values["0.bias"]
    return z.mean(0), ((z - z.mean(0)) ** 2).mean(0)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -(logits - logits.exp().sum(-1, keepdim=True).log())[torch.arange(len(y)), y].mean()


def leaves(values: Values) -> Values:
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def gradient_of(loss: Tensor, values: Values, **options: Any) -> Values:
    found = torch.autograd.grad(loss, list(values.values()), allow_unused=True, **options)
    return {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(values.items(), found, strict=True)}


def task_draws(seed: int, split: str, step: int, index: int) -> np.random.Generator:
    """What a task draws besides its episode: Philox with the counter and the key that the documents give."""
    key = np.array([seed, 1], dtype=np.uint64)
    counter = np.array([0, index, step, SPLITS.index(split)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


# The second implementation: methods


class Method:
    """What a task gives to an outer step, and the outputs for its queries before and after each inner step."""

    state: Values = {}

    def start(self, params: Values) -> Values:
        """All that is learned."""
        return dict(params)

    def train(self, learned: Values, episode: Any, draws: np.random.Generator) -> tuple[Values, Values, float]:
        """The task's gradient, its part of the next state, and its query loss."""
        values = leaves(learned)
        outputs, state = self.outcome(values, episode)
        loss = cross_entropy(outputs, episode.query.y)
        return gradient_of(loss, values), state, loss.item()

    def outcome(self, values: Values, episode: Any) -> tuple[Tensor, Values]:
        """Differentiable outputs for the queries in training, and the task's part of the next state."""
        raise NotImplementedError

    def test(self, learned: Values, episode: Any, draws: np.random.Generator) -> list[Tensor]:
        raise NotImplementedError

    def next_state(self, mean: Values) -> Values:
        return mean


def running(policy: str, statistics: Statistics | None) -> Values:
    if policy != "running":
        return {}
    assert statistics is not None
    return {"1.running_mean": statistics[0].detach(), "1.running_var": statistics[1].detach()}


@dataclass
class Descend(Method):
    """MAML, FOMAML, ANIL, Meta-SGD and joint training: all differ in what adapts, how often, at which rate."""

    rate: float = 0.3
    steps: int = 2
    test_steps: int = 3
    first_order: bool = False
    adapts: Callable[[str], bool] = lambda name: True
    learns_rates: tuple[float, float] | None = None
    policy: str = "transductive"
    momentum: float | None = 0.1
    done: int = 0
    state: Values = field(default_factory=dict)

    def start(self, params: Values) -> Values:
        if self.policy == "running":
            width = torch.zeros(WIDTH, dtype=torch.float64)
            self.state = {"1.running_mean": width, "1.running_var": width + 1}
        if self.learns_rates is None:
            return dict(params)
        low, high = self.learns_rates
        draw = torch.Generator().manual_seed(SEED)
        rates = {
            f"inner_lr/{n}": low + (high - low) * torch.rand(p.shape, generator=draw, dtype=p.dtype)
            for n, p in params.items()
        }
        return params | rates

    def trajectory(self, values: Values, support: Any, steps: int, given: Statistics | None) -> list[Values]:
        theta = {n: v for n, v in values.items() if not n.startswith("inner_lr/")}
        passed = [theta]
        for _ in range(steps):
            loss = cross_entropy(head(theta, body(theta, support.x, given)[0]), support.y)
            chosen = {n: v for n, v in theta.items() if self.adapts(n)}
            gradient = gradient_of(loss, chosen, create_graph=not self.first_order)
            rates = {n: values[f"inner_lr/{n}"] if self.learns_rates else self.rate for n in chosen}
            theta = theta | {n: v - rates[n] * gradient[n] for n, v in chosen.items()}
            passed.append(theta)
        return passed

    def outcome(self, values: Values, episode: Any) -> tuple[Tensor, Values]:
        theta = self.trajectory(values, episode.support, self.steps, None)[-1]
        given = biased(theta, episode.support.x) if self.policy == "support" else None
        z, statistics = body(theta, episode.query.x, given)
        return head(theta, z), running(self.policy, statistics)

    def test(self, learned: Values, episode: Any, draws: np.random.Generator) -> list[Tensor]:
        kept = (self.state["1.running_mean"], self.state["1.running_var"]) if self.policy == "running" else None
        passed, outputs = self.trajectory(leaves(learned), episode.support, self.test_steps, kept), []
        for theta in passed:
            given = biased(theta, episode.support.x) if self.policy == "support" else kept
            outputs.append(head(theta, body(theta, episode.query.x, given)[0]))
        return outputs

    def next_state(self, mean: Values) -> Values:
        self.done += 1
        share = 1 / self.done if self.momentum is None else self.momentum
        return {n: (1 - share) * v + share * mean[n] for n, v in self.state.items()}


@dataclass
class Prototypes(Method):
    """Distances to the means of classes; support and queries pass the network as one batch."""

    policy: str = "transductive"
    state: Values = field(default_factory=dict)

    def start(self, params: Values) -> Values:
        if self.policy == "running":
            width = torch.zeros(WIDTH, dtype=torch.float64)
            self.state = {"1.running_mean": width, "1.running_var": width + 1}
        return dict(params)

    def distances(self, values: Values, episode: Any, given: Statistics | None) -> tuple[Tensor, Values]:
        support, query = episode
        z, statistics = body(values, torch.cat([support.x, query.x]), given)
        f = head(values, z)
        f_S, f_Q = f[: len(support.y)], f[len(support.y) :]
        columns = [((f_Q - f_S[support.y == n].mean(0)) ** 2).sum(1) for n in range(WAY)]
        return -torch.stack(columns, 1), running(self.policy, statistics)

    def outcome(self, values: Values, episode: Any) -> tuple[Tensor, Values]:
        return self.distances(values, episode, None)

    def test(self, learned: Values, episode: Any, draws: np.random.Generator) -> list[Tensor]:
        kept = (self.state["1.running_mean"], self.state["1.running_var"]) if self.policy == "running" else None
        return [self.distances(learned, episode, kept)[0]]

    def next_state(self, mean: Values) -> Values:
        return {n: 0.9 * v + 0.1 * mean[n] for n, v in self.state.items()}


@dataclass
class Reptiles(Method):
    """Mini-batches in the task's own order, by Adam without first moment or by gradient descent."""

    rate: float = 0.05
    steps: int = 7
    test_steps: int = 5
    batch: int = 4
    test_batch: int = 5
    adam: bool = True
    keeps_moments: bool = False
    state: Values = field(default_factory=dict)

    def start(self, params: Values) -> Values:
        if self.keeps_moments:
            self.state = {f"inner_second_moment/{n}": torch.zeros_like(p) for n, p in params.items()}
            self.state["inner_count"] = torch.zeros((), dtype=torch.float64)
        return dict(params)

    def descend(
        self, learned: Values, support: Any, draws: np.random.Generator, steps: int, size: int
    ) -> tuple[list[Values], Values]:
        moments = {n: self.state.get(f"inner_second_moment/{n}", torch.zeros_like(p)) for n, p in learned.items()}
        count = float(self.state.get("inner_count", 0.0))
        order: list[int] = []
        while len(order) < steps * size:
            order += draws.permutation(len(support.y)).tolist()
        theta, passed = dict(learned), [dict(learned)]
        for k in range(steps):
            rows = order[k * size : (k + 1) * size]
            values = leaves(theta)
            loss = cross_entropy(head(values, body(values, support.x[rows])[0]), support.y[rows])
            gradient = gradient_of(loss, values)
            if self.adam:
                count += 1
                moments = {n: 0.999 * v + 0.001 * gradient[n] ** 2 for n, v in moments.items()}
                roots = {n: (v / (1 - 0.999**count)).sqrt() + 1e-8 for n, v in moments.items()}
                gradient = {n: g / roots[n] for n, g in gradient.items()}
            theta = {n: v - self.rate * gradient[n] for n, v in theta.items()}
            passed.append(theta)
        state = {f"inner_second_moment/{n}": v for n, v in moments.items()}
        return passed, state | {"inner_count": torch.tensor(count, dtype=torch.float64)}

    def train(self, learned: Values, episode: Any, draws: np.random.Generator) -> tuple[Values, Values, float]:
        passed, state = self.descend(learned, episode.support, draws, self.steps, self.batch)
        theta = passed[-1]
        loss = cross_entropy(head(theta, body(theta, episode.query.x)[0]), episode.query.y)
        gradient = {n: v - theta[n] for n, v in learned.items()}
        return gradient, state if self.keeps_moments else {}, float(loss)

    def test(self, learned: Values, episode: Any, draws: np.random.Generator) -> list[Tensor]:
        passed, _ = self.descend(learned, episode.support, draws, self.test_steps, self.test_batch)
        return [head(theta, body(theta, episode.query.x)[0]) for theta in passed]


@dataclass
class Pretrained(Method):
    """A classifier of all classes; at test a new head, fitted by SGD with momentum, dampening and weight decay."""

    cosine: bool = False
    passes: int = 6
    rate: float = 0.2
    batch: int = 4
    momentum: float = 0.8
    dampening: float = 0.3
    decay: float = 0.05
    scale: float = 2.0

    def logits(self, weight: Tensor, bias: Tensor | None, z: Tensor) -> Tensor:
        if not self.cosine:
            return z @ weight.T + bias
        lengths = z.square().sum(1, keepdim=True).sqrt() * weight.square().sum(1).sqrt()
        return self.scale * (z @ weight.T) / lengths

    def train(self, learned: Values, episode: Any, draws: np.random.Generator) -> tuple[Values, Values, float]:
        values = leaves(learned)
        x, y = (torch.cat([getattr(side, name) for side in episode]) for name in ("x", "class_id"))
        loss = cross_entropy(self.logits(values["3.weight"], values["3.bias"], body(values, x)[0]), y)
        return gradient_of(loss, values), {}, loss.item()

    def test(self, learned: Values, episode: Any, draws: np.random.Generator) -> list[Tensor]:
        support, query = episode
        z_S, z_Q = (body(learned, side.x)[0] for side in (support, query))
        orders = [np.argsort(row, kind="stable") for row in draws.random((self.passes, len(support.y)))]
        if self.cosine:
            fitted = {"weight": torch.from_numpy(draws.standard_normal((WAY, WIDTH)))}
        else:
            fitted = {"weight": torch.zeros(WAY, WIDTH).double(), "bias": torch.zeros(WAY).double()}
        velocity: Values | None = None
        outputs = [self.logits(fitted["weight"], fitted.get("bias"), z_Q)]
        for order in orders:
            for start in range(0, len(order), self.batch):
                rows = torch.from_numpy(order[start : start + self.batch])
                values = leaves(fitted)
                logits = self.logits(values["weight"], values.get("bias"), z_S[rows])
                plain = gradient_of(cross_entropy(logits, support.y[rows]), values)
                gradient = {n: g + self.decay * fitted[n] for n, g in plain.items()}
                if velocity is None:  # as torch.optim.SGD: the first step is not dampened
                    velocity = gradient
                else:
                    velocity = {n: self.momentum * velocity[n] + (1 - self.dampening) * g for n, g in gradient.items()}
                fitted = {n: v - self.rate * velocity[n] for n, v in fitted.items()}
            outputs.append(self.logits(fitted["weight"], fitted.get("bias"), z_Q))
        return outputs


# The second implementation: the outer loop


@dataclass
class Rule:
    """SGD with momentum, Adam (Kingma and Ba 2015, algorithm 1) or AdamW, of each tensor by itself."""

    kind: str
    decay: float = 0.0
    momentum: float = 0.0
    count: int = 0
    first: Values = field(default_factory=dict)
    second: Values = field(default_factory=dict)

    def step(self, params: Values, gradient: Values, rate: float) -> Values:
        self.count += 1
        after = {}
        for name, value in params.items():
            decay, g = 0.0 if name.startswith("inner_lr/") else self.decay, gradient[name]
            if self.kind == "adamw":
                value = value - rate * decay * value
            else:
                g = g + decay * value
            if self.kind == "sgd":
                self.first[name] = self.momentum * self.first.get(name, 0.0) + g
                after[name] = value - rate * self.first[name]
                continue
            self.first[name] = 0.9 * self.first.get(name, 0.0) + 0.1 * g
            self.second[name] = 0.999 * self.second.get(name, 0.0) + 0.001 * g**2
            mean, square = self.first[name] / (1 - 0.9**self.count), self.second[name] / (1 - 0.999**self.count)
            after[name] = value - rate * mean / (square.sqrt() + 1e-8)
        return after


@dataclass
class Found:
    """The end of a run: what is learned, losses of the queries and rates by outer step, and the test's scores."""

    params: Values
    state: Values
    losses: list[float]
    norms: list[float]
    values: list[float]
    headline: tuple[float, float]
    by_step: dict[str, Sequence[float]]


def plain_loop(method: Method, params: Values, rule: Rule, rates: Sequence[float], clip: float | None) -> Found:
    learned, losses, norms = method.start(params), [], []
    for step, rate in enumerate(rates):
        parts = [
            method.train(learned, drawn(SEED, "train", step, i), task_draws(SEED, "train", step, i))
            for i in range(TASKS)
        ]
        gradient = {n: sum(part[0][n] for part in parts) / TASKS for n in learned}
        norm = float(sum((g**2).sum() for g in gradient.values())) ** 0.5
        if clip is not None and norm > clip:
            gradient = {n: g * clip / norm for n, g in gradient.items()}
        learned = {n: v.detach() for n, v in rule.step(learned, gradient, rate).items()}
        method.state = method.next_state({n: sum(part[1][n] for part in parts) / TASKS for n in method.state})
        losses.append(sum(part[2] for part in parts) / TASKS)
        norms.append(norm)
    scores: dict[str, list[list[float]]] = {"loss": [], "accuracy": []}
    for i in range(TEST_EPISODES):
        episode = drawn(0, "test", 0, i)
        outputs, y = method.test(learned, episode, task_draws(0, "test", 0, i)), episode.query.y
        scores["loss"].append([float(cross_entropy(out, y)) for out in outputs])
        scores["accuracy"].append([float((out.argmax(1) == y).double().mean()) for out in outputs])
    by_step = {name: np.mean(rows, 0).tolist() for name, rows in scores.items()}
    last = [row[-1] for row in scores["accuracy"]]
    headline = float(np.mean(last)), 1.96 * float(np.std(last, ddof=1)) / TEST_EPISODES**0.5
    return Found(learned, method.state, losses, norms, last, headline, by_step)


# The runs


def run_of(folder: Path, algorithm: Algorithm, model: nn.Module, **options: Any) -> Found:
    run = raymeta.meta_train(
        tasks=Clouds(), model=model, algorithm=algorithm, seed=SEED, steps=STEPS, meta_batch_size=TASKS, shard_size=2,
        validate_every=0, test_episodes=TEST_EPISODES, device="cpu", output=str(folder), **options,
    )  # fmt: skip
    checkpoint = CheckpointStore(run.path / "checkpoints").load_last()[0]
    assert checkpoint is not None
    test, rows = json.loads((run.path / "eval" / "test.json").read_text()), run.metrics()
    losses, norms = ([row[name] for row in rows] for name in ("train/query_loss", "outer/grad_norm"))
    learned, headline = checkpoint.learned, (run.summary or {})["headline"]
    told = headline["value"], headline["ci95"]
    return Found(learned.params, learned.state, losses, norms, test["values"], told, test["by_inner_step"])


@dataclass
class Case:
    """A method twice, with the outer options of the run and the rates that they mean."""

    ours: Algorithm
    theirs: Callable[[], Method]
    outer: dict[str, Any] = field(default_factory=dict)
    rule: Callable[[], Rule] = lambda: Rule("adam")
    rates: Sequence[float] = (0.02,) * STEPS
    outputs: int = WAY
    norm: bool = False
    momentum: float | None = 0.1
    options: dict[str, Any] = field(default_factory=dict)
    clip: float | None = None
    digits: float = 1e-8


ADAM = {"optimizer": "adam", "lr": 0.02, "schedule": "constant"}
LINEAR = {"lr": 0.8}  # the rest is what the method says: SGD whose rate falls to 0
FALLING = [0.8 * (1 - step / STEPS) for step in range(STEPS)]
COSINE = [0.01 + 0.04 * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(STEPS)]
REPTILE: dict[str, Any] = {"inner_lr": 0.05, "inner_steps": 7, "test_inner_steps": 5, "inner_batch_size": 4}
INNER: dict[str, Any] = {"inner_lr": 0.3, "inner_steps": 2, "test_inner_steps": 3}
HEAD: dict[str, Any] = {
    "test_inner_steps": 6, "head_lr": 0.2, "head_momentum": 0.8, "head_dampening": 0.3, "head_weight_decay": 0.05,
}  # fmt: skip

CASES = {
    "maml": Case(
        MAML(**INNER), Descend,
        {"optimizer": "adam", "lr": 0.05, "schedule": "cosine", "final_lr": 0.01}, rates=COSINE,
    ),
    "maml, support": Case(
        MAML(**INNER), lambda: Descend(policy="support"), ADAM, norm=True, options={"batch_norm": "support"},
    ),
    "maml, running": Case(
        MAML(**INNER), lambda: Descend(policy="running"), ADAM, norm=True, options={"batch_norm": "running"},
    ),
    "maml, running mean": Case(
        MAML(**INNER), lambda: Descend(policy="running", momentum=None), ADAM, norm=True, momentum=None,
        options={"batch_norm": "running"},
    ),
    "maml, first order": Case(
        MAML(**INNER, first_order=True), lambda: Descend(first_order=True),
        {"optimizer": "sgd", "lr": 0.2, "momentum": 0.7, "weight_decay": 0.1, "schedule": "step", "step_every": 2,
         "step_factor": 0.5},
        rule=lambda: Rule("sgd", decay=0.1, momentum=0.7), rates=(0.2, 0.2, 0.1, 0.1), norm=True,
    ),
    "anil": Case(
        ANIL(**INNER), lambda: Descend(adapts=lambda name: name.startswith("3.")),
        ADAM | {"clip_norm": 0.1}, clip=0.1, norm=True,
    ),
    "anil, first order, sum over classes": Case(
        ANIL(**INNER, first_order=True, inner_loss_reduction="sum_over_classes"),
        lambda: Descend(rate=0.3 * WAY, first_order=True, adapts=lambda name: name.startswith("3.")), ADAM,
    ),
    "anil, support": Case(
        ANIL(**INNER), lambda: Descend(policy="support", adapts=lambda name: name.startswith("3.")), ADAM,
        norm=True, options={"batch_norm": "support"},
    ),
    "meta_sgd": Case(
        MetaSGD(inner_steps=2, test_inner_steps=3, init_lr=(0.1, 0.4)), lambda: Descend(learns_rates=(0.1, 0.4)),
        ADAM | {"optimizer": "adamw", "weight_decay": 0.5}, rule=lambda: Rule("adamw", decay=0.5),
    ),
    # Fresh moments are counted in single precision, so 1 − β2^count has few digits: hence the wide tolerance.
    "reptile": Case(
        Reptile(**REPTILE), Reptiles, LINEAR, rule=lambda: Rule("sgd"), rates=FALLING, digits=1e-4,
    ),
    "reptile, sgd": Case(
        Reptile(**REPTILE, inner_optimizer="sgd"), lambda: Reptiles(adam=False), LINEAR,
        rule=lambda: Rule("sgd"), rates=FALLING,
    ),
    "reptile, driver": Case(
        Reptile(**REPTILE, inner_state="driver"), lambda: Reptiles(keeps_moments=True), LINEAR,
        rule=lambda: Rule("sgd"), rates=FALLING,
    ),
    "protonet": Case(
        ProtoNet(), Prototypes, {"lr": 0.02, "step_every": 1}, rates=(0.02, 0.01, 0.005, 0.0025), outputs=2, norm=True,
    ),
    "protonet, running": Case(
        ProtoNet(), lambda: Prototypes(policy="running"), ADAM, outputs=2, norm=True, options={"batch_norm": "running"},
    ),
    "joint": Case(
        JointTraining(inner_lr=0.3, test_inner_steps=3), lambda: Descend(steps=0), ADAM | {"weight_decay": 0.1},
        rule=lambda: Rule("adam", decay=0.1), norm=True,
    ),
    "baseline, linear": Case(Baseline(**HEAD), Pretrained, {"lr": 0.02}, outputs=NUM_CLASSES["train"]),
    "baseline, cosine": Case(
        Baseline(**HEAD, head="cosine"), lambda: Pretrained(cosine=True), {"lr": 0.02}, outputs=NUM_CLASSES["train"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_a_run_is_the_plain_loop(name: str, vectorize: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = module(case.outputs, norm=case.norm, momentum=case.momentum)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    outer = {f"outer.{option}": value for option, value in case.outer.items()}
    found = run_of(tmp_path, case.ours, model, vectorize=vectorize, **outer, **case.options)
    expected = plain_loop(case.theirs(), start, case.rule(), case.rates, case.clip)
    close = {"rtol": case.digits, "atol": case.digits / 100}
    assert found.losses == pytest.approx(expected.losses, rel=case.digits)
    assert found.norms == pytest.approx(expected.norms, rel=case.digits)
    torch.testing.assert_close(found.params, expected.params, **close)
    torch.testing.assert_close(found.state, expected.state, **close, check_dtype=False)
    assert found.values == pytest.approx(expected.values, abs=1e-12)
    assert found.headline == pytest.approx(expected.headline, abs=1e-12)
    assert found.by_step.keys() == expected.by_step.keys()
    for score, values in expected.by_step.items():
        assert found.by_step[score] == pytest.approx(values, rel=10 * case.digits), score


@pytest.mark.parametrize("name", ["maml", "anil", "meta_sgd", "reptile", "joint", "baseline, linear"])
def test_a_test_of_fewer_steps_is_the_beginning_of_the_whole_one(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = module(case.outputs, norm=case.norm, momentum=case.momentum)
    run_of(tmp_path, case.ours, model, **case.options)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    whole = json.loads((folder / "eval" / "test.json").read_text())["by_inner_step"]
    short = raymeta.meta_test(folder, episodes=TEST_EPISODES, inner_steps=1, model=model).to_json()["by_inner_step"]
    for score, values in short.items():
        assert values == pytest.approx(whole[score][:2], rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_runs_learn_and_adapt_enough_to_tell(name: str) -> None:
    """Were nothing to move, a mistake in how it moves could not be seen."""
    case = CASES[name]
    model = module(case.outputs, norm=case.norm, momentum=case.momentum)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    end = plain_loop(case.theirs(), start, case.rule(), case.rates, case.clip)
    weights = [n for n in start if n.endswith("weight")]  # a bias may have no effect on a method's loss
    assert all((end.params[n] - start[n]).abs().max() > 1e-3 for n in weights)
    losses = end.by_step["loss"]
    assert len(losses) == 1 or abs(losses[-1] - losses[0]) > 0.05


def test_rates_of_meta_sgd_fill_their_range() -> None:
    problem = raymeta.Problem(module(WAY), goal="classification")
    params = problem.initial_params()
    learned = MetaSGD(init_lr=(0.2, 0.3)).init(problem, params, torch.Generator().manual_seed(0))
    rates = torch.cat([p.flatten() for n, p in learned.params.items() if n.startswith("inner_lr/")])
    assert len(rates) == sum(p.numel() for p in params.values())
    assert 0.2 <= rates.min() < 0.21
    assert 0.29 < rates.max() <= 0.3


# Schedules


SMALL: dict[str, Any] = {"preset": "sinusoid-maml", "model.hidden": [8], "meta_batch_size": 2, "shard_size": 1}
SMALL |= {"steps": 6, "checkpoint_every": 2, "validate_every": 0, "test_episodes": 2, "device": "cpu"}
SMALL |= {"outer.lr": 0.4, "outer.final_lr": 0.1, "outer.step_every": 2, "outer.step_factor": 0.25}

FORMULAS: dict[str, Callable[[int], float]] = {
    "constant": lambda step: 0.4,
    "linear": lambda step: 0.4 - 0.3 * step / 6,
    "cosine": lambda step: 0.25 + 0.15 * math.cos(math.pi * step / 6),
    "step": lambda step: (0.4, 0.4, 0.1, 0.1, 0.025, 0.025)[step],
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", FORMULAS)
@pytest.mark.parametrize("stopped_at", [2, 4])
def test_a_stopped_run_goes_on_with_its_schedule(
    schedule: str, optimizer: str, stopped_at: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {**SMALL, "outer.schedule": schedule, "outer.optimizer": optimizer}
    options |= {"outer.lr": 0.4, "outer.momentum": 0.5 if optimizer == "sgd" else 0.0}
    straight = raymeta.meta_train(output=str(tmp_path / "straight"), **options)
    rates = [row["outer/lr"] for row in straight.metrics()]
    assert rates == pytest.approx([FORMULAS[schedule](step) for step in range(6)], rel=1e-12)
    cut = tmp_path / "cut" / straight.path.name
    shutil.copytree(straight.path, cut)
    for step in range(stopped_at + 2, 7, 2):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:08d}")
    with pytest.warns(RaymetaWarning, match=f"the checkpoint of step {stopped_at} is used"):
        again = raymeta.meta_train(resume=cut)
    assert [row["outer/lr"] for row in again.metrics()] == rates
    before, after = last_params(straight), last_params(again)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert (straight.summary or {})["params_sha256"] == (again.summary or {})["params_sha256"]
