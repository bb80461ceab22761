"""Adapting a trained model to somebody's own classes: what it answers, and how far it says to trust that."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import raymeta
from raymeta import adapt, predict
from raymeta.errors import ConfigError
from raymeta.runs.read import Run
from raymeta.use.adapted import Adapted, adapt_to, adapt_to_source
from raymeta.use.opening import open_model
from raymeta.use.pretrained import Pretrained
from raymeta.use.trust import HeldOut, calibrated, held_out, interval

SHAPES = ("circle", "square", "cross", "plus", "bars", "vee")
TRAINED: dict[str, dict[str, Any]] = {
    "maml": {"algorithm.inner_lr": 0.1, "algorithm.inner_steps": 2},
    "anil": {"algorithm.inner_lr": 0.1, "algorithm.inner_steps": 2},
    "protonet": {},
    "r2d2": {},
    "meta_sgd": {},
    "reptile": {"algorithm.test_inner_steps": 5},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A small run of each method, far from converged."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"tasks": "glyphs", "tasks.train_classes": 60, "tasks.val_classes": 10, "tasks.test_classes": 10}
    small |= {"model": "conv4", "model.width": 8, "steps": 40, "meta_batch_size": 4, "shard_size": 4}
    small |= {"validate_every": 0, "test_episodes": 4, "device": "cpu", "output": str(folder)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options of the default preset that another algorithm has not
        return {name: raymeta.meta_train(algorithm=name, **{**small, **own}) for name, own in TRAINED.items()}


def draw(kind: str, rng: random.Random, *, paper: int = 255) -> Image.Image:
    """A dark figure on light paper."""
    image = Image.new("L", (48, 48), paper)
    pen = ImageDraw.Draw(image)
    x, y, r, w = rng.randint(20, 28), rng.randint(20, 28), rng.randint(11, 16), rng.randint(3, 5)
    box, ink = (x - r, y - r, x + r, y + r), 255 - paper
    if kind == "circle":
        pen.ellipse(box, outline=ink, width=w)
    elif kind == "square":
        pen.rectangle(box, outline=ink, width=w)
    lines = {
        "cross": [box, (x - r, y + r, x + r, y - r)],
        "plus": [(x, y - r, x, y + r), (x - r, y, x + r, y)],
        "bars": [(x - r, y - r, x + r, y - r), (x - r, y + r, x + r, y + r)],
        "vee": [(x - r, y - r, x, y + r), (x, y + r, x + r, y - r)],
    }
    for line in lines.get(kind, []):
        pen.line(line, fill=ink, width=w)
    return image


def draw_folder(folder: Path, counts: dict[str, int], seed: int = 0, *, paper: int = 255) -> Path:
    rng = random.Random(seed)
    for kind, count in counts.items():
        (folder / kind).mkdir(parents=True)
        for place in range(count):
            draw(kind, rng, paper=paper).save(folder / kind / f"{place}.png")
    return folder


def opened(runs: dict[str, Run], name: str) -> Pretrained:
    return open_model(str(runs[name].path), measured=True)


def hashes(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["maml", "anil", "protonet", "r2d2", "reptile"])
def test_the_road_from_a_run_to_answers(
    name: str, runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On drawings that no task set holds; the run is as it was, and held-out accuracy says what left-out did."""
    support = draw_folder(tmp_path / "support", dict.fromkeys(SHAPES[:5], 6))
    fresh = draw_folder(tmp_path / "fresh", dict.fromkeys(SHAPES[:5], 12), seed=1)
    before = hashes(runs[name].path)
    assert adapt.main([str(runs[name].path), "--support", str(support), "--out", str(tmp_path / "mine")]) == 0
    assert "leave-one-out accuracy" in capsys.readouterr().out
    assert hashes(runs[name].path) == before
    files = [str(path) for path in sorted(fresh.rglob("*.png"))]
    assert predict.main([str(tmp_path / "mine"), *files, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["file"] for answer in answers] == files
    for answer in answers:
        everything = [answer["probability"], *(other["probability"] for other in answer["alternatives"])]
        assert sum(everything) == pytest.approx(1)
        assert everything == sorted(everything, reverse=True)
        assert {answer["label"], *(other["label"] for other in answer["alternatives"])} == set(SHAPES[:5])
    right = sum(answer["label"] == Path(answer["file"]).parent.name for answer in answers)
    left_out = raymeta.load_adapted(tmp_path / "mine").left_out
    assert left_out is not None
    low, high = interval(right, len(files))
    assert low <= left_out.high
    assert left_out.low <= high


def small(model: Pretrained, classes: int = 3, per_class: int = 2, seed: int = 0) -> Adapted:
    rng = random.Random(seed)
    labels = [kind for kind in SHAPES[:classes] for _ in range(per_class)]
    return adapt_to(model, model.reader.read(_files(labels, rng)), labels)


def _files(labels: list[str], rng: random.Random) -> list[Path]:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    paths = [folder / f"{place}.png" for place in range(len(labels))]
    for path, kind in zip(paths, labels, strict=True):
        draw(kind, rng).save(path)
    return paths


@pytest.mark.parametrize("name", ["maml", "protonet", "reptile"])
def test_an_answer_depends_on_its_own_input_alone(name: str, runs: dict[str, Run]) -> None:
    adapted = small(opened(runs, name))
    x = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    together = adapted.probabilities(x)
    for place in range(5):
        alone = adapted.probabilities(x[place : place + 1])[0]
        torch.testing.assert_close(alone, together[place], rtol=1e-5, atol=1e-6)


def test_names_of_classes_are_names_alone(runs: dict[str, Run]) -> None:
    """Other names in the same order change nothing; in another order, the answers go with their names."""
    model = opened(runs, "protonet")
    labels = ["a", "a", "b", "b", "c", "c"]
    x = model.reader.read(
        _files([{"a": "circle", "b": "cross", "c": "vee"}[label] for label in labels], random.Random(0))
    )
    query = model.reader.read(_files(["circle", "vee"], random.Random(1)))
    one = adapt_to(model, x, labels).predict(query)
    turned = adapt_to(model, x, [{"a": "z", "b": "y", "c": "x"}[label] for label in labels]).predict(query)
    for mine, other in zip(one, turned, strict=True):
        assert {"a": "z", "b": "y", "c": "x"}[mine.label] == other.label
        assert mine.probability == pytest.approx(other.probability, rel=1e-5)


@pytest.mark.parametrize("name", ["maml", "anil", "protonet", "r2d2"])
def test_more_classes_than_in_training(name: str, runs: dict[str, Run], tmp_path: Path) -> None:
    support = draw_folder(tmp_path / "support", dict.fromkeys(SHAPES, 3))
    adapted = adapt_to_source(opened(runs, name), support)
    assert adapted.way == 6
    assert adapted.probabilities(adapted.support.x).shape == (18, 6)


def test_a_method_that_learned_for_each_class_says_so(runs: dict[str, Run], tmp_path: Path) -> None:
    support = draw_folder(tmp_path / "support", dict.fromkeys(SHAPES, 2))
    with pytest.raises(ConfigError, match="meta_sgd was trained with 5 classes and cannot take 6: it also learned"):
        adapt_to_source(opened(runs, "meta_sgd"), support)


@pytest.mark.parametrize("name", ["maml", "protonet", "reptile"])
def test_classes_of_different_sizes_and_single_examples(name: str, runs: dict[str, Run], tmp_path: Path) -> None:
    adapted = adapt_to_source(opened(runs, name), draw_folder(tmp_path / "some", {"circle": 1, "cross": 4, "vee": 2}))
    assert adapted.left_out is not None
    assert (adapted.left_out.tried, adapted.left_out.skipped) == (6, 1)
    single = adapt_to_source(opened(runs, name), draw_folder(tmp_path / "one", {"circle": 1, "cross": 1}))
    assert single.left_out is None
    assert "accuracy unknown" in "\n".join(adapt.report_lines(single))
    with pytest.raises(ConfigError, match="too small to find out"):
        single.predict(single.support.x, unknown=True)


def test_one_class_is_no_question(runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is one class, circle"):
        adapt_to_source(opened(runs, "protonet"), draw_folder(tmp_path / "one", {"circle": 3}))


def test_two_hundred_classes(runs: dict[str, Run]) -> None:
    model = opened(runs, "protonet")
    x = torch.rand(400, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    adapted = adapt_to(model, x, [f"class {place // 2:03d}" for place in range(400)])
    assert adapted.way == 200
    assert adapted.left_out is not None
    assert adapted.left_out.tried == 400


def test_a_wrong_label_is_doubted(runs: dict[str, Run]) -> None:
    x = 0.1 * torch.rand(24, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    x[:12, :, :, ::4] += 0.9  # upright lines, and level ones
    x[12:, :, ::4] += 0.9
    labels = ["upright"] * 12 + ["level"] * 12
    labels[3] = "level"
    adapted = adapt_to(opened(runs, "protonet"), x, labels)
    assert [doubt.place for doubt in adapted.doubts] == [3]


def test_what_looks_unlike_the_training_data_is_told(runs: dict[str, Run], tmp_path: Path) -> None:
    usual = adapt_to_source(opened(runs, "protonet"), draw_folder(tmp_path / "dark", dict.fromkeys(SHAPES[:3], 2)))
    assert not any("unlike" in line for line in adapt.report_lines(usual))
    light = draw_folder(tmp_path / "light", dict.fromkeys(SHAPES[:3], 2), paper=0)
    told = adapt.report_lines(adapt_to_source(opened(runs, "protonet"), light))
    assert any("6 of 6 examples look unlike the training data" in line for line in told)
    assert any("brightness" in line for line in told)


# Trust


@pytest.mark.parametrize(
    ("right", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (8, 10, 0.4902, 0.9433)]
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    assert interval(right, count) == pytest.approx((low, high), abs=1e-4)


def outputs_with_noise(scale: float) -> HeldOut:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (400,), generator=generator)
    noise = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    return HeldOut(torch.arange(400), scale * (1.5 * torch.nn.functional.one_hot(labels, 4) + noise), labels)


def test_temperature_undoes_a_scale() -> None:
    one, ten = calibrated(outputs_with_noise(1.0)), calibrated(outputs_with_noise(10.0))
    assert one is not None
    assert ten is not None
    assert ten.temperature / one.temperature == pytest.approx(10, rel=0.05)
    assert ten.after == pytest.approx(one.after, abs=1e-3)
    assert ten.after < ten.before
    right = float(outputs_with_noise(1.0).right.double().mean())
    assert ten.confidence_after == pytest.approx(right, abs=0.05)


def test_few_left_out_examples_calibrate_nothing() -> None:
    few = outputs_with_noise(1.0)
    assert calibrated(HeldOut(*(part[:19] for part in few))) is None
    assert calibrated(None) is None


def test_left_out_examples_are_not_seen(runs: dict[str, Run]) -> None:
    """A copy in the support set is found at once; its only other copy, left out, must not be."""
    model = opened(runs, "protonet")
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    support = raymeta.Examples(x, y)
    found = held_out(model, support, 2)
    assert found is not None
    for place, outputs in zip(found.places.tolist(), found.outputs, strict=True):
        kept = torch.arange(8) % 4 != place % 4
        alone = model.predictor(raymeta.Examples(x[kept], y[kept]), 2)(x[place : place + 1])[0]
        torch.testing.assert_close(outputs.float(), alone)


def test_what_is_kept_stays_balanced(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that only counts the examples of each class is right by chance, not always wrong."""
    model = opened(runs, "protonet")
    counted = lambda support, way: lambda x: support.y.bincount(minlength=way).double().expand(len(x), way)  # noqa: E731
    monkeypatch.setattr(Pretrained, "predictor", lambda self, support, way: counted(support, way))
    support = raymeta.Examples(torch.zeros(9, 1, 28, 28), torch.arange(3).repeat(3))
    found = held_out(model, support, 3)
    assert found is not None
    assert found.outputs.tolist() == [[2, 2, 2]] * 9


def test_a_model_of_values_is_adapted_in_python_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = raymeta.meta_train(preset="sinusoid-maml", steps=2, validate_every=0, test_episodes=4, output=str(tmp_path))
    table = tmp_path / "mine.csv"
    table.write_text("x,y\n0.1,0.3\n0.5,0.2\n")
    assert adapt.main([str(run.path), "--support", str(table), "--out", str(tmp_path / "out")]) == 2
    assert "predicts values, not classes: adapt it in Python" in capsys.readouterr().err
    x, y = torch.linspace(-1, 1, 10)[:, None], torch.linspace(0, 1, 10)[:, None]
    values = raymeta.from_pretrained(run.path).predictor(raymeta.Examples(x, y, torch.zeros(10).long()))(x)
    assert values.shape == (10, 1)
    assert (values - y).square().mean() < y.square().mean()
