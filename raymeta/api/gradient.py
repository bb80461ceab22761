"""The mean meta-gradient of any model under any algorithm, for a training loop of one's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from raymeta.adaptation.problem import BatchNormPolicy, Learned, Phase, Problem, Vectorize
from raymeta.algorithms.base import Algorithm
from raymeta.autodiff.derivatives import whole_graphs
from raymeta.autodiff.failures import exact_attention
from raymeta.engine.driver.rehearsal import few_of_each_class, require_computable
from raymeta.errors import ConfigError, DataError
from raymeta.keys import TaskKey
from raymeta.models.fingerprint import fingerprint
from raymeta.models.habits import Habits, habits_of
from raymeta.models.layers.convert import convert
from raymeta.tasks.base import Goal
from raymeta.tasks.border import is_finite, require_class_ids, require_episode, require_finite, require_labels
from raymeta.tasks.episodes import Episode, stack_episodes, tensors
from raymeta.tasks.inputs import Inputs, shape_of, tensors_of
from raymeta.tree import Params


def meta_gradient(
    model: nn.Module,
    algorithm: Algorithm,
    episodes: Sequence[Episode],
    *,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    vectorize: Vectorize = "vmap",
    params: Mapping[str, Tensor] | None = None,
    batch_norm: BatchNormPolicy = "transductive",
    checkpoint_inner_steps: bool = False,
    head: str | None = None,
    step: int = 0,
) -> dict[str, Tensor]:
    """The mean over `episodes` of the algorithm's meta-gradient at the model's parameters, by parameter name.

    Exact at second order, for fused batch, instance, layer and group norm, weight norm and scaled-dot-product attention
    too: the model is copied and its norms converted; it is never mutated, and what its forward writes (buffers,
    attributes) is put back after each task. Its training flags are honoured (dropout; batch norm in eval mode uses its
    running statistics as constants). Hooks on parameters (`Tensor.register_hook`) are not called.

    Args:
        model: any module; parameters with `requires_grad=False` neither adapt nor appear in the result.
        algorithm: for instance `MAML(inner_lr=0.1, inner_steps=5)`. Reptile's "gradient" is the mean of φ − θ_K.
        episodes: `Episode(support=Examples(x, y), query=Examples(x, y))` with x [n, *feature] and y [n] class ids or
            [n, d] values. Episodes of unequal shapes or ways are computed in groups.
        loss: `loss(outputs, y) -> scalar`, used as it is, inside and outside; by default mean cross-entropy for
            integer y and mean squared error for floating y.
        vectorize: all tasks at once with `torch.vmap`, or one after another with `loop` (less memory, any layer).
        params: values in place of the model's own, and of what the algorithm adds (`inner_lr/NAME` for Meta-SGD,
            which otherwise draws its rates from a generator seeded with 0).
        batch_norm: whose statistics normalise queries, see `raymeta.adaptation.problem`.
        checkpoint_inner_steps: keep only the parameters between second-order inner steps and compute the rest again:
            the same bits in less memory.
        head: name of the layer that ANIL adapts; the linear layer that the model calls last unless given.
        step: number of the outer step, which with an episode's place seeds what a method draws by itself (the order of
            Reptile's mini-batches): give it where one episode is seen again.

    Raises:
        NotTwiceDifferentiable: a layer lacks the derivative that is needed; its name and the remedy are in the text.
        ConfigError: no episodes, or an option that does not fit the model or the loss.
        DataError: episodes that are not what they must be, see `raymeta.tasks.border`; with a loss of your own, y is
            its own affair, unless the algorithm knows classes only.
    """
    if not episodes:
        raise ConfigError("meta_gradient needs at least one episode")
    if algorithm.has_own_step:
        raise ConfigError(
            f"{type(algorithm).__name__} has no meta-gradient of episodes alone: train it with meta_train, where its "
            "outer step and its task set are"
        )
    if loss is not None and getattr(algorithm, "inner_loss_reduction", "mean") != "mean":
        raise ConfigError("a loss of your own is used as it is: leave inner_loss_reduction at mean")
    goal = _checked_goal(episodes, algorithm, labelled=loss is None or algorithm.goals == ("classification",))
    exact, mark = convert(model), fingerprint(model)
    problem = Problem(
        exact,
        goal=goal,
        loss=loss,
        vectorize=vectorize,
        batch_norm=batch_norm,
        habits=_known_habits(model, mark, exact, episodes[0].support.x, head),
        checkpoint_inner_steps=checkpoint_inner_steps,
    )
    if not problem.param_names:
        raise ConfigError("the model has no learnable parameters: all have requires_grad=False, or there are none")
    learned = _learned(problem, algorithm, params or {})
    _once_computable(model, mark, algorithm, problem, learned, episodes[0])
    totals = [_group_sum(problem, algorithm, learned, group, step) for group in _groups(episodes, goal)]
    return {
        name: (torch.stack([total[name] for total in totals]).sum(0) / len(episodes)).to(value.dtype)
        for name, value in learned.params.items()
    }


def _checked_goal(episodes: Sequence[Episode], algorithm: Algorithm, *, labelled: bool) -> Goal:
    """Look at the episodes; what they are follows from their targets."""
    for index, episode in enumerate(episodes):
        require_episode(episode, f"episode {index}", queries=algorithm.uses_queries)
    kinds = {episode.support.y.is_floating_point() or episode.support.y.is_complex() for episode in episodes}
    if len(kinds) > 1:
        raise DataError("some episodes have floating targets, others whole ones: give one kind in a call")
    goal: Goal = "regression" if kinds == {True} else "classification"
    if goal not in algorithm.goals:
        raise ConfigError(
            f"{type(algorithm).__name__} does {' and '.join(algorithm.goals)}, but y is {episodes[0].support.y.dtype}: "
            "class ids are int64 (y.long() makes them)"
        )
    for index, episode in enumerate(episodes):
        if goal == "classification" and labelled:
            require_labels(episode, f"episode {index}", places="regression" in algorithm.goals)
        if algorithm.uses_class_ids:
            require_class_ids(episode, f"episode {index}")
    return goal


def _groups(episodes: Sequence[Episode], goal: Goal) -> list[list[tuple[int, Episode]]]:
    """Episodes of equal shapes and equal way, with their positions."""
    groups: dict[object, list[tuple[int, Episode]]] = defaultdict(list)
    for index, episode in enumerate(episodes):
        way = int(episode.support.y.max()) if goal == "classification" else 0
        shapes = tuple(value.shape for value in tensors(episode))
        groups[way, shapes].append((index, episode))
    return list(groups.values())


def _learned(problem: Problem, algorithm: Algorithm, values: Mapping[str, Tensor]) -> Learned:
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator().manual_seed(0))
    if unknown := sorted(set(values) - set(learned.params)):
        raise ConfigError(f"params holds {unknown[0]}, which is not learned; learned are {', '.join(learned.params)}")
    return learned._replace(params=learned.params | {name: value.detach() for name, value in values.items()})


def _group_sum(
    problem: Problem, algorithm: Algorithm, learned: Learned, group: Sequence[tuple[int, Episode]], step: int
) -> Params:
    """Float64 sum over episodes of equal shapes; the step and their positions in the list are their keys."""
    batch = stack_episodes([episode for _, episode in group])
    if not is_finite(batch):
        for index, episode in group:
            require_finite(episode, f"episode {index}")
    keys = [TaskKey(0, "train", step, index) for index, _ in group]
    phase = Phase(step=step, training=True)
    noise = {n: v.to(batch.support.y.device) for n, v in algorithm.noise(problem, keys, batch, phase).items()}
    with exact_attention(), whole_graphs():
        try:
            return algorithm.contribution(problem, learned, batch, noise=noise, phase=phase).sums
        except RuntimeError as error:
            raise algorithm.explained(problem, group[0][1], error) from error


_KNOWN: WeakKeyDictionary[nn.Module, dict[object, Habits]] = WeakKeyDictionary()
_COMPUTABLE: WeakKeyDictionary[nn.Module, set[object]] = WeakKeyDictionary()


def _known_habits(model: nn.Module, mark: str, exact: nn.Module, x: Inputs, head: str | None) -> Habits:
    """Habits of a model, found out once for each shape of inputs and modes of its modules."""
    known = _KNOWN.setdefault(model, {})
    kind = *((name, value.shape[1:], value.dtype) for name, value in tensors_of(x)), head, mark
    if kind not in known:
        known[kind] = habits_of(exact, x, head=head)
    return known[kind]


def _once_computable(
    model: nn.Module, mark: str, algorithm: Algorithm, problem: Problem, learned: Learned, episode: Episode
) -> None:
    """Check once that nothing of a task would be wrong without an error."""
    computable = _COMPUTABLE.setdefault(model, set())
    shapes = str(shape_of(episode.support.x)), episode.support.y.shape[1:]
    head = problem.head_name if algorithm.splits_model else None
    options = problem.own_loss, problem.batch_norm, problem.vectorize, problem.checkpoint_inner_steps
    kind = repr(algorithm), options, head, shapes, mark
    if kind not in computable:
        with exact_attention(), whole_graphs():
            require_computable(algorithm, problem, learned, few_of_each_class(episode))
        computable.add(kind)
