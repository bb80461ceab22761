"""Drawn images are kept on the disk: the same bytes as drawn ones, and a damaged or foreign file costs time alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raymeta.tasks.images.drawn import WORTH_BYTES, kept

SHAPE = (WORTH_BYTES // 16, 1, 4, 4)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYMETA_DATA", str(tmp_path))
    return tmp_path


class Pen:
    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> np.ndarray:
        self.drawn += 1
        return np.arange(np.prod(SHAPE), dtype=np.uint32).astype(np.uint8).reshape(SHAPE)


def test_it_is_drawn_once(data: Path) -> None:
    pen = Pen()
    first, second = (kept("glyphs", __file__, [0], SHAPE, pen) for _ in range(2))
    assert pen.drawn == 1
    assert first.shape == second.shape == SHAPE
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("damage", ["cut", "changed", "other options", "other code"])
def test_what_is_not_sound_is_drawn_again(data: Path, damage: str) -> None:
    pen = Pen()
    kept("glyphs", __file__, [0], SHAPE, pen)
    (path,) = (data / "glyphs").iterdir()
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "changed":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    source = str(Path(__file__).with_name("test_glyphs.py")) if damage == "other code" else __file__
    again = kept("glyphs", source, [1 if damage == "other options" else 0], SHAPE, pen)
    assert pen.drawn == 2
    assert again.tobytes() == Pen()().tobytes()


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(data: Path) -> None:
    (data / "glyphs").write_text("in the way")
    assert kept("glyphs", __file__, [0], SHAPE, Pen()).shape == SHAPE


def test_few_images_are_not_kept(data: Path) -> None:
    assert kept("glyphs", __file__, [0], (2, 1, 4, 4), lambda: np.zeros((2, 1, 4, 4), np.uint8)).shape == (2, 1, 4, 4)
    assert list(data.iterdir()) == []
