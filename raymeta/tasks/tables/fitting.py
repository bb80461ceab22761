"""What the training rows say of each column: numbers with mean and deviation, or categories."""

from __future__ import annotations

from collections.abc import Sequence

from raymeta.errors import DataError
from raymeta.tasks.rows import Row
from raymeta.tasks.tables.columns import (
    MOST_CATEGORIES,
    Columns,
    Missing,
    Scale,
    as_text,
    is_missing,
    number,
    scale_of,
)


def fitted(
    rows: Sequence[Row], features: Sequence[str], categorical: Sequence[str], missing: Missing, target: str | None
) -> Columns:
    """By training rows. A column is numeric where all its values are numbers and it is not named categorical.

    Raises `DataError` for a column without values, one of too many categories, and a target without numbers.
    """
    numbers: dict[str, Scale] = {}
    categories: dict[str, list[str]] = {}
    for name in features:
        values = [row[name] for row in rows if not is_missing(row[name])]
        if not values:
            raise DataError(f"column {name} has no value in any row: leave it out (in training with tasks.ignore)")
        if name not in categorical and all(map(_is_number, values)):
            numbers[name] = _scale(values, f"column {name}")
        else:
            categories[name] = _categories(name, sorted(set(map(as_text, values))))
    scale = None if target is None else _target(rows, target)
    return Columns(numbers=numbers, categories=categories, missing=missing, target=scale)


def _categories(name: str, values: list[str]) -> list[str]:
    if len(values) > MOST_CATEGORIES:
        raise DataError(
            f"column {name} has {len(values)} different texts, such as {values[0][:30]!r}: it says who a row is, not "
            f"what it is like. Leave it out with tasks.ignore (at most {MOST_CATEGORIES} are taken)"
        )
    return values


def _target(rows: Sequence[Row], name: str) -> Scale:
    present = [row[name] for row in rows if not is_missing(row[name])]
    return _scale(present, f"the target {name}")


def _scale(values: Sequence[object], told: str) -> Scale:
    try:
        return scale_of([number(value, told) for value in values])
    except OverflowError as error:
        raise DataError(f"{told} has numbers that are too large to add up: give it in a larger unit") from error


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)
