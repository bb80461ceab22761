"""From image files to arrays: what each kind of file becomes, and what is said of files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from raymeta.errors import DataError
from raymeta.keys import SPLITS
from raymeta.tasks.data_folder import data_folder
from raymeta.tasks.images.files import image_paths, read_classes, shape_of_files
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.mini_imagenet import MiniImagenet
from raymeta.tasks.images.splits import published


def read_one(path: Path, side: int = 4, channels: int = 3, fit: str = "crop") -> np.ndarray:
    return read_classes({"class": [path]}, side=side, channels=channels, fit=fit).images[0]  # type: ignore[arg-type]


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_a_file_of_the_right_size_is_kept_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert (read_one(save(Image.fromarray(pixels), tmp_path / "a.png")) == pixels.transpose(2, 0, 1)).all()


def test_crop_takes_the_middle_and_squash_the_whole(tmp_path: Path) -> None:
    pixels = np.repeat(np.array([0] * 8 + [255] * 16 + [0] * 8, np.uint8)[None], 16, axis=0)  # 16 x 32, centre white
    path = save(Image.fromarray(pixels), tmp_path / "wide.png")
    assert (read_one(path, 8, 1) > 235).all()  # Lanczos sees a little of what lies beyond the square
    squashed = read_one(path, 8, 1, "squash")
    assert squashed[0, 0].tolist()[0] < 20
    assert squashed[0, 0].tolist()[4] > 235


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (10, 20, 30, 255))
    pixels = read_one(save(image, tmp_path / "a.png"))
    assert pixels[:, 2, 1].tolist() == [10, 20, 30]
    assert (np.delete(pixels.reshape(3, -1), 9, axis=1) == 255).all()


def test_greys_of_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    greys = np.array([[0, 256], [32768, 65535]], np.uint16)
    assert read_one(save(Image.fromarray(greys), tmp_path / "a.png"), 2, 1)[0].tolist() == [[0, 1], [128, 255]]


def test_greys_without_a_range_are_refused(tmp_path: Path) -> None:
    save(Image.fromarray(np.full((4, 4), 0.5, np.float32)), tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: pixels of type F .*8 bits"):
        read_one(tmp_path / "a.tif")


def test_photographs_stand_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    upright = read_one(save(Image.fromarray(pixels), tmp_path / "a.png", exif=exif), 4, 1)[0]
    assert (upright == pixels[::-1]).all()


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("CMYK", 3)])
def test_channels_follow_the_kind_of_file(mode: str, channels: int, tmp_path: Path) -> None:
    path = save(Image.new("RGB", (5, 7), "green").convert(mode), tmp_path / "a.tif")
    assert shape_of_files([path]) == (5, channels)
    assert read_one(path, channels=channels).shape == (channels, 4, 4)


def test_side_is_the_median_of_the_shorter_ones_and_at_most_84(tmp_path: Path) -> None:
    sizes = [(8, 99), (40, 30), (50, 50)]
    paths = [save(Image.new("L", size), tmp_path / f"{i}.png") for i, size in enumerate(sizes)]
    assert shape_of_files(paths) == (30, 1)
    assert shape_of_files([save(Image.new("L", (500, 400)), tmp_path / "big.png")]) == (84, 1)


def test_files_come_in_name_order_and_others_are_left_out(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "notes.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).touch()
    assert [path.name for path in image_paths(tmp_path)] == ["a.jpeg", "b.PNG"]


def test_the_first_unreadable_files_are_named_with_their_number(tmp_path: Path) -> None:
    whole = save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)), tmp_path / "w.png")
    for i in range(7):
        (tmp_path / f"broken{i}.png").write_bytes(whole.read_bytes()[: 50 + i])
    with pytest.raises(DataError) as caught:
        read_classes({"class": image_paths(tmp_path)}, side=4, channels=1, fit="crop")
    text = str(caught.value)
    assert text.startswith("7 of 8 image files cannot be read")
    assert all((f"broken{i}.png" in text) == (i < 5) for i in range(7))
    assert text.endswith("and 2 more")


def test_where_data_lies_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMETA_DATA", "/some/where")
    assert data_folder(None, "omniglot") == Path("/some/where/omniglot")
    assert data_folder("/given", "omniglot") == Path("/given")
    monkeypatch.delenv("RAYMETA_DATA")
    assert data_folder(None, "omniglot") == Path.home() / ".cache/raymeta/omniglot"


# Folders of one's own that cannot be used


def classes(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (4, 4), i).save(root / name / f"{i}.png")
    return root


def test_classes_in_two_splits_are_refused(tmp_path: Path) -> None:
    """The usual layout for ordinary classification: the same classes in train, val and test."""
    root = classes(tmp_path, [f"{split}/{name}" for split in SPLITS for name in ("cat", "dog")])
    with pytest.raises(DataError, match=r"share classes: cat, dog\. .*never seen in training"):
        Images(root=str(root), way=2).check()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["train/a", "train/b", "test/c", "test/d"], r"folders test, train but not val"),
        (["a", "b"], r"has 2 classes, too few"),
        ([], r"has no sub-folders"),
    ],
)
def test_folders_that_make_no_splits(names: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        Images(root=str(classes(tmp_path, names)), way=2).check()


def test_empty_and_unlisted_classes_are_named(tmp_path: Path) -> None:
    root = classes(tmp_path, ["a", "b", "c", "d", "e", "f"])
    lists = {"train_classes": ("a", "b"), "val_classes": ("c", "zebra"), "test_classes": ("e", "f")}
    with pytest.raises(DataError, match=r"1 of 6 classes are not in .*: zebra"):
        Images(root=str(root), way=2, **lists).check()  # type: ignore[arg-type]
    (root / "hollow").mkdir()
    with pytest.raises(DataError, match=r"without images .*: hollow\..*\.png"):
        Images(root=str(root), way=2).check()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"split_ratio": (0.5, 0.2, 0.2)}, "adds up to 0.9"),
        ({"train_classes": ("a",)}, "or none"),
        ({"train_classes": ("a",), "val_classes": ("b",), "test_classes": ("a",)}, "listed twice in .*: a"),
        ({"channels": 2}, "channels"),
    ],
)
def test_options_that_contradict_themselves(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Images(root="anywhere", **options)  # type: ignore[arg-type]


# mini-ImageNet as one folder of images with three lists


def listed(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for split, names in published("mini_imagenet_ravi").items():
        rows = [f"{name}{i:08}.jpg,{name}" for name in names for i in (2, 1)]
        (root / f"{split}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
        for c, name in enumerate(names):
            for i in (1, 2):
                Image.new("RGB", (9, 6), (c, 100 * i, 0)).save(root / "images" / f"{name}{i:08}.jpg")
    return root


def test_mini_imagenet_from_lists(tmp_path: Path) -> None:
    tasks = MiniImagenet(root=str(listed(tmp_path)), query_shot=1)
    tasks.check()
    pool = tasks.splits["val"]
    assert pool.names == published("mini_imagenet_ravi")["val"]
    assert pool.images.shape == (32, 3, 84, 84)
    assert abs(int(pool.images[2 * 7, 1, 40, 40]) - 200) < 5, "files come in the order of the list"


def test_mini_imagenet_lists_that_do_not_fit(tmp_path: Path) -> None:
    root = listed(tmp_path)
    name = published("mini_imagenet_ravi")["test"][0]
    (root / "images" / f"{name}00000001.jpg").unlink()
    with pytest.raises(DataError, match=f"{name}00000001.jpg"):
        MiniImagenet(root=str(root)).check()
    text = (root / "test.csv").read_text()
    (root / "test.csv").write_text(text.replace(f",{name}", ",n00000000"))
    with pytest.raises(DataError, match=f"1 of 100 classes are not in .*: {name}"):
        MiniImagenet(root=str(root)).check()
    (root / "test.csv").write_text(text.replace("filename,label", "file,class"))
    with pytest.raises(DataError, match=r"test\.csv must have the columns filename,label"):
        MiniImagenet(root=str(root)).check()
    (root / "test.csv").unlink()
    with pytest.raises(DataError, match=r"test\.csv is missing"):
        MiniImagenet(root=str(root)).check()
