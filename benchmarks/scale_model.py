"""Predict the efficiency of up to 1,000 workers from costs that were measured on few.

    python benchmarks/scale_model.py

Reads results/benchmarks/scaling.json and hosts-traffic.json, simulates a step shard by shard, compares with what was
measured, and extrapolates over workers, sizes of the model and bandwidths. Weak scaling: every worker has four shards.

The simulation knows: compute time of a shard; the driver's own time for a step, a shard, a byte; parameters that leave
the driver once for every node, one node after the other; results that come in one after the other;
two calls given to each worker at once; sums on nodes. It does not know stragglers, faults, or other users of the links.
"""

from __future__ import annotations

import heapq
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from record import RESULTS, record

LATENCY_S = 0.0005
IN_FLIGHT = 2
PER_NODE = 8
SHARDS_PER_WORKER = 4
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
BANDWIDTHS = (1, 10, 100)
MODELS = {  # bytes of the parameters, seconds of a shard; None: as measured
    "conv4-64, CPU as measured": (448_148, None),
    "conv4-64, a device 20 times as fast (assumed)": (448_148, 0.05),
    "ResNet-12, 8 M parameters, 0.5 s a shard (assumed)": (32_000_000, 0.5),
    "86 M parameters, 2 s a shard (assumed)": (344_000_000, 2.0),
}


@dataclass(frozen=True)
class Costs:
    """What was measured. Seconds, bytes, and bytes a second."""

    step_s: float
    shard_s: float
    shard_byte_s: float
    byte_s: float
    compute_s: float
    model_bytes: int
    bandwidth: float = float("inf")
    senders: int = 1  # links of `bandwidth` each by which results come, where the driver's own takes in more

    def take_in_s(self, nbytes: float) -> float:
        """The driver's own time for one result."""
        return self.shard_s + self.shard_byte_s * nbytes


def simulate(costs: Costs, workers: int, shards: int, *, per_node: int = 1, aggregate: str = "flat") -> float:
    """Seconds of one step."""
    nodes = -(-workers // per_node)
    transfer = costs.model_bytes / costs.bandwidth
    # Parameters leave the driver's link one node after the other; a worker begins when its node has them.
    begin = costs.byte_s * costs.model_bytes
    free = [(begin + LATENCY_S + transfer * (1 + w // per_node), w) for w in range(workers)]
    heapq.heapify(free)
    results: list[tuple[float, int]] = []  # when computed, on which node
    for _ in range(shards):
        when, worker = heapq.heappop(free)
        done = when + costs.compute_s
        results.append((done, worker // per_node))
        heapq.heappush(free, (done, worker))
    if aggregate == "node" and shards / nodes >= 3:
        last: dict[int, float] = {}
        for when, node in results:
            last[node] = max(when, last.get(node, 0.0))
        arrivals = sorted((when, 2.0 * costs.model_bytes) for when in last.values())  # float64
        small = costs.shard_s * shards  # descriptions come shard by shard all the same
    else:
        arrivals = sorted((when, float(costs.model_bytes)) for when, _ in results)
        small = 0.0
    link = driver = begin
    for when, nbytes in arrivals:
        link = max(link, when) + nbytes / (costs.senders * costs.bandwidth)
        driver = max(driver, link + LATENCY_S) + costs.take_in_s(nbytes)
    return max(driver, small) + costs.step_s


def efficiency(costs: Costs, workers: int, **how: Any) -> float:
    """Part of the workers' time that is spent computing."""
    shards = SHARDS_PER_WORKER * workers
    return costs.compute_s * SHARDS_PER_WORKER / simulate(costs, workers, shards, **how)


def measured_costs(scaling: dict[str, Any]) -> Costs:
    """Costs from the file of benchmarks/scaling.py."""
    fit = {name: max(0.0, value) for name, value in scaling["driver"]["fit"].items()}
    setting = scaling["setting"]
    shards = setting["meta_batch_size"] // setting["shard_size"]
    compute = scaling["efficiency"]["step_s"]["in process"]["median"] / shards
    return Costs(fit["step"], fit["shard"], fit["shard_byte"], fit["byte"], compute, MODELS_BYTES)


MODELS_BYTES = MODELS["conv4-64, CPU as measured"][0]


def check(costs: Costs, scaling: dict[str, Any], traffic: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Predictions beside what was measured."""
    rows = []
    setting = scaling["setting"]
    shards = setting["meta_batch_size"] // setting["shard_size"]
    cores = scaling["cores"]
    for workers in (1, 2, 4):
        # More workers at work than cores take turns: each is as much slower.
        crowded = replace(costs, compute_s=costs.compute_s * max(1.0, min(workers, shards) / cores))
        name = f"{workers} worker" + "s" * (workers > 1)
        rows.append(_row(name, simulate(crowded, workers, shards), scaling["efficiency"]["step_s"][name]["median"]))
    for row in traffic["rows"] if traffic else []:
        if row["mbit"] is None or row["round"]:
            continue
        same = [r for r in traffic["rows"] if (r["mbit"], r["aggregate"]) == (row["mbit"], row["aggregate"])]
        measured = sorted(r["step_s"] for r in same)[len(same) // 2]
        # Two hosts with two workers each on these cores, small shards: computing takes what it does without a limit.
        small = setting["meta_batch_size"] // 2
        free = [r["step_s"] for r in traffic["rows"] if r["mbit"] is None and r["aggregate"] == row["aggregate"]]
        compute = (sum(free) / len(free) - costs.step_s) * 4 / small
        slow = replace(costs, compute_s=compute, bandwidth=row["mbit"] * 125_000 * 0.95, senders=2)
        predicted = simulate(slow, 4, small, per_node=2, aggregate=row["aggregate"])
        rows.append(_row(f"2 hosts, {row['mbit']:g} Mbit/s, {row['aggregate']}", predicted, measured))
    return rows


def _row(name: str, predicted: float, measured: float) -> dict[str, Any]:
    return {"case": name, "predicted_s": predicted, "measured_s": measured, "ratio": predicted / measured}


def predictions(costs: Costs) -> list[dict[str, Any]]:
    """Efficiency by model, bandwidth, way of aggregation and number of workers."""
    rows = []
    for name, (nbytes, compute) in MODELS.items():
        for gbit in BANDWIDTHS:
            for aggregate in ("flat", "node"):
                case = replace(
                    costs,
                    model_bytes=nbytes,
                    compute_s=costs.compute_s if compute is None else compute,
                    bandwidth=gbit * 125e6,
                )
                row: dict[str, Any] = {"model": name, "gbit": gbit, "aggregate": aggregate}
                for workers in WORKERS:
                    row[str(workers)] = efficiency(case, workers, per_node=PER_NODE, aggregate=aggregate)
                rows.append(row)
    return rows


def main() -> int:
    """Run the command."""
    scaling = json.loads((RESULTS / "scaling.json").read_text())
    scaling["cores"] = scaling["hardware"]["cores"]
    file = RESULTS / "hosts-traffic.json"
    traffic = json.loads(Path(file).read_text()) if file.exists() else None
    costs = measured_costs(scaling)
    content = {
        "costs": costs.__dict__,
        "workers_per_node": PER_NODE,
        "shards_per_worker": SHARDS_PER_WORKER,
        "check": check(costs, scaling, traffic),
        "efficiency": predictions(costs),
    }
    print(json.dumps(content["check"], indent=2))
    for row in content["efficiency"]:
        print(row["model"][:30], row["gbit"], row["aggregate"], *(f"{row[str(w)]:.2f}" for w in WORKERS))
    record("scale-model", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
