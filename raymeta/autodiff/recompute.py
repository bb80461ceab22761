"""The gradient of a chain of functions that keeps what passes between them and computes the rest again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.autodiff.surroundings import Moment, Surroundings, put_back
from raymeta.tree import Params


class Link(NamedTuple):
    """A function of named tensors: from those that it reads to those that it writes, which may replace others."""

    reads: Iterable[str]
    call: Callable[[Params], Params]


class Done(NamedTuple):
    """A link that was computed: what it read, the names that it wrote, and what else was there when it began."""

    link: Link
    inputs: Params
    written: frozenset[str]
    before: Moment


def forward(links: Sequence[Link], values: Params, surroundings: Surroundings) -> tuple[Params, list[Done]]:
    """Compute all links one after another, without a graph; returns all values and what `backward` needs."""
    tape: list[Done] = []
    for link in links:
        inputs = {name: values[name] for name in link.reads}
        before = surroundings.now(inputs)
        with torch.no_grad():
            outputs = link.call(inputs)
        tape.append(Done(link, inputs, frozenset(outputs), before))
        values = values | outputs
    return values, tape


def backward(tape: list[Done], cotangents: Params, surroundings: Surroundings) -> Params:
    """From derivatives with respect to the last values to those with respect to the first, by name; empties `tape`.

    Each link is computed again with the random numbers and the model's own state that it had. A derivative that is
    there already is added to where one graph of all links would add it, so the result has the bits of that graph's.
    """
    after = surroundings.now(tape[-1].inputs)
    while tape:
        done = tape.pop()
        put_back(done.before)
        cotangents = _pull(done, cotangents)
    put_back(after)
    return cotangents


def _pull(done: Done, cotangents: Params) -> Params:
    kept = [name for name in done.inputs if name in cotangents and name not in done.written]
    wanted = [name for name in cotangents if name in done.written]
    rest = {name: value for name, value in cotangents.items() if name not in done.written}
    if not wanted:
        return rest

    def product(inputs: Params) -> Tensor:
        """Of cotangents and values: its gradient is what a graph of the whole chain hands on here, bit by bit."""
        outputs = done.link.call(inputs)
        pairs = [(outputs[name], cotangents[name]) for name in wanted] + [(inputs[n], cotangents[n]) for n in kept]
        return torch.stack([_product(value, cotangent) for value, cotangent in pairs]).sum()

    derivatives, _ = gradient_and_value(product, done.inputs)
    return rest | derivatives


def _product(value: Tensor, cotangent: Tensor) -> Tensor:
    return (value * cotangent.conj()).real.sum() if value.is_complex() else (value * cotangent).sum()
