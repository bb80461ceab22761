"""A run in words: its name, where it computes, and which of its options have no effect."""

from __future__ import annotations

from collections.abc import Mapping

from raymeta.config.load import load_config
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.options import OF_MIXING, OF_WORKERS, Mark, marked


def run_name(config: RunConfig) -> str:
    """The run's name: given, or the preset's where its variants are still those, or made of task set and algorithm."""
    if config.name:
        return config.name
    if config.preset and _variants(load_config(preset=config.preset).config) == _variants(config):
        return config.preset
    return f"{name_of(config.tasks)}-{name_of(config.algorithm)}"


def _variants(config: RunConfig) -> list[str]:
    return [name_of(part) for part in (config.tasks, config.model, config.algorithm)]


def worker_text(config: RunConfig) -> str:
    """Where a run computes, in words."""
    if config.workers == "auto":
        return "on as many Ray workers as there is room for"
    plural = "s" * (config.workers != 1)
    return f"on {config.workers} Ray worker{plural}" if config.workers else "in this process"


def cluster_text(place: Mapping[str, object]) -> str:
    """Where the work is done, in words."""
    dashboard = f", dashboard {place['ray_dashboard']}" if place.get("ray_dashboard") else ""
    return f"{place['workers']} workers with {place['per_worker']} each, {place['nodes']} Ray nodes{dashboard}"


def without_effect(config: RunConfig) -> list[str]:
    """Options that are given and do nothing, for a person to know before the run."""
    given = _given(config, OF_WORKERS)
    texts = []
    if given and not config.workers:
        texts += [f"{' and '.join(given)} without effect, as workers is 0, which is this process: add --workers N"]
    if config.checkpoint_inner_steps and getattr(config.algorithm, "first_order", False):
        texts += ["checkpoint_inner_steps without effect, as first_order records no inner step: leave it out"]
    if config.chunk_size is not None and config.vectorize == "loop":
        texts += ["chunk_size without effect, as vectorize loop computes one task at a time: leave it out"]
    if config.mixing is None and (of_mixing := _given(config, OF_MIXING)):
        texts += [f"{' and '.join(of_mixing)} without effect, as no tasks are mixed: add --mixing metamix or mlti"]
    return texts


def _given(config: RunConfig, mark: Mark) -> list[str]:
    """Options with `mark` that are not the defaults."""
    names, fields = marked(RunConfig, mark), RunConfig.model_fields
    return [name for name in names if getattr(config, name) != fields[name].get_default(call_default_factory=True)]
