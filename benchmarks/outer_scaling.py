"""A step of several maps on Ray workers: Meta-Weight-Net of a residual network, its batch split over two of them.

    python benchmarks/outer_scaling.py           # three minutes on two quiet cores

Two workers, which share each step, against two independent processes, which do a step each, interleaved; and the bytes
that travel in a step. A step asks for four maps, between which the driver steps the weighting network and the model.
Writes results/benchmarks/outer-scaling.json; exits with 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from record import record
from scaling import Loop, OtherProcess, obey, side_by_side, spread

PRESET = "glyphs-meta-weight-net"
SETTING: dict[str, Any] = {
    "model": "resnet12", "model.widths": [16, 32, 64, 128], "meta_batch_size": 2, "shard_size": 1,
    "tasks.batch": 50, "tasks.clean_batch": 50, "validate_every": 0, "device": "cpu",
}  # fmt: skip
GOAL = 0.9
"""Least rate of two workers in units of that of two processes together."""


class Traffic:
    """Counts the bytes of arrays that an executor is given and gives back; headers and pickles are not among them."""

    def __init__(self, executor: Any) -> None:
        self.maps = self.sent = self.received = 0
        self._map = executor.map
        executor.map = self

    def __call__(self, job: Any, payload: Any, shards: Any, *, rows: Any = None, **options: Any) -> Iterator[Any]:
        self.maps += 1
        self.sent += payload.nbytes + sum(map(_nbytes, rows or ()))
        for block, result in self._map(job, payload, shards, rows=rows, **options):
            self.received += result.vector.nbytes + _nbytes(result.rows)
            yield block, result

    def per_step(self, steps: int) -> dict[str, float]:
        """`sent` goes to a node once, however many workers it has; `received` comes from all shards."""
        return {"maps": self.maps / steps, "sent_bytes": self.sent / steps, "received_bytes": self.received / steps}


def _nbytes(rows: Any) -> int:
    return sum(value.nbytes for value in rows.values())


def measured(rounds: int, count: int) -> dict[str, Any]:
    """Step times of both ways, interleaved, their ratio in each round, and what travels in a step."""
    pool = Loop(PRESET, SETTING, 2)
    others = [OtherProcess([], __file__) for _ in range(2)]
    traffic, times = Traffic(pool.executor), []
    for turn in range(rounds):
        pair = {"2 processes": side_by_side(others, count), "2 workers": pool.steps(2 * count)[0]}
        print(turn, pair, flush=True)
        times.append(pair)
    for other in others:
        other.close()
    pool.executor.close()
    # Two processes do two steps in the time of one; two workers share each step.
    ratio = spread([pair["2 processes"] / 2 / pair["2 workers"] for pair in times])
    return {
        "parameters": pool.blueprint.layout.size,
        "step_s": {name: spread([pair[name] for pair in times]) for name in times[0]},
        "two_workers_over_two_processes": ratio,
        "goal": GOAL,
        "reached": ratio["median"] >= GOAL,
        "traffic_per_step": traffic.per_step(2 * count * rounds),
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of each measurement")
    parser.add_argument("--no-record", action="store_true", help="only print")
    parser.add_argument("--obey", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if arguments.obey:
        obey(Loop(PRESET, SETTING, 0))
        return 0
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    content = {"setting": SETTING, **measured(arguments.rounds, arguments.steps)}
    ray.shutdown()
    print(json.dumps(content, indent=2))
    if not arguments.no_record:
        print(f"wrote {record('outer-scaling', content)}")
    return 0 if content["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
