"""The table of levels for learning to train: what a family was to show on small data, and whether it did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raymeta.sweeps.records import Report, mean_and_interval

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
SOURCES = ("glyphs", "omniglot", "emoji")


class Family(NamedTuple):
    """Arms that were trained on the same seeds: the start of the files' names, and what the others are held against."""

    title: str
    files: str
    reference: str
    judged: str | None = None
    """the arm that a file with one answer is about; others answer for each arm"""


FAMILIES = (
    Family("wrong labels", "reweighting", "plain"),
    Family("architectures", "architectures", "random"),
    Family("changes of images", "augmentation", "random", "dada"),
    Family("teachers", "distillation", "fixed", "metadistil"),
    Family("unseen domains", "domains", "erm", "mldg"),
)


def levels_table() -> str:
    """A row for each arm of each family and source that was run."""
    lines = ["| what | data | arm | accuracy | beside its reference | level |", "|---|---|---|---|---|---|"]
    for family in FAMILIES:
        for source in SOURCES:
            path = RESULTS / f"{family.files}-{source}.json"
            if path.exists():
                content = json.loads(path.read_text(encoding="utf-8"))
                lines += _rows(family, f"[{source}](../results/benchmarks/{path.name})", content)
    return "\n".join(lines)


def _rows(family: Family, source: str, content: Mapping[str, Any]) -> Iterator[str]:
    met = content["met"] if family.judged is None else {family.judged: content["met"]}
    scores = content.get("means", content["scores"])  # over domains, where there are any
    reference = scores[family.reference]["values"]
    for arm, score in scores.items():
        apart = [one - other for one, other in zip(score["values"], reference, strict=True)]
        mean, ci95 = mean_and_interval([Report(0, value, 0.0) for value in apart])
        beside = "reference"
        if arm != family.reference:
            beside = f"{100 * mean:+.1f} ± {100 * ci95:.1f} of `{family.reference}`"
        level = {None: "", True: "reached", False: "missed"}[met.get(arm)]
        accuracy = f"{100 * score['mean']:.1f} ± {100 * score['ci95']:.1f}"
        yield f"| {family.title} | {source} | `{arm}` | {accuracy} | {beside} | {level} |"
