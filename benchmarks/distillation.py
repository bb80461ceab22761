"""Distillation: a student of a teacher that learns to teach against one of the same teacher as it is.

    python benchmarks/distillation.py      # drawn characters, no data needed

Student conv4-8, teacher conv4-64 or of another `--teacher_width`, both trained by the run: the teacher for its first
steps, on the same batches and to the same bits in all arms with a teacher. Beside them a student and a teacher on
labels alone, for as many steps each. Five seeds, each of which also chooses the parts. The level: the student of
MetaDistil above that of the fixed teacher by more than the paired 95 % interval over seeds. Writes
results/benchmarks/distillation-glyphs.json and fails unless the level is met.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from paired import difference, over_seeds, runs_of
from record import record

STUDENT = 8
"""Channels of the student's blocks."""
COMMON: dict[str, Any] = {"tasks.drawers": 60, "tasks.clean": 10, "tasks.val": 5, "tasks.test": 20}
"""Few images of each class, so that a student alone does not know all."""
ALONE: dict[str, Any] = {"meta_batch_size": 2, "tasks.batch": 32, "tasks.noise": "none", "outer.lr": 0.05}
"""Plain training on the batches, and at the rate, of distillation."""


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    runs = runs_of(_arms(arguments.steps, arguments.teacher_steps, arguments.teacher_width), arguments.seeds, COMMON)
    scores = {name: [run["accuracy"] for run in some] for name, some in runs.items()}
    above = {name: difference(scores["fixed"], values) for name, values in scores.items() if name != "fixed"}
    met = above["metadistil"]["mean"] > above["metadistil"]["ci95"]
    content = {"unit": "accuracy on test images", "source": "glyphs", "options": COMMON, "runs": runs}
    content |= {"scores": {name: over_seeds(values) for name, values in scores.items()}}
    content |= {"difference_to_fixed": above, "met": met}
    for name, score in content["scores"].items():
        print(f"{name}: {100 * score['mean']:.2f} ± {100 * score['ci95']:.2f} %")
    print(f"met: {met}; wrote {record('distillation-glyphs', content)}")
    return 0 if met else 1


def _arms(steps: int, teacher_steps: int, width: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Presets with their options."""
    taught = {"steps": steps, "algorithm.teacher_steps": teacher_steps}
    taught |= {"model.width": STUDENT, "algorithm.teacher_width": width}
    return {
        "teacher": ("glyphs-plain", {**ALONE, "model.width": width, "steps": teacher_steps}),
        "student": ("glyphs-plain", {**ALONE, "model.width": STUDENT, "steps": steps - teacher_steps}),
        "fixed": ("glyphs-metadistil", {**taught, "algorithm.teach": False}),
        "metadistil": ("glyphs-metadistil", taught),
        "mkd": ("glyphs-mkd", taught),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--teacher_steps", type=int, default=150)
    parser.add_argument("--teacher_width", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
