"""How training tasks are made of others, from a configuration, and whether the method and the data allow it."""

from __future__ import annotations

from torch import nn

from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.errors import ConfigError
from raymeta.models.layers.mixing_points import mark
from raymeta.tasks.mixed_inputs import INPUT
from raymeta.tasks.mixing import Mixing


def build_mixing(config: RunConfig, model: nn.Module) -> Mixing | None:
    """What `mixing` asks for; marks the layers of `model` after which is mixed. Raises `ConfigError`."""
    if config.mixing is None:
        return None
    _require_possible(config)
    places = mark(model, config.mixing_layers)
    _require_places(config, places)
    return Mixing(
        name=config.mixing,
        beta=config.mixing_beta,
        places=places,
        with_input=config.mixing_layers is None or INPUT in config.mixing_layers,
        shuffle=config.channel_shuffle,
        shuffle_after=config.channel_shuffle_after,
    )


def _require_possible(config: RunConfig) -> None:
    algorithm, name = config.algorithm, name_of(config.algorithm)
    if config.tasks.one_problem:
        raise ConfigError(
            f"mixing makes tasks of other tasks, and those of {name_of(config.tasks)} are batches of one training "
            "problem: leave mixing out"
        )
    if isinstance(config.tasks.input_shape, dict):
        raise ConfigError(f"mixing needs inputs of one tensor, and those of {name_of(config.tasks)} are several")
    if algorithm.uses_class_ids or algorithm.has_own_step:
        raise ConfigError(f"mixing makes classes that no data have, and {name} asks which they are: leave mixing out")
    if config.mixing == "metamix" and not algorithm.queries_apart:
        raise ConfigError(
            f"mixing metamix mixes queries with the support after adapting, and {name} does not adapt by gradients "
            "before it sees queries: use --mixing mlti"
        )
    if config.mixing == "metamix" and config.batch_norm == "support":
        raise ConfigError("mixing metamix and batch_norm support do not go together: use transductive or running")
    if config.channel_shuffle and config.mixing != "metamix":
        raise ConfigError("channel_shuffle is of --mixing metamix: leave it out")


def _require_places(config: RunConfig, places: tuple[str, ...]) -> None:
    hidden = len(places) > 1
    if config.mixing_layers == []:
        raise ConfigError(f"mixing_layers is empty: name layers, or {INPUT}")
    if config.channel_shuffle and not hidden:
        raise ConfigError("channel_shuffle needs layers: name some in mixing_layers, besides input")
    if hidden and config.algorithm.reads_inputs and (config.mixing == "mlti" or config.channel_shuffle):
        raise ConfigError(
            f"{name_of(config.algorithm)} reads inputs besides through the model, so that they can only be mixed "
            "themselves: --mixing_layers '[\"input\"]', and no channel_shuffle"
        )
