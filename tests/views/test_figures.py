"""Figures say what the runs' files say; `load_run` gives frames, configuration, model, figures, a notebook view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raymeta
from raymeta.adaptation.picture_operations import OPERATIONS as CHANGES
from raymeta.api.checkpoints import best_checkpoint
from raymeta.api.evaluate import paired_difference
from raymeta.models.genotype import OPERATIONS
from raymeta.system.files import json_text
from raymeta.trackers.axes import AXES, AxisName
from raymeta.trackers.names import ARCHITECTURE, AUGMENTATION, OPERATION_SHARES, OPERATION_USES
from raymeta.trackers.scores import paired
from raymeta.views.figures import adaptation, comparison, episodes, learning, sweep
from raymeta.views.figures.adaptation import Course
from raymeta.views.figures.style import COLOURS, log_axis, look, text
from raymeta.views.figures.sweep import Trials
from raymeta.views.pages.compare import compare_page
from raymeta.views.pages.run import run_page
from raymeta.views.sources.run import RunSource
from raymeta.views.sources.sweep import SweepSource

LookedAt = tuple[Path, dict[str, Any]]


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("page", ["#ffffff", "#161a22"])
def test_lines_stand_out_on_white_and_on_the_dark_page(colour: str, page: str) -> None:
    low, high = sorted([luminance(colour), luminance(page)])
    assert (high + 0.05) / (low + 0.05) >= 3.0


def test_the_first_lines_differ_by_more_than_colour() -> None:
    looks = [look(i) for i in range(24)]
    assert len(set(looks)) == 24
    assert len({(style.dash, style.symbol) for style in looks}) == 24


def test_names_in_figures_stay_text() -> None:
    assert text("<b>&\n\x1b") == "&lt;b&gt;&amp;  "
    assert len(text("x" * 100, 10)) == 10


@pytest.mark.parametrize("kind", ["maml0", "protonet", "sine", "hostile", "failed", "lost"])
def test_every_figure_of_a_run_is_a_plotly_figure(kind: str, looked_at: LookedAt) -> None:
    """Plotly refuses unknown properties, so a misspelt one cannot pass."""
    figures = raymeta.load_run(looked_at[1][kind].path).figures()
    assert {"scores", "losses", "speed"} <= set(figures)
    for figure in figures.values():
        assert figure.layout.title.text
        assert figure.layout.meta["about"]


def test_curves_hold_the_numbers_of_the_run(looked_at: LookedAt) -> None:
    run = raymeta.load_run(looked_at[1]["maml0"].path)
    figures = run.figures()
    assert run.summary is not None
    low, high, by_step = figures["by_inner_step"].data
    assert list(by_step.y) == pytest.approx([100 * v for v in run.summary["by_inner_step"]])
    widths = [high.y[-1] - by_step.y[-1], by_step.y[-1] - low.y[-1]]
    assert widths == pytest.approx([100 * run.summary["headline"]["ci95"]] * 2)
    loss = figures["losses"].data[0]
    assert list(loss.x) == [row["step"] for row in run.metrics()] == list(range(1, 13))
    assert list(loss.y) == pytest.approx([row["train/query_loss"] for row in run.metrics()])
    after = next(trace for trace in figures["scores"].data if trace.name == "after adapting")
    assert list(after.y) == pytest.approx([100 * row["val/accuracy"] for row in run.metrics() if "val/accuracy" in row])


def test_a_run_without_validation_is_not_said_to_have_one() -> None:
    rows = [{"step": step, "train/query_accuracy": 0.5} for step in (1, 2)]
    chart = learning.scores(rows, [], axis=AXES["inner step"])
    assert chart["layout"]["meta"]["title"] == "Accuracy on training tasks"
    assert chart["layout"]["showlegend"]
    assert "Validation" not in chart["layout"]["meta"]["about"]
    assert "training tasks" in [trace["name"] for trace in chart["data"]]


def test_operations_are_drawn_as_they_are_called_in_architectures() -> None:
    rows = [{"step": step, "architecture/skip": 0.1 * step, "architecture/none": 0.5} for step in (1, 2)]
    chart = learning.architecture(rows)
    assert {trace["name"]: trace["y"] for trace in chart["data"]} == {"none": [0.5, 0.5], "skip": [0.1, 0.2]}
    assert [f"{ARCHITECTURE}{name}" for name in OPERATIONS] == list(OPERATION_SHARES)


def test_changes_of_images_are_drawn_in_per_cent_by_operation() -> None:
    rows = [{"step": step, "augmentation/rotate": 0.1 * step, "augmentation/invert": 0.5} for step in (1, 2)]
    chart = learning.augmentation(rows)
    assert {trace["name"]: trace["y"] for trace in chart["data"]} == {"rotate": [10, 20], "invert": [50, 50]}
    assert [f"{AUGMENTATION}{name}" for name in CHANGES] == list(OPERATION_USES)


def test_smoothing_keeps_a_constant_and_follows_a_jump() -> None:
    assert learning.smooth([3.0] * 50, 10) == pytest.approx([3.0] * 50)
    jump = learning.smooth([0.0] * 50 + [1.0] * 50, 10)
    assert jump[49] == 0 < jump[55] < jump[99] < 1


def test_a_break_in_a_curve_is_drawn_as_a_break() -> None:
    rows = [{"step": i, "train/query_loss": float("nan") if i == 50 else 1.0} for i in range(200)]
    (trace,) = learning.losses(rows)["data"]
    assert trace["y"][50] is None
    assert trace["y"][51] == 1.0


def test_log_axes_are_for_wide_ranges_of_positive_numbers() -> None:
    assert log_axis([0.001, 1.0])["type"] == "log"
    assert log_axis([0.5, 1.0]) == log_axis([0.0, 1e6]) == log_axis([]) == log_axis([-1, 100]) == {}


def test_paired_differences_are_those_of_evaluate(looked_at: LookedAt) -> None:
    runs = looked_at[1]
    first, second = (raymeta.meta_test(runs[name], episodes=20) for name in ("maml0", "maml1"))
    values = [e.to_json()["values"] for e in (first, second)]
    assert paired(*values) == pytest.approx(paired_difference(first, second))


def test_a_group_of_seeds_is_their_mean_and_range() -> None:
    curves = [comparison.Curve("a", "g", [1, 2, 3], [1, 2, 3]), comparison.Curve("b", "g", [1, 3], [3, 5])]
    low, high, mean = comparison.overlay(curves, metric="train/query_loss", grouped=True)["data"]
    assert (low["y"], mean["y"], high["y"]) == ([1, 2, 3], [2, 3, 4], [3, 4, 5])


def test_confidence_and_accuracy_of_an_episode_follow_its_file(looked_at: LookedAt) -> None:
    run = looked_at[1]["maml0"]
    path = min((run.path / "eval" / "episodes").glob("*.json"))
    episode = json.loads(path.read_text())
    right = np.array(episode["predicted"]) == np.array(episode["query_y"])
    assert episodes.accuracy_by_step(episode) == pytest.approx(right.mean(1))
    heat = episodes.sheet(episode)["data"][0]
    assert np.shape(heat["z"]) == (len(episode["query_y"]), len(episode["predicted"]))
    truth = episode["query_y"][7]
    assert heat["z"][7] == pytest.approx([100 * step[7][truth] for step in episode["probabilities"]])


def test_a_fit_runs_along_x_and_has_a_line_for_each_inner_step(looked_at: LookedAt) -> None:
    run = looked_at[1]["sine"]
    episode = json.loads(min((run.path / "eval" / "episodes").glob("*.json")).read_text())
    chart = episodes.fit(episode)
    assert all(trace["x"] == sorted(trace["x"]) for trace in chart["data"][:-1])
    assert [t["meta"]["inner_step"] for t in chart["data"] if "meta" in t] == [0, 1, 2, 3]
    assert len(episodes.score_by_step(episode)) == 4


def test_a_prediction_with_deviations_has_a_band_of_two_of_them() -> None:
    task = {"query_x": [[1.0], [0.0]], "query_y": [[5.0], [4.0]], "support_x": [[0.5]], "support_y": [[4.5]]}
    plain = {**task, "predicted": [[[5.5], [4.5]]]}
    low, high, *others = episodes.fit({**plain, "deviation": [[[0.5], [0.25]]]})["data"]
    assert (low["y"], high["y"]) == ([4.0, 4.5], [5.0, 6.5])
    assert high["fill"] == "tonexty"
    assert len(others) == len(episodes.fit(plain)["data"])


def trials(configs: list[dict[str, Any]], values: list[float], *, higher: bool = True) -> Trials:
    rows = [{"trial": str(i), "value": v, "config": c} for i, (c, v) in enumerate(zip(configs, values, strict=True))]
    return Trials(rows, list(configs[0]), higher, "accuracy")


def test_importance_finds_the_option_that_decides() -> None:
    generator = np.random.default_rng(0)
    draws = generator.uniform(size=(60, 2))
    configs = [{"lr": 10 ** (-4 * a), "noise": b, "kind": "ab"[i % 2]} for i, (a, b) in enumerate(draws)]
    found = sweep.importance(trials(configs, [float(np.log10(c["lr"])) for c in configs]))
    assert found["lr"] > 0.8
    assert found["noise"] < 0.15
    assert found["kind"] < 0.15
    assert sweep.importance(trials(configs, [0.0] * 60), {"lr": 0.7}) == {"lr": 0.7}


def test_parallel_coordinates_have_a_line_for_each_trial_and_a_place_for_each_option() -> None:
    configs = [{"lr": 10.0**-i, "norm": name} for i, name in enumerate(["batch", "none", "batch", "layer"])]
    chart = sweep.parallel(trials(configs, [0.1, 0.2, 0.3, 0.4]))
    assert [trace["meta"]["trial"] for trace in chart["data"]] == ["0", "1", "2", "3"]
    assert [trace["y"][0] for trace in chart["data"]] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [trace["y"][1] for trace in chart["data"]] == [0, 1, 0, 0.5]
    assert all(trace["type"] == "scatter" for trace in chart["data"])  # SVG: no WebGL, no evaluated code


def test_contours_have_their_extremes_near_the_trials(looked_at: LookedAt) -> None:
    configs = [{"a": 10.0**i, "b": float(j)} for i in range(4) for j in range(4)]
    chart = sweep.contour(trials(configs, [i * j / 9 for i in range(4) for j in range(4)]), "a", "b")
    surface, points = chart["data"]
    z = np.array(surface["z"])
    assert chart["layout"]["xaxis"]["type"] == "log"
    assert np.unravel_index(z.argmax(), z.shape) == (29, 29)
    assert max(points["marker"]["color"]) == pytest.approx(100)


def test_every_figure_of_a_sweep_is_a_plotly_figure(looked_at: LookedAt) -> None:
    view = raymeta.SweepView(looked_at[0] / "sweeps" / "2026-11-20_0930_rates_abcd")
    figures = view.figures()
    assert {"parallel", "history", "importance", "curves", "against:outer.lr"} <= set(figures)
    assert any(name.startswith("contour:algorithm.inner_lr") for name in figures)
    assert len(figures["parallel"].data) == 5  # the failed one has no score
    frame = view.frame()
    assert len(frame) == 6
    assert frame["algorithm.inner_lr"].tolist() == pytest.approx([0.001 * 3**i for i in range(6)])
    assert "<table>" in view._repr_html_()


def test_trials_read_the_same_from_the_summary_and_from_the_table(looked_at: LookedAt, tmp_path: Path) -> None:
    folder = looked_at[0] / "sweeps" / "2026-11-20_0930_rates_abcd"
    (tmp_path / "trials.csv").write_bytes((folder / "trials.csv").read_bytes())
    assert SweepSource(tmp_path).trials() == SweepSource(folder).trials()


def test_spread_marks_the_means() -> None:
    chart = adaptation.spread([0.2, 0.4], before=0.1, axis=AXES["inner step"])
    assert [shape["x0"] for shape in chart["layout"]["shapes"]] == pytest.approx([30, 10])
    assert [shape["x0"] for shape in adaptation.spread([0.2, 0.4])["layout"]["shapes"]] == pytest.approx([30])


def test_a_method_without_inner_steps_is_a_level_line_beside_the_others() -> None:
    courses = [Course("maml", [0.2, 0.5, 0.6], [0.01, 0.02, 0.03], place=2), Course("protonet", [0.4], [0.05], place=0)]
    chart = adaptation.by_inner_step(courses)
    lines = {trace["name"]: trace for trace in chart["data"] if trace.get("hoverinfo") != "skip"}
    assert lines["maml"]["y"] == pytest.approx([20, 50, 60])
    assert lines["protonet (no inner steps)"]["y"] == pytest.approx([40, 40, 40])
    assert [trace["line"]["color"] for trace in lines.values()] == [look(2).colour, look(0).colour]
    assert chart["layout"]["showlegend"]


@pytest.mark.parametrize(("name", "first", "title"), [("inner step", 0, "inner step"), ("instance", 1, "instance")])
def test_places_are_counted_and_named_as_the_axis_says(name: AxisName, first: int, title: str) -> None:
    chart = adaptation.by_inner_step([Course("a", [0.1, 0.2, 0.3])], axis=AXES[name])
    assert chart["data"][-1]["x"] == [first, first + 1, first + 2]
    assert chart["layout"]["xaxis"]["title"]["text"].startswith(title)


def test_curves_have_bands_where_intervals_are_known_and_shares_an_axis_from_zero() -> None:
    curves = [
        comparison.Curve("a", "g", [1, 2], [0.5, 0.6], [0.1, 0.2], place=3),
        comparison.Curve("b", "g", [1, 2], [0.5, 0.6], place=1),
    ]
    chart = comparison.overlay(curves, metric="val/accuracy")
    low, high, first, second = chart["data"]
    assert (low["y"], high["y"]) == (pytest.approx([40, 40]), pytest.approx([60, 80]))
    assert [first["line"]["color"], second["line"]["color"]] == [look(3).colour, look(1).colour]
    assert chart["layout"]["yaxis"]["rangemode"] == "tozero"


def test_a_run_looks_alike_in_every_figure_of_a_comparison(looked_at: LookedAt) -> None:
    """Also where an earlier run has no score and no curve."""
    names = ("failed", "maml0", "protonet", "maml1")
    page = compare_page([RunSource(looked_at[1][name].path) for name in names], metric="val/accuracy")
    blocks = {block["key"]: block for section in page["sections"] for block in section["blocks"] if "key" in block}
    for key in ("overlay", "by_inner_step", "headlines", "paired"):
        drawn = [trace for trace in blocks[key]["spec"]["data"] if trace.get("hoverinfo") != "skip"]
        colours = [trace.get("line", trace.get("marker"))["color"] for trace in drawn]
        places = {"paired": (2, 3)}.get(key, (1, 2, 3))
        assert colours == [look(place).colour for place in places], key
    ended = {row[0]: row[1:3] for row in blocks["endings"]["rows"]}
    assert ["finished", "12 of 12"] in ended.values()
    assert any(how == "failed" for how, _ in ended.values())


@pytest.mark.parametrize(("kind", "adapts"), [("maml0", True), ("protonet", False)])
def test_only_methods_with_inner_steps_are_told_of_adapting(kind: str, adapts: bool, looked_at: LookedAt) -> None:
    page = json_text(run_page(RunSource(looked_at[1][kind].path), picture=lambda path: ""))
    configured = json_text([s for s in json.loads(page)["sections"] if s["id"] not in ("configuration", "log")])
    assert ("adapting" in configured) == adapts


def test_options_drawn_by_logarithm_are_drawn_on_that_scale() -> None:
    configs = [{"lr": 0.1, "width": 8}, {"lr": 0.2, "width": 16}, {"lr": 0.4, "width": 24}]
    plain = trials(configs, [0.1, 0.2, 0.3])
    told = plain._replace(logarithmic=frozenset({"lr"}))
    assert sweep.against_score(plain, "lr")["layout"]["xaxis"].get("type") is None
    assert sweep.against_score(told, "lr")["layout"]["xaxis"]["type"] == "log"
    assert sweep.contour(told, "width", "lr")["layout"]["yaxis"]["type"] == "log"
    assert [trace["y"][0] for trace in sweep.parallel(told)["data"]] == pytest.approx([0, 0.5, 1])
    assert [trace["y"][0] for trace in sweep.parallel(plain)["data"]] == pytest.approx([0, 1 / 3, 1])


def test_a_sweeps_file_says_which_options_were_drawn_by_logarithm(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "space:\n  algorithm: {choice: {maml: {algorithm.inner_lr: {loguniform: [0.1, 1]}}, protonet: null}}\n"
        "  outer.lr: {loguniform: [0.1, 1]}\n  model.width: {uniform: [1, 2]}\n"
    )
    assert SweepSource(tmp_path).logarithmic == {"algorithm.inner_lr", "outer.lr"}
    (tmp_path / "sweep.yaml").write_text("space: 3\n")
    assert SweepSource(tmp_path).logarithmic == frozenset()


def test_load_run_gives_frames_configuration_and_the_trained_model(looked_at: LookedAt) -> None:
    run = raymeta.load_run(looked_at[1]["maml0"].path)
    frames = run.frames()
    assert list(frames["metrics"]["step"]) == list(range(1, 13))
    assert list(frames["validations"]["step"]) == [3, 6, 9, 12]
    assert frames["tests"]["score"].mean() == pytest.approx((run.summary or {})["headline"]["value"])
    assert set(frames["workers"]["name"]) == {"in-process"}
    assert "finished" in set(frames["events"]["kind"])
    assert run.config["algorithm"]["name"] == "maml"
    params = best_checkpoint(run).learned.params
    model = dict(run.model().named_parameters())
    assert set(model) == set(params)
    assert all(torch.equal(model[name], params[name]) for name in params)
    assert len(run.episode_figures()) == len(run.episodes()) == 6
    assert [item["rank"] for item in run.episodes()] == sorted(item["rank"] for item in run.episodes())


def test_the_notebook_view_is_html_without_scripts(looked_at: LookedAt) -> None:
    shown = raymeta.load_run(looked_at[1]["maml0"].path)._repr_html_()
    assert "data:image/png;base64," in shown
    assert "<script" not in shown
    hostile = raymeta.load_run(looked_at[1]["hostile"].path)._repr_html_()
    assert "<img src=x" not in hostile
    assert "&lt;img src=x" in hostile
