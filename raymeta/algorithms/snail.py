"""SNAIL: temporal convolutions and attention over the support as a sequence that ends with a query.

Shape suffixes: S support examples, Q queries, F features, W way, C channels, D size of a key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.keys import SPLITS, TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.in_context import attention
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import Inputs

SEQUENCE = "sequence"
"""Name of the network beside the model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SNAIL(Algorithm):
    """Mishra, Rohaninejad, Chen, Abbeel. A Simple Neural Attentive Meta-Learner. ICLR 2018.

    A sequence of (f(x), label) of the support, in an order drawn from the task's key, ends with (f(x*), 0) of a query;
    the logits are those of the last place. It passes Att(64, 32), TC(128), Att(256, 128), TC(128), Att(512, 256) and a
    linear layer, each of which reads what is there and adds its outputs to it as further channels:
    - Att(K, V): causal attention of one head, keys of K and values of V channels;
    - TC(C): ⌈log₂ T⌉ dense blocks tanh(conv) σ(conv) of C channels, causal, of kernel 2 and dilation 1, 2, 4, ...;
      T is the longest sequence of the tasks.
    The outer loop learns f and these layers by the mean cross-entropy of the queries. There is no inner loop. Every
    query ends a sequence of its own, but the places before it are computed once: nothing there sees what comes later.

    Differences from the paper: (1) dilations begin at 1, so that the blocks see all of T places; (2) `scale` makes all
    layers narrower.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    at_once: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    scale: PositiveInt = 1
    """divides the channels of all layers: 1 is the paper's network"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = spec.build(tasks.input_shape, None)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        sizes = [tasks.size(split) for split in SPLITS]
        longest = max(size.way * size.shot for size in sizes) + 1
        return Beside(body, **{SEQUENCE: self.sequence(features, self.num_outputs(tasks) or 0, longest)})

    def sequence(self, features: int, way: int, longest: int) -> Snail:
        """The network beside the model, for so many features, classes and places."""
        return Snail(features, way, longest, self.scale)

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        num_support = episodes.support.y.shape[1]
        orders = [key.generator("noise").permutation(num_support) for key in keys]
        return {"order": torch.from_numpy(np.stack(orders))}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        way = len(learned.params[f"{SEQUENCE}.logits.bias"])

        def predict(x: Inputs) -> Tensor:
            z_SF, z_QF = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            told_SF = torch.cat([z_SF, one_hot(support.y, way, z_SF.dtype)], 1)[noise["order"]]
            untold_QF = F.pad(z_QF, (0, way))
            return problem.of_way(problem.beside(SEQUENCE, learned, told_SF, untold_QF), phase)

        return Adaptation([predict])


class Snail(nn.Module):
    """The places of a sequence [S, F + W], and what may stand in the next one [Q, F + W], to logits [Q, W].

    Layers go from both, the places `before_SC` and the last one, `last_QC`, of each of Q sequences, to both.
    """

    def __init__(self, features: int, way: int, longest: int, scale: int = 1) -> None:
        super().__init__()
        channels, self.layers = features + way, nn.ModuleList()
        blocks = math.ceil(math.log2(longest))
        for key_size, value_size, filters in ((64, 32, 128), (256, 128, 128), (512, 256, 0)):
            self.layers.append(Attention(channels, key_size // scale, value_size // scale))
            channels += value_size // scale
            for block in range(blocks if filters else 0):
                self.layers.append(DenseBlock(channels, filters // scale, 2**block))
                channels += filters // scale
        self.logits = nn.Linear(channels, way)

    def forward(self, before_SC: Tensor, last_QC: Tensor) -> Tensor:
        for layer in self.layers:
            before_SC, last_QC = layer(before_SC, last_QC)
        logits: Tensor = self.logits(last_QC)
        return logits


class DenseBlock(nn.Module):
    """Adds tanh(a) σ(b) as further channels, where (a, b) read a place and the one `dilation` before it; before the
    first place there are zeros."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.both = nn.Linear(2 * channels, 2 * filters)

    def forward(self, before_SC: Tensor, last_QC: Tensor) -> tuple[Tensor, Tensor]:
        num_before = len(before_SC)
        earlier_SC = F.pad(before_SC, (0, 0, self.dilation, 0))
        earlier_QC = earlier_SC[num_before].expand(len(last_QC), -1)
        return self._grown(before_SC, earlier_SC[:num_before]), self._grown(last_QC, earlier_QC)

    def _grown(self, now: Tensor, earlier: Tensor) -> Tensor:
        value, gate = self.both(torch.cat([earlier, now], 1)).chunk(2, 1)
        return torch.cat([now, value.tanh() * gate.sigmoid()], 1)


class Attention(nn.Module):
    """Adds as further channels what a place reads of itself and of those before it."""

    def __init__(self, channels: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(channels, key_size), nn.Linear(channels, key_size)
        self.value = nn.Linear(channels, value_size)

    def forward(self, before_SC: Tensor, last_QC: Tensor) -> tuple[Tensor, Tensor]:
        key_SD, value_SC = self.key(before_SC), self.value(before_SC)
        places = torch.arange(len(before_SC), device=before_SC.device)
        read_SC = attention(self.query(before_SC), key_SD, value_SC, places[:, None] >= places)
        own_Q1D, own_Q1C = self.key(last_QC)[:, None], self.value(last_QC)[:, None]
        keys, values = (
            torch.cat([before.expand(len(last_QC), -1, -1), own], 1)
            for before, own in ((key_SD, own_Q1D), (value_SC, own_Q1C))
        )
        read_QC = attention(self.query(last_QC)[:, None], keys, values)[:, 0]
        return torch.cat([before_SC, read_SC], 1), torch.cat([last_QC, read_QC], 1)
