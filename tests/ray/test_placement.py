"""The arithmetic of placement, which needs no cluster."""

from __future__ import annotations

import pytest

from raymeta.engine.executors.placement import Need, Node, PoolOptions, arithmetic, gpus_of_a_worker, room
from raymeta.errors import ConfigError

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


@pytest.mark.parametrize(
    ("options", "device", "nodes", "gpus"),
    [
        (PoolOptions(), "auto", [A, B], 1),
        (PoolOptions(), "auto", [B], 0),
        (PoolOptions(), "cpu", [A], 0),
        (PoolOptions(), "cuda", [B], 1),  # so that the misfit is told, and no worker fails later
        (PoolOptions(accelerator_type="A100"), "auto", [B], 1),
        (PoolOptions(gpus_per_worker=0.5), "auto", [B], 0.5),
        (PoolOptions(autoscaling=True), "auto", [A], 1),
        (PoolOptions(autoscaling=True), "cpu", [B], 0),
        (PoolOptions(autoscaling=True, gpus_per_worker=0), "auto", [B], 0),
    ],
)
def test_gpus_of_a_worker(options: PoolOptions, device: str, nodes: list[Node], gpus: float) -> None:
    assert gpus_of_a_worker(options, device, nodes) == gpus


def test_a_cluster_that_grows_is_not_taken_for_one_without_gpus() -> None:
    with pytest.raises(ConfigError, match="--gpus_per_worker 1 to wait for GPUs, or --gpus_per_worker 0"):
        gpus_of_a_worker(PoolOptions(autoscaling=True), "auto", [B])
