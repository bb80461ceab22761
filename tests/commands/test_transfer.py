"""The transfer experiment on small files of CIFAR's layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from raymeta.transfer.__main__ import main
from raymeta.transfer.data import Labelled, augment, subset
from raymeta.transfer.fit import network, start_from


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images a class; each class has its own colour, so that something can be learnt."""
    rng = np.random.default_rng(0)

    def write(path: Path, labels: list[int], key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.random.default_rng(1).integers(0, 256, (100, 3, 1), dtype=np.int64)[labels]
        noise = rng.integers(-20, 20, (len(labels), 3, 1024))
        data = np.clip(colour + noise, 0, 255).astype(np.uint8).reshape(len(labels), -1)
        path.write_bytes(pickle.dumps({"data": data, key: labels}))

    for i in range(1, 6):
        write(tmp_path / "cifar-10-batches-py" / f"data_batch_{i}", [*range(10)], "labels")
    write(tmp_path / "cifar-10-batches-py" / "test_batch", [*range(10)], "labels")
    for name in ("train", "test"):
        write(tmp_path / "cifar-100-python" / name, [*range(100)] * 2, "fine_labels")
    return tmp_path


SMALL = ["--arch", "resnet12", "--width", "2", "--epochs", "2", "--finetune_epochs", "1", "--fractions", "0.5,1"]


def test_runs_end_to_end_and_repeats(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for name in ("a.json", "b.json"):
        assert main(["--root", str(root), *SMALL, "--seeds", "0,1", "--output", str(tmp_path / name)]) == 0
        results.append(json.loads((tmp_path / name).read_text()))
    assert results[0]["runs"] == results[1]["runs"]
    assert [row["labels"] for row in results[0]["runs"]] == [100, 200, 100, 200]
    assert [point["fraction"] for point in results[0]["curve"]] == [0.5, 1.0]
    out = capsys.readouterr().out
    assert "fine-tuned" in out
    assert "from scratch" in out


def test_the_new_head_starts_uniform_and_the_body_is_the_pretrained_one() -> None:
    base, tuned = network("resnet12", 2, 10, seed=0), network("resnet12", 2, 100, seed=1)
    start_from(tuned, base)
    tuned.eval()
    base.eval()
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tuned(x).softmax(-1), torch.full((3, 100), 0.01))
    for model in (base, tuned):
        model.head = torch.nn.Identity()
    assert torch.equal(base(x), tuned(x))


def test_resnet18_has_the_stem_for_small_images() -> None:
    model = network("resnet18", 64, 10, seed=0)
    assert model.conv1.stride == (1, 1)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_subsets_are_balanced_and_nested() -> None:
    y = torch.arange(10).repeat_interleave(20)
    data = Labelled(torch.arange(200), y)
    before: set[int] = set()
    for fraction in (0.01, 0.1, 0.5, 1.0):
        part = subset(data, fraction, seed=3)
        assert set(part.y.bincount().tolist()) == {max(1, round(20 * fraction))}
        assert torch.equal(part.y, y[part.x])
        rows = set(part.x.tolist())
        assert before <= rows
        before = rows


def test_augmentation_shifts_and_mirrors() -> None:
    x = torch.randint(1, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    out = augment(x, torch.Generator().manual_seed(1))
    assert torch.equal(out, augment(x, torch.Generator().manual_seed(1)))
    padded = torch.nn.functional.pad(x, (4,) * 4)
    kinds = set()
    for image, new in zip(padded, out, strict=True):
        found = {
            flip
            for flip in (False, True)
            for top in range(9)
            for left in range(9)
            if torch.equal(
                image[:, top : top + 32, left : left + 32].flip(-1)
                if flip
                else image[:, top : top + 32, left : left + 32],
                new,
            )
        }
        assert found
        kinds |= found
    assert kinds == {False, True}


def test_missing_data_and_bad_options(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "cifar-100-python" / "test").unlink()
    assert main(["--root", str(root), *SMALL]) == 3
    error = capsys.readouterr().err
    assert "cifar-100-python" in error
    assert "download=True" in error
    with pytest.raises(SystemExit) as stopped:
        main(["--root", str(root), "--fractions", "2"])
    assert stopped.value.code == 2
