"""The benchmark compares equal gradients: ours by every path, plain torch, and the libraries that are installed."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.cnp import CNP
from raymeta.algorithms.imaml import IMAML
from raymeta.algorithms.leo import LEO
from raymeta.algorithms.maml import MAML
from raymeta.algorithms.mann import MANN
from raymeta.algorithms.matching import MatchingNet
from raymeta.algorithms.meta_curvature import MetaCurvature
from raymeta.algorithms.meta_lstm import MetaLSTM
from raymeta.algorithms.meta_sgd import MetaSGD
from raymeta.algorithms.pfn import PFN
from raymeta.algorithms.protonet import ProtoNet
from raymeta.algorithms.r2d2 import R2D2
from raymeta.algorithms.reptile import Reptile
from raymeta.bench import measure
from raymeta.bench.__main__ import main, table
from raymeta.bench.case import Case
from raymeta.bench.cases import CASES
from raymeta.bench.floor import floor, flops, has_floor
from raymeta.bench.measure import TOLERANCE, _distance
from raymeta.bench.ours import ours
from raymeta.bench.peers import available
from raymeta.config.catalogue import CATALOGUE
from raymeta.config.variants import name_of
from raymeta.models.conv4 import Conv4
from raymeta.models.mlp import MLP
from raymeta.tree import Params
from raymeta.views.pages.bench import bench_page
from raymeta.views.sources.bench import BenchSource

CPU = torch.device("cpu")


def small(algorithm: Algorithm) -> Case:
    return Case(
        name="small",
        algorithm=algorithm,
        model=Conv4(width=4),
        input_shape=(1, 28, 28),
        way=3,
        shot=1,
        query_shot=2,
        num_tasks=2,
    )


@pytest.mark.parametrize(
    "algorithm",
    [
        MAML(inner_lr=0.1),
        pytest.param(MAML(inner_lr=0.1, inner_steps=2, first_order=True), marks=pytest.mark.slow),
        ANIL(inner_lr=0.1, inner_steps=2),
        Reptile(inner_lr=0.1, inner_steps=2, inner_optimizer="sgd"),
        ProtoNet(),
        MetaSGD(inner_steps=2),
        MatchingNet(),
        R2D2(init_ridge=0.1),
        CNP(hidden=8),
        PFN(width=8, depth=1, heads=2, standardize=True),
    ],
    ids=["maml", "fomaml", "anil", "reptile", "protonet", "meta_sgd", "matching", "r2d2", "cnp", "pfn"],
)
def test_every_peer_has_our_gradient(algorithm: Algorithm) -> None:
    """In float64, where no unit is carried over a kink, to the last digits; JAX too, which leaves it only when told."""
    case = small(algorithm)
    assert _distance(ours(case, "vmap", CPU)(), ours(case, "loop", CPU)()) < TOLERANCE
    double = replace(case, dtype=torch.float64)
    expected = ours(double, "loop", CPU)()
    assert _distance(ours(double, "vmap", CPU)(), expected) < 1e-10
    peers = available(double)
    assert peers
    for name, peer in peers.items():
        try:
            gradient = peer(double, CPU)
        except NotImplementedError:
            continue
        assert _distance(gradient(), expected) < 1e-10, name


@pytest.mark.parametrize(
    ("single", "in_double", "problem"),
    [
        (1.05, 1.0, None),
        (1.05, 1.05, "another gradient: relative distance 0.05"),
        (1e30, 1.0, "another gradient: relative distance 1e+30"),
        (math.nan, 1.0, "another gradient: relative distance nan"),
    ],
)
def test_a_float32_gradient_a_little_off_is_judged_in_float64(
    single: float, in_double: float, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peer(case: Case, device: torch.device) -> Callable[[], Params]:
        scale = single if case.dtype == torch.float32 else in_double
        return lambda: {name: scale * value for name, value in ours(case, "loop", device)().items()}

    monkeypatch.setattr(measure, "available", lambda case: {"peer": peer})
    runs, problems, _ = measure.prepare(small(MAML()), CPU, ["peer"])
    assert problems == ({} if problem is None else {"peer": problem})
    assert list(runs) == (["peer"] if problem is None else [])


def test_methods_that_no_peer_has_are_measured_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert available(small(MetaCurvature())) == {}


def test_the_floor_counts_passes() -> None:
    second = flops(small(MAML(inner_steps=2)))
    first = flops(small(MAML(inner_steps=2, first_order=True)))
    # Two steps on 3 support images, three times at second order, and 6 queries once: 24 images against 12.
    assert second == 2 * first > 0
    assert flops(small(ANIL(inner_steps=2))) == second * 9 / 24, "the body sees 3 support images and 6 queries once"
    assert flops(small(LEO())) == flops(small(ProtoNet())) > 0, "its inner steps do not pass the body"
    assert flops(small(MetaLSTM(inner_steps=2))) == first, "its inner gradients are not differentiated"
    assert flops(small(IMAML(inner_steps=2, cg_steps=2))) == second, "a product with the Hessian costs two gradients"
    for algorithm in (ProtoNet(), Reptile()):
        for at_once in (True, False):
            floor(small(algorithm), CPU, at_once=at_once)()


def test_evaluation_has_the_losses_of_a_plain_loop() -> None:
    case = replace(small(MAML(inner_lr=0.1, inner_steps=2)), work="evaluation", dtype=torch.float64)
    (peer,) = available(case).values()
    expected = ours(case, "loop", CPU)()
    assert expected["loss"].shape == (2, 3)
    assert all(_distance(run(), expected) < 1e-10 for run in (ours(case, "vmap", CPU), peer(case, CPU)))
    _, problems, _ = measure.prepare(case, CPU, ["raymeta loop, compiled"])
    assert problems == {"raymeta loop, compiled": "NotImplementedError: only gradients are compiled"}
    assert not has_floor(case)


def test_episodes_are_equal_however_they_are_built() -> None:
    case = CASES["sinusoid-episodes"]
    both = [ours(case, path, CPU)() for path in ("vmap", "loop")]
    assert both[0]["support"].shape == (25, 10, 1)
    assert all(torch.equal(both[0][side], both[1][side]) for side in ("support", "query"))
    assert available(case) == {}


def test_a_method_that_is_not_of_passes_of_the_model_has_no_floor() -> None:
    tiny = MANN(hidden=4, memory_slots=4, memory_width=2, read_heads=1)
    result = measure.measure(
        replace(small(tiny), model=MLP(hidden=[])), CPU, rounds=1, paths=["raymeta loop"], memory=False
    )
    assert [row["path"] for row in result["rows"]] == ["raymeta loop"]
    assert "of_the_floor" not in result["rows"][0]
    assert "floor by arithmetic" not in table(result)


def test_a_table_and_a_file_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["raymeta vmap", "torch.func loop"]
    file = tmp_path / "bench.json"
    assert main(["sinusoid-maml", "--rounds", "2", "--paths", *paths, "--json", str(file)]) == 0
    told = capsys.readouterr().out
    assert "sinusoid-maml: 25 tasks a call" in told
    assert all(path in told for path in [*paths, "floor"])
    written = json.loads(file.read_text())
    assert (written["kind"], written["device"], written["rounds"]) == ("bench", "cpu", 2)
    assert written["command"] == f"raymeta bench sinusoid-maml --rounds 2 --paths {shlex.join(paths)} --json bench.json"
    assert written["hardware"]["cores"] == os.cpu_count()
    ours, theirs, floor_ = written["cases"][0]["rows"]
    assert [row["path"] for row in (ours, theirs, floor_)] == [*paths, "floor"]
    assert ours["best_peer"] == "torch.func loop"
    assert ours["peak_memory_mb"] > 1  # beyond this large process, which started the one that was measured
    page = bench_page("", [BenchSource(file, "bench.json")])
    assert [section["title"] for section in page["sections"]] == ["sinusoid-maml", "How it was measured"]
    shown = next(block for block in page["sections"][0]["blocks"] if block["type"] == "table")["rows"]
    assert {row[0]: row[3] for row in shown} == {
        row["path"]: pytest.approx(row["tasks_per_s"]["most"], rel=1e-3) for row in (ours, theirs, floor_)
    }


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    quick = ["sinusoid-maml", "--rounds", "1", "--paths", "raymeta loop"]
    assert main([*quick, "--json", str(tmp_path / "taken" / "bench.json")]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("wrong", [["moon"], ["--paths", "vmap, compiled"], ["sinusoid-maml", "--rounds", "0"]])
def test_wrong_arguments_are_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 2
    assert "raymeta bench:" in capsys.readouterr().err


def test_every_method_that_learns_from_tasks_is_a_case() -> None:
    measured = {name_of(case.algorithm) for case in CASES.values()}
    of_tasks = {name for name, about in CATALOGUE.items() if {"classification", "regression"} & set(about.goals)}
    assert measured == of_tasks


def test_every_case_can_be_built() -> None:
    for case in CASES.values():
        assert case.episodes().support.x.shape[0] == case.num_tasks
        assert list(case.module().parameters())


def test_a_gradient_in_float64_begins_where_the_one_in_float32_does() -> None:
    single = small(MetaSGD())  # whose rates are drawn
    double = replace(single, dtype=torch.float64)
    assert _distance(ours(single, "loop", CPU)(), ours(double, "loop", CPU)()) < 1e-4
