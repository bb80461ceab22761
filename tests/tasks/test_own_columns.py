"""Rows of any table for a model of made-up tables: scaled by the support set, filled up, or made components of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from raymeta.errors import DataError
from raymeta.tasks import TabularPrior
from raymeta.tasks.recorded import reader_from
from raymeta.tasks.tables.own_columns import OwnColumns

DRAWS = np.random.default_rng(0)
WIDE = DRAWS.normal(size=(40, 3)) @ DRAWS.normal(size=(3, 7)) + 0.01 * DRAWS.normal(size=(40, 7))


def rows(x: Any) -> list[dict[str, Any]]:
    return [{f"c{place}": value for place, value in enumerate(row)} for row in x.tolist()]


def test_few_columns_are_scaled_by_the_support_set_and_filled_up_with_zeros() -> None:
    support = [{"a": 1, "kind": "old"}, {"a": 3, "kind": "new"}]
    reader = TabularPrior(features=5).reader().fitted(support)
    assert reader.shape == (5,)
    assert reader.read([*support, {"a": 4, "kind": "other"}]).tolist() == [
        [-1, 0, 1, 0, 0],
        [1, 1, 0, 0, 0],
        [2, 0, 0, 0, 0],
    ]
    assert reader.note is None


def test_many_columns_become_the_components_of_largest_variance() -> None:
    reader = OwnColumns(features=3).fitted(rows(WIDE))
    z = reader.read(rows(WIDE)).double()
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(3).double(), atol=1e-5, rtol=0)
    standard = torch.from_numpy((WIDE - WIDE.mean(0)) / WIDE.std(0))
    values, directions = torch.linalg.eigh(standard.T @ standard / len(standard))
    expected = standard @ directions.flip(1)[:, :3] / values.flip(0)[:3].sqrt()
    torch.testing.assert_close(z.abs(), expected.abs(), atol=1e-5, rtol=0)
    assert reader.note is not None
    assert "7 numbers of a row are more than the 3 " in reader.note


def test_directions_without_variance_are_zeros() -> None:
    same = np.repeat(WIDE[:, :1], 7, axis=1)
    z = OwnColumns(features=3).fitted(rows(same)).read(rows(same))
    assert z[:, 0].abs().min() > 0
    assert not z[:, 1:].any()


def test_a_file_keeps_the_reader() -> None:
    reader = OwnColumns(features=3).fitted(rows(WIDE))
    again = reader_from(json.loads(json.dumps(reader.to_json())))
    assert torch.equal(again.read(rows(WIDE)), reader.read(rows(WIDE)))


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(DataError, match="adapt the model to one first"):
        OwnColumns(features=3).read(rows(WIDE))
    with pytest.raises(DataError, match="no columns besides its labels"):
        OwnColumns(features=3).fitted([{}, {}])
    with pytest.raises(DataError, match="row 2 has no column b"):
        OwnColumns(features=3).fitted([{"a": 1, "b": 2}, {"a": 1}])
    with pytest.raises(DataError, match="row 1: column c6 is not there"):
        OwnColumns(features=3).fitted(rows(WIDE)).read(rows(WIDE[:, :6]))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1.0, float("inf")], "column a is inf, and finite numbers are needed"),
        ([1e308, 1e308], "column a has numbers that are too large to add up"),
        ([0.0, 1e300], "column a has numbers that are too large to add up"),
        (["nan", ""], "column a has no value in any row: leave it out"),
    ],
)
def test_a_column_that_has_no_scale_is_told(values: list[Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        OwnColumns(features=2).fitted([{"a": value} for value in values])


def test_a_number_that_no_network_can_hold_is_told_with_its_row() -> None:
    reader = OwnColumns(features=2).fitted([{"a": 1}, {"a": 3}])
    with pytest.raises(DataError, match=r"row 2: column a is 1e\+300, too far from the 2 that is usual"):
        reader.read([{"a": 1}, {"a": 1e300}])
