"""A run of any network gives the same bits on any worker and after a stop, and is scored the same when it is opened."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle
from torch import Tensor, nn
from wild_models import MODELS
from wild_runs import WildModel, WildTasks

import raymeta
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.executors.ray_actors.sending import require_same_when_sent
from raymeta.engine.job import Job
from raymeta.engine.worker.worker import Worker
from raymeta.errors import ConfigError
from raymeta.keys import Shard

TRAINS = [wild.name for wild in MODELS if "exact" in (wild.vmap, wild.loop) and wild.name != "complex parameters"]
QUICK = (
    "BatchNorm in eval mode", "weight_norm", "LSTM", "a buffer that forward writes in place", "bfloat16",
    "numpy's random in forward", "in-place change of the input", "a frozen layer",
)  # fmt: skip
ALL = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TRAINS]


def options(name: str, **more: Any) -> dict[str, Any]:
    sizes = {"meta_batch_size": 4, "shard_size": 2, "validate_every": 0, "test_episodes": 4, "algorithm.inner_lr": 0.1}
    return {"tasks": WildTasks(kind=name), "model": WildModel(which=name)} | sizes | more


def train(folder: Path, **given: Any) -> raymeta.Run:
    return raymeta.meta_train("sinusoid-maml", output=str(folder), **given)


@pytest.mark.parametrize("name", ALL)
def test_a_run_is_continued_and_scored_as_it_was(name: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", **options(name, steps=2))
    assert raymeta.meta_test(whole, episodes=4).summary.value == whole.summary["headline"]["value"]
    first = train(tmp_path / "first", **options(name, steps=1))
    resumed = raymeta.meta_train(resume=first.path, steps=2)
    assert resumed.summary["params_sha256"] == whole.summary["params_sha256"]
    assert resumed.summary["headline"]["value"] == whole.summary["headline"]["value"]


@pytest.mark.parametrize("name", ALL)
def test_a_shard_has_the_same_bits_on_any_worker(name: str) -> None:
    """On one that computed other shards before, and on one that got the network from another process."""
    config = load_config(preset="sinusoid-maml", overrides=options(name, steps=2)).config
    built = build(config)
    sent = cloudpickle.dumps(built.blueprint)
    payload = built.blueprint.payload(built.initial)
    shards = [Shard(0, "train", 0, start, start + 2) for start in (0, 2)]
    results = []
    for order in (shards, shards[::-1]):
        worker = Worker(cloudpickle.loads(sent))
        found = {shard: worker.run(Job("gradient"), payload, shard).vector for shard in order}
        worker.close()
        results.append([found[shard] for shard in shards])
    for one, other in zip(*results, strict=True):
        assert one.tobytes() == other.tobytes()


def test_the_exported_model_has_what_the_run_had_beside_parameters(tmp_path: Path) -> None:
    """Frozen weights and buffers that were drawn when the model was built, and running statistics in eval mode."""
    run = train(tmp_path, **options("Dropout in eval mode", steps=2))
    model = raymeta.load_run(run.path).model()
    modes = [module.training for module in model.children()]
    assert modes == [False, True]
    drawn = build(load_config(preset="sinusoid-maml", overrides=options("Dropout in eval mode", seed=1)).config)
    assert not torch.equal(drawn.blueprint.model.get_parameter("0.0.weight"), model.get_parameter("0.0.weight"))
    built = build(load_config(preset="sinusoid-maml", overrides=options("Dropout in eval mode")).config)
    assert torch.equal(built.blueprint.model.get_parameter("0.0.weight"), model.get_parameter("0.0.weight"))


class Noisy(nn.Module):
    """Scales by a number that a function it keeps draws."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw, self.linear = draw, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.draw()


def test_a_function_of_a_generator_is_refused_where_the_model_is_sent() -> None:
    """It would draw from a copy of Python's generator there, which nothing seeds."""
    drawn, plain = (Noisy(draw) for draw in (random.random, lambda: random.random()))
    with pytest.raises(ConfigError, match="computes something else after it was sent"):
        require_same_when_sent(drawn, torch.randn(4, 6))
    require_same_when_sent(plain, torch.randn(4, 6))
