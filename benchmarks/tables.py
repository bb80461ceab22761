"""A transformer that has seen made-up tables alone, on five tables of scikit-learn, beside three of its methods.

    python benchmarks/tables.py --time-limit 20m --steps 15000    # with two workers; a minute of tests after it

The preset tabular-pfn is trained with two and three classes. Then each table is split 20 times into a support set of
100 rows and the others, of which every method is asked: the transformer by `raymeta adapt`, as anyone would use it, and
the others with their defaults. Losses are of probabilities that are at least 0.001. Writes
results/benchmarks/tables.json. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from budget import trained
from numpy.typing import NDArray
from record import record

import raymeta
from raymeta.api.evaluate import meta_test
from raymeta.config.load import load_config
from raymeta.config.schema import seconds
from raymeta.trackers.scores import half_width, paired
from raymeta.use.adapted import adapt_to_source

SUPPORT, SPLITS, LEAST = 100, 20, 0.001
PRESET = "tabular-pfn"
TRAINING: dict[str, Any] = {"tasks.way": 3, "tasks.train_ways": [2, 3]}
OURS = "pfn"
Probabilities = NDArray[np.float64]


class Table(NamedTuple):
    """Rows [n, d] with their classes [n] as numbers from 0."""

    x: Probabilities
    y: NDArray[np.int64]
    about: str

    def split(self, seed: int) -> tuple[Table, Table]:
        """A support set that has every class, and the other rows."""
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(self.y))
            support, query = order[:SUPPORT], order[SUPPORT:]
            if len(set(self.y[support])) == len(set(self.y)):
                return Table(self.x[support], self.y[support], ""), Table(self.x[query], self.y[query], "")


Method = Callable[[Table, Table], Probabilities]
"""From a support set and queries to the probability of each class of each query."""


def tables() -> dict[str, Table]:
    """Those of scikit-learn that have a few hundred rows."""
    from sklearn import datasets

    found = {
        name: Table(*getattr(datasets, f"load_{name}")(return_X_y=True), "") for name in ("iris", "wine", "digits")
    }
    cancer, diabetes = (getattr(datasets, f"load_{n}")(return_X_y=True) for n in ("breast_cancer", "diabetes"))
    kept = np.isin(found["digits"].y, (3, 5, 8))
    digits = Table(found["digits"].x[kept], np.searchsorted((3, 5, 8), found["digits"].y[kept]), "only 3, 5 and 8")
    above = (diabetes[1] > np.median(diabetes[1])).astype(np.int64)
    return found | {
        "digits": digits,
        "breast cancer": Table(*cancer, ""),
        "diabetes": Table(diabetes[0], above, "whether the disease goes on faster than in the median"),
    }


def rivals() -> dict[str, Method]:
    """Methods of scikit-learn on standardised columns, with their defaults."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def method(make: Callable[[], Any]) -> Method:
        return lambda s, q: make_pipeline(StandardScaler(), make()).fit(s.x, s.y).predict_proba(q.x)

    return {
        "5 nearest neighbours": method(KNeighborsClassifier),
        "logistic regression": method(lambda: LogisticRegression(max_iter=1000)),
        "random forest": method(lambda: RandomForestClassifier(random_state=0)),
    }


def in_context(model: Any, place: Path) -> Method:
    """What `raymeta adapt RUN --support support.csv` and `raymeta predict` do."""

    def answer(support: Table, query: Table) -> Probabilities:
        rows = [dict(enumerate_columns(x), label=y) for x, y in zip(support.x, support.y, strict=True)]
        with (place / "support.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        adapted = adapt_to_source(model, place / "support.csv")
        x = adapted.model.reader.read([dict(enumerate_columns(row)) for row in query.x])
        found: Probabilities = adapted.probabilities(x).numpy()
        return found

    return answer


def enumerate_columns(x: Any) -> list[tuple[str, float]]:
    """A row's values with the names of their columns."""
    return [(f"x{place}", float(value)) for place, value in enumerate(x)]


def scored(table: Table, methods: dict[str, Method]) -> dict[str, Any]:
    """Accuracy and loss of each method over the splits, and ours beside the others on the same ones."""
    of: dict[str, dict[str, list[float]]] = {name: {"accuracy": [], "loss": [], "seconds": []} for name in methods}
    for seed in range(SPLITS):
        support, query = table.split(seed)
        for name, method in methods.items():
            began = time.perf_counter()
            found = method(support, query)
            told = found[np.arange(len(query.y)), query.y]
            values = (float((found.argmax(1) == query.y).mean()), float(-np.log(np.maximum(told, LEAST)).mean()))
            for key, value in zip(of[name], (*values, time.perf_counter() - began), strict=True):
                of[name][key].append(value)
    return {name: summary(values, None if name == OURS else of[OURS]) for name, values in of.items()}


def summary(values: dict[str, list[float]], ours: dict[str, list[float]] | None) -> dict[str, Any]:
    """Means with 95 % intervals over splits; with `ours`, how much more we have."""
    row: dict[str, Any] = {"seconds": float(np.median(values["seconds"]))}
    for key in ("accuracy", "loss"):
        row[key], row[f"{key}_ci95"] = float(np.mean(values[key])), half_width(np.array(values[key]))
        row[f"{key}_of_splits"] = values[key]
        if ours is not None:
            row[f"{key}_ours_more"], row[f"{key}_ours_more_ci95"] = paired(values[key], ours[key])
    return row


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", default="20m", help="of the training [20m]; with --workers 0 of the processor")
    parser.add_argument("--steps", type=int, help="outer steps over which the rate falls [those of the preset]")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = TRAINING | {"workers": asked.workers, "output": place, "device": "cpu", "validate_every": 0}
        options |= {} if asked.steps is None else {"steps": asked.steps}
        done = trained(load_config(preset=PRESET, overrides=options).config, seconds(asked.time_limit))
        made_up = meta_test(done.run, episodes=1000, workers=asked.workers).headline
        methods = {OURS: in_context(raymeta.from_pretrained(done.run.path), Path(place)), **rivals()}
        rows = {}
        for name, table in tables().items():
            rows[name] = {"classes": len(set(table.y)), "rows": len(table.y), "columns": table.x.shape[1]}
            rows[name] |= {"about": table.about, "methods": scored(table, methods)}
            print(name, {m: round(row["accuracy"], 3) for m, row in rows[name]["methods"].items()}, flush=True)
    content = {"trained": {"preset": PRESET, **TRAINING}, "workers": asked.workers}
    content |= {"seconds": done.seconds, "counted": "clock" if asked.workers else "processor"}
    content |= {"steps": done.state.step, "steps_asked": done.config.steps, "made_up_tables": made_up._asdict()}
    content |= {"support_rows": SUPPORT, "splits": SPLITS, "least_probability": LEAST, "tables": rows}
    print(f"wrote {record('tables', content)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
