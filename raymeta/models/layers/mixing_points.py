"""Features of one batch mixed with those of another, at layers that were marked for it.

An input that is mixed travels as several tensors by name: the example itself, and what it is mixed with. The network
stays as it is: marked layers hand their outputs to whoever is at hand, as norms ask whose statistics they use.

Shape suffixes: n examples, P places (the input and the marked layers), G groups of channels, C channels.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from raymeta.errors import ConfigError
from raymeta.models.layers.at_hand import AtHand
from raymeta.models.layers.beside import BODY
from raymeta.tasks.mixed_inputs import GROUPS, INPUT, OWN, PARTNER, PARTNER_TWIN, PICKED, SHARE, TWIN, mixture

EDGES = (0, 12, 22, 32, 44, 54, 64)
"""Where groups of channels begin and end, in a layer of as many channels as the last."""

AtPlace = Callable[[int, Tensor], Tensor]
_AT_HAND: AtHand[AtPlace | None] = AtHand("who gets the outputs of marked layers", None)


class Mark:
    """A forward hook: gives the layer's output, and the place it stands at, to whoever is at hand."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, module: nn.Module, args: object, output: Tensor) -> Tensor:
        change = _AT_HAND.now()
        return output if change is None else change(self.place, output)


def mark(model: nn.Module, patterns: Sequence[str] | None) -> tuple[str, ...]:
    """Mark the layers whose names match `patterns`; returns the places, `INPUT` first.

    Without patterns these are the activations in the model's own list of layers. Raises `ConfigError` for a pattern
    that matches none.
    """
    unmark(model)
    names = activations(model) if patterns is None else _matching(model, patterns)
    for place, name in enumerate(names, start=1):
        model.get_submodule(name).register_forward_hook(Mark(place))
    return (INPUT, *names)


def activations(model: nn.Module) -> list[str]:
    """Names of activations that stand in a list of layers, which the model is, or the body that it has."""
    prefix, body = next(((BODY, child) for name, child in model.named_children() if f"{name}." == BODY), ("", model))
    if not isinstance(body, nn.Sequential):
        return []
    return [prefix + name for name, child in body.named_children() if isinstance(child, nn.ReLU | nn.Tanh)]


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    found = {p: [n for n in names if fnmatch.fnmatch(n.removeprefix(BODY), p)] for p in patterns if p != INPUT}
    for pattern, matched in found.items():
        if not matched:
            raise ConfigError(f"mixing_layers {pattern} matches no layer: there are {INPUT}, {', '.join(names)}")
    chosen = {name for matched in found.values() for name in matched}
    return [name for name in names if name in chosen]


def unmark(model: nn.Module) -> None:
    """Take the marks off, for a model that leaves raymeta."""
    for module in model.modules():
        for number, hook in list(module._forward_hooks.items()):
            if isinstance(hook, Mark):
                del module._forward_hooks[number]


def mixed_call(call: Callable[[Tensor], Tensor], x: Mapping[str, Tensor]) -> Tensor:
    """What the network `call` makes of mixed inputs: λ h + (1 − λ) h' at each place, h' of the partner at the same one.

    The partners pass the network before and by themselves, so their batch statistics are their own. Where groups of
    channels come from another example, they do so before mixing, in both.
    """
    kept: list[Tensor] = []
    groups = x.get(GROUPS)

    def keep(place: int, h: Tensor) -> Tensor:
        h = shuffled(h, place, groups, x.get(PARTNER_TWIN))
        kept.append(h)
        return h

    if PARTNER in x:
        with _AT_HAND.being(keep):
            call(keep(0, x[PARTNER]))
    theirs = iter(kept)

    def change(place: int, h: Tensor) -> Tensor:
        h = shuffled(h, place, groups, x.get(TWIN))
        if not kept:
            return h
        other = next(theirs)
        return mixture(h, other[x[PICKED]] if PICKED in x else other, x[SHARE][:, place])

    with _AT_HAND.being(change):
        return call(change(0, x[OWN]))


def shuffled(h: Tensor, place: int, groups_nPG: Tensor | None, twin_n: Tensor | None) -> Tensor:
    """Each example with the groups of channels [n, C, ...] that come from its twin in the batch."""
    if groups_nPG is None or twin_n is None or place == 0:
        return h
    taken_C = groups_nPG[0, place] @ members(h.shape[1]).to(h)
    return torch.where(taken_C.view(-1, *[1] * (h.dim() - 2)) > 0, h[twin_n], h)


def members(channels: int) -> Tensor:
    """Which channels each group has [G, C]."""
    edges = [round(edge * channels / EDGES[-1]) for edge in EDGES]
    return torch.tensor([[float(start <= c < stop) for c in range(channels)] for start, stop in pairwise(edges)])
