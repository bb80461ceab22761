"""A small model, trained once for all tests of the service."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

import raymeta
from raymeta.use.folder import write_model
from raymeta.use.opening import open_model

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    small = {"tasks.train_classes": 30, "tasks.val_classes": 6, "tasks.test_classes": 6, "model.width": 8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = raymeta.meta_train(
            algorithm="protonet", tasks="glyphs", model="conv4", steps=10, meta_batch_size=2, validate_every=0,
            test_episodes=2, device="cpu", output=str(folder / "runs"), **small,
        )  # fmt: skip
    write_model(open_model(str(run.path)), folder / "model")
    return folder / "model"
