"""A model of one's own: any function that returns an nn.Module; fused norms are made exact by themselves."""

import math

from torch import nn

import raymeta


def network(input_shape, num_outputs, width=64):
    """[n, *input_shape] to [n, num_outputs], or to features where a method asks for them (num_outputs None)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Identity() if num_outputs is None else nn.Linear(width, num_outputs),
    )


if __name__ == "__main__":
    model = {"name": "custom", "path": "own_model:network", "options": {"width": 128}}
    options = {"name": "glyphs-own-model", "model": model, "algorithm": "protonet"}
    run = raymeta.meta_train(**options, steps=30, validate_every=0, test_episodes=100)
    print(run.summary["headline"])
