"""The border where a person's episodes come in: what they must be is checked here, before anything is computed.

Refused by name, with what to do:
- what is no `Episode` of `Examples` of tensors; inputs of small integers or truth values (pictures are floats);
- values that are not finite; sides without examples, or whose inputs and targets differ in number;
- classification: ids that are no int64, or not 0 .. way - 1 with support for each class;
- regression: targets that are not [n, d] like the outputs;
- of a task set: other shapes and sizes than it says, and episodes of one step that differ in size.

Labels for every pixel or token, y [n, *place] of outputs [n, classes, *place], are any class ids; -100 is ignored, as
by `torch.nn.functional.cross_entropy`. Where an algorithm or a loss asks for less, its caller checks less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from raymeta.errors import DataError
from raymeta.keys import Split, TaskKey
from raymeta.system.their_code import own_place
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, stack_episodes, tensors
from raymeta.tasks.inputs import num_examples, shape_of, sizes_text, tensors_of

LOOKED_AT = 4
"""Episodes of each split that are looked at before a run."""
IGNORED = -100
"""Label of a pixel or token that does not count."""
_SIDES = ("support", "query")
_SMALL = (torch.uint8, torch.int8, torch.int16, torch.bool)


def require_sound(
    tasks: TaskSet,
    splits: Iterable[Split],
    *,
    seed: int,
    num_episodes: int,
    class_ids: bool,
    queries: bool,
    places: bool = True,
) -> None:
    """Raise `DataError` unless the first episodes of each of `splits` are what the task set says they are.

    `num_episodes` are drawn together in a run; `class_ids` and `queries` say whether training needs these, `places`
    whether the algorithm can do with labels for every pixel or token.
    """
    for split in splits:
        keys = [TaskKey(seed, split, 0, index) for index in range(min(num_episodes, LOOKED_AT))]
        where = f"tasks {type(tasks).__name__}, {split} split"
        episodes = [tasks.episode(key) for key in keys]
        training = split == "train"
        for episode in episodes:
            require_episode(episode, where, queries=queries or not training)
            _require_as_told(tasks, keys[0], episode, where, places)
            if training and class_ids:
                require_class_ids(episode, where, tasks.num_classes(split))
        _require_stackable(tasks, keys, episodes, where)


def sound_episodes(tasks: TaskSet, keys: Sequence[TaskKey]) -> Episode:
    """The episodes of `keys`, all of one split, stacked; of a task set that a person wrote, which may be wrong later.

    Raises `DataError` naming the first task that is not like those before the run, and what its `episode` raises.
    """
    try:
        batch = tasks.episodes(keys)
        is_as_told = _is_as_told(tasks, keys[0], batch)
    except Exception as error:
        if not own_place(error):  # it was raised where their episodes are put together
            _require_each(tasks, keys)
        raise
    if not is_as_told:
        _require_each(tasks, keys)
        where = f"tasks {type(tasks).__name__}, {keys[0].split} split, step {keys[0].step}"
        _refuse(where, "episodes gives other examples than episode", "the same")
    return batch


def _is_as_told(tasks: TaskSet, key: TaskKey, batch: Episode) -> bool:
    """Whether types, shapes and labels of a batch [T, n, ...] are right, by a few operations for all of it.

    Its tasks are of the split and the step of `key`.
    """
    if not all(_is_sound_side(tasks, key, side) for side in batch) or not batch.support.y.shape[1]:
        return False
    if tasks.goal == "regression" or batch.support.y.ndim > 2:
        return True
    if tasks.one_problem:
        return True
    labels = torch.arange(tasks.size_at(key.split, key.step).way)
    return bool((batch.support.y[:, :, None] == labels).any(1).all())


def _is_sound_side(tasks: TaskSet, key: TaskKey, side: Examples) -> bool:
    x, y, ids = side
    inputs = [value for _, value in tensors_of(x)]
    if y.requires_grad or any(one.requires_grad or one.shape[:2] != y.shape[:2] for one in inputs):
        return False
    if isinstance(x, Tensor) and x.dtype in _SMALL:
        return False
    if shape_of(x, 2) != tasks.input_shape:
        return False
    if ids is not None and (ids.dtype != torch.int64 or not _within(ids, 0, tasks.num_classes(key.split))):
        return False
    if tasks.goal == "regression":
        return True
    one_label = y.ndim == 2
    lowest, end = (0, tasks.size_at(key.split, key.step).way) if one_label else (IGNORED, tasks.num_outputs)
    return y.dtype == torch.int64 and _within(y, lowest, end)


def _within(values: Tensor, lowest: int, end: int) -> bool:
    return not values.numel() or (int(values.min()) >= lowest and int(values.max()) < end)


def _require_each(tasks: TaskSet, keys: Sequence[TaskKey]) -> None:
    """Raise `DataError` for the first task whose episode alone is wrong."""
    first: Episode | None = None
    for key in keys:
        where = f"tasks {type(tasks).__name__}, {key.split} split, step {key.step}, task {key.index}"
        episode = tasks.episode(key)
        require_episode(episode, where, queries=key.split != "train")
        _require_as_told(tasks, key, episode, where, places=True)
        if episode.support.class_id is not None:
            require_class_ids(episode, where, tasks.num_classes(key.split))
        first = first or episode
        _require_alike(episode, first, where)


def _require_alike(episode: Episode, first: Episode, where: str) -> None:
    for name, side, other in zip(_SIDES, episode, first, strict=True):
        for part, one, model in zip(Examples._fields, side, other, strict=True):
            if _shown(one) != _shown(model):
                _refuse(f"{where}: {name}", f"{part} is {_shown(one)}", f"{_shown(model)}, as in other tasks of a step")


def require_declared(tasks: TaskSet, splits: Iterable[Split]) -> None:
    """Raise `DataError` unless what a task set says of itself has the types that everything else relies on."""
    where, shape, outputs = f"tasks {type(tasks).__name__}", tasks.input_shape, tasks.num_outputs
    if tasks.goal not in get_args(Goal):
        _refuse(where, f"goal is {tasks.goal!r:.40}", " or ".join(get_args(Goal)))
    shapes: Sequence[object] = list(shape.values()) if isinstance(shape, dict) else [shape]
    names = list(shape) if isinstance(shape, dict) else []
    if not shapes or not all(map(_is_shape, shapes)) or not all(map(_is_name, names)):
        told = "a tuple of whole numbers, such as (7,) or (3, 84, 84), or such tuples by the names of several inputs"
        _refuse(where, f"input_shape is {shape!r:.80}", told)
    if not isinstance(outputs, int) or outputs < 1:
        _refuse(where, f"num_outputs is {outputs!r:.40}", "a whole number from 1")
    for split in splits:
        _require_size(tasks, split, f"{where}, {split} split")


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(isinstance(size, int) and size > 0 for size in shape)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _require_size(tasks: TaskSet, split: Split, where: str) -> None:
    size, num_classes = tasks.size(split), tasks.num_classes(split)
    if not isinstance(size, Size) or not all(isinstance(n, int) for n in size):
        _refuse(where, f"size gives {size!r:.80}", "Size(way, shot, query_shot) of whole numbers")
    if not isinstance(num_classes, int) or num_classes < 0:
        _refuse(where, f"num_classes gives {num_classes!r:.40}", "a whole number, 0 for regression")


def require_episode(episode: object, where: str, *, queries: bool = True) -> None:
    """Raise `DataError` unless `episode` is one of tensors that fit together; their values are not looked at."""
    if not isinstance(episode, Episode):
        _refuse(where, f"an episode is {_kind(episode)}", "Episode(Examples(x, y), Examples(x, y))")
    for name, side in zip(_SIDES, episode, strict=True):
        if not isinstance(side, Examples):
            _refuse(where, f"{name} is {_kind(side)}", "Examples(x, y)")
        _require_side(side, f"{where}: {name}", may_be_empty=name == "query" and not queries)
    support, query = episode
    if _shown(support.x, names_only=True) != _shown(query.x, names_only=True):
        told = f"x is {_shown(support.x)} in support and {_shown(query.x)} in query"
        _refuse(where, told, "inputs of the same names in both")
    pairs = zip(tensors_of(support.x), tensors_of(query.x), strict=True)
    columns = [*((name, one, other) for (name, one), (_, other) in pairs), ("y", support.y, query.y)]
    for name, one, other in columns:
        if one.dtype != other.dtype or one.ndim != other.ndim:
            told = f"{name} is {_shown(one)} in support and {_shown(other)} in query"
            _refuse(where, told, "the same type and number of dimensions in both")


def _require_side(side: Examples, where: str, *, may_be_empty: bool) -> None:
    x, y, class_id = side
    if isinstance(x, dict) and not (x and all(map(_is_name, x))):
        _refuse(where, f"x is a dict of {', '.join(map(repr, x)) or 'nothing'}", "the names of forward's arguments")
    ids = [] if class_id is None else [("class_id", class_id)]
    values: list[tuple[str, object]] = [*tensors_of(x), ("y", y), *ids]
    for name, value in values:
        _require_plain(value, name, where)
    first = values[0][0]
    for name, tensor in (*tensors_of(x), ("y", y), *ids):
        if len(tensor) != num_examples(x):
            _refuse(where, f"{first} has {num_examples(x)} examples and {name} {len(tensor)}", "one for each")
    if isinstance(x, Tensor) and x.dtype in _SMALL:
        _refuse(where, f"x is {_shown(x)}", "floats (pictures: x.float() / 255), or int64 for tokens")
    if not len(y) and not may_be_empty:
        _refuse(where, "there are no examples", "at least one")


def _require_plain(value: object, name: str, where: str) -> None:
    if not isinstance(value, Tensor):
        _refuse(where, f"{name} is {_kind(value)}", "a torch.Tensor (torch.from_numpy makes one of an array)")
    if value.ndim == 0:
        _refuse(where, f"{name} is a single number", "a first dimension of examples [n, ...]")
    if value.requires_grad:
        _refuse(where, f"{name} requires gradients", f"a tensor without them ({name}.detach() makes one)")


def is_finite(episode: Episode) -> bool:
    """Whether an episode, or a batch of them, is free of NaN and infinity."""
    return all(bool(v.isfinite().all()) for v in tensors(episode) if v.is_floating_point() or v.is_complex())


def require_finite(episode: Episode, where: str) -> None:
    """Raise `DataError` for NaN and infinity."""
    for name, side in zip(_SIDES, episode, strict=True):
        for part, value in (*tensors_of(side.x), ("y", side.y)):
            if (value.is_floating_point() or value.is_complex()) and not bool(value.isfinite().all()):
                _refuse(where, f"{name} {part} holds NaN or infinity", "finite numbers")


def require_labels(
    episode: Episode, where: str, way: int | None = None, *, places: bool = True, each: bool = True
) -> None:
    """Raise `DataError` unless class ids are int64 of 0 .. way - 1, and support has examples of `each`.

    `way` is that of the labels in support unless given. `places` says whether labels for every pixel or token will do;
    these only must not be negative.
    """
    for name, side in zip(_SIDES, episode, strict=True):
        if side.y.dtype != torch.int64:
            remedy = "y.argmax(1)" if side.y.ndim == 2 and side.y.shape[1] > 1 else "y.flatten().long()"
            _refuse(f"{where}: {name}", f"y is {_shown(side.y)}", f"class ids, int64 [n] ({remedy} makes them)")
        if _is_column(side):
            _refuse(f"{where}: {name}", f"y is {_shown(side.y)}", "class ids [n] (y.flatten() makes them)")
    if episode.support.y.ndim > 1:
        if not places:
            _refuse(where, f"y is {_shown(episode.support.y)}", "one label for each example, for this algorithm")
        return _require_places(episode, where)
    found = torch.unique(episode.support.y).tolist()
    told = "way - 1" if way is None else str(way - 1)
    way = way or max(found[-1] + 1, 1)
    if found != list(range(way)) if each else not 0 <= found[0] <= found[-1] < way:
        _refuse(where, f"labels in support are {_some(found)}", f"0 to {told}{', each of them with support' * each}")
    other = [label for label in torch.unique(episode.query.y).tolist() if not 0 <= label < way]
    if other:
        _refuse(where, f"query has the labels {_some(other)}", f"those of support, 0 to {way - 1}")
    return None


def _is_column(side: Examples) -> bool:
    """Whether labels [n, 1] were meant as [n]: unless inputs have one place, too."""
    one_place = any(x.shape[-1] == 1 and (x.ndim == 3 or not x.is_floating_point()) for _, x in tensors_of(side.x))
    return side.y.shape[1:] == (1,) and not one_place


def _require_places(episode: Episode, where: str) -> None:
    for name, side in zip(_SIDES, episode, strict=True):
        lowest = [label for label in torch.unique(side.y).tolist() if label < 0 and label != IGNORED]
        if lowest:
            _refuse(f"{where}: {name}", f"labels are {_some(lowest)}", f"class ids from 0, or {IGNORED} for none")


def require_targets(episode: Episode, where: str, num_outputs: int) -> None:
    """Raise `DataError` unless targets are floats [n, d, ...] with d the number of outputs."""
    for name, side in zip(_SIDES, episode, strict=True):
        if not (side.y.is_floating_point() or side.y.is_complex()):
            _refuse(f"{where}: {name}", f"y is {_shown(side.y)}", "floats, as these tasks are regression")
        if side.y.ndim < 2 or side.y.shape[1] != num_outputs:
            remedy = " (y[:, None] makes them)" if side.y.ndim == 1 and num_outputs == 1 else ""
            _refuse(
                f"{where}: {name}", f"y is {_shown(side.y)}", f"targets [n, {num_outputs}] like the outputs{remedy}"
            )


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of outputs [n, classes, *place] and class ids y [n, *place]."""
    if y.shape != outputs.shape[:1] + outputs.shape[2:]:
        raise DataError(
            f"labels {list(y.shape)} do not fit outputs {list(outputs.shape)}: outputs are [n, classes] and y [n], or "
            "[n, classes, *place] and y [n, *place]"
        )
    return F.cross_entropy(outputs, y)


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of outputs [n, d] and targets y [n, d]; torch's own stretches [n] beside [n, 1] to [n, n]."""
    if y.shape != outputs.shape:
        raise DataError(
            f"targets {list(y.shape)} do not fit outputs {list(outputs.shape)}: they are [n, d], both the same"
            + (" (y[:, None] makes them)" if y.ndim == 1 else "")
        )
    return F.mse_loss(outputs, y)


def _require_as_told(tasks: TaskSet, key: TaskKey, episode: Episode, where: str, places: bool) -> None:
    require_finite(episode, where)
    size, shape = tasks.size_at(key.split, key.step), tasks.input_shape
    for name, side in zip(_SIDES, episode, strict=True):
        if shape_of(side.x) != shape:
            _refuse(f"{where}: {name}", f"x is {_shown(side.x)}", f"{sizes_text(shape)}, its input_shape")
    if tasks.goal == "regression":
        require_targets(episode, where, tasks.num_outputs)
        _require_no_more(episode, where, size, tasks.goal)
        return
    if all(_is_one_hot(side.y, size.way) for side in episode):
        _refuse(where, f"y is one-hot, {_shown(episode.support.y)}", "class ids, int64 [n] (y.argmax(1) makes them)")
    require_labels(episode, where, size.way, places=places, each=not tasks.one_problem)
    if episode.support.y.ndim == 1:
        if not tasks.one_problem:
            _require_no_more(episode, where, size, tasks.goal)
        return
    highest = int(max(side.y.max() for side in episode))
    if highest >= tasks.num_outputs:
        _refuse(where, f"labels go up to {highest}", f"ids below its num_outputs, {tasks.num_outputs}")


def _is_one_hot(y: Tensor, way: int) -> bool:
    return y.shape[1:] == (way,) and bool(((y == 0) | (y == 1)).all()) and bool((y.sum(1) == 1).all())


def _require_no_more(episode: Episode, where: str, size: Size, goal: Goal) -> None:
    """A class may have fewer examples than the task set says, but no more: results are named after `size`."""
    groups = size.way if goal == "regression" else 1
    for name, side, most in zip(_SIDES, episode, (groups * size.shot, groups * size.query_shot), strict=True):
        count = len(side.y) if goal == "regression" or not len(side.y) else int(torch.bincount(side.y).max())
        if count > most:
            each = "" if goal == "regression" else " of one class"
            option = "shot" if name == "support" else "query_shot"
            _refuse(
                f"{where}: {name}", f"there are {count} examples{each}", f"at most {most}, the {option} of its size"
            )


def require_class_ids(episode: Episode, where: str, num_classes: int | None = None) -> None:
    """Raise `DataError` unless both sides number the class of each example, below `num_classes` where it is given."""
    for name, side in zip(_SIDES, episode, strict=True):
        ids = side.class_id
        if ids is None:
            needed = "Examples(x, y, class_id), the number of each example's class among all of the split"
            _refuse(f"{where}: {name}", "there is no class_id, which this algorithm learns from", needed)
        if ids.dtype != torch.int64 or ids.ndim != 1:
            _refuse(f"{where}: {name}", f"class_id is {_shown(ids)}", "int64 [n]")
        lowest, highest = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        if lowest < 0 or (num_classes is not None and highest >= num_classes):
            most = "" if num_classes is None else f" to {num_classes - 1}, below its num_classes"
            _refuse(f"{where}: {name}", f"class_id goes from {lowest} to {highest}", f"numbers from 0{most}")


def _require_stackable(tasks: TaskSet, keys: Sequence[TaskKey], episodes: Sequence[Episode], where: str) -> None:
    """Episodes that are computed side by side have one shape, and `episodes` gives what `episode` does."""
    try:
        stacked = stack_episodes(episodes)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    batch: object = tasks.episodes(keys)
    if not isinstance(batch, Episode):
        _refuse(where, f"episodes gives {_kind(batch)}", "one Episode whose tensors have a first dimension of tasks")
    for name, one, other in zip(_SIDES, stacked, batch, strict=True):
        for part, mine, theirs in zip(Examples._fields, one, other, strict=True):
            if _shown(mine) != _shown(theirs):
                _refuse(where, f"{name} {part} of episodes is {_shown(theirs)}", f"{_shown(mine)}, as episode gives")


def _shown(value: object, *, names_only: bool = False) -> str:
    if isinstance(value, dict):
        return ", ".join(name if names_only else f"{name} {_shown(one)}" for name, one in sorted(value.items()))
    if names_only:
        return ""
    if not isinstance(value, Tensor):
        return _kind(value)
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _kind(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")


def _refuse(where: str, found: str, needed: str) -> NoReturn:
    raise DataError(f"{where}: {found}; needed is {needed}")
