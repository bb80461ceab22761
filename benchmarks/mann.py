"""Accuracy of MANN by instance of a class, on characters that are drawn by code.

    taskset -c 0 python benchmarks/mann.py --seconds 900

Seconds are those of the processor. A perceptron is trained by protonet for a tenth of them and frozen, so that the rest
goes into what MANN is about: to keep a label that comes one step late until its class comes again. Of a first instance
nothing is known but that it is none of the classes seen, with which 45.7 % of five can be guessed: the mean of 1/5,
1/4, 1/3, 1/2 and 1. Writes results/benchmarks/mann-by-instance.json; fails unless the second instance is ten points
above that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from typing import Any

from budget import trained
from record import record

from raymeta.api.evaluate import meta_test
from raymeta.config.load import load_config
from raymeta.trackers.scores import half_width

WAY, INSTANCES, EPISODES, ABOVE = 5, 4, 600, 0.1
BY_ELIMINATION = sum(1 / left for left in range(1, WAY + 1)) / WAY
COMMON: dict[str, Any] = {"tasks": "glyphs", "tasks.way": WAY, "tasks.shot": 1, "tasks.query_shot": INSTANCES - 1}
COMMON |= {"model": "mlp", "model.hidden": [128, 32], "steps": 10**6, "validate_every": 0, "checkpoint_every": 10**6}
COMMON |= {"workers": 0, "device": "cpu"}
SEEING = COMMON | {"algorithm": "protonet", "tasks.train_way": 30, "meta_batch_size": 1}
BINDING = COMMON | {
    "algorithm": "mann",
    "meta_batch_size": 32,
    "shard_size": 32,
    "outer.lr": 0.003,
    "freeze": ["body.*"],
}
BINDING |= {f"algorithm.{name}": size for name, size in {"hidden": 64, "memory_slots": 32, "memory_width": 20}.items()}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=900, help="of training [900]")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="raymeta-mann-") as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = trained(load_config(overrides=SEEING | {"output": place, "compile": False}).config, seconds / 10)
        seen = meta_test(body.run, episodes=EPISODES).scores.main[:, -1]
        print(f"protonet {seen.mean():.3f} after {body.state.step} steps", flush=True)
        options = BINDING | {"output": place, "compile": False, "start": str(body.run.path)}
        done = trained(load_config(overrides=options).config, seconds - body.seconds)
        scores = meta_test(done.run, episodes=EPISODES).scores.main
    means = scores.mean(0)
    met = bool(means[1] >= BY_ELIMINATION + ABOVE)
    content = {"unit": "accuracy, five classes of glyphs", "options": BINDING, "by_elimination": BY_ELIMINATION}
    content |= {"episodes": EPISODES, "seconds": seconds, "counted": "processor", "steps": done.state.step}
    content |= {"protonet": {"options": SEEING, "accuracy": float(seen.mean()), "steps": body.state.step}}
    content |= {"by_instance": [{"accuracy": float(v.mean()), "ci95": half_width(v)} for v in scores.T]}
    print(f"by instance {means.round(3).tolist()} after {done.state.step} steps", flush=True)
    print(f"wrote {record('mann-by-instance', content | {'above': ABOVE, 'met': met})}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
