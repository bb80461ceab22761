"""Grey images of more than 8 bits keep their shades: every value is the nearest byte of the files' real range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from raymeta.keys import SPLITS
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.greys import range_of, to_bytes


def folder(root: Path, values: np.ndarray, save: str) -> Images:
    """Twelve classes of two images [4, 4] with values up to those given."""
    for c in range(12):
        (root / f"c{c:02d}").mkdir(parents=True)
        for i in range(2):
            write(root / f"c{c:02d}" / f"{i}", values, save)
    return Images(root=str(root), way=2, side=4)


def write(path: Path, values: np.ndarray, save: str) -> None:
    match save:
        case "png":
            Image.fromarray(values.astype(np.uint16)).save(path.with_suffix(".png"))
        case "tiff":
            Image.fromarray(values.astype(np.uint16)).save(path.with_suffix(".tif"))
        case "tiff, big endian":
            big = Image.frombytes("I;16B", (4, 4), values.astype(">u2").tobytes())
            big.save(path.with_suffix(".tif"))
        case "12-bit tiff":
            path.with_suffix(".tif").write_bytes(tiff_of_12_bits(values))
        case _:  # a PGM says its largest value
            text = f"P5\n4 4\n{save}\n".encode() + values.astype(">u2").tobytes()
            path.with_suffix(".pgm").write_bytes(text)


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """Rows of two values in three bytes, as 12-bit scanners write them."""
    pairs = values.reshape(-1, 2)
    rows = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
    ifd = ImageFileDirectory_v2()
    for tag, value in {256: 4, 257: 4, 258: 12, 259: 1, 262: 1, 277: 1, 278: 4, 279: len(rows)}.items():
        ifd[tag] = value
    ifd[273] = 0  # Pillow puts the pixels after the directory
    return b"II*\0" + (8).to_bytes(4, "little") + ifd.tobytes(8) + rows


RAMP = np.arange(16).reshape(4, 4)


@pytest.mark.parametrize(
    ("bits", "save"),
    [(10, "png"), (12, "png"), (14, "png"), (16, "png"), (12, "tiff"), (16, "tiff, big endian"), (12, "12-bit tiff")],
)
def test_every_shade_is_the_nearest_byte_of_the_real_range(bits: int, save: str, tmp_path: Path) -> None:
    values = RAMP * (2**bits - 1) // 15
    tasks = folder(tmp_path, values, save)
    assert tasks.input_shape == (1, 4, 4)
    exact = values / (2**bits - 1) * 255
    for split in SPLITS:
        assert np.abs(tasks.splits[split].images - exact).max() <= 0.5
    (note,) = tasks.notes()
    assert f"24 grey images of more than 8 bits, the brightest value {2**bits - 1:,}: taken as {bits} bits" in note


@pytest.mark.parametrize("maxval", ["1023", "4095", "65535"])
def test_a_pgm_says_its_own_range(maxval: str, tmp_path: Path) -> None:
    values = RAMP * (int(maxval) // 40) // 15  # much darker than there could be
    tasks = folder(tmp_path, values, maxval)
    assert np.abs(tasks.splits["train"].images - values / int(maxval) * 255).max() <= 0.51


def test_a_tiff_of_12_bits_says_its_own_range(tmp_path: Path) -> None:
    values = RAMP * 20
    tasks = folder(tmp_path, values, "12-bit tiff")
    assert np.abs(tasks.splits["train"].images - values / 4095 * 255).max() <= 0.5


def test_all_files_share_one_range(tmp_path: Path) -> None:
    tasks = folder(tmp_path, RAMP * 10, "png")
    write(tmp_path / "c00" / "bright", RAMP * 273, "png")
    tasks = Images(root=str(tmp_path), way=2, side=4)
    assert max(int(tasks.splits[split].images.max()) for split in SPLITS) == 255
    assert np.abs(tasks.splits["test"].images[0] - RAMP * 10 / 4095 * 255).max() <= 0.5


def test_colours_of_16_bits_are_told(tmp_path: Path) -> None:
    """Pillow gives their upper bytes."""
    folder(tmp_path, RAMP, "png")
    (tmp_path / "c00" / "0.png").write_bytes(png_of_16_bit_colours())
    notes = Images(root=str(tmp_path), way=2, side=4).notes()
    assert any("1 colour images have 16 bits a channel: the upper 8 of them are used" in note for note in notes)


def png_of_16_bit_colours() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_ranges() -> None:
    for bits in (8, 10, 12, 14, 16):
        assert range_of([0, 2**bits - 1]) == 2**bits - 1
    assert range_of([256]) == 1023
    assert range_of([]) == 65535
    every = np.arange(65536)
    for range_ in (255, 1023, 4095, 65535):
        inside = every[: range_ + 1]
        assert np.abs(to_bytes(inside, range_) - inside / range_ * 255).max() <= 0.5
    assert to_bytes(np.array([5000]), 4095).tolist() == [255]
