"""Layers over the places of a sequence with a mask, from primitives that differentiate twice and vectorise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.models.layers.norm import LayerNorm


class WeightedMean(nn.Module):
    """A weight for every token id, and the weighted mean of embeddings at a learned length: √(width / 16) at first.

    Words that say little of a text, as `the`, can be learned to count little; a text is as far out as any other.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(vocabulary))
        self.length = nn.Parameter(torch.tensor([math.sqrt(width / 16)]))

    def forward(self, z: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        kept = mask.to(z.dtype) * self.weights[tokens].exp()
        mean = (z * kept[..., None]).sum(1)
        squares = mean.square().sum(1, keepdim=True)
        out: Tensor = mean * torch.rsqrt(squares + 1e-12) * self.length
        return out


def masked_mean(z: Tensor, mask: Tensor) -> Tensor:
    """The mean of z [n, L, d] over the places that `mask` [n, L] keeps; zeros where it keeps none."""
    kept = mask.to(z.dtype)[..., None]
    return (z * kept).sum(1) / kept.sum(1).clamp(min=1)


class TransformerLayer(nn.Module):
    """z + attention(norm(z)), then z + hidden layer(norm(z)): places [n, L, d] that look at those the mask keeps."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mixed = nn.Linear(width, width)
        self.hidden, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        z = z + self._attention(self.norm1(z), mask)
        out: Tensor = z + self.back(F.gelu(self.hidden(self.norm2(z))))
        return out

    def _attention(self, z: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self._in_heads(layer(z)) for layer in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        unseen = torch.finfo(scores.dtype).min / 2  # finite: a text of no places has a mean, not NaN
        weights = torch.where(mask[:, None, None, :], scores, unseen).softmax(-1)
        out: Tensor = self.mixed((weights @ v).transpose(1, 2).flatten(2))
        return out

    def _in_heads(self, z: Tensor) -> Tensor:
        return z.view(*z.shape[:-1], self.heads, z.shape[-1] // self.heads).transpose(1, 2)


class LSTMLayer(nn.Module):
    """States [n, L, d] of an LSTM that reads z [n, L, inputs] and waits where the mask keeps nothing."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.given = nn.Linear(inputs, 4 * width)
        self.before = nn.Linear(width, 4 * width, bias=False)
        self.width = width

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        h = c = z.new_zeros(z.shape[0], self.width)
        states = []
        for given, kept in zip(self.given(z).unbind(1), mask.unbind(1), strict=True):
            keep, write, show, value = (given + self.before(h)).chunk(4, -1)
            following = torch.sigmoid(keep) * c + torch.sigmoid(write) * torch.tanh(value)
            c = torch.where(kept[:, None], following, c)
            h = torch.where(kept[:, None], torch.sigmoid(show) * torch.tanh(following), h)
            states.append(h)
        return torch.stack(states, 1)
