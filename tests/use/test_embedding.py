"""Embeddings of files, and how they are judged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_adapted import draw

import raymeta
from raymeta import features
from raymeta.use.embedding import RIDGES, features_of, flat_map, linear_probe, nearest, untrained
from raymeta.use.opening import open_model


def test_the_probe_is_a_fit_without_each_example() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(8)
    z = torch.randn(24, 5, generator=generator, dtype=torch.float64) + torch.nn.functional.one_hot(y, 5)
    found = linear_probe(z, y)
    scaled = (z - z.mean(0)) / z.std(0)
    ones = torch.cat([scaled, torch.ones(24, 1, dtype=torch.float64)], 1)
    targets = torch.nn.functional.one_hot(y).double()
    accuracies = []
    for ridge in RIDGES:
        right = 0
        for place in range(24):
            kept = torch.arange(24) != place
            a, b = ones[kept], targets[kept]
            w = torch.linalg.solve(a.T @ a + ridge * 24 * torch.eye(6, dtype=torch.float64), a.T @ b)
            right += int((ones[place] @ w).argmax() == y[place])
        accuracies.append(right / 24)
    assert found.accuracy == pytest.approx(max(accuracies))


def test_neighbours_are_others_by_cosine() -> None:
    z = torch.tensor([[1.0, 0.0], [3.0, 0.1], [0.0, 1.0], [0.1, 5.0]])
    assert nearest(z, 1)[:, 0].tolist() == [1, 0, 3, 2]


def test_a_map_keeps_what_lies_in_a_plane() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    z = plane @ torch.linalg.qr(torch.randn(7, 2, generator=generator, dtype=torch.float64)).Q.T
    torch.testing.assert_close(torch.cdist(flat_map(z, "pca"), flat_map(z, "pca")), torch.cdist(plane, plane))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return raymeta.meta_train(
        algorithm="maml", tasks="glyphs", model="conv4", output=str(tmp_path_factory.mktemp("runs")), steps=2,
        meta_batch_size=2, validate_every=0, test_episodes=2, device="cpu", batch_norm="support",
        **{"model.width": 4, "tasks.train_classes": 10, "tasks.val_classes": 6, "tasks.test_classes": 6},
    )  # fmt: skip


def test_the_command_writes_them(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    for kind in ("circle", "cross"):
        (tmp_path / "in" / kind).mkdir(parents=True)
        for place in range(4):
            draw(kind, rng).save(tmp_path / "in" / kind / f"{place}.png")
    out, page = tmp_path / "out.npz", tmp_path / "map.html"
    arguments = [str(run.path), str(tmp_path / "in"), "--out", str(out), "--map", str(page), "--neighbours", "2"]
    assert features.main(arguments) == 0
    told = capsys.readouterr().out
    assert all(f"linear probe on {name}" in told for name in ("features", "raw inputs", "untrained network"))
    found = np.load(out)
    assert found["features"].shape[0] == 8
    assert found["neighbours"].shape == (8, 2)
    assert found["labels"].tolist() == ["circle"] * 4 + ["cross"] * 4
    assert "circle" in page.read_text(encoding="utf-8")
    assert features.main(arguments) == 2, "nothing is replaced"


def test_an_untrained_network_is_another_one(run: Any) -> None:
    model = open_model(str(run.path))
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(features_of(model, x), features_of(untrained(model), x))
