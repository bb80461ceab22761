"""Measure meta-gradients: our paths, installed peers and the floor: `python -m raymeta.bench`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raymeta.system.command_line import Parser, add_verbose, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = Parser(prog="raymeta bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="cases; all unless given (see --list)")
    parser.add_argument("--list", action="store_true", help="list the cases and the peers that are installed")
    parser.add_argument("--rounds", type=int, default=9, help="times that each path is measured in turn [9]")
    parser.add_argument("--paths", nargs="+", metavar="PATH", help="only these, as the table names them")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="[cpu]")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="write everything that was measured (- is standard output); `raymeta dashboard` shows "
                        "the files in results/benchmarks")  # fmt: skip
    add_verbose(parser)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(words)
    return run_command("bench", lambda: _run(arguments, words), verbose=arguments.verbose)


def _run(arguments: argparse.Namespace, words: list[str]) -> int:
    import torch

    from raymeta.bench.cases import CASES
    from raymeta.bench.measure import measure
    from raymeta.bench.ours import PATHS
    from raymeta.bench.peers import available
    from raymeta.errors import ConfigError, EnvironmentProblem
    from raymeta.runs.provenance import MEASURED_PACKAGES, provenance
    from raymeta.system.files import json_text
    from raymeta.system.outputs import STDOUT, require_output, write_output
    from raymeta.views.sources.bench import KIND

    if unknown := [name for name in arguments.cases if name not in CASES]:
        raise ConfigError(f"there is no case {unknown[0]}: cases are {', '.join(CASES)}")
    known = dict.fromkeys([f"raymeta {path}" for path in PATHS])
    known |= dict.fromkeys(peer for name in arguments.cases or CASES for peer in available(CASES[name]))
    if unknown := [path for path in arguments.paths or () if path not in known]:
        raise ConfigError(f"there is no path {unknown[0]}: paths are {', '.join(known)}")
    if arguments.rounds < 1:
        raise ConfigError(f"--rounds is {arguments.rounds}, and must be at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("--device cuda was asked, but torch sees no GPU here")
    if arguments.list:
        for case in CASES.values():
            print(f"{case.name:24} peers: {', '.join(available(case)) or 'none'}")
        return 0
    if arguments.json:
        require_output(arguments.json, "--json")
    results, device = [], torch.device(arguments.device)
    with one_core():
        for name in arguments.cases or CASES:
            results.append(measure(CASES[name], device, rounds=arguments.rounds, paths=arguments.paths))
            print(table(results[-1]), flush=True, file=sys.stderr if arguments.json == STDOUT else sys.stdout)
    if arguments.json:
        made = provenance(_command(words), (*MEASURED_PACKAGES, "higher", "torchopt", "jax"))
        measured = {"device": arguments.device, "rounds": arguments.rounds, "cases": results}
        write_output(arguments.json, json_text({"kind": KIND, **made, **measured}, indent=2) + "\n", "--json")
    return 0


def _command(words: list[str]) -> str:
    """The command with files by their names alone: their folders are nobody else's."""
    return shlex.join(["raymeta", "bench", *(Path(word).name if Path(word).is_absolute() else word for word in words)])


@contextmanager
def one_core() -> Iterator[None]:
    """Everyone gets the same one core and one thread, until the end of the block."""
    import torch

    threads, pinned = torch.get_num_threads(), hasattr(os, "sched_setaffinity")
    cores = os.sched_getaffinity(0) if pinned else set()
    torch.set_num_threads(1)
    if pinned:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if pinned:
            os.sched_setaffinity(0, cores)


def table(result: dict[str, Any]) -> str:
    """A case as text: rates with their range, and ratios of medians of rounds."""
    lines = [f"\n{result['case']}: {result['tasks']} tasks a call"]
    lines.append(
        f"{'path':22} {'tasks/s':>9} {'range':>17} {'x best peer':>11} {'of floor':>8} {'MB':>6} {'first s':>7}"
    )
    for row in result["rows"]:
        rate, ratio, share = row["tasks_per_s"], row.get("over_best_peer"), row.get("of_the_floor")
        memory, first = row.get("peak_memory_mb"), row["first_call_s"]
        lines.append(
            f"{row['path']:22} {rate['median']:9,.1f} {rate['least']:8,.1f}–{rate['most']:<8,.1f} "
            f"{'' if ratio is None else format(ratio['median'], '.2f'):>11} "
            f"{'' if share is None else format(share['median'], '.2f'):>8} "
            f"{'' if memory is None else format(memory, ',.0f'):>6} {'' if first is None else format(first, '.1f'):>7}"
        )
    lines += [f"{name}: left out, {why}" for name, why in result["left_out"].items()]
    if result["flops_per_task"]:
        busy = result["flops_per_task"] / result["peak_flops"]
        lines.append(f"floor by arithmetic: {1 / busy:,.0f} tasks/s at {result['peak_flops'] / 1e9:.0f} GFLOP/s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
