"""What a run is: its settings, and the task set, model, algorithm and outer optimiser with options of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
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
    WithJsonSchema,
    field_validator,
    model_validator,
)

from raymeta.adaptation.problem import BatchNormPolicy, Vectorize
from raymeta.algorithms.base import Algorithm, DescentAlgorithm, TrainedModel
from raymeta.algorithms.search import ArchitectureSearch
from raymeta.config.variants import name_of
from raymeta.engine.driver.outer import OuterOptions
from raymeta.engine.executors.placement import Aggregate, Placement, require_known_address
from raymeta.engine.worker.numerics import Precision
from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.options import (
    FREE_ON_RESUME,
    IMPORTED,
    NOT_SEARCHED,
    OF_MIXING,
    OF_THE_PERSON,
    OF_WORKERS,
    OWNED_BY_SWEEP,
)
from raymeta.system.remote import is_uri
from raymeta.tasks.architectures import ArchitectureTable
from raymeta.tasks.base import TaskSet
from raymeta.tasks.mixing import MixingName

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds(value: object) -> object:
    """Seconds of a duration such as `90`, `20s`, `55m` or `1h30m`; what is no text passes as it is."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{value!r} is no duration: write 90, 20s, 55m or 1h30m")
    hours, minutes, rest = (float(group or 0) for group in match.groups())
    return 3600 * hours + 60 * minutes + rest


def _comma_separated(value: object) -> object:
    return [tag.strip() for tag in value.split(",")] if isinstance(value, str) else value


Seconds = Annotated[
    PositiveFloat,
    BeforeValidator(seconds),
    WithJsonSchema({"type": ["number", "string"], "x-range": "seconds > 0, or a duration such as 20s, 55m or 1h30m"}),
]
Tags = Annotated[
    list[str],
    BeforeValidator(_comma_separated),
    WithJsonSchema({"type": ["array", "string"], "items": {"type": "string"}, "x-range": "list of text, or a,b"}),
]


class RunOptions(BaseModel):
    """The settings of a run that have no options of their own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    name: Annotated[str | None, FREE_ON_RESUME, OWNED_BY_SWEEP.with_("write name of the sweep")] = None
    """name of the run, part of its folder's name; made from tasks and algorithm unless given"""
    preset: Annotated[str | None, OWNED_BY_SWEEP.with_("write base")] = None
    """preset that the run started from"""
    tags: Annotated[Tags, FREE_ON_RESUME, NOT_SEARCHED.with_("set it under options")] = Field(default_factory=list)
    """words to find the run by"""
    seed: Annotated[int, NOT_SEARCHED.with_("use repeats")] = Field(default=0, ge=0, lt=2**63)
    """seed of everything random"""
    steps: Annotated[
        PositiveInt,
        FREE_ON_RESUME,
        NOT_SEARCHED.with_("it is the budget that trials are compared at: set it under options"),
    ] = 1000
    """outer steps to train for"""
    meta_batch_size: PositiveInt = 16
    """tasks per outer step"""
    shard_size: PositiveInt = 8
    """tasks that one worker computes at once; changes the last bits of a result"""
    vectorize: Vectorize | Literal["auto"] = "auto"
    """tasks of a shard side by side (`vmap`) or one after another (`loop`: less memory, any model); `auto` chooses by a
    rule over model, examples, device and `compile`, and the run records what"""
    compile: bool | Literal["auto"] = "auto"
    """compile the computation of a shard (20 seconds or so once, cached on disk; then two or more times as fast for
    small models); `auto` compiles long runs of measured methods, by a rule over configuration and machine, and the run
    records what"""
    checkpoint_inner_steps: Annotated[bool, FREE_ON_RESUME] = False
    """keep only the parameters between second-order inner steps and compute the rest again: the same result, a fraction
    of the memory, more time"""
    chunk_size: PositiveInt | None = None
    """tasks of a shard computed at once, for less memory; changes the last bits of a result; the whole shard unless
    given, and halved by itself where memory does not suffice"""
    loss: Annotated[str | None, IMPORTED] = None
    """loss of inner and outer steps: cross_entropy, mse, l1, huber, or the import path of a function of (outputs, y);
    cross-entropy or squared error, as the tasks are, unless given"""
    class_weights: list[PositiveFloat] | None = None
    """weights of an episode's classes 0, 1, ... in cross_entropy"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of a label that cross_entropy spreads over all classes"""
    start: str | None = None
    """weights to begin with, also called init_from: a run (its best checkpoint), an exported model, a file of
    safetensors, or a state dict of torch (.pt, .pth, .bin, .ckpt)"""
    freeze: Tags = Field(default_factory=list)
    """shell-style patterns of the model's parameter names that are neither learned nor adapted"""
    metrics: Annotated[list[str], IMPORTED] = Field(default_factory=list)
    """import paths of functions of (outputs, y) that are reported at validation and test under their names"""
    mixing: MixingName | None = None
    """make training tasks of others: `metamix` mixes queries with support examples, `mlti` mixes two tasks"""
    mixing_beta: Annotated[PositiveInt, OF_MIXING] = 2
    """a of Beta(a, a), from which the shares of a mixture are drawn"""
    mixing_layers: Annotated[list[str] | None, OF_MIXING] = None
    """shell-style patterns of the layers after which is mixed, and `input`, of which each task draws one; the input and
    all activations unless given"""
    channel_shuffle: Annotated[float, OF_MIXING] = Field(default=0.0, ge=0, le=1)
    """of `metamix`: probability that a group of channels of each class comes from another class"""
    channel_shuffle_after: Annotated[NonNegativeInt, OF_MIXING] = 2000
    """outer steps before the first channel shuffle"""
    batch_norm: BatchNormPolicy = "transductive"
    """statistics that batch norm uses: of the batch at hand, of the task's support set, or running averages"""
    validate_every: Annotated[NonNegativeInt, OWNED_BY_SWEEP.with_("write report_every")] = 250
    """outer steps between validations; 0 for none"""
    validation_episodes: Annotated[
        PositiveInt, NOT_SEARCHED.with_("scores would differ in their noise: set it under options")
    ] = 200
    """episodes of a validation"""
    test_episodes: Annotated[
        PositiveInt, FREE_ON_RESUME, NOT_SEARCHED.with_("it changes no training: set it under options")
    ] = 600
    """episodes of the final test"""
    checkpoint_every: Annotated[PositiveInt, FREE_ON_RESUME, OWNED_BY_SWEEP.with_("write report_every")] = 250
    """outer steps between checkpoints"""
    keep_checkpoints: Annotated[PositiveInt, FREE_ON_RESUME] = 3
    """latest checkpoints to keep, besides the best one"""
    workers: Annotated[
        NonNegativeInt | Literal["auto"], FREE_ON_RESUME, OWNED_BY_SWEEP.with_("write resources.workers")
    ] = 0
    """Ray workers, or `auto` for as many as the cluster has room for; 0 computes in this process, without Ray"""
    min_workers: Annotated[
        PositiveInt | None,
        FREE_ON_RESUME,
        OF_WORKERS,
        OWNED_BY_SWEEP.with_("a trial has a fixed number of workers, write resources.workers"),
    ] = None
    """workers that a run needs; by default all of them to start and one to go on"""
    max_workers: Annotated[
        PositiveInt | None,
        FREE_ON_RESUME,
        OF_WORKERS,
        OWNED_BY_SWEEP.with_("a trial has a fixed number of workers, write resources.workers"),
    ] = None
    """workers that a run grows to while the cluster has room; `workers` unless given"""
    threads_per_worker: PositiveInt = 1
    """CPU threads of a worker; changes the last bits of a result"""
    cpus_per_worker: Annotated[
        NonNegativeFloat | None, FREE_ON_RESUME, OF_WORKERS, OWNED_BY_SWEEP.with_("write resources.cpus_per_worker")
    ] = None
    """CPUs that Ray reserves for a worker; `threads_per_worker` unless given"""
    gpus_per_worker: Annotated[
        NonNegativeFloat | None, FREE_ON_RESUME, OF_WORKERS, OWNED_BY_SWEEP.with_("write resources.gpus_per_worker")
    ] = None
    """GPUs of a worker, 1 or a fraction; by default 1 where the cluster has any, 0 with device cpu; autoscaling asks"""
    accelerator_type: Annotated[
        str | None, FREE_ON_RESUME, OF_WORKERS, OWNED_BY_SWEEP.with_("write resources.accelerator_type")
    ] = None
    """kind of GPU that a worker needs, as Ray names it: A100, H100, ..."""
    node_labels: Annotated[
        dict[str, str], FREE_ON_RESUME, OF_WORKERS, OWNED_BY_SWEEP.with_("trials go wherever their workers fit")
    ] = Field(default_factory=dict)
    """labels that a worker's node must have"""
    placement: Annotated[
        Placement, FREE_ON_RESUME, OF_WORKERS, OWNED_BY_SWEEP.with_("a trial's workers are packed on few nodes")
    ] = "pack"
    """workers on few nodes (`pack`) or over all of them (`spread`)"""
    aggregate: Annotated[Aggregate, FREE_ON_RESUME, OF_WORKERS] = "flat"
    """gradients travel one for each shard (`flat`) or summed on their node first (`node`); same bits, less traffic"""
    shard_timeout: Annotated[Seconds | None, FREE_ON_RESUME, OF_WORKERS] = None
    """seconds after which a worker that has not finished a shard is replaced; by default 20 times the usual, >= 60"""
    worker_wait: Annotated[Seconds, FREE_ON_RESUME, OF_WORKERS] = 600.0
    """seconds to wait for workers, at the start or when too few are left, before the run stops resumably"""
    device: Annotated[Literal["auto", "cpu", "cuda"], FREE_ON_RESUME] = "auto"
    """where a worker computes; `auto` takes a GPU where there is one"""
    precision: Precision = "float32"
    """precision of products: float32; tf32 (faster on a GPU, 10-bit factors); bfloat16 (autocast)"""
    deterministic: bool = False
    """equal bits on a GPU too, run by run; costs speed, and an operation without such a kernel raises"""
    address: Annotated[
        str | None,
        OF_THE_PERSON.with_("Ray is started on this machine"),
        FREE_ON_RESUME,
        OF_WORKERS,
        OWNED_BY_SWEEP.with_("use --address"),
    ] = None
    """Ray cluster to join from one of its hosts: `auto` or HOST:PORT; starts Ray on this machine unless given"""
    autoscaling: Annotated[bool, FREE_ON_RESUME, OF_WORKERS, OWNED_BY_SWEEP.with_("write resources.autoscaling")] = (
        False
    )
    """the cluster grows by itself: wait for nodes where workers do not fit, instead of failing at once"""
    overlap_validation: Annotated[bool, FREE_ON_RESUME, OWNED_BY_SWEEP.with_("a trial waits for its score")] = True
    """validate on Ray workers while training goes on; changes no result"""
    output: Annotated[
        str, OF_THE_PERSON.with_("results/ is used"), FREE_ON_RESUME, OWNED_BY_SWEEP.with_("use --output")
    ] = Field(default="results", min_length=1)
    """folder that receives the run's own folder; a URI such as s3://BUCKET/PREFIX stands for `mirror`, and results/"""
    mirror: Annotated[str | None, OF_THE_PERSON.with_("nothing is copied there"), FREE_ON_RESUME] = None
    """URI of a store (s3, gs, hdfs, abfs, file) that gets a copy of the run's folder, kept up to date"""
    time_limit: Annotated[Seconds | None, FREE_ON_RESUME, OWNED_BY_SWEEP.with_("write time_limit of the sweep")] = None
    """seconds after which the run saves and stops"""

    @model_validator(mode="after")
    def _workers_agree(self) -> RunOptions:
        if self.workers == 0:
            return self
        counts = {"min_workers": self.min_workers, "workers": self.workers, "max_workers": self.max_workers}
        given = [(name, count) for name, count in counts.items() if isinstance(count, int)]
        for (low, fewer), (high, more) in pairwise(given):
            if fewer > more:
                raise ValueError(f"{low} is {fewer}, more than {high}, which is {more}: raise {high} or lower {low}")
        if self.gpus_per_worker is not None and self.gpus_per_worker > 1:
            raise ValueError(
                f"gpus_per_worker is {self.gpus_per_worker:g}, but a worker computes on one device: use 1 or a "
                "fraction, and more workers"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _uri_is_a_mirror(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not is_uri(values.get("output")):
            return values
        if values.get("mirror") is not None:
            raise ConfigError("output is a URI already: with mirror, give a local folder as output")
        return {name: value for name, value in values.items() if name != "output"} | {"mirror": values["output"]}

    @field_validator("address")
    @classmethod
    def _address_is_known(cls, value: str | None) -> str | None:
        return None if value is None else require_known_address(value)

    @field_validator("mirror")
    @classmethod
    def _mirror_is_a_uri(cls, value: str | None) -> str | None:
        if value is not None and not is_uri(value):
            raise ValueError("a mirror is a URI: s3://BUCKET/PREFIX, file:///FOLDER")
        return value


class RunConfig(RunOptions):
    """Everything that determines a run.

    `outer` may be given as a mapping: what it leaves out are the algorithm's own defaults, then the general ones.
    Raises `ConfigError` where the algorithm cannot learn from these tasks.
    """

    tasks: TaskSet
    """where the episodes come from"""
    model: ModelSpec
    """the network"""
    algorithm: Algorithm
    """the method, with its inner loop"""
    outer: OuterOptions
    """how a mean meta-gradient becomes a step"""

    @model_validator(mode="before")
    @classmethod
    def _outer_of_the_algorithm(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("algorithm"), Algorithm):
            return values
        given = values.get("outer", {})
        outer = {**values["algorithm"].outer, **given} if isinstance(given, Mapping) else given
        return {**values, "outer": outer}

    @model_validator(mode="after")
    def _inner_steps_can_be_checkpointed(self) -> RunConfig:
        if self.checkpoint_inner_steps and not isinstance(self.algorithm, DescentAlgorithm):
            raise ConfigError(
                f"algorithm {name_of(self.algorithm)} has no inner steps that checkpoint_inner_steps could compute "
                "again: leave it out"
            )
        if self.checkpoint_inner_steps and self.compile is True:
            raise ConfigError("checkpoint_inner_steps and compile do not go together: set one of them to false")
        return self

    @model_validator(mode="after")
    def _goals_agree(self) -> RunConfig:
        if isinstance(self.algorithm, ArchitectureSearch) and not isinstance(self.tasks, ArchitectureTable):
            raise ConfigError(
                f"algorithm {name_of(self.algorithm)} looks architectures up in a table, and tasks "
                f"{name_of(self.tasks)} are none: use --tasks perceptrons or cell_table, or --algorithm darts or enas"
            )
        if self.tasks.goal not in self.algorithm.goals:
            raise ConfigError(
                f"algorithm {name_of(self.algorithm)} does {' and '.join(self.algorithm.goals)}, but tasks "
                f"{name_of(self.tasks)} are {self.tasks.goal}: choose another algorithm or other tasks"
            )
        if self.tasks.one_problem and not isinstance(self.algorithm, TrainedModel):
            raise ConfigError(
                f"algorithm {name_of(self.algorithm)} adapts to tasks, and those of {name_of(self.tasks)} are batches "
                "of one training problem: choose a method that trains one model, such as plain, l2rw, meta_weight_net, "
                "metadistil, mkd, dada, erm, mldg, darts or enas"
            )
        return self
