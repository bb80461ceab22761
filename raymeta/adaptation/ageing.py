"""What regularised evolution selects by (Real et al., AAAI 2019), for arrays, tensors and ranges alike.

A method over a table of architectures and a sweep's search over configurations are the same: who is alive depends on
age alone, and who has children on fitness among a random few.
"""

from __future__ import annotations

from typing import Any


def youngest(born: Any, population: int) -> Any:
    """Those of `born`, in the order of birth, who are alive: the last `population`, whatever they are worth."""
    return born[-population:]


def fittest(scores: Any, sample: Any) -> Any:
    """Of the places in `sample` the first one with the best of `scores`: who has a child."""
    return sample[scores[sample].argmax()]
