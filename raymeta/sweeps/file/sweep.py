"""A checked sweep: it makes the configuration of any point of its space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymeta.config.layers import Override
from raymeta.config.load import load_config
from raymeta.config.schema import RunConfig
from raymeta.runs import layout
from raymeta.sweeps.file.schema import SweepFile
from raymeta.sweeps.file.space import Point, Space
from raymeta.trackers.scores import SCORES, name_in, score_named


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: how to make the configuration of any point, and what follows from the base."""

    file: SweepFile
    space: Space
    name: str
    base: tuple[str | None, tuple[Path, ...]]  # preset, files
    overrides: tuple[Override, ...]
    first: RunConfig
    foreign: bool = False  # read from a sweep's folder, see `config.strangers`
    trust: bool = False

    def config(self, point: Point, origins: Mapping[str, str] | None = None) -> RunConfig:
        """The configuration at `point`, with the sweep's own settings; mistakes name `origins`."""
        preset, files = self.base
        every = self.report_every
        ours = {"time_limit": None, "address": None, "validate_every": every, "checkpoint_every": every}
        chosen = [
            Override(key, value, (origins or {}).get(key, f"space {key}"), foreign=self.foreign)
            for key, value in point.items()
        ]
        forced = [Override(key, value, "sweep") for key, value in ours.items()]
        listed = [*self.overrides, *chosen, *forced]
        loaded = load_config(preset=preset, files=files, overrides=listed, foreign=self.foreign, trust=self.trust)
        # A trial is short, or may be stopped early, and what it varies is often part of a graph.
        by_rule = loaded.config.compile == "auto"
        return loaded.config.model_copy(update={"compile": False}) if by_rule else loaded.config

    @property
    def metric(self) -> str:
        return self.file.metric or metric_of(self.first)

    @property
    def mode(self) -> str:
        return self.file.mode or score_named(name_in(self.metric)).better

    @property
    def report_every(self) -> int:
        return self.file.report_every or self.first.validate_every

    @property
    def steps(self) -> int:
        return self.first.steps

    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.mode == "max" else -1

    def resolved(self) -> dict[str, Any]:
        """The sweep as a file beside `base.yaml`, with everything that it came from."""
        content = self.file.model_dump(mode="json", by_alias=True, exclude={"options"}, exclude_none=True)
        return {**content, "name": self.name, "base": layout.BASE}


def metric_of(config: RunConfig) -> str:
    """What a trial with this configuration reports."""
    return SCORES[config.algorithm.score_of(config.tasks.goal)].column
