"""How long a run trains, and what it does how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and what to do how often, in outer steps (0 = never)."""

    seed: int
    steps: int
    meta_batch_size: int
    shard_size: int
    validate_every: int = 0
    validation_episodes: int = 200
    checkpoint_every: int = 250
    time_limit_s: float | None = None
    overlap_validation: bool = True
