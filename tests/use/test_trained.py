"""A model of one training problem answers with its own classes: as its test did, by name, and without its data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic.dataclasses import dataclass

import raymeta
from raymeta import Episode, Examples, RunView, Size, TaskKey, TaskSet, export, predict
from raymeta.errors import ConfigError, DataError, RaymetaWarning
from raymeta.keys import Split
from raymeta.tasks import Classification
from raymeta.use.opening import open_classifier

CLASSES = ("dot", "line", "ring")
TRAINED: dict[str, Any] = {
    "preset": "glyphs-plain", "tasks.noise": "none", "steps": 6, "meta_batch_size": 2, "validate_every": 0,
    "device": "cpu", "tasks.batch": 6, "tasks.clean": 3, "tasks.clean_batch": 6, "tasks.test": 4,
    "tasks.test_batch": 12, "tasks.val": 1, "model.width": 4,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "meta_weight_net": {},
    "metadistil": {"algorithm.teacher_steps": 2},
    "dada": {},
}


def draw_classes(folder: Path, each: int = 14) -> Path:
    """Noisy pictures of three classes, told apart by how bright their halves are."""
    draws = np.random.default_rng(0)
    for c, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            picture = draws.integers(0, 120, (16, 16), np.uint8)
            picture[: 8 * (c % 2 + 1)] += np.uint8(60 * c)
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_classes(tmp_path_factory.mktemp("data") / "pictures")


def trained(output: Path, root: Path, algorithm: str = "plain", **options: Any) -> RunView:
    given = {"algorithm": algorithm, "tasks.root": str(root), "tasks.source": "images", "output": str(output)}
    return raymeta.meta_train(**TRAINED | given | options)


def held_back(run: RunView) -> tuple[list[str], list[str]]:
    """The files of a run's test part, and their classes."""
    options = {name.removeprefix("tasks."): value for name, value in run.config["tasks"].items() if name != "name"}
    tasks = Classification(**options)
    data, rows = tasks.loaded.data, tasks.loaded.parts["test"]
    assert data.names is not None
    return [str(Path(options["root"]) / data.names[row]) for row in rows], [CLASSES[data.label[row]] for row in rows]


def answers(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert predict.main([*arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("method", METHODS)
def test_files_are_answered_as_the_runs_test_was(
    method: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right answers among the files of the test part are the share that the run was scored with."""
    run = trained(tmp_path / "runs", root, method, **METHODS[method])
    files, labels = held_back(run)
    capsys.readouterr()
    found = answers(capsys, run.id, *files, "--output", str(tmp_path / "runs"))
    right = [answer["label"] == label for answer, label in zip(found, labels, strict=True)]
    assert sum(right) / len(right) == pytest.approx(run.summary["headline"]["value"])
    assert {len({a["label"], *(o["label"] for o in a["alternatives"])}) for a in found} == {len(CLASSES)}
    assert [answer["file"] for answer in found] == files


def test_a_run_and_its_exported_folder_answer_alike_when_the_data_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = draw_classes(tmp_path / "pictures")
    run = trained(Path("results"), root)
    (tmp_path / "new").mkdir()
    for name in CLASSES:
        shutil.copy(root / name / "0.png", tmp_path / "new" / f"{name}.png")
    capsys.readouterr()
    before = answers(capsys, "latest", "new")
    assert export.main(["latest", "--out", "early"]) == 0
    assert "predict: raymeta predict early FILES" in capsys.readouterr().out
    shutil.rmtree(root)
    assert export.main([run.id, "--out", "late"]) == 0
    capsys.readouterr()
    for model in ("latest", str(run.path), "early", "late"):
        assert answers(capsys, model, "new/*.png") == before
    classifier = raymeta.classifier_of(raymeta.from_pretrained("early"))
    assert classifier.classes == list(CLASSES)
    x = classifier.model.reader.read([Path("new/dot.png")])
    assert classifier.predict(x)[0].probability == pytest.approx(before[0]["probability"], rel=1e-5)
    card = Path("early/README.md").read_text(encoding="utf-8")
    assert "| classes | dot, line, ring |" in card
    assert "raymeta predict THIS_FOLDER FILES" in card


@pytest.mark.filterwarnings("ignore:batch norm of:raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("policy", ["running", "transductive"])
def test_batch_norm_follows_the_policy_of_training(policy: str, root: Path, tmp_path: Path) -> None:
    """With running statistics an answer depends on its own input alone; otherwise it depends on the others, as told."""
    run = trained(tmp_path, root, batch_norm=policy, **{"model.norm": "batch"})
    classifier = open_classifier(str(run.path))
    x = classifier.model.reader.read(sorted(root.rglob("*.png"))[:20])
    together, alone = classifier.outputs(x)[:4], classifier.outputs(x[:4])  # type: ignore[index]
    assert torch.allclose(together, alone, atol=1e-6) == (policy == "running")
    if policy == "transductive":
        with pytest.warns(RaymetaWarning, match="an answer depends on the others"):
            open_classifier(str(run.path))


def test_what_is_unknown_and_what_adapts_are_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = trained(tmp_path / "runs", root), str(root / "dot" / "0.png")
    assert predict.main([str(run.path), file, "--unknown"]) == 2
    assert "nothing was left out of training" in capsys.readouterr().err
    other = raymeta.meta_train(algorithm="protonet", tasks="glyphs", output=str(tmp_path / "runs"), **SHORT)
    assert predict.main([str(other.path), file]) == 2
    assert "was trained by protonet and knows no classes: adapt it to some first" in capsys.readouterr().err
    assert predict.main([str(tmp_path), file]) == 3
    assert "holds no adapted model" in capsys.readouterr().err
    assert predict.main(["no-such-run", file, "--output", str(tmp_path / "runs")]) == 2
    assert "no run «no-such-run»" in capsys.readouterr().err


SHORT: dict[str, Any] = {"steps": 1, "validate_every": 0, "test_episodes": 2, "meta_batch_size": 2, "device": "cpu",
                         "model.width": 4}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Halves(TaskSet):
    """Two numbers, of which the larger one is the class; a task set of somebody's own."""

    goal: ClassVar[Any] = "classification"
    one_problem: ClassVar[bool] = True
    named: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def num_outputs(self) -> int:
        return 2

    def size(self, split: Split) -> Size:
        return Size(2, 4, 4)

    def num_classes(self, split: Split) -> int:
        return 2

    def class_name(self, split: Split, class_id: int) -> str | None:
        return ("left", "right")[class_id] if self.named else None

    def episode(self, key: TaskKey) -> Episode:
        x = torch.rand(16, 2, generator=torch.Generator().manual_seed(key.torch_seed() % 2**31))
        y = x.argmax(1)
        return Episode(Examples(x[:8], y[:8], y[:8]), Examples(x[8:], y[8:], y[8:]))


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_names_of_an_own_task_set_are_its_class_names_or_those_that_are_given(tmp_path: Path) -> None:
    own: dict[str, Any] = SHORT | {"model": "mlp", "model.hidden": [4], "algorithm": "plain", "output": str(tmp_path)}
    own.pop("model.width")
    named = raymeta.meta_train(tasks=Halves(named=True), **own)
    assert raymeta.classifier_of(raymeta.from_pretrained(named.path, trust=True)).classes == ["left", "right"]
    model = raymeta.from_pretrained(raymeta.meta_train(tasks=Halves(), **own).path, trust=True)
    with pytest.raises(DataError, match=r"does not know the names of its 2 classes.*class_name"):
        raymeta.classifier_of(model)
    with pytest.raises(ConfigError, match="has 2 classes, and 3 names are given"):
        raymeta.classifier_of(model, ["a", "b", "c"])
    classifier = raymeta.classifier_of(model, ["a", "b"])
    x = torch.rand(5, 2)
    picked = [("a", "b")[place] for place in classifier.outputs(x).argmax(1).tolist()]
    assert [answer.label for answer in classifier.predict(x)] == picked
