"""Omniglot, the real one: splits, rotations, both file forms, and the modified Hausdorff baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raymeta.errors import DataError
from raymeta.keys import SPLITS, TaskKey
from raymeta.tasks.images.omniglot import files as omniglot_files
from raymeta.tasks.images.omniglot.lake_runs import errors_of, modified_hausdorff, read_lake_runs
from raymeta.tasks.images.omniglot.task_set import Omniglot

COUNTS = {"vinyals": (1028, 172, 423), "lake": (883, 81, 659), "random": (1100, 100, 423)}


@pytest.mark.parametrize("scheme", COUNTS)
def test_splits(scheme: str, omniglot_root: Path) -> None:
    tasks = Omniglot(root=str(omniglot_root), split_scheme=scheme, rotations="none")  # type: ignore[arg-type]
    names = [tasks.splits[split].names for split in SPLITS]
    assert tuple(map(len, names)) == COUNTS[scheme]
    assert len(set().union(*names)) == 1623, "no class in two splits"
    turned = Omniglot(root=str(omniglot_root), split_scheme=scheme, rotations="classes")  # type: ignore[arg-type]
    assert turned.num_classes("train") == 4 * COUNTS[scheme][0]
    if scheme == "lake":
        alphabets = [{name.split("/")[0] for name in part} for part in names]
        assert not alphabets[0] & alphabets[1] | alphabets[0] & alphabets[2] | alphabets[1] & alphabets[2]


def test_images_are_ink_on_dark(omniglot_root: Path) -> None:
    images = Omniglot(root=str(omniglot_root)).splits["test"].images
    assert images.shape == (423 * 20, 1, 28, 28)
    assert images.dtype == np.uint8
    assert 0.06 < float((images / 255).mean()) < 0.11  # the ink fraction of the originals is 8.05 %


@pytest.mark.parametrize(("shot", "expected"), [(1, 0.417), (5, 0.687)])
def test_nearest_class_mean_on_pixels(shot: int, expected: float, omniglot_root: Path) -> None:
    """The sanity floor: 41.7 and 68.7 % for 5-way on Vinyals' test classes without rotations."""
    tasks = Omniglot(root=str(omniglot_root), shot=shot, query_shot=5, rotations="none")
    hits = []
    for episode in (tasks.episode(TaskKey(0, "test", 0, i)) for i in range(600)):
        means = episode.support.x.reshape(5, shot, -1).mean(1)
        nearest = torch.cdist(episode.query.x.flatten(1), means).argmin(1)
        hits.append(float((nearest == episode.query.y).float().mean()))
    assert float(np.mean(hits)) == pytest.approx(expected, abs=0.03)


def test_rotations_per_episode_turn_whole_classes(omniglot_root: Path) -> None:
    turned = Omniglot(root=str(omniglot_root), rotations="episode", shot=2, query_shot=2)
    pool = turned.splits["test"]
    seen = set()
    for i in range(12):
        episode = turned.episode(TaskKey(0, "test", 0, i))
        for c in range(5):
            class_id = int(episode.support.class_id[2 * c])  # type: ignore[index]
            originals = pool.images[pool.starts[class_id] : pool.starts[class_id + 1]]
            rows = [*episode.support.x[2 * c : 2 * c + 2], *episode.query.x[2 * c : 2 * c + 2]]
            images = [(row * 255).round().to(torch.uint8).numpy() for row in rows]
            fits = [
                k
                for k in range(4)
                if all((np.rot90(originals, k, axes=(-2, -1)) == image).all((1, 2, 3)).any() for image in images)
            ]
            assert fits, "every image of the class is an original turned by one and the same angle"
            seen.update(fits)
    assert seen == {0, 1, 2, 3}


def test_png_tree_and_packed_file_are_the_same_images(omniglot_root: Path, tmp_path: Path) -> None:
    drawings = omniglot_files.read(omniglot_root)
    tree = tmp_path / "omniglot-py"
    chosen = [0, 700, 1200]
    for c in chosen:
        folder = tree / drawings.classes[c]
        folder.mkdir(parents=True)
        for d in range(20):
            ink = np.unpackbits(drawings.bits[c, d])[: 105 * 105].reshape(105, 105)
            name = f"{int(drawings.char_id[c]):04d}_{d + 1:02d}.png"
            Image.fromarray((1 - ink) * 255).convert("1").save(folder / name)
    for needed in ("images_background", "images_evaluation"):
        (tree / needed).mkdir(exist_ok=True)
    read = omniglot_files.read_tree(tree)
    order = [read.classes.index(drawings.classes[c]) for c in chosen]
    assert (read.bits[order] == drawings.bits[chosen]).all()


def test_missing_and_damaged_files_are_told(omniglot_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)nowhere.*glyphs"):
        Omniglot(root=str(tmp_path / "nowhere")).check()
    content = (omniglot_root / "omniglot_bits.npz").read_bytes()
    (tmp_path / "omniglot_bits.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"omniglot_bits\.npz"):
        Omniglot(root=str(tmp_path)).check()


PER_RUN = [45, 35, 40, 25, 30, 15, 60, 35, 40, 55, 15, 70, 65, 35, 15, 25, 30, 40, 70, 30]


@pytest.mark.slow
def test_modified_hausdorff_on_lakes_runs(omniglot_root: Path) -> None:
    """The published baseline, exactly: 38.75 % error over 20 runs."""
    errors = errors_of(read_lake_runs(omniglot_root / "all_runs.zip"), modified_hausdorff)
    assert errors == pytest.approx(PER_RUN)
    assert float(np.mean(errors)) == pytest.approx(38.75)
