"""Folders of models: what is written is read again bit for bit, and nothing else is believed or run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import raymeta
from raymeta import export, predict
from raymeta.errors import ConfigError, DataError
from raymeta.runs.layout import numbered
from raymeta.runs.seals import sealed
from raymeta.use.adapted import Adapted, adapt_to
from raymeta.use.folder import load_adapted, write_adapted, write_model
from raymeta.use.opening import open_model
from raymeta.use.pretrained import Pretrained

X = torch.rand(24, 1, 28, 28, generator=torch.Generator().manual_seed(0))
FILES = ["model.safetensors", "model.json", "config.yaml", "support.safetensors", "adapted.json"]
LABELS = ["one", "two", "three"] * 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return raymeta.meta_train(
        algorithm="maml", tasks="glyphs", model="conv4", output=str(tmp_path_factory.mktemp("runs")), steps=3,
        meta_batch_size=2, validate_every=0, test_episodes=2, device="cpu",
        **{"model.width": 4, "tasks.train_classes": 10, "tasks.val_classes": 6, "tasks.test_classes": 6},
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(run: Any) -> Pretrained:
    return open_model(str(run.path), measured=True)


@pytest.fixture
def folder(model: Pretrained, tmp_path: Path) -> Path:
    write_adapted(adapt_to(model, X, LABELS), tmp_path / "mine")
    return tmp_path / "mine"


def test_an_exported_model_answers_with_the_same_bits(run: Any, model: Pretrained, tmp_path: Path) -> None:
    assert export.main([str(run.path), "--out", str(tmp_path / "out")]) == 0
    again = raymeta.from_pretrained(tmp_path / "out")
    assert torch.equal(adapt_to(again, X, LABELS).outputs(X), adapt_to(model, X, LABELS).outputs(X))
    assert again.tasks == model.tasks
    assert again.seen == model.seen
    card = (tmp_path / "out" / "README.md").read_text()
    for text in ("maml", "transductive", "400" if model.about["data"] is None else "10 classes", "side 28"):
        assert text in card
    write_model(again, tmp_path / "twice")
    for name in ("config.yaml", "model.safetensors", "model.json", "README.md"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_an_adapted_model_is_read_as_it_was(model: Pretrained, folder: Path) -> None:
    adapted, again = adapt_to(model, X, LABELS), load_adapted(folder)
    assert torch.equal(again.probabilities(X), adapted.probabilities(X))
    assert (again.classes, again.left_out, again.doubts) == (adapted.classes, adapted.left_out, adapted.doubts)


def test_a_checkpoint_is_a_model(run: Any, model: Pretrained) -> None:
    (name,) = [path.name for path in (run.path / "checkpoints").iterdir() if path.name.startswith("step-")]
    other = open_model(str(run.path / "checkpoints" / name))
    assert torch.equal(adapt_to(other, X, LABELS).outputs(X), adapt_to(model, X, LABELS).outputs(X))


def test_nothing_is_replaced(run: Any, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert export.main([str(run.path), "--out", str(folder)]) == 2
    assert sorted(path.name for path in folder.iterdir()) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def huge_header(path: Path) -> None:
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("damage", [cut, flipped, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.json", "config.yaml", "support.safetensors", "adapted.json"]
)
def test_a_damaged_file_is_refused_by_name(name: str, damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder / name)
    with pytest.raises(DataError) as told:
        load_adapted(folder)
    assert name in str(told.value) or (name == "adapted.json" and "holds no adapted model" in str(told.value))


def resealed(folder: Path, name: str, **changes: Any) -> None:
    """As somebody would who changes a folder and its hashes."""
    import hashlib

    content = {k: v for k, v in json.loads((folder / name).read_text()).items() if not k.startswith("sha256_of")}
    content.pop("format")
    content["sha256"] = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in content["sha256"]}
    (folder / name).write_text(json.dumps(sealed(numbered(content | changes))))


def test_code_that_a_folder_names_is_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "here"
    trap.mkdir()
    (trap / "a_trap.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(str(trap))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("name: maml", "name: a_trap:Method"))
    resealed(folder, "model.json")
    resealed(folder, "adapted.json")
    with pytest.raises(ConfigError, match="--trust"):
        load_adapted(folder)
    assert "a_trap" not in sys.modules
    assert predict.main([str(folder), "x.png"]) == 2


def test_tensors_of_another_network_are_refused(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("width: 4", "width: 5"))
    resealed(folder, "model.json")
    resealed(folder, "adapted.json")
    with pytest.raises(DataError, match=r"model.safetensors does not fit .*config.yaml"):
        load_adapted(folder)


def test_a_header_that_lies_is_refused(folder: Path) -> None:
    huge_header(folder / "model.safetensors")
    resealed(folder, "model.json")
    resealed(folder, "adapted.json")
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        load_adapted(folder)


def test_a_newer_format_says_so(folder: Path) -> None:
    content = json.loads((folder / "adapted.json").read_text())
    content = {k: v for k, v in content.items() if not k.startswith("sha256_of")}
    (folder / "adapted.json").write_text(json.dumps(sealed(content | {"format": 99})))
    with pytest.raises(DataError, match="newer raymeta"):
        load_adapted(folder)


def test_a_model_is_there_without_its_data(model: Pretrained, folder: Path, tmp_path: Path) -> None:
    """Its folder moves, and needs nothing else."""
    shutil.move(str(folder), tmp_path / "elsewhere")
    assert load_adapted(tmp_path / "elsewhere").way == 3


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_standalone_file_answers_alike(form: str, count: int, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / ("it.pt2" if form == "torch" else "it.onnx")
    assert export.main([str(folder), "--format", form, "--out", str(out)]) == 0
    adapted: Adapted = load_adapted(folder)
    x = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    if form == "torch":
        extra = {"about.json": ""}
        found = torch.export.load(out, extra_files=extra).module()(x)
        labels = json.loads(extra["about.json"])["labels"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(out))
        found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    assert labels == adapted.classes
    torch.testing.assert_close(found.double(), adapted.probabilities(x), rtol=0, atol=1e-5)


def test_only_an_adapted_model_stands_alone(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(run.path), "--format", "onnx", "--out", str(tmp_path / "it.onnx")]) == 2
    assert "adapt it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.zeros(24, 1, 28, 28, dtype=torch.uint8), "inputs are uint8.*trained on floats"),
        (torch.zeros(24, 28, 28), r"inputs are \[n, 28, 28\], and .* takes \[n, 1, 28, 28\]"),
        (torch.zeros(20, 1, 28, 28), "there are 20 examples and 24 labels"),
    ],
)
def test_inputs_that_are_not_those_of_training_are_told(model: Pretrained, x: torch.Tensor, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        raymeta.adapt_to(model, x, LABELS)


def test_numpy_arrays_are_inputs(model: Pretrained) -> None:
    one, other = raymeta.adapt_to(model, X, LABELS), raymeta.adapt_to(model, X.double().numpy(), LABELS)
    assert torch.equal(one.outputs(X), other.outputs(X.numpy()))
    with pytest.raises(ConfigError, match="uint8"):
        one.predict((255 * X).to(torch.uint8))
    assert "weight" not in repr(model)
