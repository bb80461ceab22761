"""A run that trained and was tested keeps its score, whatever becomes of the pictures of its episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

import raymeta
from raymeta.api import episodes as inspection
from raymeta.errors import RaymetaWarning
from raymeta.options import STRICT
from raymeta.report import main as report
from raymeta.runs.read import Run
from raymeta.tasks.episodes import Episode, Examples, Size

pytestmark = pytest.mark.filterwarnings("ignore:option .* switches")
OPTIONS: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 4}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bands(raymeta.TaskSet):
    """Noise of three classes, in so many bands; one support image is missing where shots are unequal."""

    bands: int = 3
    unequal: bool = False
    double: bool = False
    goal = "classification"
    num_outputs = 3

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.bands, 8, 8)

    def size(self, split: str) -> Size:
        return Size(3, 2, 2)

    def num_classes(self, split: str) -> int:
        return 30

    def episode(self, key: raymeta.TaskKey) -> Episode:
        generator = key.generator()

        def side(keep: int) -> Examples:
            x = torch.from_numpy(generator.random((6, self.bands, 8, 8)))
            y = torch.arange(3).repeat_interleave(2)
            return Examples((x if self.double else x.float())[:keep], y[:keep])

        return Episode(side(5 if self.unequal else 6), side(6))


class Keeps(nn.Sequential):
    """Keeps what it saw last, as models with hooks or caches do."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return super().forward(x)


def keeps(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Keeps(nn.Flatten(), nn.Linear(3 * 8 * 8, num_outputs))


def trained(tmp_path: Path, **options: Any) -> Run:
    model = {} if "model" in options else {"model.width": 4}
    return raymeta.meta_train(**OPTIONS, **({"tasks": Bands(), "output": str(tmp_path)} | model | options))


def drawn(run: Run) -> list[Path]:
    return sorted((run.path / "eval" / "episodes").glob("*.png"))


def assert_kept(run: Run) -> None:
    assert run.status == "finished"
    assert run.summary is not None
    assert (run.path / "eval" / "test.json").exists()


def test_inputs_that_are_no_pictures_keep_their_episodes(tmp_path: Path) -> None:
    with pytest.warns(RaymetaWarning, match="13 channels are no pictures"):
        run = trained(tmp_path, tasks=Bands(bands=13))
    assert_kept(run)
    assert not drawn(run)
    assert len(list((run.path / "eval" / "episodes").glob("*.json"))) == 4
    assert "pictures" in next(e for e in run.events() if e["kind"] == "warning")["message"]
    assert report([str(run.path)]) == 0


@pytest.mark.parametrize("tasks", [Bands(unequal=True), Bands(double=True)], ids=["unequal shots", "float64"])
def test_unequal_shots_and_double_precision_are_drawn(tmp_path: Path, tasks: Bands) -> None:
    run = trained(tmp_path, tasks=tasks)
    assert_kept(run)
    assert len(drawn(run)) == 4
    assert report([str(run.path)]) == 0


def test_a_model_that_keeps_a_tensor_keeps_its_score(tmp_path: Path) -> None:
    assert_kept(trained(tmp_path, model="custom", **{"model.path": f"{__name__}:keeps"}))


@pytest.mark.parametrize("error", [RuntimeError("no"), NotImplementedError(), OSError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["predictions", "sheet", "sync_directory"])
def test_whatever_drawing_raises_costs_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    """The score lies on the disk before anything is drawn."""
    scores = []

    def fails(*_: object) -> None:
        scores.extend(tmp_path.glob("*/summary.json"))
        raise error

    monkeypatch.setattr(inspection, place, fails)
    assert_kept(trained(tmp_path))
    assert scores


def test_a_sheet_shows_each_image_in_its_box(tmp_path: Path) -> None:
    """Also where classes have unlike numbers of images."""
    episode = Bands(unequal=True).episode(raymeta.TaskKey(0, "test", 0, 0))
    pixels = np.asarray(inspection.sheet(episode))
    for side, places in zip(episode, inspection.boxes(episode).values(), strict=True):
        for image, (left, top, width, height) in zip(side.x, places, strict=True):
            found = pixels[top : top + height, left : left + width]
            assert np.abs(found / 255 - image.permute(1, 2, 0).numpy()).max() < 0.01
    boxes = [tuple(box) for side in inspection.boxes(episode).values() for box in side]
    assert len(set(boxes)) == len(boxes)


def test_files_of_episodes_are_whole(tmp_path: Path) -> None:
    run = trained(tmp_path)
    for path in drawn(run):
        content = json.loads(path.with_suffix(".json").read_text())
        with Image.open(path) as image:
            boxes = [box for side in content["boxes"].values() for box in side]
            assert max(left + width for left, _, width, _ in boxes) + inspection.GAP == image.width
