"""A case for each method that learns from tasks: its preset's options and episodes, on a network of 16 channels."""

from __future__ import annotations

from typing import Any

from raymeta.bench.case import Case
from raymeta.config.load import load_config
from raymeta.models.conv4 import Conv4

WIDTH, NUM_TASKS = 16, 4
CHARACTER = (1, 28, 28)
"""Shape of an Omniglot image, which that task set knows only where its data are."""
_OMNIGLOT = "omniglot-5w1s-"
_SAME_NAME = (
    *("meta_sgd", "maml_pp", "imaml", "meta_curvature", "cavia", "leo", "hsml", "meta_lstm"),
    *("matching", "siamese", "relation", "r2d2", "logistic", "metaoptnet"),
    *("cnaps", "cnp", "pfn", "snail", "mann"),
)
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (_OMNIGLOT + name.replace("_", "-"), {}) for name in _SAME_NAME},
    "joint": (f"{_OMNIGLOT}maml", {"algorithm": "joint"}),
    "baseline": (f"{_OMNIGLOT}protonet", {"algorithm": "baseline"}),
    "gp-cnp": ("gp-cnp", {}),
    "gp-np": ("gp-np", {}),
    "gp-pfn": ("gp-pfn", {}),
    "tabular-pfn": ("tabular-pfn", {}),
}
"""By the case's name: the preset, and what makes it another method where that has none."""


def case_of(name: str) -> Case:
    """The case of a row of `PRESETS`; no data are read."""
    preset, switch = PRESETS[name]
    config = load_config(preset=preset, overrides=switch).config
    size = config.tasks.size("train")
    is_classification = config.tasks.goal == "classification"
    return Case(
        name=name,
        algorithm=config.algorithm,
        model=Conv4(**{**vars(config.model), "width": WIDTH}) if isinstance(config.model, Conv4) else config.model,
        input_shape=CHARACTER if preset.startswith(_OMNIGLOT) else config.tasks.input_shape,  # type: ignore[arg-type]
        way=size.way if is_classification else 1,
        shot=size.shot,
        query_shot=size.query_shot,
        num_tasks=NUM_TASKS,
        goal=config.tasks.goal,
    )
