"""Which configurations a sweep tries: what is drawn, evolved and estimated, and how repeats are ranked. No Ray."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymeta.errors import DataError
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.file.schema import StopRules
from raymeta.sweeps.file.space import Choice, Dimension, Option, Point, Space, Tried
from raymeta.sweeps.file.sweep import Sweep
from raymeta.sweeps.records import Record, Records, Report, mean_and_interval, trial_id
from raymeta.sweeps.resources import require_fit, share_of
from raymeta.sweeps.search.evolution import Evolution
from raymeta.sweeps.search.proposer import Listed, Proposer, proposer
from raymeta.sweeps.search.tpe import importance
from raymeta.tasks import Perceptrons

OPERATIONS = ("zero", "skip", "conv")
EDGES = ("0-1", "0-2", "0-3", "1-2", "1-3", "2-3")


def cell_space() -> Space:
    """All cells of four nodes: one of three operations on each of the six edges."""
    choice = Choice(tuple(Option(name, Space()) for name in OPERATIONS))
    return Space(tuple(Dimension(edge, choice, "here", edge) for edge in EDGES))


def cell_table() -> dict[tuple[str, ...], float]:
    """A synthetic task that is evaluated once for all 729 cells: how well a path of operations fits a target map."""
    rng = np.random.default_rng(7)
    weights = {edge: rng.normal(size=(4, 4)) / 2 for edge in EDGES}
    x, target = rng.normal(size=(4, 32)), rng.normal(size=(4, 32))
    table = {}
    for cell in itertools.product(OPERATIONS, repeat=6):
        nodes = [x]
        for j in (1, 2, 3):
            total = np.zeros_like(x)
            for i in range(j):
                operation = cell[EDGES.index(f"{i}-{j}")]
                total += {"zero": 0 * x, "skip": nodes[i], "conv": np.tanh(weights[f"{i}-{j}"] @ nodes[i])}[operation]
            nodes.append(total)
        table[cell] = -float(((nodes[3] - target) ** 2).mean())
    return table


def run_search(search: Proposer, score: Callable[[Point], float]) -> list[Tried]:
    history: list[Tried] = []
    while len(history) < search.total:
        point = search.propose(history)
        assert point is not None
        history.append(Tried(point, score(point)))
    return history


def test_evolution_reaches_the_top_percent_of_a_tabular_space() -> None:
    table = cell_table()
    best = sorted(table.values(), reverse=True)
    assert len(best) == 3**6
    threshold = best[math.ceil(0.01 * len(best)) - 1]
    found = []
    for seed in range(10):
        search = Evolution(cell_space(), total=150, seed=seed, population=25, tournament=8)
        history = run_search(search, lambda point: table[tuple(point[edge] for edge in EDGES)])
        found.append(max(tried.score or -math.inf for tried in history) >= threshold)
    # Random search with 150 of 729 would get there with probability 1 - (1 - 8/729)^150 = 81 %.
    assert sum(found) == 10


def test_evolution_finds_the_best_of_real_networks_as_the_method_does() -> None:
    """Among 4,096 perceptrons, in 320 evaluations the best of all or one of the four next to it."""
    cells, accuracies = Perceptrons().table()
    table = {tuple(cell): float(a) for cell, a in zip(cells.int().tolist(), accuracies[:, 0], strict=True)}
    choice = Choice(tuple(Option(value, Space()) for value in range(4)))
    space = Space(tuple(Dimension(str(edge), choice, "here", str(edge)) for edge in range(6)))
    best = sorted(table.values(), reverse=True)
    for seed in range(3):
        search = Evolution(space, total=320, seed=seed, population=40, tournament=10)
        history = run_search(search, lambda point: table[tuple(point[str(edge)] for edge in range(6))])
        assert max(tried.score or 0 for tried in history) >= best[4]


def test_evolution_forgets_the_oldest_whatever_its_score() -> None:
    search = Evolution(cell_space(), total=60, seed=0, population=10, tournament=10)
    points = [search.propose([Tried({}, None)] * i) for i in range(10)]
    history = [Tried(point or {}, 100.0 if i < 5 else 1.0) for i, point in enumerate(points)]
    for m in range(1, 30):
        child = search.propose(history)
        assert child is not None
        alive = history[-10:]
        assert list(search.alive(len(history))) == list(range(len(history) - 10, len(history)))
        parent = max(range(len(alive)), key=lambda i: (alive[i].score or 0, i))
        assert sum(child[edge] != alive[parent].point[edge] for edge in EDGES) == 1, "one change from the best alive"
        history.append(Tried(child, 1.0))
        if m >= 5:
            assert all(tried.score == 1.0 for tried in history[-10:]), "the five best died of age"


def test_evolution_waits_for_its_population_and_does_not_depend_on_who_ends_first() -> None:
    search = Evolution(cell_space(), total=60, seed=3, population=6, tournament=3, lag=3)
    table = cell_table()
    history: list[Tried] = []
    while len(history) < 40:
        point = search.propose(history)
        assert point is not None
        history.append(Tried(point, table[tuple(point[edge] for edge in EDGES)]))
        running = [Tried(t.point, None) if i >= len(history) - 2 else t for i, t in enumerate(history)]
        assert search.propose(running) == search.propose(history), "two others may still be running"
    waiting = [Tried(t.point, None) if i == len(history) - 4 else t for i, t in enumerate(history)]
    assert search.propose(waiting) is None


def sweep_of(tmp_path: Path, text: str) -> Sweep:
    (tmp_path / "s.yaml").write_text("base: glyphs-5w1s-maml\noptions: {steps: 10}\nreport_every: 5\n" + text)
    return load_sweep(tmp_path / "s.yaml", check=False)


RATES = """\
space:
  algorithm:
    choice:
      maml: {algorithm.inner_lr: {loguniform: [0.001, 1]}}
      protonet:
  outer.lr: {loguniform: [1e-4, 1e-1]}
"""


def good_near_a_tenth(point: Point) -> float:
    """Best at MAML with an inner rate of 0.1."""
    if point["algorithm"] == "protonet":
        return 0.2
    return 1 - 0.1 * abs(math.log10(point["algorithm.inner_lr"] / 0.1)) - 0.01 * abs(math.log10(point["outer.lr"]))


def test_random_points_depend_on_seed_and_index_only(tmp_path: Path) -> None:
    few = run_search(proposer(sweep_of(tmp_path, RATES + "samples: 4\n")), good_near_a_tenth)
    many = run_search(proposer(sweep_of(tmp_path, RATES + "samples: 9\n")), lambda point: 0.0)
    other = run_search(proposer(sweep_of(tmp_path, RATES + "samples: 4\nseed: 1\n")), good_near_a_tenth)
    assert [t.point for t in few] == [t.point for t in many[:4]]
    assert [t.point for t in few] != [t.point for t in other]


def test_the_parzen_estimator_beats_random_search_and_is_a_function_of_its_history(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    sweep = sweep_of(tmp_path, RATES + "samples: 40\nsearch: {name: tpe, startup: 8}\n")
    history = run_search(proposer(sweep), good_near_a_tenth)
    again = proposer(sweep)
    assert [again.propose(history[:i]) for i in range(0, 40, 7)] == [history[i].point for i in range(0, 40, 7)]
    late = [tried.score or 0 for tried in history[-15:]]
    random = run_search(proposer(sweep_of(tmp_path, RATES + "samples: 40\n")), good_near_a_tenth)
    assert np.mean(late) > np.mean([tried.score or 0 for tried in random]) + 0.05
    running = [*history[:20], Tried(history[20].point, None), Tried(history[21].point, -math.inf)]
    assert again.propose(running) is not None


def test_importance_names_the_key_that_matters(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    sweep = sweep_of(tmp_path, "space:\n  outer.lr: {loguniform: [1e-4, 1]}\n  meta_batch_size: {randint: [1, 8]}\n")
    points = [sweep.space.draw(np.random.default_rng(i)) for i in range(60)]
    history = [Tried(p, -abs(math.log10(p["outer.lr"]) + 2) + 0.001 * p["meta_batch_size"]) for p in points]
    found = importance(sweep.space, history)
    assert list(found) == ["outer.lr", "meta_batch_size"]
    assert found["outer.lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert importance(sweep.space, history[:3]) == {}


def test_repeats_are_ranked_by_their_mean_with_students_interval(tmp_path: Path) -> None:
    records = Records(tmp_path / "records", repeats=3)
    scores = {0: (0.5, 0.6, 0.7), 1: (0.9, 0.1, 0.2), 2: (0.65, 0.65, 0.65)}
    for index, values in scores.items():
        for repeat, value in enumerate(values):
            record = records.new(index, repeat, {"seed": index})
            record.status, record.reports = "finished", [Report(10, value, 0.01)]
    ranking = records.ranking(1, 10)
    assert [ranked.number for ranked in ranking] == [2, 0, 1]
    assert ranking[1].score == pytest.approx(0.6)
    assert ranking[1].ci95 == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert [r.number for r in records.ranking(-1, 10)] == [1, 0, 2]
    assert mean_and_interval([Report(1, 0.5, 0.02)]) == (0.5, 0.02)
    records.by_id["0002-1"].status = "stopped early"
    assert [ranked.number for ranked in records.ranking(1, 10)] == [0, 1, 2], "what did not finish stands behind"
    records.by_id["0000-0"].status = "running"
    assert [tried.score for tried in records.history(1)] == [None, pytest.approx(0.4), pytest.approx(0.65)]


def test_records_survive_the_disk(tmp_path: Path) -> None:
    records = Records(tmp_path / "records", repeats=1)
    record = records.new(0, 0, {"model.hidden": [40, 40], "outer.lr": 0.1})
    record.reports = [Report(5, math.nan, math.inf)]
    records.save(record)
    again = Records.load(tmp_path / "records", 1).by_id["0000"]
    assert math.isnan(again.reports[0].score)
    assert again.reports[0].ci95 == math.inf
    assert again.point == record.point
    assert isinstance(again, Record)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_deleted_record_is_that_trial_again_and_touches_no_other(repeats: int, tmp_path: Path) -> None:
    """«Delete it to run this trial again» is what a damaged record says."""
    from ray.tune.search import Searcher

    from raymeta.sweeps.tune.searcher import TuneSearcher, unfinished
    from raymeta.sweeps.tune.stopping import Interruption

    points: list[Point] = [{"outer.lr": 0.1 * i} for i in range(4)]
    records = Records(tmp_path / "records", repeats)
    for i, repeat in itertools.product(range(4), range(repeats)):
        record = records.new(i, repeat, points[i])
        record.status, record.reports = "finished", [Report(10, 0.5, 0.1)]
        records.save(record)
    gone = trial_id(1, repeats - 1, repeats)
    (tmp_path / "records" / f"{gone}.json").unlink()
    records = Records.load(tmp_path / "records", repeats)
    feed = TuneSearcher(records, Listed(tuple(points)), 1, Interruption(tmp_path, None))
    assert feed.suggest("a") == {"trial": {"id": gone, "index": 1, "repeat": repeats - 1, "point": points[1]}}
    assert feed.suggest("b") == Searcher.FINISHED
    assert [record["id"] for record in unfinished(records)] == [gone]
    assert len(records.by_id) == 4 * repeats


@pytest.mark.parametrize(
    "change",
    [
        {"status": "done"}, {"reports": [["a", "b", "c"]]}, {"reports": [[1]]}, {"reports": 3}, {"point": []},
        {"id": "0001"}, {"index": "0"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_record_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    Records(tmp_path / "records", 1).new(0, 0, {"outer.lr": 0.1})
    path = tmp_path / "records" / "0000.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=r"0000\.json cannot be read"):
        Records.load(tmp_path / "records", 1)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"0000\.json cannot be read: it is no JSON object"):
        Records.load(tmp_path / "records", 1)


def test_patience_counts_from_the_best_finite_score(tmp_path: Path) -> None:
    from raymeta.sweeps.tune.stopping import Interruption, SweepStopper

    records = Records(tmp_path / "records", 1)
    record = records.new(0, 0, {})
    record.reports = [Report(1, math.nan, math.inf), Report(2, 0.5, 0.1)]
    stopper = SweepStopper(StopRules(patience=2), 1, records, Interruption(tmp_path, None))
    assert not stopper("0000", {"id": "0000", "step": 3, "score": 0.6})
    record.reports += [Report(3, 0.6, 0.1), Report(4, 0.5, 0.1)]
    assert stopper("0000", {"id": "0000", "step": 5, "score": 0.5})


GPUS = """\
space:
  model:
    choice:
      conv4: {model.width: {choice: [16, 64]}}
      resnet12:
resources:
  gpus_per_worker: 1
  when:
    - {if: {model: resnet12}, workers: 4}
    - {if: {model.width: [64, 128]}, workers: 2}
"""


def test_gpus_follow_the_architecture(tmp_path: Path) -> None:
    from raymeta.engine.executors.placement import Node
    from raymeta.errors import EnvironmentProblem

    sweep = sweep_of(tmp_path, GPUS)
    points: list[Point] = [{"model": "conv4", "model.width": 16}, {"model": "conv4", "model.width": 64}]
    shares = [share_of(sweep.file.resources, sweep.config(p)) for p in [*points, {"model": "resnet12"}]]
    assert [share.workers for share in shares] == [1, 2, 4]
    assert shares[2].bundles == [{}, *[{"CPU": 1.0, "GPU": 1.0}] * 4], "the trial's driver takes nothing"
    node = {"CPU": 8.0, "GPU": 2.0}
    require_fit(sweep, [Node("a", node, {}), Node("b", node, {})])
    with pytest.raises(EnvironmentProblem, match=r"resnet12.*4 workers x 1 GPU and 1 CPU asked, 2 GPUs.*room for 2"):
        require_fit(sweep, [Node("a", node, {})])


def test_searchers_of_ray_are_told_scores_and_stay_in_the_space(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from raymeta.errors import ConfigError, EnvironmentProblem

    text = """\
space:
  outer.lr: {loguniform: [1e-4, 1]}
  meta_batch_size: {randint: [1, 8]}
  model.width: {quniform: [8, 32, 8]}
  model.norm: {choice: [batch, group]}
  outer.optimizer: adam
samples: 30
search: {name: NAME, options: {OPTIONS}}
"""
    sweep = sweep_of(tmp_path, text.replace("NAME", "optuna").replace("OPTIONS", "seed: 1"))
    history = run_search(proposer(sweep), lambda point: -abs(math.log10(point["outer.lr"]) + 2))
    for tried in history:
        assert sweep.config(tried.point).outer.lr == tried.point["outer.lr"]
        assert tried.point["model.width"] in (8, 16, 24, 32)
        assert isinstance(tried.point["meta_batch_size"], int)
    first, last = ([tried.score or 0 for tried in part] for part in (history[:10], history[-10:]))
    assert np.mean(last) > np.mean(first), "it learned from the scores"
    resumed = proposer(sweep).propose(history[:12])
    assert resumed is not None
    with pytest.raises(ConfigError, match="no argument sede"):
        proposer(sweep_of(tmp_path, text.replace("NAME", "optuna").replace("OPTIONS", "sede: 1")))
    with pytest.raises(EnvironmentProblem, match="hyperopt"):
        proposer(sweep_of(tmp_path, text.replace("NAME", "hyperopt").replace("OPTIONS", "")))
