"""Result files of trained presets hold what their numbers were computed from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import raymeta

BENCHMARKS = Path(raymeta.__file__).parents[1] / "benchmarks"


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import reproduce

    yield reproduce
    for name in ("reproduce", "record"):
        sys.modules.pop(name, None)


def test_the_interval_can_be_computed_again(reproduce: Any, tmp_path: Path) -> None:
    options = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 20, "model.hidden": [8]}
    run = raymeta.meta_train("sinusoid-maml", output=str(tmp_path), **options)
    content = reproduce.content(run, "sinusoid-maml", {}, None)
    values, headline = np.array(content["values"]), content["summary"]["headline"]
    assert len(values) == headline["episodes"] == 20
    assert values.mean() == pytest.approx(headline["value"])
    assert 1.96 * values.std(ddof=1) / np.sqrt(20) == pytest.approx(headline["ci95"])
