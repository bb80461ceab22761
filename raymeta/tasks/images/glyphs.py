"""Glyphs: the characters of invented alphabets, drawn by code, so that few-shot runs need no download.

A class is one to four pen strokes: smooth curves between common anchor points, each starting where an earlier one
passes or ends. Twenty drawers write every class in their own hand (slant, aspect, size, pen) and never twice the same
(position, turn, bent strokes). Only `Philox.random`, + - * / and square roots make an image, in a fixed order, so the
same fields give the same bytes whatever the processor and its threads: no sine, no normal variate, no matrix product.

Shapes: D drawers, S strokes, K = 7 control points of a stroke, P = 72 points of its curve. Coordinates are (x, y), y
pointing down; a glyph is composed in about the unit square and drawn on 28 x 28 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.options import STRICT
from raymeta.tasks.images.base import ImageTaskSet
from raymeta.tasks.images.class_images import ClassImages, Splits
from raymeta.tasks.images.drawn import kept

Array = NDArray[np.float64]

_SIDE = 28
_REACH = 2  # pixels around a point of the curve that its ink may touch, so pen radius + 1/2 < _REACH + 1/2
_NUM_POINTS = 72
_STREAMS = {"glyph": 16, "hand": 17, "image": 18}  # second key words; `raymeta.keys` uses the first few


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Glyphs(ImageTaskSet):
    """Handwritten characters of invented alphabets: uint8 [n, 1, 28, 28], ink 255 on 0, made in seconds once.

    Class k of a split is the same glyph however many classes or drawers there are.
    """

    inverted: ClassVar[bool] = True

    query_shot: PositiveInt = 5
    """query images per class"""
    train_classes: PositiveInt = 400
    """classes to train on"""
    val_classes: PositiveInt = 60
    """classes to choose checkpoints by"""
    test_classes: PositiveInt = 120
    """classes to report on"""
    drawers: int = Field(default=20, ge=2)
    """images of each class, each in another hand"""
    glyph_seed: int = Field(default=0, ge=0, lt=2**64)
    """seed of the alphabets and hands; another value gives other classes"""

    def load(self) -> Splits:
        """Draw all images."""
        counts: dict[Split, int] = {"train": self.train_classes, "val": self.val_classes, "test": self.test_classes}
        ends = np.cumsum([counts[split] for split in SPLITS])
        shape = (int(ends[-1]) * self.drawers, 1, _SIDE, _SIDE)
        images = kept("glyphs", __file__, [self.glyph_seed, self.drawers, counts], shape, lambda: self._drawn(counts))
        pieces = np.split(images, ends[:-1] * self.drawers)
        return {split: _pool(split, piece, self.drawers) for split, piece in zip(SPLITS, pieces, strict=True)}

    def _drawn(self, counts: Mapping[Split, int]) -> NDArray[np.uint8]:
        hands = _hands(self.glyph_seed, self.drawers)
        return np.concatenate([_draw_split(self.glyph_seed, split, counts[split], hands) for split in SPLITS])

    def _require(self, splits: Sequence[Split]) -> None:
        needed = max((self.size(split).shot + self.size(split).query_shot for split in splits), default=0)
        if self.drawers < needed:
            raise DataError(
                f"every glyph has {self.drawers} images, one per drawer, but an episode needs {needed} of a class "
                f"(shot + query_shot): raise tasks.drawers to {needed} or lower tasks.shot or tasks.query_shot"
            )
        super()._require(splits)


class Written(NamedTuple):
    """What the pens did, before there is ink."""

    point: Array  # [D, S * P, 2] in pixels
    pen: Array  # [D] radius in pixels


def _pool(split: Split, images: NDArray[np.uint8], drawers: int) -> ClassImages:
    num_classes = len(images) // drawers
    starts = np.arange(num_classes + 1, dtype=np.int64) * drawers
    return ClassImages(images, starts, [f"{split}/{k:04d}" for k in range(num_classes)])


def _draw_split(seed: int, split: Split, num_classes: int, hands: Array) -> NDArray[np.uint8]:
    images = np.empty((num_classes, len(hands), 1, _SIDE, _SIDE), np.uint8)
    for k in range(num_classes):
        stroke_SK2 = _compose(_generator(seed, "glyph", SPLITS.index(split), k))
        images[k, :, 0] = _ink(_write(stroke_SK2, hands, _generator(seed, "image", SPLITS.index(split), k)))
    return images.reshape(-1, 1, _SIDE, _SIDE)


def _generator(seed: int, stream: str, split: int = 0, index: int = 0) -> np.random.Generator:
    key = np.array([seed, _STREAMS[stream]], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, index, split, 0], dtype=np.uint64)))


# The pen's repertoire as control points (along, across): along 0 is where a stroke starts, 1 the anchor it aims at.
# Listed from plain to intricate, and a glyph of many strokes takes plain ones: several intricate strokes make a tangle.
_SHAPES: dict[str, list[tuple[float, float]]] = {
    "line": [(0, 0), (0.17, 0.01), (0.33, 0.02), (0.5, 0.02), (0.67, 0.02), (0.83, 0.01), (1, 0)],
    "arc": [(0, 0), (0.15, 0.15), (0.32, 0.24), (0.5, 0.27), (0.68, 0.24), (0.85, 0.15), (1, 0)],
    "bowl": [(0, 0), (0.02, 0.28), (0.2, 0.5), (0.5, 0.56), (0.8, 0.5), (0.98, 0.28), (1, 0)],
    "loop": [(0, 0), (0.2, 0.36), (0.72, 0.4), (1, 0), (0.72, -0.4), (0.2, -0.36), (0, 0)],
    "hook": [(0, 0), (0.25, 0.0), (0.5, 0.0), (0.76, 0.02), (0.95, 0.12), (0.99, 0.3), (0.84, 0.42)],
    "crook": [(0.1, 0.34), (-0.02, 0.2), (0.06, 0.04), (0.25, 0), (0.5, 0.0), (0.75, 0), (1, 0)],
    "elbow": [(0, 0), (0, 0.3), (0, 0.56), (0.03, 0.6), (0.07, 0.6), (0.5, 0.6), (1, 0.6)],
    "peak": [(0, 0), (0.24, 0.27), (0.46, 0.52), (0.5, 0.56), (0.54, 0.52), (0.76, 0.27), (1, 0)],
    "wave": [(0, 0), (0.14, 0.22), (0.34, 0.22), (0.5, 0), (0.66, -0.22), (0.86, -0.22), (1, 0)],
    "zigzag": [(0, 0), (0.26, 0.3), (0.33, 0.34), (0.5, 0), (0.67, -0.34), (0.74, -0.3), (1, 0)],
    "ribbon": [(0, 0), (0.42, 0.1), (0.8, 0.36), (0.6, 0.66), (0.34, 0.42), (0.6, 0.1), (1, 0)],
    "spiral": [(0, 0), (0.16, -0.44), (0.8, -0.46), (1, 0.06), (0.62, 0.34), (0.34, 0.06), (0.6, -0.12)],
}
_SHAPE_NK2 = np.array(list(_SHAPES.values()))
_REPERTOIRE = {1: (6, 12), 2: (0, 12), 3: (0, 8), 4: (0, 4)}  # by number of strokes: first shape, one after the last
_GRID = [(x, y) for y in (0.0, 0.5, 1.0) for x in (0.0, 0.4, 0.8)]
_CUM_NUM_STROKES = (0.12, 0.48, 0.86, 1.0)  # one to four strokes
_MAX_INK = 4.2  # total length of the strokes


def _pick(rng: np.random.Generator, num: int) -> int:
    return int(rng.random() * num)


def _compose(rng: np.random.Generator) -> Array:
    """Strokes of a new glyph as control points [S, K, 2], its longer side 1, centred on 0."""
    while True:
        dice = rng.random()
        num_strokes = sum(dice >= bound for bound in _CUM_NUM_STROKES) + 1
        strokes: list[Array] = []
        while len(strokes) < num_strokes:
            stroke = _next_stroke(rng, strokes, _REPERTOIRE[num_strokes])
            if stroke is not None:
                strokes.append(stroke)
        glyph = np.stack(strokes)
        low, high = glyph.min(axis=(0, 1)), glyph.max(axis=(0, 1))
        if (high - low).min() >= 0.4 and (high - low).max() >= 0.75 and _length(glyph) <= _MAX_INK:
            centred: Array = (glyph - (low + high) / 2) / (high - low).max()
            return centred


def _length(line: Array) -> float:
    """Total length of polylines [..., n, 2], added in order."""
    leg = (line[..., 1:, :] - line[..., :-1, :]).reshape(-1, 2)
    return float(np.sqrt(leg[:, 0] * leg[:, 0] + leg[:, 1] * leg[:, 1]).cumsum()[-1])


def _next_stroke(rng: np.random.Generator, strokes: list[Array], repertoire: tuple[int, int]) -> Array | None:
    """A stroke [K, 2] from an earlier one or an anchor to another anchor; None where it would run over another."""
    start = np.array(_GRID[_pick(rng, len(_GRID))])
    if strokes and rng.random() < 0.75:
        start = strokes[_pick(rng, len(strokes))][(0, 3, 6)[_pick(rng, 3)]]
    aim = np.array(_GRID[_pick(rng, len(_GRID))])
    first, end = repertoire
    shape_K2 = _SHAPE_NK2[first + _pick(rng, end - first)]
    bulge = (0.75 + 0.5 * rng.random()) * (1 if rng.random() < 0.5 else -1)
    bend_42 = (rng.random((4, 2)) - 0.5) * 0.2
    along = aim - start
    length = np.sqrt(along[0] * along[0] + along[1] * along[1])
    if length < (0.45 if strokes else 0.75):
        return None
    across = np.array([-along[1], along[0]]) * bulge
    stroke: Array = start + shape_K2[:, :1] * along + shape_K2[:, 1:] * across + _bend(bend_42)
    if stroke.min() < -0.3 or stroke.max() > 1.3:
        return None
    if strokes:
        offset = stroke[:, None, None] - np.stack(strokes)  # [K, S, K, 2]
        gap = np.sqrt(offset[..., 0] * offset[..., 0] + offset[..., 1] * offset[..., 1]).min(axis=(1, 2))
        if np.sort(gap)[len(gap) // 2] < 0.18:
            return None
    return stroke


def _bend_basis(num: int) -> Array:
    """Smooth displacements along a stroke [4, num]: of its start, its end, its middle, and of its two halves apart."""
    t = np.arange(num) / (num - 1)
    return np.stack([1 - t, t, 4 * t * (1 - t), 10 * t * (1 - t) * (1 - 2 * t)])


_BEND_4K = _bend_basis(7)


def _bend(amount_42: Array) -> Array:
    """Displacements [..., K, 2] from the amounts [..., 4, 2] of the four ways to bend a stroke."""
    moved = np.zeros((*amount_42.shape[:-2], _BEND_4K.shape[1], 2))
    for i in range(4):
        moved += amount_42[..., i, None, :] * _BEND_4K[i, :, None]
    return moved


def _spline_weights(num_controls: int, num_points: int) -> Array:
    """Weights [num_points, num_controls] of the Catmull-Rom spline, its ends continued straight."""
    weights = np.zeros((num_points, num_controls + 2))
    for p in range(num_points):
        at = p * (num_controls - 1) / (num_points - 1)
        i = min(int(at), num_controls - 2)
        t = at - i
        t2, t3 = t * t, t * t * t
        weights[p, i : i + 4] = (-t3 + 2 * t2 - t, 3 * t3 - 5 * t2 + 2, -3 * t3 + 4 * t2 + t, t3 - t2)
    inner: Array = weights[:, 1:-1] / 2
    inner[:, 0] += weights[:, 0]  # the control point before the first is 2 * first - second
    inner[:, 1] -= weights[:, 0] / 2
    inner[:, -1] += weights[:, -1]
    inner[:, -2] -= weights[:, -1] / 2
    return inner


_SPLINE_PK = _spline_weights(7, _NUM_POINTS)

# How far hands differ (in a drawer's every image) and how far one hand strays (from image to image): low, high.
# The largest size, 21 * 1.08, is below the canvas less a margin, 28 - 1 - 2 * 2; pens obey the bound at `_REACH`.
_HAND = {"slant": (-0.25, 0.4), "turn": (-0.06, 0.06), "aspect": (0.75, 1.2), "size": (16.0, 21.0), "pen": (0.65, 1.25)}
_STRAY = {"slant": (-0.12, 0.12), "turn": (-0.06, 0.06), "aspect": (0.9, 1.1), "size": (0.92, 1.08), "pen": (0.9, 1.1)}
_SHIFT = 2.5  # pixels off the centre, either way
_WOBBLE = 0.085  # of a glyph's size, either way and for each way to bend a stroke


def _spread(u: Array, ranges: dict[str, tuple[float, float]]) -> Array:
    low, high = np.array(list(ranges.values())).T
    spread: Array = low + u * (high - low)
    return spread


def _hands(seed: int, drawers: int) -> Array:
    """Slant, tangent of half the turn, aspect, size and pen radius in pixels of each drawer [D, 5]."""
    return _spread(_generator(seed, "hand").random((drawers, len(_HAND))), _HAND)


def _write(stroke_SK2: Array, hands: Array, rng: np.random.Generator) -> Written:
    """One image of the glyph by each drawer."""
    num_strokes, drawers = len(stroke_SK2), len(hands)
    u = rng.random((drawers, 7 + num_strokes * 8))  # a row per drawer: more drawers leave the first ones as they are
    stray = _spread(u[:, :5], _STRAY)
    slant, turn = (hands[:, :2] + stray[:, :2]).T[:, :, None]
    aspect, size, pen = (hands[:, 2:] * stray[:, 2:]).T
    wobble = (u[:, 7:].reshape(drawers, num_strokes, 4, 2) - 0.5) * 2 * _WOBBLE
    control = stroke_SK2 + _bend(wobble)  # [D, S, K, 2]
    curve = np.zeros((drawers, num_strokes, _NUM_POINTS, 2))
    for k in range(control.shape[2]):
        curve += _SPLINE_PK[:, k, None] * control[:, :, k, None]
    x, y = curve.reshape(drawers, -1, 2).transpose(2, 0, 1)
    x = x * aspect[:, None] - slant * y
    x, y = (1 - turn * turn) * x - 2 * turn * y, 2 * turn * x + (1 - turn * turn) * y  # turned, and scaled back below
    return Written(_place(np.stack([x, y], axis=-1), size, u[:, 5:7]), pen)


def _place(point: Array, size: Array, shift: Array) -> Array:
    """Scale glyphs [D, n, 2] to `size` pixels and set them near the centre of the canvas, inside it."""
    low, high = point.min(axis=1), point.max(axis=1)  # [D, 2]
    scale = size / (high - low).max(axis=1)
    slack = np.minimum(_SHIFT, (_SIDE - 1 - 2 * _REACH - size) / 2)
    centre = (_SIDE - 1) / 2 + (2 * shift - 1) * slack[:, None]
    placed: Array = (point - (low + high)[:, None] / 2) * scale[:, None, None] + centre[:, None]
    return placed


def _ink(written: Written) -> NDArray[np.uint8]:
    """Images [D, 28, 28], the edge of a stroke blurred over one pixel.

    A point reaches only the pixels around it, which makes this an order faster than all distances; a minimum does not
    depend on the order in which points arrive.
    """
    point, pen = written.point.astype(np.float32), written.pen.astype(np.float32)
    drawers = len(point)
    near = np.arange(-_REACH, _REACH + 1)
    pixel = np.floor(point + np.float32(0.5)).astype(np.int64)[..., None] + near  # [D, n, 2, 5]
    gap = pixel.astype(np.float32) - point[..., None]
    gap *= gap
    square = gap[:, :, 1, :, None] + gap[:, :, 0, None, :]  # [D, n, 5, 5]
    where = pixel[:, :, 1, :, None] * _SIDE + pixel[:, :, 0, None, :]
    where += (np.arange(drawers) * _SIDE * _SIDE)[:, None, None, None]
    nearest = np.full(drawers * _SIDE * _SIDE, 100, np.float32)
    np.minimum.at(nearest, where.ravel(), square.ravel())
    dark = pen[:, None] + np.float32(0.5) - np.sqrt(nearest).reshape(drawers, -1)
    images: NDArray[np.uint8] = (np.clip(dark, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return images.reshape(drawers, _SIDE, _SIDE)
