"""Folders of images as people have them: understood, or told with what lies where; nothing is left out silently."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import raymeta
from raymeta.errors import DataError, RaymetaWarning
from raymeta.keys import SPLITS
from raymeta.runs.read import Run
from raymeta.tasks.images import base as image_classes
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.listing import image_suffixes
from raymeta.tasks.images.splits import shares_for
from raymeta.train import main as train

pytestmark = pytest.mark.filterwarnings("ignore:.* switches ")


def picture(path: Path, side: int = 6, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image_format = "JPEG" if path.suffix.lower() in (".jfif", ".jpe", ".jpg", ".jpeg") else "PNG"
    Image.fromarray(pixels).save(path, format=image_format)
    return path


def fill(root: Path, folders: list[str], n: int = 3, ending: str = "png") -> Path:
    for c, folder in enumerate(folders):
        for i in range(n):
            picture(root / folder / f"{i}.{ending}", seed=10 * c + i)
    return root


def by_split(root: Path, names: tuple[str, str, str], between: str = "") -> Path:
    for split, name in zip(SPLITS, names, strict=True):
        fill(root, [f"{name}/{split}{i}{between}" for i in range(3)])
    return root


def names(root: Path, **options: Any) -> dict[str, list[str]]:
    tasks = Images(root=str(root), way=2, **options)
    tasks.check()
    return {split: tasks.splits[split].names for split in SPLITS}


def together(splits: dict[str, list[str]]) -> list[str]:
    return sorted(name for names in splits.values() for name in names)


EXPECTED = {split: [f"{split}{i}" for i in range(3)] for split in SPLITS}


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("train", "validation", "test"),
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("training", "dev", "testing"),
    ],
)
@pytest.mark.parametrize("between", ["", "/images", "/x"])
def test_split_folders_as_people_call_them(folders: tuple[str, str, str], between: str, tmp_path: Path) -> None:
    assert names(by_split(tmp_path, folders, between)) == EXPECTED


def test_other_folders_beside_the_splits_are_passed_over_and_told(tmp_path: Path) -> None:
    by_split(tmp_path, ("train", "val", "test"))
    (tmp_path / "labels").mkdir()
    fill(tmp_path, ["extra/a", "extra/b"])
    (tmp_path / "data.yaml").touch()
    assert names(tmp_path) == EXPECTED
    (files, folders) = Images(root=str(tmp_path), way=2).notes()
    assert files == "1 file passed over as no image: .yaml 1 (data.yaml)"
    assert folders == "folders passed over: extra, labels"


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        ([f"c{i}/images" for i in range(12)], [f"c{i}" for i in range(12)]),
        ([f"c{i}/JPEGImages" for i in range(12)], [f"c{i}" for i in range(12)]),
        ([f"c{i}/frames" for i in range(12)], [f"c{i}" for i in range(12)]),
        ([f"animals/c{i}" for i in range(12)], [f"animals/c{i}" for i in range(12)]),
        (
            [f"{kind}/character{i}" for kind in ("Greek", "Latin") for i in range(6)],
            [f"{kind}/character{i}" for kind in ("Greek", "Latin") for i in range(6)],
        ),
        ([f"s{i}/k{i}" for i in range(12)], [f"s{i}/k{i}" for i in range(12)]),
    ],
)
def test_one_level_deeper(folders: list[str], wanted: list[str], tmp_path: Path) -> None:
    found = names(fill(tmp_path, folders))
    assert sorted(name for split in SPLITS for name in found[split]) == sorted(wanted)


def test_masks_beside_images_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, [f"c{i}/{kind}" for i in range(12) for kind in ("images", "masks")])
    assert (together(names(tmp_path))) == sorted(f"c{i}" for i in range(12))
    assert any("c0/masks" in note for note in Images(root=str(tmp_path), way=2).notes())


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        ([*(f"c{i}" for i in range(9)), "old/c3"], r"differ in depth: c0 holds images itself, old only in old/c3"),
        (["data/v1/train/a", "data/v1/test/b"], r"3 levels deeper: .*b/0\.png.* tasks\.root, such as .*data/v1$"),
        (["train/a", "valid/b", "val/c", "test/d"], r"both val and valid for val: merge"),
        (["val/a", "val/b", "test/c", "test/d", "rest/e", "rest/f"], r"folders test, val but not train"),
        (["train", "val", "test"], r"test, train, val of .* hold images themselves: put"),
    ],
)
def test_what_is_not_understood_is_told(folders: list[str], text: str, tmp_path: Path) -> None:
    fill(tmp_path, folders)
    with pytest.raises(DataError, match=text) as caught:
        names(tmp_path)
    assert "emove" not in str(caught.value)


def test_what_systems_leave_behind_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, [f"c{i:02d}" for i in range(12)])
    fill(tmp_path, ["__MACOSX", "c00/@eaDir", ".cache"])
    assert len(together(names(tmp_path))) == 12


def test_images_in_the_root_itself_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"has 1 images but no sub-folders"):
        names(tmp_path)


def test_a_class_called_like_a_split_is_a_class(tmp_path: Path) -> None:
    """Trains, cars and buses."""
    fill(tmp_path, ["train", *(f"c{i}" for i in range(11))])
    assert "train" in together(names(tmp_path))


def test_lists_choose_among_the_classes_of_split_folders(tmp_path: Path) -> None:
    by_split(tmp_path, ("train", "val", "test"))
    lists = {"train_classes": ("train1", "train2"), "val_classes": ("val0", "val1"), "test_classes": ("test0", "test2")}
    assert names(tmp_path, **lists) == {split: list(lists[f"{split}_classes"]) for split in SPLITS}
    lists["test_classes"] = ("test0", "train0")
    with pytest.raises(DataError, match=r"lie in the folder of another .*: train0 \(test\)"):
        names(tmp_path, **lists)


# Files


@pytest.mark.parametrize("ending", ["jfif", "JPE", "Jpg", "JPEG", "PNG"])
def test_endings_that_pillow_reads_count(ending: str, tmp_path: Path) -> None:
    fill(tmp_path, [f"c{i:02d}" for i in range(12)], ending=ending)
    tasks = Images(root=str(tmp_path), way=2)
    tasks.check()
    assert sum(len(tasks.splits[split].images) for split in SPLITS) == 36
    assert tasks.notes() == ()


def test_every_ending_that_counts_is_read_by_pillow() -> None:
    assert image_suffixes() <= set(Image.registered_extensions())
    assert {".jfif", ".jpe", ".jpg", ".png", ".webp", ".tif"} <= image_suffixes()


def test_files_passed_over_are_counted_by_ending(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(12)])
    for c in range(5):
        (root / f"c{c:02d}" / "x.heic").touch()
    (root / "c01" / "noending").touch()
    (root / "c01" / ".hidden.png").touch()
    os.mkfifo(root / "c02" / "pipe.png")  # must not be waited for
    (note,) = Images(root=str(root), way=2).notes()
    assert note == (
        "7 files passed over as no image: .heic 5 (c00/x.heic, c01/x.heic, c02/x.heic, ...), "
        ".png 1 (c02/pipe.png), without ending 1 (c01/noending)"
    )


def test_the_dry_run_and_the_run_tell_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "photos", [f"c{i:02d}" for i in range(12)])
    (root / "c00" / "x.heic").touch()
    options = {"tasks": "images", "tasks.root": str(root), "tasks.way": 2, "model.width": 4, "output": str(tmp_path)}
    assert train([part for key, value in options.items() for part in (f"--{key}", str(value))] + ["--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "train 8 classes, 24 images; val 2 classes, 6 images; test 2 classes, 6 images; side 6, channels 3" in said
    assert ".heic 1 (c00/x.heic)" in said
    with pytest.warns(RaymetaWarning, match=r"\.heic 1"):
        run: Run = raymeta.meta_train(**options, steps=1, meta_batch_size=1, validate_every=0, test_episodes=2)
    assert run.manifest is not None
    assert run.manifest.notes == ("1 file passed over as no image: .heic 1 (c00/x.heic)",)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "float"])
def test_unreadable_files_are_skipped_on_request_with_a_list(damage: str, tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(12)], n=4)
    path = root / "c03" / "2.png"
    whole = path.read_bytes()
    if damage == "float":
        path = path.with_suffix(".tif")
        Image.fromarray(np.zeros((6, 6), np.float32)).save(path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[:60], "text": b"no picture"}[damage])
    with pytest.raises(
        DataError, match=rf"1 of \d+ image files cannot be read.*tasks\.skip_unreadable true.*\s.*{path}"
    ):
        names(root)
    tasks = Images(root=str(root), way=2, skip_unreadable=True)
    tasks.check()
    assert any(f"1 of {48 + (damage == 'float')} image files left out" in n and "c03/2." in n for n in tasks.notes())
    split = next(s for s in SPLITS if "c03" in tasks.splits[s].names)
    assert tasks.contents(split).classes["c03"].examples == (4 if damage == "float" else 3)
    path.unlink()
    kept = Images(root=str(root), way=2).splits[split]
    assert (tasks.splits[split].images == kept.images).all(), "the other images are as without that file"


def test_small_classes_are_left_out_on_request_with_a_list(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(12)])
    for i in range(2):
        (root / "c05" / f"{i}.png").unlink()
    (root / "hollow").mkdir()
    with pytest.raises(DataError, match=r"without images .*hollow.*tasks\.min_images 1"):
        names(root)
    with pytest.raises(DataError, match=r"c05 \(1\).*tasks\.min_images 2"):
        names(root, min_images=1)
    assert "c05" not in together(names(root, min_images=2))
    tasks = Images(root=str(root), way=2, min_images=2)
    assert tasks.notes() == ("2 classes left out, fewer than 2 images: c05 (1), hollow (0)",)


def test_a_class_without_a_readable_image_is_left_out_and_told(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(14)])
    for i in range(3):
        (root / "c05" / f"{i}.png").write_bytes(b"")
    tasks = Images(root=str(root), way=2, skip_unreadable=True)
    tasks.check()
    assert "c05" not in [name for split in SPLITS for name in tasks.splits[split].names]
    assert any("1 class left out, fewer than 1 images: c05 (0)" in note for note in tasks.notes())


# Splits


def test_few_classes_get_a_ratio_that_works(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(20)], n=2)
    with pytest.raises(DataError, match=r"3 classes, but 5-way .*split_ratio 0\.5,0\.25,0\.25,"):
        Images(root=str(root)).check()
    Images(root=str(root), split_ratio=(0.5, 0.25, 0.25)).check()


@pytest.mark.parametrize("num_classes", [*range(3, 60), 97, 1000, 1623])
@pytest.mark.parametrize(
    "ways", [{"train": 5, "val": 5, "test": 5}, {"train": 2, "test": 7}, {"train": 1, "val": 3, "test": 2}]
)
def test_the_ratio_that_is_named_works_wherever_one_does(num_classes: int, ways: dict[Any, int]) -> None:
    shares = shares_for(num_classes, ways)
    assert (shares is None) == (num_classes < sum(ways.values()))
    if shares is not None:
        tasks = Images(root="anywhere", split_ratio=tuple(shares))  # type: ignore[arg-type]
        splits = tasks._cut([str(i) for i in range(num_classes)])
        assert all(len(splits[split]) >= way for split, way in ways.items())
        assert sum(map(len, splits.values())) == num_classes


def test_without_validation_its_classes_are_not_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = fill(tmp_path / "flat", [f"c{i:02d}" for i in range(12)], n=2)
    nested = tmp_path / "nested"
    fill(nested, [f"{split}/{split}{i}" for split in ("train", "test") for i in range(5)], n=2)
    ratio = "[0.5, 0, 0.5]"
    for root, extra in ((flat, ["--tasks.split_ratio", ratio]), (nested, [])):
        options = ["--tasks", "images", "--tasks.root", str(root), *extra, "--dry-run"]
        assert train([*options, "--validate_every", "0"]) == 0
        assert "val" not in capsys.readouterr().out.splitlines()[1]
        assert train(options) == 3
        assert "val" in capsys.readouterr().err
    assert train(["--tasks", "images", "--tasks.root", str(flat), "--dry-run"]) == 3
    told = capsys.readouterr().err
    assert "has 12 classes, too few for any cut: 15 are needed" in told
    advice = told.partition("or train without validation: ")[2].split()
    assert train(["--tasks", "images", "--tasks.root", str(flat), "--dry-run", *advice]) == 0, "what it says works"


# What is held


def test_replaced_pictures_are_read_again(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(12)])
    tasks = Images(root=str(root), way=2)
    tasks.check()
    before = tasks.splits["train"].images
    assert Images(root=str(root), way=2, shot=2).splits["train"].images is before, "one copy"
    for path in root.rglob("*.png"):
        Image.new("RGB", (6, 6), "white").save(path)
    assert Images(root=str(root), way=2).splits["train"].images.mean() == 255
    assert tasks.splits["train"].images is before, "nothing changes under a task set that is in use"
    tasks.check()
    assert tasks.splits["train"].images.mean() == 255, "until it looks again"


def test_what_is_passed_over_is_looked_at_anew(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(12)])
    assert Images(root=str(root), way=2).notes() == ()
    (root / "c00" / "x.heic").touch()
    assert Images(root=str(root), way=2).notes() == ("1 file passed over as no image: .heic 1 (c00/x.heic)",)


def test_equal_sizes_at_another_time_are_read_again(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"c{i:02d}" for i in range(12)], ending="bmp")
    for path in root.rglob("*.bmp"):
        Image.open(path).save(path.with_suffix(".tga"), format="TGA")
        path.unlink()
    first = Images(root=str(root), way=2).splits["train"].images
    for path in root.rglob("*.tga"):
        size = path.stat().st_size
        Image.new("RGB", (6, 6), "white").save(path, format="TGA", compression=None)
        assert path.stat().st_size == size
    assert (Images(root=str(root), way=2).splits["train"].images != first).any()


def test_old_data_are_let_go(tmp_path: Path) -> None:
    roots = [fill(tmp_path / str(i), [f"c{c:02d}" for c in range(12)]) for i in range(7)]
    for root in roots:
        Images(root=str(root), way=2).check()
    assert len(image_classes._HELD) == image_classes.Held.MOST
    last = Images(root=str(roots[-1]), way=2).splits
    assert Images(root=str(roots[-1]), way=3).splits is last
