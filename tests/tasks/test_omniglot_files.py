"""Omniglot's file forms: packing, shrinking, damage; and what is known of the real drawings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymeta.errors import DataError
from raymeta.tasks.images.omniglot import files as omniglot_files
from raymeta.tasks.images.omniglot.__main__ import main
from raymeta.tasks.images.omniglot.files import Drawings
from raymeta.tasks.images.omniglot.lake_runs import modified_hausdorff, read_lake_runs
from raymeta.tasks.images.omniglot.task_set import Omniglot


def some_drawings() -> Drawings:
    """Three characters of noise, the middle one in the evaluation set."""
    ink = np.random.default_rng(0).random((3, 20, 105 * 105)) < 0.1
    names = ["images_background/Greek/character01", "images_background/Latin/character02"]
    return Drawings(
        np.packbits(ink, axis=-1), [*names, "images_evaluation/ULOG/character26"], np.array([394, 682, 1623])
    )


def write_tree(drawings: Drawings, tree: Path) -> Path:
    for bits_DB, name, char_id in zip(drawings.bits, drawings.classes, drawings.char_id, strict=True):
        (tree / name).mkdir(parents=True)
        for d, bits in enumerate(bits_DB):
            ink = np.unpackbits(bits, count=105 * 105).reshape(105, 105)
            Image.fromarray(255 * (1 - ink)).convert("1").save(tree / name / f"{char_id:04d}_{d + 1:02d}.png")
    return tree


def test_shrinking_many_is_shrinking_each() -> None:
    """Bit for bit what Pillow makes of each drawing on its own."""
    bits = some_drawings().bits.reshape(-1, 1379)
    ink = np.unpackbits(bits, axis=-1, count=105 * 105).reshape(-1, 105, 105) * np.uint8(255)
    each = [np.asarray(Image.fromarray(one).resize((28, 28), Image.Resampling.LANCZOS)) for one in ink]
    assert (omniglot_files.shrink(bits, 28) == np.stack(each)).all()


def test_pack_keeps_every_bit_and_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawings = some_drawings()
    tree = write_tree(drawings, tmp_path / "omniglot-py")
    out = tmp_path / "packed" / omniglot_files.PACKED
    out.parent.mkdir()
    assert main(["pack", str(tree), str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    for read in (omniglot_files.read(tmp_path), omniglot_files.read(tree), omniglot_files.read(out.parent)):
        assert (read.bits == drawings.bits).all()
        assert read.classes == drawings.classes
        assert read.char_id.tolist() == drawings.char_id.tolist()
    with np.load(out) as file:
        assert file["vinyals_split"].tolist() == [0, 0, 2]


def test_the_command_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(tmp_path), str(tmp_path / "out.npz")]) == 3
    assert capsys.readouterr().err.startswith("raymeta omniglot: no drawings in ")
    assert not (tmp_path / "out.npz").exists()


def test_half_a_data_set_is_refused(tmp_path: Path) -> None:
    tree = write_tree(some_drawings(), tmp_path)
    with pytest.raises(DataError, match=r"1620 of 1623 classes are not in .*both images_background and"):
        Omniglot(root=str(tmp_path)).check()
    (tree / "images_background/Greek/character01/0394_07.png").unlink()
    with pytest.raises(DataError, match=r"Greek.character01 must hold .* but has 19"):
        omniglot_files.read(tree)


def test_prefetchs_of_another_size_are_refused(tmp_path: Path) -> None:
    tree = write_tree(some_drawings(), tmp_path)
    path = tree / "images_background/Greek/character01/0394_07.png"
    Image.new("1", (28, 28)).save(path)
    with pytest.raises(DataError, match=r"0394_07\.png: it has 28 x 28 pixels, not 105 x 105"):
        omniglot_files.read(tree)


@pytest.mark.parametrize("damage", ["short", "dtype", "key", "order", "text", "empty", "array", "flipped"])
def test_damaged_packed_files_are_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / omniglot_files.PACKED
    drawings = some_drawings()
    arrays = {"bits": drawings.bits, "classes": np.array(drawings.classes), "char_id": drawings.char_id}
    if damage == "short":
        arrays["bits"] = drawings.bits[:, :19]
    if damage == "dtype":
        arrays["bits"] = drawings.bits.astype(np.int32)
    if damage == "key":
        del arrays["char_id"]
    if damage == "order":
        arrays["classes"] = arrays["classes"][::-1]
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage in ("text", "empty", "flipped"):
        path.write_bytes({"text": b"no archive", "empty": b"", "flipped": bytes(content)}[damage])
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, drawings.bits)
    with pytest.raises(DataError, match=rf"{omniglot_files.PACKED} is damaged .*glyphs"):
        omniglot_files.read(tmp_path)


def test_the_one_pair_of_equal_drawings(omniglot_root: Path) -> None:
    """The first character of Braille has drawings 03 and 19 alike, and no other two of the 32,460 are."""
    drawings = omniglot_files.read(omniglot_root)
    flat = drawings.bits.reshape(-1, 1379)
    seen: dict[bytes, int] = {}
    twins = [(seen.setdefault(row.tobytes(), i), i) for i, row in enumerate(flat)]
    row = drawings.names.index("Braille/character01") * 20
    assert [pair for pair in twins if pair[0] != pair[1]] == [(row + 2, row + 18)]


def test_lakes_runs_are_drawings_of_the_evaluation_set(omniglot_root: Path) -> None:
    """Each trial's two drawings are found there: one character, two drawers, one alphabet and two drawers a run."""
    drawings = omniglot_files.read(omniglot_root)
    first = next(i for i, name in enumerate(drawings.classes) if name.startswith("images_evaluation"))
    where = {row.tobytes(): (c, d) for c in range(first, 1623) for d, row in enumerate(drawings.bits[c])}
    for run in read_lake_runs(omniglot_root / "all_runs.zip"):
        shown, asked = (
            [where[np.packbits(ink).tobytes()] for ink in side] for side in (run.train[run.answer], run.test)
        )
        assert [c for c, _ in shown] == [c for c, _ in asked]
        assert len({c for c, _ in shown}) == 20
        assert len({drawings.names[c].split("/")[0] for c, _ in shown}) == 1
        drawers = {d for _, d in shown}, {d for _, d in asked}
        assert [len(part) for part in drawers] == [1, 1]
        assert drawers[0] != drawers[1]


def test_modified_hausdorff_by_hand() -> None:
    """Two dots 2 apart against two dots 6 apart, on one line: each is 2 from the nearest; a shift changes nothing."""
    near, far, moved = np.zeros((3, 10, 10), bool)
    near[0, [0, 2]] = True
    far[5, [1, 7]] = True
    moved[7, [4, 6]] = True
    assert modified_hausdorff(near, far) == pytest.approx(2)
    assert modified_hausdorff(near, moved) == 0
    dot = np.zeros((10, 10), bool)
    dot[3, 3] = True
    near[0, 1] = True  # dots at -1, 0, 1 against one at 0: 2/3 from the one side, 0 from the other
    assert modified_hausdorff(near, dot) == modified_hausdorff(dot, near) == pytest.approx(2 / 3)


def test_an_archive_that_holds_no_runs(tmp_path: Path) -> None:
    (tmp_path / "all_runs.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"all_runs\.zip is not"):
        read_lake_runs(tmp_path / "all_runs.zip")
