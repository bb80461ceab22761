"""Sweep files: everything wrong in them is told once and clearly, before anything is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raymeta.errors import ConfigError
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.file.space import Interval
from raymeta.sweeps.file.sweep import Sweep

GOOD = """\
base: glyphs-5w1s-maml
options: {steps: 40, model.width: 8, meta_batch_size: 2}
space:
  algorithm.inner_lr: {loguniform: [0.01, 1]}
report_every: 10
"""


def sweep_of(tmp_path: Path, text: str, check: bool = True) -> Sweep:
    (tmp_path / "x.yaml").write_text(text)
    return load_sweep(tmp_path / "x.yaml", check=check)


BAD = {
    "unknown key": (GOOD + "sample: 3\n", ["x.yaml:6", "sample", "did you mean samples"]),
    "no space": ("base: glyphs-5w1s-maml\n", ["space is missing"]),
    "space is a list": (GOOD.replace("  algorithm.inner_lr: {loguniform: [0.01, 1]}", "  - 1"), ["x.yaml:3", "space"]),
    "no YAML": (GOOD + "stop: {a\n", ["x.yaml:7", "no YAML"]),
    "a key twice": (GOOD + "report_every: 5\n", ["x.yaml:6", "given twice"]),
    "unknown option": (GOOD.replace("inner_lr", "inner_rl"), ["x.yaml:4", "algorithm.inner_rl", "inner_lr"]),
    "unknown domain": (GOOD.replace("loguniform", "lognormal"), ["x.yaml:4", "lognormal", "loguniform, uniform"]),
    "reversed range": (GOOD.replace("[0.01, 1]", "[1, 0.01]"), ["x.yaml:4", "LOW < HIGH"]),
    "log of zero": (GOOD.replace("0.01", "0"), ["x.yaml:4", "0 < LOW"]),
    "text in a range": (GOOD.replace("0.01", "low"), ["x.yaml:4", "loguniform"]),
    "low end outside the schema": (
        GOOD.replace("loguniform: [0.01, 1]", "uniform: [-1, 1]"),
        ["x.yaml:4", "algorithm.inner_lr -1", "≥ 0"],
    ),
    "high end outside the schema": (
        GOOD.replace("algorithm.inner_lr: {loguniform: [0.01, 1]}", "outer.momentum: {uniform: [0, 1.5]}"),
        ["x.yaml:4", "outer.momentum 1.5", "< 1"],
    ),
    "randint with fractions": (GOOD.replace("loguniform: [0.01, 1]", "randint: [1, 2.5]"), ["whole numbers"]),
    "empty choice": (GOOD.replace("loguniform: [0.01, 1]", "choice: []"), ["x.yaml:4", "choice"]),
    "a value twice": (GOOD.replace("loguniform: [0.01, 1]", "choice: [0.1, 0.1]"), ["x.yaml:4", "twice"]),
    "a key of another algorithm": (
        GOOD.replace("algorithm.inner_lr", "algorithm").replace(
            "{loguniform: [0.01, 1]}", "{choice: {protonet: {algorithm.inner_lr: {uniform: [0, 1]}}}}"
        ),
        ["x.yaml:4", "belongs to", "this run uses protonet"],
    ),
    "an option that does not exist": (
        GOOD.replace("algorithm.inner_lr: {loguniform: [0.01, 1]}", "model.norm: {choice: [batch, bacth]}"),
        ["x.yaml:4", "model.norm", "bacth"],
    ),
    "an architecture that cannot be built": (
        GOOD.replace("model.width: 8, ", "").replace(
            "algorithm.inner_lr: {loguniform: [0.01, 1]}",
            "model.norm: {choice: {batch: {}, group: {model.width: {choice: [8, 12]}}}}",
        ),
        ["x.yaml:4", "width 12", "groups 8"],
    ),
    "search for the budget": (
        GOOD.replace("algorithm.inner_lr: {loguniform: [0.01, 1]}", "steps: {choice: [5, 9]}"),
        ["x.yaml:4", "steps", "options"],
    ),
    "the sweep's own key": (GOOD.replace("steps: 40", "steps: 40, workers: 3"), ["x.yaml:2", "resources.workers"]),
    "unknown base": (GOOD.replace("base: glyphs", "base: glyfs"), ["x.yaml:1", "glyphs-5w1s-maml"]),
    "unknown scheduler": (GOOD + "scheduler: asah\n", ["x.yaml:6", "asah", "'asha'"]),
    "unknown scheduler argument": (
        GOOD + "scheduler: {name: asha, grace: 10}\n",
        ["x.yaml:6", "scheduler.grace", "did you mean grace_period"],
    ),
    "scheduler argument out of range": (
        GOOD + "scheduler: {name: asha, reduction_factor: 1}\n",
        ["x.yaml:6", "reduction_factor", "greater than 1"],
    ),
    "grace beyond the steps": (GOOD + "scheduler: {name: asha, grace_period: 50}\n", ["x.yaml:6", "50", "40 steps"]),
    "reports beyond the steps": (GOOD.replace("report_every: 10", "report_every: 50"), ["x.yaml:5", "50", "40 steps"]),
    "samples of nothing": (GOOD + "samples: 0\n", ["x.yaml:6", "samples", "greater than 0"]),
    "grid search over a range": (GOOD + "search: grid\n", ["x.yaml:", "algorithm.inner_lr is a range"]),
    "unknown search": (GOOD + "search: bayes\n", ["x.yaml:6", "bayes", "'tpe'"]),
    "evolution that never begins": (GOOD + "samples: 10\nsearch: evolution\n", ["x.yaml:6", "population of 20"]),
    "equal samples": (GOOD.replace("loguniform: [0.01, 1]", "grid: [0.1]") + "samples: 3\n", ["x.yaml:6", "equal"]),
    "metric of other tasks": (GOOD + "metric: val/mse\n", ["x.yaml:6", "val/accuracy"]),
    "the worst instead of the best": (GOOD + "mode: min\n", ["x.yaml:6", "worst"]),
    "architecture mutated": (
        GOOD.replace("report_every", "  model.width: {choice: [8, 16]}\nreport_every").replace("model.width: 8, ", "")
        + "samples: 4\nscheduler: {name: pbt, mutate: [model.width]}\n",
        ["x.yaml:8", "cannot mutate model.width"],
    ),
    "pbt with a search": (GOOD + "samples: 4\nscheduler: pbt\nsearch: tpe\n", ["x.yaml:8", "pbt", "tpe"]),
    "a GPU and a half": (GOOD + "resources: {gpus_per_worker: 1.5}\n", ["x.yaml:6", "resources.gpus_per_worker"]),
    "unknown resource": (GOOD + "resources: {worker: 2}\n", ["x.yaml:6", "did you mean workers"]),
    "a rule on nothing": (
        GOOD + "resources: {when: [{if: {model.layers: 3}, workers: 2}]}\n",
        ["x.yaml:6", "model.layers"],
    ),
    "no duration": (GOOD + "time_limit: soon\n", ["x.yaml:6", "time_limit", "1h30m"]),
    "text for a number": (GOOD + "concurrent: two\n", ["x.yaml:6", "concurrent", "integer"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sweep_file_gives_one_clear_error(name: str, tmp_path: Path) -> None:
    text, expected = BAD[name]
    with pytest.raises(ConfigError) as caught:
        sweep_of(tmp_path, text)
    message = str(caught.value)
    for piece in expected:
        assert piece in message, message
    assert len(message.splitlines()) == 1, message


def test_trials_are_compiled_where_that_is_asked_for_only(tmp_path: Path) -> None:
    long = GOOD.replace("steps: 40", "steps: 10000000")
    for text, compiled in ((long, False), (long.replace("steps:", "compile: true, steps:"), True)):
        sweep = sweep_of(tmp_path, text, check=False)
        assert sweep.config({"algorithm.inner_lr": 0.1}).compile is compiled


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("[0.01, 1]", "[1]") + "  # more\n"
    text = text.replace("report_every", "  model.width: {randint: [4]}\n  seed: 3\nreport_every")
    with pytest.raises(ConfigError) as caught:
        sweep_of(tmp_path, text)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["4", "5", "6"]


def spaces_of(tmp_path: Path, text: str) -> Sweep:
    return sweep_of(tmp_path, GOOD.replace("  algorithm.inner_lr: {loguniform: [0.01, 1]}\n", text), check=False)


CONDITIONAL = """\
  algorithm:
    choice:
      maml: {algorithm.inner_lr: {loguniform: [0.01, 1]}, algorithm.inner_steps: {randint: [1, 4]}}
      anil: {algorithm.inner_lr: {loguniform: [0.1, 0.5]}}
      protonet:
  outer.lr: {loguniform: [1e-4, 1e-2]}
  outer.optimizer: adam
"""


def test_keys_exist_only_under_their_choice(tmp_path: Path) -> None:
    sweep = spaces_of(tmp_path, CONDITIONAL)
    keys = {
        "maml": {"algorithm.inner_lr", "algorithm.inner_steps"},
        "anil": {"algorithm.inner_lr"},
        "protonet": set(),
    }
    seen = set()
    for i in range(40):
        point = sweep.space.draw(np.random.default_rng(i))
        seen.add(point["algorithm"])
        assert set(point) == {"algorithm", "outer.lr", "outer.optimizer"} | keys[point["algorithm"]]
        child = sweep.space.mutate(point, np.random.default_rng(i))
        assert set(child) == {"algorithm", "outer.lr", "outer.optimizer"} | keys[child["algorithm"]]
        before = point if child["algorithm"] == point["algorithm"] else {"algorithm": point["algorithm"]}
        assert sum(child[key] != value for key, value in before.items()) == 1, "exactly one change"
        config = sweep.config(point)
        assert config.outer.lr == point["outer.lr"]
    assert seen == set(keys)


@pytest.mark.parametrize(
    ("interval", "values"),
    [
        (Interval(0.001, 1.0, log=True), None),
        (Interval(-1.0, 1.0), None),
        (Interval(1, 4, step=1), {1, 2, 3, 4}),
        (Interval(8, 32, step=8), {8, 16, 24, 32}),
        (Interval(0.0, 1.0, step=0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
    ],
)
def test_draws_and_neighbours_stay_in_range_and_reach_both_ends(interval: Interval, values: set[float] | None) -> None:
    rng = np.random.default_rng(0)
    drawn = [interval.draw(rng) for _ in range(400)]
    near = [interval.neighbour(value, rng) for value in drawn]
    assert all(interval.low <= value <= interval.high for value in drawn + near)
    if values is not None:
        assert set(drawn) == values
        assert set(near) == values
        assert all(a != b for a, b in zip(drawn, near, strict=True))
        assert [type(v) for v in drawn] == [type(interval.low)] * 400
    elif interval.log:  # a third of the draws lies in each decade
        assert abs(sum(value < 0.01 for value in drawn) / 400 - 1 / 3) < 0.07


def test_grids_are_crossed_with_what_lies_under_them(tmp_path: Path) -> None:
    grids = CONDITIONAL.replace("choice:", "grid:").replace("outer.lr: {loguniform: [1e-4, 1e-2]}", "seed: 0")
    sweep = spaces_of(tmp_path, grids.replace("  seed: 0\n", "  outer.lr: {grid: [0.1, 0.2]}\n"))
    assert len(sweep.space.crossed()) == 3 * 2
    assert {(p["algorithm"], p["outer.lr"]) for p in sweep.space.crossed()} == {
        (a, lr) for a in ("maml", "anil", "protonet") for lr in (0.1, 0.2)
    }


@pytest.mark.parametrize(
    ("nested", "dotted"),
    [
        ("model: {width: {choice: [8, 16]}}", "model.width: {choice: [8, 16]}"),
        ("outer: {lr: {loguniform: [0.001, 0.1]}}", "outer.lr: {loguniform: [0.001, 0.1]}"),
        ("model: {width: 8, depth: {randint: [2, 4]}}", "model.width: 8\n  model.depth: {randint: [2, 4]}"),
        (
            "algorithm: {name: {choice: {maml: {algorithm: {inner_lr: {uniform: [0.1, 1]}}}, protonet: {}}}}",
            "algorithm: {choice: {maml: {algorithm.inner_lr: {uniform: [0.1, 1]}}, protonet: {}}}",
        ),
    ],
)
def test_a_nested_space_is_the_dotted_one(tmp_path: Path, nested: str, dotted: str) -> None:
    """As in a configuration, where both mean the same."""
    spaces = []
    for text in (nested, dotted):
        (tmp_path / "s.yaml").write_text(f"base: glyphs-5w1s-maml\nspace:\n  {text}\nsamples: 1\n")
        spaces.append([(d.key, d.domain) for d in load_sweep(tmp_path / "s.yaml", check=False).space.all()])
    assert [key for key, _ in spaces[0]] == [key for key, _ in spaces[1]]
    assert len(spaces[0]) > 0


def test_a_mistake_in_a_nested_space_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("space:\n  model:\n    width: {chioce: [8]}\n    model.width: 3\nsamples: 1\n")
    with pytest.raises(ConfigError, match=r"s\.yaml:3: model\.width is given chioce"):
        load_sweep(tmp_path / "s.yaml", check=False)
