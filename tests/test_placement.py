"""The arithmetic of placement, which needs no cluster."""

from __future__ import annotations

import pytest

from raymeta.engine.executors.placement import Need, Node, arithmetic, room

A = Node("a", {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}, {"zone": "one"})
B = Node("b", {"CPU": 2.0}, {"zone": "two"})


@pytest.mark.parametrize(
    ("need", "fit"),
    [
        (Need(1, 0), 10),
        (Need(3, 0), 2),
        (Need(0, 1), 4),
        (Need(1, 0.5), 8),
        (Need(1, 0.4), 8),  # twice on each of 4 GPUs, not 10 times on all: a fraction lies on one GPU
        (Need(0.5, 0.25), 16),
        (Need(3, 1), 2),
        (Need(1, 0, labels={"zone": "two"}), 2),
        (Need(1, 0, labels={"zone": "three"}), 0),
        (Need(1, 1, "A100"), 4),
        (Need(1, 1, "H100"), 0),
        (Need(0.1, 0), 100),
    ],
)
def test_room(need: Need, fit: int) -> None:
    assert room(need, [A, B]) == fit


def test_the_arithmetic_is_told() -> None:
    told = arithmetic(8, Need(0, 1), [A, B])
    assert told == "8 workers x 1 GPU asked, 4 GPUs in the cluster on 2 nodes: room for 4"
    told = arithmetic(1, Need(2, 0, labels={"zone": "three"}), [A, B])
    assert told == (
        "1 worker x 2 CPUs and label zone=three asked, 10 CPUs in the cluster on 2 nodes, 0 of them with these labels: "
        "room for 0"
    )
    assert "accelerators there: A100" in arithmetic(1, Need(0, 1, "H100"), [A, B])
