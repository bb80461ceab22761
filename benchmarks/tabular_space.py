"""Trains every network of a small space on scikit-learn's digits once, so that a search over it can be judged exactly.

    python benchmarks/tabular_space.py    # minutes on one core; writes raymeta/tasks/perceptrons.json

The space: perceptrons of three hidden layers, each of one of four widths with one of four activations, 4,096 in all.
Each is trained from three starts on 1,000 of the 1,797 images (8 x 8 pixels), with Adam for 100 steps of 64 images. How
many of the other 797 images it answers rightly is kept, summed over the starts. Networks of equal widths are trained
side by side. Needs scikit-learn, for its images alone.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WIDTHS = (4, 8, 16, 32)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sine": torch.sin,
}
LAYERS, STARTS, STEPS, BATCH, RATE = 3, 3, 100, 64, 0.01
NUM_TRAIN, CLASSES = 1000, 10
FILE = Path(__file__).parents[1] / "raymeta" / "tasks" / "perceptrons.json"


def main() -> int:
    torch.set_num_threads(1)
    train, held_out = digits()
    start, right = time.perf_counter(), {}
    for widths in itertools.product(WIDTHS, repeat=LAYERS):
        right[widths] = trained(widths, train, held_out)
        print(f"{widths}: {right[widths].float().mean() / STARTS / len(held_out[1]):.3f}", flush=True)
    content = {
        "data": f"scikit-learn digits: {NUM_TRAIN} images to train on, {len(held_out[1])} held out",
        "training": f"Adam {RATE}, {STEPS} steps of {BATCH} images, {STARTS} starts",
        "widths": WIDTHS,
        "activations": list(ACTIVATIONS),
        "asked": STARTS * len(held_out[1]),
        "right": listed(right),
    }
    FILE.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"wrote {FILE} after {time.perf_counter() - start:.0f} s")
    return 0


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images [n, 64] in [0, 1] with classes, to train on and held out, in an order of their own."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = torch.from_numpy(x[order] / 16).float(), torch.from_numpy(y[order])
    return (x[:NUM_TRAIN], y[:NUM_TRAIN]), (x[NUM_TRAIN:], y[NUM_TRAIN:])


def trained(widths: Sequence[int], train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> Tensor:
    """Right answers [A, A, A] of the networks of these widths by the activations of their layers, over all starts."""
    generator = torch.Generator().manual_seed(sum(w * 100**i for i, w in enumerate(widths)))
    sizes = [train[0].shape[1], *widths, CLASSES]
    lead = [len(ACTIVATIONS)] * LAYERS + [STARTS]
    weights = [
        (torch.randn(*lead, a, b, generator=generator) / math.sqrt(a)).requires_grad_()
        for a, b in itertools.pairwise(sizes)
    ]
    biases = [torch.zeros(*lead, 1, b).requires_grad_() for b in sizes[1:]]
    optimizer = torch.optim.Adam([*weights, *biases], lr=RATE)
    for _ in range(STEPS):
        batch = torch.randint(NUM_TRAIN, (BATCH,), generator=generator)
        outputs = answers(train[0][batch], weights, biases)
        y = train[1][batch].expand(outputs.shape[:-1])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(outputs.flatten(0, -2), y.flatten(), reduction="sum").div(BATCH).backward()
        optimizer.step()
    with torch.no_grad():
        is_right = answers(held_out[0], weights, biases).argmax(-1) == held_out[1]
    return is_right.sum((-2, -1))


def answers(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Outputs [A, A, A, starts, n, classes] for x [n, 64]: the first layer's activation goes along the first axis."""
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = x @ weight + bias
        if layer < LAYERS:
            parts = zip(ACTIVATIONS.values(), x.unbind(layer), strict=True)
            x = torch.stack([activation(part) for activation, part in parts], layer)
    return x


def listed(right: dict[tuple[int, ...], Tensor]) -> list[int]:
    """In the order of (width 1, activation 1, width 2, ..., activation 3), the last fastest."""
    table = torch.stack(list(right.values())).view(*[len(WIDTHS)] * LAYERS, *[len(ACTIVATIONS)] * LAYERS)
    axes = [axis for layer in range(LAYERS) for axis in (layer, LAYERS + layer)]
    values: list[int] = table.permute(axes).flatten().tolist()
    return values


if __name__ == "__main__":
    sys.exit(main())
