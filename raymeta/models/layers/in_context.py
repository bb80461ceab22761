"""A transformer that reads a support set and answers queries: nothing is adapted.

Shape suffixes: S support examples, Q queries, N both, F features, Y numbers of a label, E width of a token, H heads,
D width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from raymeta.models.layers.norm import LayerNorm


class InContext(nn.Module):
    """Features [S, F] and labels [S, Y] of a support set, and features [Q, F] of queries, to outputs [Q, outputs].

    The token of a support example is e(x) + e(y), that of a query e(x). No token knows its place. Every token attends
    to the support and to nothing else, so queries do not see each other.
    """

    borders: Tensor
    """of the bars that outputs are logits of, where they are; a buffer"""

    def __init__(self, features: int, labels: int, outputs: int, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.of_x = nn.Linear(features, width)
        self.labels = labels
        self.of_y = nn.Linear(labels, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.outputs = nn.Linear(width, outputs)

    def forward(self, z_SF: Tensor, y_SY: Tensor, z_QF: Tensor) -> Tensor:
        tokens_NE = torch.cat([self.of_x(z_SF) + self.of_y(y_SY), self.of_x(z_QF)])
        for block in self.blocks:
            tokens_NE = block(tokens_NE, len(z_SF))
        outputs: Tensor = self.outputs(self.norm(tokens_NE[len(z_SF) :]))
        return outputs


class Block(nn.Module):
    """Attention to the first tokens, then two layers of each token alone; both read normalised tokens and are added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_each = LayerNorm(width), LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.attended = nn.Linear(width, width)
        self.each = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens_NE: Tensor, num_support: int) -> Tensor:
        normal_NE = self.norm_attention(tokens_NE)
        query_HND = self._by_head(self.query(normal_NE))
        key_HSD, value_HSD = (self._by_head(part) for part in self.key_value(normal_NE[:num_support]).chunk(2, 1))
        attended_HND = attention(query_HND, key_HSD, value_HSD)
        tokens_NE = tokens_NE + self.attended(attended_HND.transpose(0, 1).flatten(1))
        result: Tensor = tokens_NE + self.each(self.norm_each(tokens_NE))
        return result

    def _by_head(self, tokens_NE: Tensor) -> Tensor:
        return tokens_NE.view(len(tokens_NE), self.heads, -1).transpose(0, 1)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√D) V over the last two dimensions; places where the `mask` is False are not attended to.

    Written from products: fused kernels have no second derivative, and no rule for vmap.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ value
