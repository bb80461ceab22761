"""Methods of a person's own are rehearsed by the steps that they will take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import nn

import raymeta
from raymeta import L2L, MAML, MAMLRL, Episode, Examples, MetaWeightNet, RegularizedEvolution, meta_gradient
from raymeta.errors import ConfigError
from raymeta.options import STRICT

pytestmark = pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
SMALL: dict[str, Any] = {"model": "mlp", "steps": 1, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 2}


def own(cls: type) -> Any:
    """A subclass that is not raymeta's, so that nothing is known of it."""
    return dataclass(frozen=True, kw_only=True, config=STRICT)(type("Own", (cls,), {"__module__": __name__}))


OWN = {cls.__name__: own(cls) for cls in (L2L, MAMLRL, MetaWeightNet, RegularizedEvolution)}
TASKS = {
    "L2L": "quadratics",
    "MAMLRL": "navigation",
    "MetaWeightNet": "classification",
    "RegularizedEvolution": "cell_table",
}


@pytest.mark.parametrize("name", TASKS)
def test_a_method_derived_from_one_of_ours_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Own", OWN[name])
    run = raymeta.meta_train(algorithm=OWN[name](), tasks=TASKS[name], output=str(tmp_path), **SMALL)
    assert run.summary["steps"] == 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stepping(MAML):
    """A step of its own that fails in its second turn, or forgets running statistics."""

    fails: bool = False

    def step(self, outer: Any, compute: Any, phase: Any) -> dict[str, float]:
        total = compute()
        if self.fails and outer.memory:
            raise RuntimeError("the second step")
        outer.memory = {"begun": torch.ones(1)}
        return {"outer/grad_norm": outer.update({n: v for n, v in total.means().items() if n in outer.params})}


def test_what_goes_wrong_in_a_second_step_is_told_before_there_is_a_run(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the second step"):
        raymeta.meta_train(algorithm=Stepping(fails=True), tasks="sinusoid", output=str(tmp_path), **SMALL)
    assert not list(tmp_path.iterdir())


def test_running_statistics_that_no_step_moves_are_refused(tmp_path: Path) -> None:
    options = SMALL | {"model.norm": "batch", "batch_norm": "running"}
    with pytest.raises(ConfigError, match="Stepping does not move the running statistics"):
        raymeta.meta_train(algorithm=Stepping(), tasks="glyphs", output=str(tmp_path), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", [L2L(), MetaWeightNet(), RegularizedEvolution()])
def test_a_step_of_several_maps_has_no_meta_gradient_of_episodes(algorithm: Any) -> None:
    side = Examples(torch.randn(4, 3), torch.randn(4, 1))
    with pytest.raises(ConfigError, match="train it with meta_train"):
        meta_gradient(nn.Linear(3, 1), algorithm, [Episode(side, side)])
