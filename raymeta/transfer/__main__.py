"""Transfer: pre-train a ResNet on CIFAR-10, fine-tune it on CIFAR-100 at several label fractions.

    python -m raymeta.transfer --root FOLDER --fractions 0.01,0.05,0.1,0.5,1 --seeds 0,1 --output transfer.json

Beside each fine-tuned network stands one trained from scratch on the same labels with the same budget. FOLDER holds
torchvision's layout: `cifar-10-batches-py` and `cifar-100-python`. The defaults are the usual recipe for CIFAR (SGD
with momentum, cosine schedule, crop and flip, weight decay 5e-4, 200 epochs), which wants a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from raymeta.engine.worker.blueprint import choose_device
from raymeta.runs.provenance import environment
from raymeta.system.command_line import Parser, add_verbose, dashed, run_command
from raymeta.system.files import json_text
from raymeta.system.outputs import require_output, write_output
from raymeta.transfer.data import Data, read_cifar10, read_cifar100, subset
from raymeta.transfer.fit import Recipe, accuracy, fit, network, start_from


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("transfer", lambda: _run(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="raymeta transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of cifar-10-batches-py and cifar-100-python")
    parser.add_argument("--arch", choices=("resnet18", "resnet12"), default="resnet18", help="network [resnet18]")
    parser.add_argument("--width", type=_count, default=64, help="channels of resnet12's first block [64]")
    parser.add_argument("--epochs", type=_count, default=200, help="epochs of pre-training [200]")
    parser.add_argument("--finetune-epochs", type=_count, default=200, help="epochs on CIFAR-100, both ways [200]")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate from scratch [0.1]")
    parser.add_argument("--finetune-lr", type=float, default=0.01, help="learning rate of fine-tuning [0.01]")
    parser.add_argument("--batch-size", type=_count, default=128, help="images in a mini-batch [128]")
    parser.add_argument("--fractions", type=_fractions, default=_fractions("0.01,0.05,0.1,0.5,1"), help="label shares")
    parser.add_argument("--seeds", type=_seeds, default=(0, 1), help="seeds, comma-separated [0,1]")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute [auto]")
    parser.add_argument("--output", type=Path, help="file for the result as JSON, - for standard output")
    add_verbose(parser)
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _fractions(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError("fractions lie above 0 and are at most 1")
    return values


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _run(arguments: argparse.Namespace) -> int:
    device = choose_device(arguments.device)
    if arguments.output is not None:
        require_output(arguments.output, "--output")
    small, large = read_cifar10(arguments.root), read_cifar100(arguments.root)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for row in _one_seed(arguments, seed, small, large, device):
            rows.append(row)
            print(
                f"seed {seed}  {100 * row['fraction']:5.1f} % of the labels ({row['labels']}):  fine-tuned "
                f"{100 * row['finetuned']:.2f} %  from scratch {100 * row['scratch']:.2f} %",
                flush=True,
            )
    curve = summarise(rows)
    print("\nfraction   fine-tuned         from scratch   (mean ± standard deviation over seeds, test accuracy in %)")
    for point in curve:
        pairs = (f"{100 * point[k]['mean']:6.2f} ± {100 * point[k]['std']:.2f}" for k in ("finetuned", "scratch"))
        print(f"{point['fraction']:8.2f}   {'      '.join(pairs)}")
    if arguments.output is not None:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k != "root"}
        content = {"settings": settings, "environment": environment(), "runs": rows, "curve": curve}
        write_output(arguments.output, json_text(content, indent=2) + "\n", "--output")
    return 0


def _one_seed(
    arguments: argparse.Namespace, seed: int, small: Data, large: Data, device: torch.device
) -> list[dict[str, Any]]:
    base = network(arguments.arch, arguments.width, 10, seed).to(device)
    fit(base, small.train, Recipe(arguments.epochs, arguments.lr, arguments.batch_size), seed, device)
    pretrained = accuracy(base, small.test, device)
    rows = []
    for fraction in arguments.fractions:
        labelled = subset(large.train, fraction, seed)
        tuned = network(arguments.arch, arguments.width, 100, seed).to(device)
        start_from(tuned, base)
        scratch = network(arguments.arch, arguments.width, 100, seed).to(device)
        for model, lr in ((tuned, arguments.finetune_lr), (scratch, arguments.lr)):
            fit(model, labelled, Recipe(arguments.finetune_epochs, lr, arguments.batch_size), seed, device)
        rows.append(
            {
                "seed": seed,
                "fraction": fraction,
                "labels": len(labelled.y),
                "pretrained_cifar10": pretrained,
                "finetuned": accuracy(tuned, large.test, device),
                "scratch": accuracy(scratch, large.test, device),
            }
        )
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds by fraction."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    fractions = sorted({row["fraction"] for row in rows})
    return [
        {"fraction": f, **{k: spread([r[k] for r in rows if r["fraction"] == f]) for k in ("finetuned", "scratch")}}
        for f in fractions
    ]


if __name__ == "__main__":
    sys.exit(main())
