"""Changes of images that can be differentiated as often as wanted in how strong they are, and side by side.

Images are sampled bilinearly as a product of matrices of hat functions, so that every derivative exists under vmap and
has the same bits on every device model. Outside of an image its border goes on.

Shape suffixes: n images, c channels, h height, w width, K operations, p pixels (h · w).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOVING = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOURING = ("brightness", "contrast", "invert")
OPERATIONS = (*MOVING, *COLOURING)
SHEAR, SHIFT, ANGLE, FACTOR = 0.3, 0.45, math.pi / 6, 0.9
"""The strongest change: of a coordinate by the other, by shares of a side, by an angle, of a factor around 1."""


def operated(x_nchw: Tensor, which_nK: Tensor, strength_n: Tensor) -> Tensor:
    """Each image changed by the operation that is 1 in `which`, with a strength from −1 to 1, where 0 changes nothing.

    `invert` has no strength. Values stay in [0, 1].
    """
    kinds = torch.split(which_nK, [len(MOVING), *[1] * len(COLOURING)], dim=1)
    moving, brightness, contrast, invert = (kind.sum(1).view(-1, 1, 1, 1) > 0 for kind in kinds)
    factor = (1 + FACTOR * strength_n).view(-1, 1, 1, 1)
    mean = x_nchw.mean((1, 2, 3), keepdim=True)
    found = torch.where(moving, sampled(x_nchw, matrices(kinds[0], strength_n, x_nchw.shape[2:])), x_nchw)
    found = torch.where(brightness, x_nchw * factor, found)
    found = torch.where(contrast, mean + (x_nchw - mean) * factor, found)
    return torch.where(invert, 1 - x_nchw, found).clamp(0, 1)


def matrices(which_nK: Tensor, strength_n: Tensor, sides: torch.Size) -> Tensor:
    """Affine matrices [n, 2, 3] that give for (x, y, 1) of a new pixel where it is in the image, from its middle."""
    height, width = sides
    shear_x, shear_y, across, down, rotate = (which_nK * strength_n[:, None]).unbind(1)
    cos, sin = torch.cos(ANGLE * rotate), torch.sin(ANGLE * rotate)
    rows = (cos, SHEAR * shear_x - sin, SHIFT * width * across, SHEAR * shear_y + sin, cos, SHIFT * height * down)
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def sampled(x_nchw: Tensor, matrices_n23: Tensor) -> Tensor:
    """Images [n, c, h, w] of which each pixel is where its matrix says, between the pixels there."""
    n, c, h, w = x_nchw.shape
    across, down = (torch.arange(side, device=x_nchw.device, dtype=x_nchw.dtype) for side in (w, h))
    middle = (w - 1) / 2, (h - 1) / 2
    x_p, y_p = (across - middle[0]).repeat(h), (down - middle[1]).repeat_interleave(w)
    by_x, by_y, shift = matrices_n23.unsqueeze(-1).unbind(2)
    there_n2p = by_x * x_p + by_y * y_p + shift  # no matrix product, whose factors autocast would round
    columns_npw = hats(there_n2p[:, 0] + middle[0], across)
    rows_nph = hats(there_n2p[:, 1] + middle[1], down)
    lines_ncpw = rows_nph[:, None] @ x_nchw
    return (lines_ncpw * columns_npw[:, None]).sum(-1).view(n, c, h, w)


def hats(place_np: Tensor, pixels: Tensor) -> Tensor:
    """Share [n, p, side] of each of the `pixels` of a side in the value at a place."""
    inside = place_np.clamp(0, len(pixels) - 1)
    return (1 - (inside[..., None] - pixels).abs()).clamp(min=0)
