"""Tuned optimisers beside a learned one: torch's own rules, at the best rate, on the same problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raymeta
from raymeta.api.evaluate import TEST_SEED
from raymeta.api.optimizers import RATES, losses_at, losses_under, optimizer_curves, tuned
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.models.layers.hand_rules import HANDS, HandName, HandRule
from raymeta.runs import layout
from raymeta.views.pages.run import run_figures
from raymeta.views.sources.run import RunSource

OF_TORCH: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
}
SMALL: dict[str, Any] = {"algorithm.unroll": 4, "algorithm.windows": 2, "algorithm.hidden": 3}
NETWORK: dict[str, Any] = {"tasks": "glyphs", "tasks.way": 3, "model": "mlp", "model.hidden": [5], "model.shrink": 7}


def blueprint(**options: Any) -> Blueprint:
    loaded = load_config(overrides={"algorithm": "l2l", "tasks": "quadratics", "device": "cpu", **SMALL, **options})
    return build(loaded.config, ()).blueprint


@pytest.mark.parametrize("name", HANDS)
def test_a_rule_takes_the_steps_of_torch(name: HandName) -> None:
    theta = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = theta.clone().requires_grad_()
    optimizer, rule = OF_TORCH[name]([theirs]), HandRule(name, 0.1).double()
    state = rule.start(theta)
    for _ in range(6):
        optimizer.zero_grad()
        (theirs.cos() * theirs).sum().backward()
        update, state = rule(theirs.grad, state)
        theta = theta + update
        optimizer.step()
        torch.testing.assert_close(theta, theirs.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [{}, NETWORK], ids=["functions", "networks"])
def test_the_chosen_rate_ends_lowest_of_all_that_are_tried_one_by_one(options: dict[str, Any]) -> None:
    here = blueprint(**options)
    found = tuned(here, "momentum", searched=3, tested=2, seed=7)
    ends = [float(losses_under(here, HandRule("momentum", rate), "val", 3, 7)[:, -1].mean()) for rate in RATES]
    assert found.rate == RATES[int(np.nanargmin(ends))]
    alone = losses_under(here, HandRule("momentum", found.rate), "test", 2, 7)
    torch.testing.assert_close(found.losses, alone, rtol=1e-5, atol=1e-7)


def test_problems_that_are_stepped_apart_give_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    here = blueprint()
    together = losses_at(here, "adam", (0.1, 1.0), "val", 5, 0)
    monkeypatch.setattr("raymeta.api.optimizers._MOST_COORDINATES", 2 * 2 * 10)
    torch.testing.assert_close(losses_at(here, "adam", (0.1, 1.0), "val", 5, 0), together, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_run_draws_its_optimiser_beside_tuned_ones(tmp_path: Path) -> None:
    """Of the same test problems, which a run of few tests has all in its figure."""
    run = raymeta.meta_train(
        algorithm="l2l", tasks="quadratics", output=str(tmp_path), steps=1, meta_batch_size=2, validate_every=0,
        test_episodes=3, device="cpu", **SMALL,
    )  # fmt: skip
    source = RunSource(run.path)
    curves, own = source.optimizers, source.evaluation["by_inner_step"]["loss"]
    assert list(curves["losses"]) == ["l2l", *HANDS]
    assert curves["losses"]["l2l"] == pytest.approx(own)
    rule = HandRule("adam", curves["rates"]["adam"])
    again = losses_under(blueprint(), rule, "test", 3, TEST_SEED).mean(0)
    assert curves["losses"]["adam"] == pytest.approx(again.tolist(), rel=1e-5)
    assert [values[0] for values in curves["losses"].values()] == pytest.approx(5 * [own[0]])
    figure = run_figures(source)["optimizers"]
    names = [trace["name"] for trace in figure["data"]]
    assert names[0] == "l2l, learned"
    assert names[-1] == f"Adam, rate {curves['rates']['adam']:.3g}"
    assert figure["layout"]["yaxis"]["type"] == "log"
    (run.path / layout.OPTIMIZERS).write_text('{"losses": {"l2l": ["x"]}, "rates": {}, "problems": 3}')
    assert RunSource(run.path).optimizers == {}


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_method_that_learns_no_optimiser_has_no_such_curves() -> None:
    here = build(load_config(preset="sinusoid-maml", overrides={"steps": 10}).config, ()).blueprint
    assert optimizer_curves(here, np.ones((2, 2)), seed=0) is None
