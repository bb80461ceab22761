"""Losses and metrics by name and import path, in runs and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import MAML, Episode, Examples, meta_gradient
from raymeta.adaptation.losses import loss_of
from raymeta.errors import ConfigError
from raymeta.runs.rows import read_rows

SMALL: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "validate_every": 1, "validation_episodes": 4}
SMALL |= {"test_episodes": 6, "model.width": 4}
SINUSOID: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 6}


def margin(outputs: Tensor, y: Tensor) -> Tensor:
    """How far the right class is above the mean of all."""
    onehot = (y[:, None] == torch.arange(outputs.shape[1])).to(outputs.dtype)
    return ((outputs * onehot).sum(1) - outputs.mean(1)).mean()


def confident(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of sharpened outputs."""
    return F.cross_entropy(3 * outputs, y)


def half_square(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y).square().mean() / 2


def blind(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs.argmax(1) != y).float().mean()


def each(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


def count(outputs: Tensor, y: Tensor) -> float:
    return 3.0


def train(folder: Path, preset: str = "glyphs-5w1s-maml", **options: Any) -> raymeta.Run:
    run: raymeta.Run = raymeta.meta_train(preset, output=str(folder), **options)
    return run


def sha256(run: raymeta.Run) -> str:
    return str(run.summary["params_sha256"])


def test_a_loss_at_an_import_path_is_that_of_meta_gradient(tmp_path: Path) -> None:
    """Half of the squared error at twice the inner rate takes the same inner steps, and half of the outer gradient."""
    outer = {"outer.optimizer": "sgd", "outer.lr": 0.01}
    whole = train(tmp_path, "sinusoid-maml", **SINUSOID, **outer, **{"algorithm.inner_lr": 0.01})
    halved = {"algorithm.inner_lr": 0.02, "outer.optimizer": "sgd", "outer.lr": 0.02}
    half = train(tmp_path, "sinusoid-maml", loss=f"{__name__}:half_square", **SINUSOID, **halved)
    assert half.summary["headline"]["name"] == "mse"
    assert half.summary["headline"]["value"] == pytest.approx(whole.summary["headline"]["value"], rel=1e-4)


@pytest.mark.parametrize("given", [f"{__name__}:confident", confident], ids=["path", "function"])
def test_a_run_records_its_loss_and_is_tested_with_it(given: Any, tmp_path: Path) -> None:
    run = train(tmp_path, loss=given, metrics=[f"{__name__}:margin"], **SMALL)
    assert f"loss: {__name__}:confident" in (run.path / "config.yaml").read_text()
    again = raymeta.meta_test(run, episodes=6)
    assert again.summary.value == run.summary["headline"]["value"]
    assert run.summary["headline"]["name"] == "accuracy"
    assert again.to_json()["by_inner_step"].keys() == {"loss", "accuracy", "margin"}
    rows, _ = read_rows(run.path / "metrics.jsonl")
    assert any("val/margin" in row for row in rows)
    assert sha256(run) != sha256(train(tmp_path, **SMALL))


def test_weights_and_smoothing_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    outputs, y = torch.randn(6, 3), torch.randint(0, 3, (6,))
    weights = (1.0, 2.0, 0.5)
    loss = loss_of(None, "classification", class_weights=weights, label_smoothing=0.2)
    assert loss is not None
    expected = F.cross_entropy(outputs, y, weight=torch.tensor(weights), label_smoothing=0.2)
    assert torch.equal(loss(outputs, y), expected)
    assert loss_of("cross_entropy", "classification") is not None
    assert loss_of(None, "regression") is None


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_a_weighted_loss_reaches_inner_and_outer_steps(vectorize: Any) -> None:
    """A class of no weight has no influence: its examples may hold anything."""
    loss = loss_of(None, "classification", class_weights=(1.0, 1.0, 1e-30))
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3).double(), torch.randn(6, 4, dtype=torch.float64), torch.arange(3).repeat(2)
    other = torch.where((y == 2)[:, None], torch.randn(6, 4, dtype=torch.float64), x)
    gradients = [
        meta_gradient(model, MAML(), [Episode(Examples(z, y), Examples(z, y))], loss=loss, vectorize=vectorize)
        for z in (x, other)
    ]
    torch.testing.assert_close(gradients[0]["weight"], gradients[1]["weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss mse is one of regression, and the tasks are classification"),
        ({"loss": "hinge"}, "choose one of cross_entropy, mse, l1, huber"),
        ({"loss": f"{__name__}:nothing"}, "has no nothing"),
        ({"loss": f"{__name__}:blind"}, "the loss does not depend on the outputs"),
        ({"loss": f"{__name__}:confident", "label_smoothing": 0.1}, "are of the loss cross_entropy"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 entries: one is needed for each of an episode's 5"),
        ({"algorithm": "baseline", "class_weights": (1.0,) * 5}, "trains on all classes at once takes none"),
        ({"metrics": [f"{__name__}:margin", f"{__name__}:margin"]}, "two values would be called margin"),
        ({"metrics": [f"{__name__}:each"]}, r"metrics: each gives a tensor \[\d+\]: one number is needed"),
        ({"metrics": [f"{__name__}:count"]}, "metrics: count gives a float: one number is needed"),
        ({"loss": f"{__name__}:each"}, r"the loss gives a tensor \[\d+\]: one number is needed"),
        ({"loss": lambda outputs, y: outputs.mean()}, "a run records a function by its import path"),
    ],
)
def test_what_does_not_fit_is_told_before_the_run(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, **SMALL | options)
    assert not list(tmp_path.iterdir())


def test_a_strangers_loss_is_imported_where_that_is_allowed(tmp_path: Path) -> None:
    run = train(tmp_path, loss="cross_entropy", **SMALL)
    assert raymeta.meta_test(run.path, episodes=2)
