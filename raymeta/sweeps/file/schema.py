"""What a sweep file says: how to search, when to stop early, and what each trial takes. Knows no Ray.

The names of scheduler options are Ray Tune's own; unlike there, unknown ones are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from raymeta.config.schema import Seconds


class Part(BaseModel):
    """Base of all parts: frozen, strict about keys, the text under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Asha(Part):
    """Stop the worse trials at growing numbers of steps, without waiting (Li et al., MLSys 2020)."""

    name: Literal["asha"] = "asha"
    grace_period: PositiveInt | None = None
    """steps before a trial may be stopped; `report_every` unless given"""
    reduction_factor: float = Field(default=4.0, gt=1)
    """one in so many trials goes on at each stage"""
    brackets: PositiveInt = 1
    """ladders of stages that start later and later"""


class HyperBand(Part):
    """Successive halving in groups that wait for each other (Li et al., JMLR 2018): trials pause and go on."""

    name: Literal["hyperband"] = "hyperband"
    reduction_factor: float = Field(default=3.0, gt=1)
    """one in so many trials goes on at each stage"""


class Pbt(Part):
    """Population-based training (Jaderberg et al., 2017): the worst trials continue from the best ones' parameters.

    What they continue with is mutated; a configuration changes on the way, so no single run repeats its result.
    """

    name: Literal["pbt"] = "pbt"
    perturbation_interval: PositiveInt | None = None
    """steps between exchanges; `report_every` unless given"""
    quantile_fraction: float = Field(default=0.25, gt=0, le=0.5)
    """share of trials that copy, and of trials that are copied"""
    resample_probability: float = Field(default=0.25, ge=0, le=1)
    """probability that a mutated key is drawn anew instead of changed a little"""
    mutate: list[str] | None = None
    """keys of the space to mutate, never one of the architecture; all others of it unless given"""


class MedianStopping(Part):
    """Stop a trial whose best score is below the median of the others' running means (Golovin et al., KDD 2017)."""

    name: Literal["median"] = "median"
    grace_period: PositiveInt | None = None
    """steps before a trial may be stopped; `report_every` unless given"""
    min_samples_required: PositiveInt = 3
    """other trials that a median needs"""


class NoScheduler(Part):
    """Every trial trains to the end."""

    name: Literal["none"] = "none"


class RandomSearch(Part):
    """Each sample drawn by itself; `grid` keys are crossed, with `samples` draws of the rest for each combination."""

    name: Literal["random"] = "random"


class GridSearch(Part):
    """All combinations of all values."""

    name: Literal["grid"] = "grid"


class Tpe(Part):
    """Tree-structured Parzen estimator (Bergstra et al., 2011), by Optuna."""

    name: Literal["tpe"] = "tpe"
    startup: PositiveInt = 10
    """random samples before the first estimate"""
    candidates: PositiveInt = 24
    """candidates drawn for each estimate"""


class EvolutionSearch(Part):
    """Regularised evolution (Real et al., AAAI 2019): mutate the best of a sample, the oldest dies."""

    name: Literal["evolution"] = "evolution"
    population: PositiveInt = 20
    """individuals alive at a time; so many are drawn at random first"""
    tournament: PositiveInt = 5
    """individuals of which the best is the parent"""

    @model_validator(mode="after")
    def _tournament_in_population(self) -> EvolutionSearch:
        if self.tournament > self.population:
            raise ValueError(f"a tournament of {self.tournament} needs a larger population than {self.population}")
        return self


class RaySearch(Part):
    """A search algorithm of Ray Tune that needs a package of its own; for spaces without conditions."""

    name: Literal["ax", "bayesopt", "bohb", "hebo", "hyperopt", "nevergrad", "optuna", "zoopt"]
    options: dict[str, Any] = Field(default_factory=dict)
    """arguments of Ray's class"""


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Scheduler = Annotated[
    Annotated[Asha | HyperBand | Pbt | MedianStopping | NoScheduler, Field(discriminator="name")],
    BeforeValidator(_named),
]
Search = Annotated[
    Annotated[RandomSearch | GridSearch | Tpe | EvolutionSearch | RaySearch, Field(discriminator="name")],
    BeforeValidator(_named),
]


class Rule(Part):
    """Other resources for trials whose configuration matches."""

    if_: dict[str, Any] = Field(alias="if", min_length=1)
    """configuration keys and the value, or values, that they must have"""
    workers: NonNegativeInt | None = None
    """as above, where it differs"""
    cpus_per_worker: NonNegativeFloat | None = None
    """as above, where it differs"""
    gpus_per_worker: float | None = Field(default=None, ge=0, le=1)
    """as above, where it differs"""
    accelerator_type: str | None = None
    """as above, where it differs"""


class Resources(Part):
    """What one trial takes; the trial's own driver takes no CPU."""

    workers: NonNegativeInt = 1
    """Ray workers of a trial; with 0 it computes in its own process, which then takes what a worker would"""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs of a worker"""
    gpus_per_worker: float = Field(default=0.0, ge=0, le=1)
    """GPUs of a worker: 1, or a fraction"""
    accelerator_type: str | None = None
    """kind of GPU that a worker needs, as Ray names it: A100, H100, ..."""
    autoscaling: bool = False
    """the cluster grows by itself: wait for nodes where a trial does not fit, instead of failing at once"""
    when: list[Rule] = Field(default_factory=list)
    """exceptions; the first rule that matches a trial counts"""


class StopRules(Part):
    """When a trial ends before its last step."""

    score: float | None = None
    """when its metric is this good"""
    patience: PositiveInt | None = None
    """after so many reports without a new best"""


class SweepFile(Part):
    """A sweep: a base configuration, what is searched on top of it, and how."""

    name: str | None = None
    """name of the sweep, part of its folder's name; the file's name unless given"""
    base: str | None = None
    """preset, or configuration file beside the sweep file, that all trials start from"""
    options: dict[str, Any] = Field(default_factory=dict)
    """configuration keys with one value for all trials"""
    space: dict[str, Any]
    """configuration keys and their ranges: loguniform, uniform, quniform, randint, choice, grid, or a plain value"""
    metric: Literal["val/accuracy", "val/mse"] | None = None
    """what a trial is judged by; what its tasks are scored by unless given"""
    mode: Literal["max", "min"] | None = None
    """whether more is better; follows from the metric unless given"""
    samples: PositiveInt = 1
    """configurations to try (for each combination of `grid` keys)"""
    repeats: PositiveInt = 1
    """trials of each configuration, with seeds counted up; they are ranked by their mean"""
    report_every: PositiveInt | None = None
    """steps between reports, each with a validation and a checkpoint; the base's validate_every unless given"""
    scheduler: Scheduler = NoScheduler()
    """which trials stop early or exchange parameters: asha, hyperband, pbt, median, none"""
    search: Search = RandomSearch()
    """which configuration comes next: random, grid, tpe, evolution, or one of Ray's"""
    resources: Resources = Resources()
    """what each trial takes"""
    concurrent: PositiveInt | None = None
    """trials at a time; as many as fit unless given"""
    time_limit: Seconds | None = None
    """seconds after which the sweep stops all trials"""
    stop: StopRules = StopRules()
    """when a trial ends before its last step"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of everything that is drawn for the sweep"""
