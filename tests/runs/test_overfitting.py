"""A word is said exactly where training tasks go far better than those of validation."""

from __future__ import annotations

from typing import Any

import pytest

from raymeta.runs.overfitting import overfitting


def rows(training: float, validation: float, ci95: float = 0.01, *, early: float = 0.0) -> list[dict[str, Any]]:
    """Accuracies of 100 steps, of which the first half is `early`, and one validation at the end."""
    found: list[dict[str, Any]] = [
        {"step": step, "train/query_accuracy": early if step <= 50 else training} for step in range(1, 101)
    ]
    return [*found[:-1], found[-1] | {"val/accuracy": validation, "val/accuracy_ci95": ci95}]


@pytest.mark.parametrize(
    ("training", "validation", "ci95", "told"),
    [(0.95, 0.6, 0.01, True), (0.95, 0.9, 0.01, False), (0.5, 0.9, 0.01, False), (0.95, 0.6, 0.5, False)],
)
def test_far_apart_beyond_the_interval_is_told(training: float, validation: float, ci95: float, told: bool) -> None:
    text = overfitting(rows(training, validation, ci95), {})
    assert (text is not None) == told
    assert text is None or ("95.00 %" in text and "60.00 %" in text)


def test_only_the_steps_before_the_last_validation_count() -> None:
    assert overfitting(rows(0.6, 0.6, early=1.0), {}) is None


def test_training_tasks_of_another_kind_are_not_compared() -> None:
    assert overfitting(rows(0.95, 0.6), {"tasks.way": 5, "tasks.train_way": 20}) is None
    assert overfitting(rows(0.95, 0.6), {"tasks.way": 5, "tasks.train_way": 5}) is not None
    assert overfitting(rows(0.95, 0.6), {"tasks.way": 5, "tasks.train_way": None}) is not None


def test_errors_are_compared_by_their_ratio_and_only_where_the_loss_is_one() -> None:
    found = [{"step": 1, "train/query_loss": 0.1, "val/mse": 0.3}]
    assert overfitting(found, {}) is not None
    assert overfitting(found, {"loss": "huber"}) is None
    assert overfitting([found[0] | {"val/mse": 0.15}], {}) is None


def test_a_run_without_validation_says_nothing() -> None:
    assert overfitting([], {}) is None
    assert overfitting([{"step": 1, "train/query_accuracy": 1.0}], {}) is None
