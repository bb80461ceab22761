"""A learned optimiser that is trained by evolution, while workers are killed again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from killing import trained_alone, trained_with_kills

from raymeta.config.load import load_config

OPTIONS: dict[str, Any] = {
    "algorithm": "learned_mlp", "algorithm.pairs": 2, "algorithm.windows": 4, "algorithm.unroll": 10,
    "algorithm.batch_size": 6, "algorithm.hidden": 8, "tasks": "glyphs", "tasks.way": 3, "tasks.shot": 4,
    "model": "mlp", "model.hidden": [8], "model.shrink": 7, "meta_batch_size": 4, "shard_size": 1, "steps": 14,
    "validate_every": 0, "test_episodes": 2, "device": "cpu",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_evolution_with_a_worker_killed_every_few_steps_ends_with_the_bits_of_one_process(
    local_ray: Any, tmp_path: Path
) -> None:
    """In every third step, and so in each of the four windows of a training, whose rows the driver carries on."""
    config = load_config(overrides=OPTIONS | {"algorithm.train": "es"}).config
    expected, asked = trained_alone(config, tmp_path / "quiet")
    assert len(asked) == config.steps, "a step is one map"
    killed: list[int] = []

    def due(so_far: list[tuple[int, str]]) -> bool:
        step = len(so_far) - 1
        is_due = step > 0 and step % 3 == 0
        killed.extend([step] if is_due else [])
        return is_due

    found, maps, events = trained_with_kills(config, tmp_path / "killed", due)
    assert found == expected
    assert maps == asked
    assert [step % 4 for step in killed] == [3, 2, 1, 0]
    assert events.count("worker_lost") == len(killed)
    other = config.model_copy(update={"seed": 1})
    assert trained_alone(other, tmp_path / "other")[0] != expected
