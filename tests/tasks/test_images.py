"""Image task sets on small files made here: folders of one's own, CIFAR-100's layout, mini-ImageNet's layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import raymeta
from raymeta.errors import DataError
from raymeta.keys import SPLITS, TaskKey
from raymeta.tasks.images.base import ImageTaskSet
from raymeta.tasks.images.cifar100 import FC100, CifarFS
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.mini_imagenet import MiniImagenet

LISTS = Path(raymeta.__file__).parent / "tasks" / "images" / "published"


def folder(root: Path, classes: int = 20, images: int = 4, size: tuple[int, int] = (20, 30), mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (root / f"class{c:02}").mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / f"class{c:02}" / f"{i}.png")
    return root


def test_defaults_of_images(tmp_path: Path) -> None:
    tasks = Images(root=str(folder(tmp_path, classes=40, size=(100, 90))))
    tasks.check()
    assert (tasks.way, tasks.shot) == (5, 1)
    assert [tasks.num_classes(split) for split in SPLITS] == [26, 6, 8]
    assert tasks.input_shape == (3, 84, 84)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_size_and_channels_come_from_the_files(mode: str, channels: int, tmp_path: Path) -> None:
    tasks = Images(root=str(folder(tmp_path, size=(20, 20), mode=mode)), way=2)
    assert tasks.input_shape == (channels, 20, 20)


def test_split_by_lists_and_by_folders_agree(tmp_path: Path) -> None:
    names = [f"class{c:02}" for c in range(9)]
    parts = {"train": names[:4], "val": names[4:6], "test": names[6:]}
    flat = folder(tmp_path / "flat", classes=9)
    for split, members in parts.items():
        for name in members:
            (tmp_path / "nested" / split).mkdir(parents=True, exist_ok=True)
            (flat / name).rename(tmp_path / "nested" / split / name)
    nested = Images(root=str(tmp_path / "nested"), way=2)
    again = folder(tmp_path / "again", classes=9)
    listed = Images(
        root=str(again),
        way=2,
        train_classes=tuple(names[:4]),
        val_classes=tuple(names[4:6]),
        test_classes=tuple(names[6:]),
    )
    for split in SPLITS:
        assert [n.split("/")[-1] for n in nested.splits[split].names] == parts[split]
        assert (nested.splits[split].images == listed.splits[split].images).all()


def test_split_seed_moves_classes_and_nothing_else(tmp_path: Path) -> None:
    root = str(folder(tmp_path, classes=25))
    first, other = Images(root=root, way=2), Images(root=root, way=2, split_seed=1)
    names = [set(first.splits[split].names) for split in SPLITS]
    assert len(set().union(*names)) == sum(map(len, names)) == 25
    assert set(other.splits["test"].names) != names[2]


@pytest.mark.parametrize("file", ["unreadable", "text"])
def test_unreadable_files_are_named(file: str, tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "class03" / "2.png").write_bytes(b"" if file == "unreadable" else b"no image")
    with pytest.raises(DataError, match=r"class03.*2\.png"):
        Images(root=str(root), way=2).check()


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        Images(root=str(tmp_path / "nowhere")).check()


# Laws of all image task sets, on a small one


@pytest.fixture
def small(tmp_path: Path) -> ImageTaskSet:
    return Images(root=str(folder(tmp_path, classes=25, images=6, size=(8, 8))), way=3, shot=2, query_shot=3)


def test_batch_equals_single_and_purity(small: ImageTaskSet) -> None:
    keys = [TaskKey(1, "train", 7, i) for i in range(6)]
    batch, again = small.episodes(keys), small.episodes(list(reversed(keys)))
    for t, key in enumerate(keys):
        for side, whole, other in zip(small.episode(key), batch, again, strict=True):
            for a, b, c in zip(side, whole, other, strict=True):
                assert torch.equal(a, b[t])
                assert torch.equal(a, c[len(keys) - 1 - t])


def test_support_and_query_are_disjoint_and_labels_permuted(small: ImageTaskSet) -> None:
    labels: dict[int, set[int]] = {}
    for i in range(60):
        support, query = small.episode(TaskKey(0, "train", 0, i))
        every = torch.cat([support.x, query.x]).flatten(1)
        assert len(every.unique(dim=0)) == len(every)
        assert support.y.tolist() == [0, 0, 1, 1, 2, 2]
        assert query.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        for class_id, y in zip(support.class_id.tolist(), support.y.tolist(), strict=True):  # type: ignore[union-attr]
            labels.setdefault(class_id, set()).add(y)
    assert all(len(seen) == 3 for seen in labels.values()), "a class gets every label in some episode"


def test_too_small_classes_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path, classes=25, images=4)
    (root / "class05" / "0.png").unlink()
    with pytest.raises(DataError, match=r"class05 \(3\).*tasks\.shot"):
        Images(root=str(root), way=2, shot=2, query_shot=2).check()
    with pytest.raises(DataError, match="30-way"):
        Images(root=str(root), way=30).check()


def test_training_size_may_differ(tmp_path: Path) -> None:
    tasks = Images(root=str(folder(tmp_path, classes=25)), way=2, train_way=4, train_query_shot=2)
    train, test = (tasks.episode(TaskKey(0, split, 0, 0)) for split in ("train", "test"))  # type: ignore[arg-type]
    assert len(train.query.y) == 8
    assert len(test.query.y) == 2


# CIFAR-100 and mini-ImageNet


def cifar_folder(root: Path, per_class: int = 3) -> Path:
    superclasses = json.loads((LISTS / "cifar_fs.json").read_text())
    names = sorted(set().union(*superclasses.values()))
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", per_class), ("test", 1)):
        labels = np.repeat(np.arange(100), count)
        content: dict[str, Any] = {
            "data": rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8),
            "fine_labels": labels.tolist(),
            "coarse_labels": [0] * len(labels),
            "filenames": [""] * len(labels),
            "batch_label": part,
        }
        (base / part).write_bytes(pickle.dumps(content))
    meta = {"fine_label_names": names, "coarse_label_names": ["x"] * 20}
    (base / "meta").write_bytes(pickle.dumps(meta))
    return root


@pytest.mark.parametrize(("cls", "counts"), [(CifarFS, (64, 16, 20)), (FC100, (60, 20, 20))])
def test_cifar(cls: type[ImageTaskSet], counts: tuple[int, int, int], tmp_path: Path) -> None:
    tasks = cls(root=str(cifar_folder(tmp_path)), shot=1, query_shot=2)  # type: ignore[call-arg]
    tasks.check()
    assert tuple(tasks.num_classes(split) for split in SPLITS) == counts
    assert tasks.input_shape == (3, 32, 32)
    assert set(tasks.splits["train"].counts.tolist()) == {4}, "train and test files are merged"
    with pytest.raises(DataError, match="nowhere"):
        cls(root=str(tmp_path / "nowhere")).check()  # type: ignore[call-arg]


def test_cifar_files_cannot_run_code(tmp_path: Path) -> None:
    root = cifar_folder(tmp_path)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (root / "cifar-100-python" / "meta").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="meta"):
        CifarFS(root=str(root)).check()
    assert not (tmp_path / "ran").exists()


def test_mini_imagenet(tmp_path: Path) -> None:
    lists = json.loads((LISTS / "mini_imagenet_ravi.json").read_text())
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    for wnid in set().union(*lists.values()):
        (tmp_path / wnid).mkdir()
        for i in range(2):
            Image.fromarray(np.roll(pixels, i)).save(tmp_path / wnid / f"{wnid}_{i}.jpg")
    tasks = MiniImagenet(root=str(tmp_path), query_shot=1)
    tasks.check()
    assert [tasks.num_classes(split) for split in SPLITS] == [64, 16, 20]
    assert tasks.input_shape == (3, 84, 84)
    with pytest.raises(DataError, match="nowhere"):
        MiniImagenet(root=str(tmp_path / "nowhere")).check()


@pytest.mark.parametrize(
    ("name", "counts"),
    [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20)), ("mini_imagenet_ravi", (64, 16, 20))],
)
def test_split_lists(name: str, counts: tuple[int, int, int]) -> None:
    lists = json.loads((LISTS / f"{name}.json").read_text())
    assert tuple(len(lists[split]) for split in SPLITS) == counts
    assert len(set().union(*lists.values())) == 100
