"""Cell networks: an architecture of the search network is the network of that architecture, and says so as text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raymeta.config.load import load_config
from raymeta.errors import ConfigError
from raymeta.models import Derived, Supernet
from raymeta.models.genotype import (
    KINDS,
    OPERATIONS,
    Edge,
    Genotype,
    choice_sizes,
    chosen,
    derived,
    first_edge,
    parsed,
    random_genotype,
)
from raymeta.models.supernet import SearchNetwork

SIZE: dict[str, Any] = {"width": 4, "cells": 3, "stem_stride": 2}
SHAPE = (1, 13, 13)
TEXT = "skip@0 sep_conv_3@1, max_pool_3@0 dil_conv_5@2 | avg_pool_3@0 skip@1, sep_conv_5@1 dil_conv_3@2"


def network(**options: Any) -> SearchNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Supernet(**{**SIZE, "nodes": 2, **options}).build(SHAPE, 3).double()
    assert isinstance(model, SearchNetwork)
    return model


def image(count: int = 5) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def alone(genotype: Genotype, model: SearchNetwork) -> None:
    """Architecture parameters by which each edge does what `genotype` says, and others nothing."""
    for kind in KINDS:
        logits = torch.full_like(model.alpha[kind], -torch.inf)
        logits[:, OPERATIONS.index("none")] = 0
        for number, node in enumerate(getattr(genotype, kind)):
            for edge in node:
                row = first_edge(number) + edge.source
                logits[row] = -torch.inf
                logits[row, OPERATIONS.index(edge.operation)] = 0  # type: ignore[arg-type]
        model.alpha[kind] = nn.Parameter(logits)


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
@pytest.mark.parametrize("affine", [False, True])
def test_one_operation_an_edge_is_the_derived_network(norm: Any, affine: bool) -> None:
    model, genotype = network(norm=norm, groups=2), parsed(TEXT)
    alone(genotype, model)
    options = {**SIZE, "norm": norm, "groups": 2, "affine": affine}
    small = Derived(genotype=TEXT, **options).build(SHAPE, 3).double()
    names = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in small.named_parameters():
            if name in names:
                value.copy_(names[name])
    assert set(dict(small.named_parameters())) <= set(names) or affine
    torch.testing.assert_close(small(image()), model(image()), rtol=1e-12, atol=1e-12)
    assert model.genotype(dict(model.alpha)) == genotype


def test_every_operation_halves_alike() -> None:
    for side in (13, 14):
        outputs = [network(operations=(name,))(torch.zeros(2, 1, side, side).double()) for name in OPERATIONS[1:]]
        assert all(output.shape == (2, 3) for output in outputs)


def test_operations_do_what_they_say() -> None:
    """Through the whole network, all but `none` let the image through."""
    model = network(norm="layer")
    for name in OPERATIONS:
        other = network(operations=(name,) if name != "none" else ("none", "skip"), norm="layer")
        if name == "none":
            for kind in KINDS:
                other.alpha[kind] = nn.Parameter(torch.tensor([[0.0, -torch.inf]] * len(other.alpha[kind])).double())
        outputs = other(image(2))
        assert torch.equal(outputs[0], outputs[1]) == (name == "none")
    assert model(image(2)).shape == (2, 3)


def test_second_derivatives_are_those_of_differences() -> None:
    """Of all operations and norms at once: ∇_α ⟨∇_w L, v⟩."""
    model = network(norm="batch", nodes=1)
    weights = [p for name, p in model.named_parameters() if not name.startswith("alpha")]
    v = [torch.randn(p.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) for p in weights]

    def slope(create_graph: bool) -> Tensor:
        loss = model(image()).square().sum()
        slopes = torch.autograd.grad(loss, weights, create_graph=create_graph)
        return torch.stack([(a * b).sum() for a, b in zip(slopes, v, strict=True)]).sum()

    (found,) = torch.autograd.grad(slope(True), [model.alpha["reduction"]])
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ends = []
    for sign in (1e-5, -1e-5):
        with torch.no_grad():
            model.alpha["reduction"].add_(sign * direction)
        ends.append(float(slope(False)))
        with torch.no_grad():
            model.alpha["reduction"].sub_(sign * direction)
    assert float((found * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


# Rules


def test_the_strongest_edges_and_operations_are_kept() -> None:
    """`none` counts for nothing, however strong it is."""
    names = ("none", "skip", "sep_conv_3")
    weights = np.array([[0.9, 0.05, 0.05], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.8, 0.1, 0.1], [0.0, 0.6, 0.4]])
    cell = (
        (Edge("skip", 0), Edge("sep_conv_3", 1)),
        (Edge("skip", 0), Edge("skip", 2)),
    )
    assert derived(dict.fromkeys(KINDS, weights), names) == Genotype(cell, cell)


def test_edges_of_nodes_follow_each_other() -> None:
    """Node i has 2 + i edges: 14 for the paper's four nodes."""
    assert [b - a for a, b in pairwise(first_edge(node) for node in range(6))] == [2, 3, 4, 5, 6]
    assert len(network(nodes=4).alpha["normal"]) == 14


def test_text_says_an_architecture() -> None:
    assert str(parsed(TEXT)) == TEXT
    assert parsed("skip@1 sep_conv_3@0|skip@0   skip@1") == parsed("sep_conv_3@0 skip@1 | skip@0 skip@1")


def test_every_architecture_can_be_chosen_and_each_choice_is_one() -> None:
    """Of one node: 2 states in order, and 2 x 2 operations, so half as many architectures as choices."""
    sizes = choice_sizes(1, 2)
    assert sizes == (2, 1, 2, 2) * 2
    found = [chosen(one, ("skip", "sep_conv_3")) for one in np.ndindex(*sizes)]
    assert len(found) == 64
    assert len(set(found)) == 16
    assert all(str(parsed(str(one))) == str(one) for one in found)


def test_random_architectures_are_of_their_seed() -> None:
    drawn = [random_genotype(seed, 3, OPERATIONS) for seed in range(40)]
    assert drawn == [random_genotype(seed, 3, OPERATIONS) for seed in range(40)]
    assert len(set(drawn)) == 40
    used = {edge.operation for one in drawn for cell in one for node in cell for edge in node}
    assert used == set(OPERATIONS) - {"none"}
    for one in drawn:
        assert parsed(str(one)) == one
    first = Derived(genotype="random:7", nodes=3)
    assert first.genotype == "random:7"
    assert first.architecture == random_genotype(7, 3, OPERATIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip@0 skip@1 | skap@0 skip@1", "did you mean skip"),
        ("skip@0 none@1 | skip@0 skip@1", "no known operation"),
        ("skip@0 skip@2 | skip@0 skip@1", "a state below 2"),
        ("skip@0 skip@0 | skip@0 skip@1", "2 edges from different states"),
        ("skip@0 skip@1 | skip@0 skip@1, skip@0 skip@1", "as many nodes"),
        ("/there/is/none", "cannot be read"),
    ],
)
def test_what_is_no_architecture_is_refused_where_it_stands(text: str, message: str) -> None:
    options = {"tasks": "classification", "algorithm": "plain", "model": "derived", "model.genotype": text}
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(overrides=options)
    assert "model.genotype" in str(caught.value)


def test_a_file_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "genotype.txt"
    file.write_text(f"{TEXT}\n")
    assert Derived(genotype=str(file)).genotype == TEXT
    (tmp_path / "summary.json").write_text('{"found": {"genotype": 3}}')
    with pytest.raises(ValueError, match="no finished run of a search"):
        Derived(genotype=str(tmp_path))
    (tmp_path / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"no finished run: its summary\.json cannot be read"):
        Derived(genotype=str(tmp_path))


def test_operations_are_different_ones() -> None:
    for operations in (("skip", "skip"), ("none",), ()):
        with pytest.raises(ConfigError, match="different ones"):
            Supernet(operations=operations).build(SHAPE, 3)  # type: ignore[arg-type]
