"""A compiled shard has the gradients of the uncompiled one, and equal bits wherever it runs."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config

from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.maml import MAML
from raymeta.autodiff import graphs
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.autodiff.graphs import Graph, is_traced, read
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor, deadlines
from raymeta.engine.executors.ray_actors.deadlines import Deadlines
from raymeta.engine.job import Job
from raymeta.engine.worker.compiled import compiled
from raymeta.engine.worker.kernels import built_together
from raymeta.engine.worker.shard_function import _repeated
from raymeta.engine.worker.worker import Worker
from raymeta.errors import ConfigError
from raymeta.keys import Shard, TaskKey
from raymeta.models.layers.convolution import Conv2d
from raymeta.models.layers.pooling import MaxPool2x2, MeanPool
from raymeta.tree import FloatArray, Layout, Params

TINY: dict[str, Any] = {"model.hidden": [6], "meta_batch_size": 4, "shard_size": 4, "validate_every": 0}
TINY["compile"] = False
IMAGES: dict[str, Any] = {"model.width": 4, "tasks.way": 3, "meta_batch_size": 2, "shard_size": 2, "validate_every": 0}


def gradient(preset: str, options: dict[str, Any], tell: Callable[..., None] = lambda *_, **__: None) -> FloatArray:
    built = build(load_config(preset=preset, overrides=options).config)
    executor = LocalExecutor(built.blueprint, tell)
    shard = Shard(0, "train", 7, 0, options["shard_size"])
    payload = built.blueprint.payload(built.initial)
    try:
        results = list(executor.map(Job("gradient"), payload, [shard, shard._replace(step=8), shard]))
    finally:
        executor.close()
    assert np.array_equal(results[0][1].vector, results[2][1].vector), "the first call is compiled like the others"
    return results[0][1].vector


def close(a: FloatArray, b: FloatArray) -> bool:
    return bool(np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b))


def test_compiled_second_order_gradients_are_right_and_compiled_once(local_ray: Any) -> None:
    told: list[str] = []
    compiled = gradient("sinusoid-maml", {**TINY, "compile": True}, lambda kind, *_, **__: told.append(kind))
    assert close(compiled, gradient("sinusoid-maml", TINY))
    assert told == ["compiled"], "another step is the same graph"
    built = build(load_config(preset="sinusoid-maml", overrides={**TINY, "compile": True}).config)
    pool = RayExecutor(built.blueprint, PoolOptions(workers=1))
    try:
        ((_, result),) = pool.map(Job("gradient"), built.blueprint.payload(built.initial), [Shard(0, "train", 7, 0, 4)])
    finally:
        pool.close()
    assert np.array_equal(result.vector, compiled), "the same bits in another process"


def test_a_worker_that_compiles_does_not_hang(local_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short shards of its kind are elsewhere; once it has answered, they are short here as well."""
    monkeypatch.setattr(deadlines, "HUNG_LEAST_S", 0.01)
    monkeypatch.setattr(Deadlines, "usual_s", lambda *_: 0.01)
    told: list[str] = []
    built = build(load_config(preset="sinusoid-maml", overrides={**TINY, "compile": True}).config)
    pool = RayExecutor(built.blueprint, PoolOptions(workers=1), lambda kind, *_, **__: told.append(kind))
    payload = built.blueprint.payload(built.initial)
    try:
        assert len(list(pool.map(Job("gradient"), payload, [Shard(0, "train", 7, 0, 4)]))) == 1
        assert "compiled" in told
        assert "worker_hung" not in told
        (row,) = pool.workers()
        os.kill(row.pid, signal.SIGSTOP)
        assert len(list(pool.map(Job("gradient"), payload, [Shard(1, "train", 7, 0, 4)]))) == 1
        assert "worker_hung" in told
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("algorithm", ["maml", "protonet"])
def test_methods_compile_on_images(algorithm: str, vectorize: str) -> None:
    options = {**IMAGES, "algorithm": algorithm, "vectorize": vectorize}
    compiled, plain = (gradient("glyphs-5w1s-maml", {**options, "compile": c}) for c in (True, False))
    # Products round otherwise than convolutions: 2e-5 apart was seen.
    assert np.linalg.norm(compiled - plain) < 1e-4 * np.linalg.norm(plain)


def test_a_loop_compiles_one_task_whatever_their_number() -> None:
    options = {**TINY, "vectorize": "loop", "compile": True}
    told: list[str] = []
    four = gradient("sinusoid-maml", options, lambda kind, *_, **__: told.append(kind))
    assert close(four, gradient("sinusoid-maml", {**TINY, "vectorize": "loop"}))
    assert told == ["compiled"]


class Scaled:
    """A function that reads a tensor besides those that it is given."""

    def __init__(self) -> None:
        self.scale = torch.tensor([2.0])

    def alone(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y

    def beside(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * x - y


def test_a_graph_reads_what_it_is_given_and_other_tensors_as_they_are_then() -> None:
    one, two, three = (torch.tensor([value]) for value in (1.0, 2.0, 3.0))
    scaled = Scaled()
    alone, beside = (compiled(method, [one, two], one, two) for method in (scaled.alone, scaled.beside))
    assert (alone.result.item(), beside.result.item()) == (-1, 0)
    assert alone.call([three, one]).item() == 2
    scaled.scale[0] = 5
    assert beside.call([three, one]).item() == 14, "of one value, and still no number in the graph"
    among = compiled(scaled.beside, [one, two, scaled.scale], one, two)
    assert among.call([one, two, three]).item() == 1, "it may be one of those that are given"


def test_whether_tensors_are_the_same_is_part_of_a_kind() -> None:
    one, two, three = (torch.tensor([value]) for value in (1.0, 2.0, 3.0))
    assert _repeated([one, two, three]) == ()
    assert _repeated([one, two, one]) == [2, 1, 2]
    assert compiled(Scaled().alone, [one, one], one, one).call([three, three]).item() == 0


def test_layers_are_written_for_a_compiler_where_they_are_read() -> None:
    net, x = nn.Sequential(Conv2d(1, 2, 3, padding=1), MaxPool2x2(), MeanPool()), torch.rand(2, 1, 8, 8)
    graph = read(net, [x, *net.parameters()], x)
    operations = " ".join(str(node.target) for node in graph.module.graph.nodes)
    assert "addmm" in operations
    assert not re.search("convolution|max_pool|as_strided", operations)
    assert torch.allclose(graph.module(x, *net.parameters())[0], net(x))
    assert graph.others == []


def test_changes_in_place_stay_within_a_graph() -> None:
    def changing(x: Tensor) -> Tensor:
        total = torch.zeros(3)
        total[1:] += x
        total.mul_(2).clamp_(min=0)
        return torch.add(total, 0, out=torch.empty(3))

    x = torch.tensor([1.0, 2.0])
    found = compiled(changing, [x], x)
    assert found.result.tolist() == [0, 2, 4]
    assert found.call([x + 1]).tolist() == [0, 4, 6]


def test_changes_in_place_within_torchs_own_functions_are_no_changes_of_what_is_given() -> None:
    x, matrix = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]])
    found = compiled(lambda x: x @ matrix, [x], x)  # torch's product of these calls `squeeze_`
    assert found.result.tolist() == [1, 2, 8]
    assert found.call([x + 1]).tolist() == [2, 3, 13]


def test_statistics_of_ones_own_may_change_in_place() -> None:
    def normalised(x: Tensor) -> Tensor:
        mean, variance = torch.zeros(2), torch.ones(2)
        outputs = nn.functional.batch_norm(x, mean, variance, training=True)
        return torch.cat([outputs, mean[None], variance[None]])

    x = torch.tensor([[1.0, 2.0], [3.0, 8.0], [2.0, 5.0]])
    torch.testing.assert_close(compiled(normalised, [x], x).result, normalised(x))


@pytest.mark.parametrize("change", [False, True])
def test_what_is_kept_from_autocast_stays_so_in_a_graph(change: bool) -> None:
    def product(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            result = x @ x + torch.zeros(3, 3)
            return result.mul_(2) if change else result

    x = torch.arange(9.0).view(3, 3) / 7
    # Anew: graphs of a disk cache are not told apart by autocast.
    with torch.autocast("cpu", dtype=torch.bfloat16), config.patch(force_disable_caches=True):
        found = compiled(product, [x], x).result
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, product(x))


def test_only_a_graph_with_changes_in_place_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(graphs, "functionalize", read_again)
    x = torch.tensor([1.0, 2.0])
    read(lambda x: x + 1, [x], x)
    with pytest.raises(AssertionError):
        read(lambda x: (x + 1).mul_(2), [x], x)


def assigned(x: Tensor) -> Tensor:
    made = x * 1
    made.data = x
    return made


def test_what_a_graph_cannot_hold_is_refused_and_leaves_no_trace() -> None:
    x, held, number = torch.tensor([1.0, 2.0]), torch.zeros(2), torch.tensor(3.0)
    refused: dict[str, Callable[[Tensor], Tensor]] = {
        "changes a tensor in place": lambda x: held.add_(x),
        "in place that it did not make": lambda x: (held.add_(1), x)[1],
        "in place that it did not make, by aten.mul_": lambda x: x.mul_(2),
        "in place whose elements share memory": lambda x: (x + 1).sum().expand(2).zero_() + x,
        "in place in a way that a graph cannot hold": lambda x: torch.arange(4.0).unfold(0, 3, 1)[:, 1:].mul_(2) + x,
        "assigns to the `data` of a tensor": assigned,
        "assigns to the `data` of": lambda x: (assigned(held), x)[1],
        "depends on the values": lambda x: x * number.item(),
        "the values of tensors": lambda x: x if number > 1 else -x,
    }
    for reason, function in refused.items():
        with pytest.raises(ValueError, match=reason):
            compiled(function, [x], x)
    assert (x.tolist(), held.tolist()) == ([1, 2], [0, 0])
    assert not is_traced()


class OwnSlope(torch.autograd.Function):
    """Its derivative is its own, and not the one of what it computes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return -3 * gradient * x**2


def test_derivatives_of_ones_own_are_part_of_a_graph() -> None:
    def slope(p: Params) -> Tensor:
        return gradient_and_value(lambda p: cast(Tensor, OwnSlope.apply(p["x"])), p)[0]["x"]

    def curve(p: Params) -> Tensor:
        return gradient_and_value(slope, p)[0]["x"]

    x = torch.tensor([1.0, 2.0])
    assert compiled(torch.vmap(slope), [x], {"x": x}).result.tolist() == [-3, -12]
    assert compiled(torch.vmap(curve), [x], {"x": x}).result.tolist() == [-6, -12]


def test_a_graph_draws_what_is_drawn_uncompiled() -> None:
    def drawing(x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5) + torch.rand_like(x) + torch.empty_like(x).exponential_()

    x = torch.ones(50)
    call = compiled(drawing, [x], x).call
    torch.manual_seed(3)
    expected = drawing(x)
    torch.manual_seed(3)
    assert torch.allclose(call([x]), expected)


def test_what_was_read_goes_once_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps a call for each kind, and its graph would be many times as large."""
    modules: list[Any] = []

    def noted(*args: Any) -> Graph:
        graph = read(*args)
        modules.append(weakref.ref(graph.module))
        return graph

    monkeypatch.setattr(sys.modules[compiled.__module__], "read", noted)
    x = torch.ones(2)
    call = compiled(lambda x: x + 1, [x], x).call
    gc.collect()
    assert [module() for module in modules] == [None]
    assert call([x]).tolist() == [2, 2]


def test_one_thread_at_a_time_changes_the_compiler_and_puts_it_back() -> None:
    from torch._inductor.async_compile import AsyncCompile

    before, entered = AsyncCompile.wait, threading.Event()

    def other() -> None:
        with built_together():
            entered.set()

    thread = threading.Thread(target=other)
    with built_together():
        assert before is not AsyncCompile.wait
        thread.start()
        assert not entered.wait(0.2)
    thread.join(60)
    assert entered.is_set()
    assert before is AsyncCompile.wait


def test_a_graph_may_read_a_teacher_that_could_learn() -> None:
    teacher, x = nn.Linear(3, 3), torch.rand(2, 3)
    found = compiled(lambda x: teacher(x), [x], x)
    assert not found.result.requires_grad
    assert torch.allclose(found.call([x + 1]), teacher(x + 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_graphs_of_any_number_of_kinds_are_known_and_go_with_their_owner() -> None:
    scaled = Scaled()
    known = []
    for size in range(2, 12):  # more than the compiler allows of one function
        x, y = torch.ones(size), torch.zeros(size)
        known.append(compiled(scaled.alone, [x, y], x, y).call)
        assert torch.equal(known[-1]([y, x]), y - x)
    owner = weakref.ref(scaled)
    del scaled, known
    gc.collect()
    assert owner() is None


def dropping_worker(*, compiled: bool) -> tuple[Worker, FloatArray]:
    """Of a network with dropout and a frozen layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    built = build(load_config(preset="sinusoid-maml", overrides={**TINY, "compile": compiled}).config)
    params = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    blueprint = replace(built.blueprint, model=model, layout=Layout.of(params))
    return Worker(blueprint), blueprint.payload(Learned(params, {}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_compiled_shard_draws_like_every_other_one() -> None:
    """Else a shard's bits would depend on what its worker computed before."""
    shards = [Shard(0, "train", step, 0, 4) for step in (1, 2, 1)]
    (early, payload), (late, _) = dropping_worker(compiled=True), dropping_worker(compiled=True)
    first = [early.run(Job("gradient"), payload, shard).vector for shard in shards]
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(late.run(Job("gradient"), payload, shards[1]).vector, first[1])
    assert not np.array_equal(first[0], first[1])
    for worker in (early, late):
        worker.close()


def test_a_shard_draws_its_own_random_numbers_and_gives_the_process_its_own_back() -> None:
    worker, payload = dropping_worker(compiled=False)
    shard = Shard(0, "train", 1, 0, 4)
    before = torch.get_rng_state()
    once = worker.run(Job("gradient"), payload, shard).vector
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert np.array_equal(worker.run(Job("gradient"), payload, shard).vector, once)
    other = worker.run(Job("gradient"), payload, shard._replace(step=2)).vector
    assert not np.array_equal(other, once)
    worker.close()


@dataclass(frozen=True, kw_only=True)
class Noisy(MAML):
    """Its noise comes from torch's generator, which is seeded by then, and not from the keys."""

    def noise(self, problem: Problem, keys: Sequence[TaskKey], *_: Any) -> dict[str, Tensor]:
        return {"factor": torch.rand(len(keys))}

    def task_loss(self, *args: Any, noise: Any, **kwargs: Any) -> Any:
        loss, metrics = super().task_loss(*args, noise=noise, **kwargs)
        return loss * noise["factor"], metrics


def test_noise_that_torch_draws_is_the_shards_own() -> None:
    options = {**TINY, "algorithm": Noisy(inner_lr=0.01)}
    once = gradient("sinusoid-maml", options)
    torch.rand(3)
    assert np.array_equal(gradient("sinusoid-maml", options), once)


@dataclass(frozen=True, kw_only=True)
class LateNoise(MAML):
    """Draws at other steps than the first; a graph, which knows no step, always draws."""

    def task_loss(self, *args: Any, phase: Phase, **kwargs: Any) -> Any:
        loss, metrics = super().task_loss(*args, phase=phase, **kwargs)
        return loss if phase.step == 0 else loss * torch.rand(()), metrics


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_graph_that_draws_is_seeded_whatever_step_came_first() -> None:
    options = {**TINY, "vectorize": "loop", "algorithm": LateNoise(inner_lr=0.01), "compile": True}
    built = build(load_config(preset="sinusoid-maml", overrides=options).config)
    payload, job = built.blueprint.payload(built.initial), Job("gradient")
    early, late = Shard(0, "train", 0, 0, 4), Shard(0, "train", 7, 0, 4)
    vectors = []
    for order in ((early, late, late), (late, early, late)):
        worker = Worker(built.blueprint)
        vectors.append([worker.run(job, payload, shard).vector for shard in order])
        worker.close()
    assert np.array_equal(vectors[0][1], vectors[0][2])
    assert np.array_equal(vectors[0][1], vectors[1][0])
    assert np.array_equal(vectors[0][0], vectors[1][1])


@dataclass(frozen=True, kw_only=True)
class Attached(MAML):
    """Its metrics are part of the graph."""

    def task_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss, metrics = super().task_loss(*args, **kwargs)
        return loss, metrics | {"train/query_loss": loss}


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_metrics_may_be_part_of_the_graph(vectorize: str) -> None:
    options = {**TINY, "vectorize": vectorize}
    attached = gradient("sinusoid-maml", {**options, "algorithm": Attached(inner_lr=0.01)})
    assert close(attached, gradient("sinusoid-maml", options))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_graphs_of_two_runs_and_of_other_chunks_are_told_apart() -> None:
    """A known graph runs without the compiler's checks of its inputs, so whose it is must be certain."""
    shard = Shard(0, "train", 7, 0, 4)

    def vectors(rate: float, compiled: bool) -> Iterator[FloatArray]:
        options = {**TINY, "algorithm.inner_lr": rate, "compile": compiled}
        built = build(load_config(preset="sinusoid-maml", overrides=options).config)
        worker, payload = Worker(built.blueprint), built.blueprint.payload(built.initial)
        for chunk_size in (4, 2, 4, 3, 2):  # 3 leaves one task alone
            yield worker.run(Job("gradient", chunk_size=chunk_size), payload, shard).vector
        worker.close()

    rows = zip(*(vectors(rate, compiled) for compiled in (True, False) for rate in (0.01, 0.1)), strict=True)
    for slow_rate, fast_rate, slow_expected, fast_expected in rows:
        assert close(slow_rate, slow_expected)
        assert close(fast_rate, fast_expected)
        assert not close(slow_rate, fast_rate)


@dataclass(frozen=True, kw_only=True)
class Branching(Algorithm):
    """Its steps depend on values, which no graph can hold."""

    def adapt(self, problem: Any, learned: Any, support: Any, *, noise: Any, phase: Any) -> Adaptation:
        del noise
        if float(sum(p.sum() for p in learned.params.values())) > 1e9:
            raise AssertionError
        return Adaptation([lambda x: problem.forward(learned, x, phase)])


def test_what_cannot_be_compiled_says_what_to_do() -> None:
    options = {**TINY, "algorithm": Branching(), "vectorize": "loop"}
    with pytest.raises(ConfigError, match=r"cannot be compiled \(.*values of tensors.*set compile to false"):
        gradient("sinusoid-maml", {**options, "compile": True})
