"""What stays fixed across tasks: the model as a function, the loss, and how tasks are mapped over."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from raymeta.adaptation.losses import Loss, OfTwoLabels, are_two
from raymeta.autodiff.graphs import is_traced
from raymeta.autodiff.own_state import OwnState, unwritten
from raymeta.autodiff.surroundings import Surroundings
from raymeta.errors import ConfigError
from raymeta.models.as_function import AsFunction
from raymeta.models.habits import ONLY_COMPUTES, Habits
from raymeta.models.layers.beside import BODY
from raymeta.models.layers.mixing_points import mixed_call, unmark
from raymeta.models.layers.norm import BatchNorm, drop_running_statistics, reference_rows, running_statistics
from raymeta.tasks.base import Goal
from raymeta.tasks.border import IGNORED, cross_entropy, squared_error
from raymeta.tasks.episodes import Episode, Examples, tasks_of
from raymeta.tasks.inputs import Inputs, arguments_of, copied, joined, num_examples
from raymeta.tasks.mixed_inputs import is_mixed
from raymeta.tree import Params, tree_map

HEAD = f"{BODY}head"
"""Name of the head of a model that stands beside others."""
BatchNormPolicy = Literal["transductive", "support", "running"]
Vectorize = Literal["vmap", "loop"]
COLUMNS = 4096
"""The most values of a task that are summed over tasks at once."""


class Phase(NamedTuple):
    """Where in a run a task is met.

    `inner_steps` overrides the algorithm's own number where given; `way` is the number of classes in the episodes at
    hand, which a mapped function could not read from its data.
    """

    step: int = 0
    training: bool = True
    inner_steps: int | None = None
    way: int = 0


class Learned(NamedTuple):
    """What the outer loop owns: `params` are differentiated; `state` is summed and folded (running statistics).

    `given` is what the driver made for one map of an outer step alone, see `Algorithm.step`.
    """

    params: Params
    state: Params
    given: Params = {}

    def in_type(self, dtype: torch.dtype) -> Learned:
        """With numbers in the network's type; whole ones stay as they are."""
        return Learned(
            *({name: v.to(dtype) if v.is_floating_point() else v for name, v in part.items()} for part in self)
        )


class Part(NamedTuple):
    """What a method of an algorithm gives for one task: `sums` are added over tasks, along the fixed tree, and so are
    `metrics`; `rows` are kept task by task."""

    sums: Params = {}
    metrics: dict[str, Tensor] = {}
    rows: Params = {}


def default_loss(goal: Goal) -> Loss:
    """Mean cross-entropy of class ids, or mean squared error of values."""
    return cross_entropy if goal == "classification" else squared_error


class Problem:
    """A model as a pure function of its parameters, with loss, batch-norm policy and vectorisation.

    With `checkpoint_inner_steps`, methods that descend compute their inner steps again when they differentiate them.
    `judged` says whether outputs have an accuracy, or a squared error, beside a `loss` of a person's own; `metrics` are
    further functions of (outputs, y), by name. With `wide_head` an episode may have fewer classes than the head has
    outputs, of which only the first then count. With `two_labels` a query may have two labels (`OfTwoLabels`). `habits`
    are what is known of a model of a person's own.

    `model` is only a skeleton: its own parameters are never read except frozen ones (`requires_grad` False), and
    never written. What its forward writes into the rest of it (buffers, attributes) is put back after every task. Norms
    must be the exact ones of `raymeta.models.layers.norm`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        goal: Goal,
        loss: Loss | None = None,
        batch_norm: BatchNormPolicy = "transductive",
        vectorize: Vectorize = "vmap",
        habits: Habits = ONLY_COMPUTES,
        checkpoint_inner_steps: bool = False,
        wide_head: bool = False,
        judged: bool | None = None,
        metrics: Mapping[str, Loss] | None = None,
        two_labels: bool = False,
    ) -> None:
        self.model = model
        self.two_labels = two_labels and goal == "classification"
        self.wide_head = wide_head
        self.own_metrics = metrics or {}
        for norm in model.modules():
            if isinstance(norm, BatchNorm):
                norm.by_policy = True
        self.goal: Goal = goal
        self.own_loss = loss
        self.loss = default_loss(goal) if loss is None else loss
        if self.two_labels:
            self.loss = OfTwoLabels(self.loss)
        self.judged = loss is None if judged is None else judged
        self.batch_norm: BatchNormPolicy = batch_norm
        self.vectorize: Vectorize = vectorize
        self.checkpoint_inner_steps = checkpoint_inner_steps
        self.habits = habits
        self._functions: dict[int, AsFunction] = {}
        self._training: bool | None = None
        self._own_states = list(filter(None, [OwnState(model)]))

    @property
    def has_accuracy(self) -> bool:
        return self.judged and self.goal == "classification"

    @cached_property
    def param_names(self) -> frozenset[str]:
        """Names of the model's learnable parameters; a method's own (rates, moments) are not among them."""
        return frozenset(n for n, p in self.model.named_parameters() if p.requires_grad)

    def initial_params(self) -> Params:
        """The model's learnable parameters, copied; frozen ones stay inside the skeleton."""
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    def running_statistics(self) -> Params:
        """The buffers that hold running batch-norm statistics, where the policy uses them."""
        if self.batch_norm != "running":
            return {}
        return {
            f"{name}.{buffer}".lstrip("."): value.detach().clone()
            for name, norm in self._batch_norms()
            for buffer, value in norm.named_buffers(recurse=False)
            if buffer in ("running_mean", "running_var")
        }

    def momenta(self) -> dict[str, float | None]:
        """The momentum of each running statistic's layer; None for a mean over all steps."""
        norms = dict(self._batch_norms())
        return {name: norms[name.rpartition(".")[0]].momentum for name in self.running_statistics()}

    def fixed_tensors(self) -> Params:
        """What of the model is neither learned nor folded: frozen parameters, and buffers that anything reads."""
        unread = {f"{name}." for name, norm in self._batch_norms() if not norm.frozen}
        frozen = {name: p.detach() for name, p in self.model.named_parameters() if not p.requires_grad}
        buffers = {n: b.detach() for n, b in self.model.named_buffers() if not n.startswith(tuple(unread))}
        return frozen | buffers

    def exported(self, learned: Learned) -> nn.Module:
        """The model with what was learned in it, for use outside of raymeta."""
        model = copy.deepcopy(self.model)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for name, value in (learned.params | learned.state).items():
                if name in tensors:
                    tensors[name].copy_(value)
        for norm in model.modules():
            if isinstance(norm, BatchNorm):
                norm.by_policy = False
        if self.batch_norm != "running":
            drop_running_statistics(model)
        unmark(model)
        return model

    def _batch_norms(self) -> Iterator[tuple[str, BatchNorm]]:
        return ((name, m) for name, m in self.model.named_modules() if isinstance(m, BatchNorm))

    def policy_name(self) -> str:
        """The batch-norm policy for a result: `none` where the model has no batch norm."""
        return self.batch_norm if any(self._batch_norms()) else "none"

    def forward(self, learned: Learned, x: Inputs, phase: Phase, *, support_x: Inputs | None = None) -> Tensor:
        """Outputs [n, num_outputs] for x [n, *feature] under the batch-norm policy; by name where x is several inputs.

        `support_x` are the task's support inputs where x are queries: the policy `support` normalises with them.
        """
        return self._apply(self.model, learned, x, phase, support_x)

    def predict(self, learned: Learned, x: Inputs, phase: Phase, *, support_x: Inputs | None = None) -> Tensor:
        """As `forward`, of the outputs those of the task's own classes, see `of_way`."""
        return self.of_way(self.forward(learned, x, phase, support_x=support_x), phase)

    def of_way(self, outputs: Tensor, phase: Phase) -> Tensor:
        """The first `way` of outputs [n, num_outputs, ...], where the head has more since training has more classes."""
        return outputs[:, : phase.way] if self.wide_head and phase.way < outputs.shape[1] else outputs

    def features(self, learned: Learned, x: Inputs, phase: Phase, *, support_x: Inputs | None = None) -> Tensor:
        """Inputs of the head [n, d]: the model without its last linear layer."""
        return self._apply(self._body, learned, x, phase, support_x)

    def beside(self, name: str, learned: Learned, *inputs: Any, **options: Any) -> Any:
        """Outputs of the network `name` that stands `Beside` the model; of the model itself where that is empty."""
        prefix = f"{name}." if name else ""
        values = {
            n.removeprefix(prefix): v for n, v in (learned.params | learned.state).items() if n.startswith(prefix)
        }
        return self._function(self.model.get_submodule(name))(values, inputs, options)

    @property
    def head_prefix(self) -> str:
        """What names of the head's parameters begin with; nothing where the model is its own head."""
        return f"{self.head_name}." if self.head_name else ""

    def classify(self, params: Params, z: Tensor) -> Tensor:
        """All outputs of the head for features z [n, d], with the head's parameters under their full names."""
        prefix = self.head_prefix
        own = {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix) and n in self.param_names}
        result: Tensor = self._function(self.model.get_submodule(self.head_name))(own, (z,))
        return result

    def _apply(self, module: nn.Module, learned: Learned, x: Inputs, phase: Phase, support_x: Inputs | None) -> Tensor:
        values = self._values(module, learned)
        if self.batch_norm == "support" and support_x is not None:
            return self._joint(module, values, support_x, x)[num_examples(support_x) :]
        if self.habits.changes_inputs:
            x = copied(x)
        frozen = running_statistics() if self.batch_norm == "running" and not phase.training else nullcontext()
        with frozen:
            return self._call(module, values, x)

    def rows_of_support(self, learned: Learned, support_x: Inputs, x: Inputs) -> Tensor:
        """Outputs for the support inputs in one batch with queries x, normalised by the support rows."""
        return self._joint(self.model, self._values(self.model, learned), support_x, x)[: num_examples(support_x)]

    def _joint(self, module: nn.Module, values: Params, support_x: Inputs, x: Inputs) -> Tensor:
        inputs = joined(support_x, x)
        with reference_rows(num_examples(support_x), num_examples(inputs)):
            return self._call(module, values, inputs)

    def _call(self, module: nn.Module, values: Params, x: Inputs) -> Tensor:
        if is_mixed(x):
            return mixed_call(lambda own: self._call(module, values, own), cast(dict[str, Tensor], x))
        with unwritten(values) if self._own_states else nullcontext():
            outputs: Tensor = self._function(module)(values, *arguments_of(x))
        return outputs

    def _function(self, module: nn.Module) -> AsFunction:
        """The model or a part of it as a function, which is made once."""
        function = self._functions.get(id(module))
        if function is None or function.module is not module:  # as in a copy of this problem
            function = self._functions[id(module)] = AsFunction(module)
        return function

    def set_training(self, training: bool) -> None:
        """Switch dropout on or off; batch norm follows its policy, and what came in eval mode stays in it."""
        if training == self._training:  # a walk over all modules
            return
        self._training = training
        for root in (self.model, *([self._body] if "_body" in self.__dict__ else [])):
            root.train(training)
            for name, module in root.named_modules():
                module.training &= name not in self.habits.in_eval_mode

    @property
    def surroundings(self) -> Surroundings:
        """What outputs depend on besides parameters and inputs."""
        return Surroundings(self._own_states, self.habits.draws)

    def _values(self, module: nn.Module, learned: Learned) -> Params:
        """What the module knows of what is learned: methods add parameters of their own, and the body lacks the
        head's."""
        own = self._function(module).names
        return {n: v for n, v in (learned.params | learned.state).items() if n in own}

    @cached_property
    def head_name(self) -> str:
        """Name of the head that is known, or of the model beside others, or of the last linear layer."""
        if self.habits.head is not None:
            return self.habits.head
        names = [name for name, m in self.model.named_modules() if isinstance(m, nn.Linear)]
        if HEAD in names:  # not that of a network beside it
            return HEAD
        if not names:
            raise ConfigError("no head to adapt: the model has no nn.Linear layer; name its last layer with model.head")
        return str(names[-1])

    @cached_property
    def _body(self) -> nn.Module:
        if not self.head_name:
            return nn.Identity()
        body = copy.deepcopy(self.model)
        parent, _, child = self.head_name.rpartition(".")
        setattr(body.get_submodule(parent), child, nn.Identity())
        self._own_states += filter(None, [OwnState(body)])
        return body

    def way_of(self, episodes: Episode) -> int:
        """Number of classes in each of a batch of episodes (0 for regression)."""
        return int(episodes.support.y.max()) + 1 if self.goal == "classification" else 0

    def metrics(
        self,
        outputs: Tensor,
        y: Tensor,
        loss: Loss | None = None,
        point: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Loss of a prediction, accuracy or squared error where it is judged, and metrics of a person's own.

        `loss` is that of a method which has its own, and `point` of outputs are the values that they predict.
        """
        values = {"loss": (loss or self.loss)(outputs, y)}
        outputs = outputs if point is None else point(outputs)
        if self.two_labels and are_two(y):
            y = y[:, 0].long()
        values |= {name: metric(outputs, y) for name, metric in self.own_metrics.items()}
        if self.judged and self.goal == "regression" and (self.own_loss is not None or point is not None):
            values["mse"] = squared_error(outputs, y)
        if self.has_accuracy:
            right = (outputs.argmax(1) == y).to(outputs.dtype)  # of [n, way, ...]
            values["accuracy"] = right.mean() if y.dim() == 1 else right.sum() / (y != IGNORED).sum()
        return values

    def map_over_tasks(self, function: Callable[..., Any], episodes: Episode, noise: dict[str, Tensor]) -> Any:
        """`function(episode, noise)` of every task, results stacked along a leading task dimension."""
        if self.vectorize == "vmap":
            return self._alone(_vmap, function, episodes, noise)
        results = [self._alone(function, episode, draw) for episode, draw in tasks_of(episodes, noise)]
        return torch.utils._pytree.tree_map(lambda *leaves: torch.stack(leaves), *results)

    def sum_over_tasks(self, function: Callable[..., Part], episodes: Episode, noise: dict[str, Tensor]) -> Part:
        """The parts that `function` gives for each task, added in float64 and in task order; rows are [T, ...]."""
        if self.vectorize == "vmap":
            stacked: Part = self._alone(_vmap, function, episodes, noise)
            return Part(tree_map(_sum, stacked.sums), tree_map(_sum, stacked.metrics), stacked.rows)
        sums: Params = {}
        metrics: Params = {}
        rows: list[Params] = []
        for episode, draw in tasks_of(episodes, noise):
            part = self._alone(function, episode, draw)
            if rows:
                _add(sums, part.sums)
                _add(metrics, part.metrics)
            else:
                sums, metrics = (tree_map(_widened, values) for values in (part.sums, part.metrics))
            rows.append(part.rows)
        return Part(sums, metrics, {name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Inside, the model may write into itself; afterwards it is as it was."""
        try:
            yield
        finally:
            for own in self._own_states:
                own.restore()

    def _alone(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, after which the model is as it was before."""
        if not self._own_states:
            return function(*args)
        with self.undisturbed():
            return function(*args)


def _wide(leaf: Tensor) -> torch.dtype:
    """The type in which values like `leaf` are summed."""
    return torch.complex128 if leaf.is_complex() else torch.float64


def _widened(leaf: Tensor) -> Tensor:
    """A copy of `leaf` to which others are added."""
    return leaf.to(_wide(leaf), copy=True)


def _sum(leaf: Tensor) -> Tensor:
    """The sum over tasks of leaf [T, ...]; it has the bits of `leaf.sum(0, dtype=...)`.

    On a CPU torch makes a wide copy of all that it sums. That of some columns at a time stays in the cache. Parts begin
    where a vector of the processor begins and are nearly of one size: torch sums single columns in another order.
    """
    num_columns = leaf.numel() // max(1, len(leaf))
    num_parts = -(-num_columns // COLUMNS)
    if is_traced() or leaf.device.type != "cpu" or num_parts < 2 or not leaf.is_contiguous():
        return leaf.sum(0, dtype=_wide(leaf))
    size = 64 * -(-num_columns // (64 * num_parts))
    parts = torch.split(leaf.flatten(1), size, 1)
    return torch.cat([part.sum(0, dtype=_wide(leaf)) for part in parts]).view(leaf.shape[1:])


def _add(total: Params, values: Params) -> None:
    """Add the values of another task to sums, in place."""
    for name in total:
        total[name] += values[name]


def _vmap(function: Callable[..., Any], episodes: Episode, noise: dict[str, Tensor]) -> Any:
    # torch.vmap refuses None leaves, so what is missing is left out and put back inside.
    sides = [{name: v for name, v in side._asdict().items() if v is not None} for side in episodes]

    def call(support: dict[str, Any], query: dict[str, Any], noise: dict[str, Tensor]) -> Any:
        return function(Episode(Examples(**support), Examples(**query)), noise)

    support, query = sides
    if not noise:  # vmap refuses an empty argument
        return torch.vmap(lambda s, q: call(s, q, {}), randomness="different")(support, query)
    return torch.vmap(call, randomness="different")(support, query, noise)
