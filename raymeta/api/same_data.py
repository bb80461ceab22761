"""Whether data are still those of a run: what it trained on must not be tested on, and what it held out must be tested.

A run's manifest (`data.json`) is compared with what its task set finds now. Where a folder only grew, the classes that
the run recorded are used; anything else that changed is refused with what differs. Data given on purpose (another
`tasks.root`) may be others, as long as none of the classes was learned from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from raymeta.config.build import splits_in_use
from raymeta.config.schema import RunConfig
from raymeta.errors import DataError
from raymeta.keys import Split
from raymeta.runs import layout
from raymeta.runs.read import Run
from raymeta.tasks.base import TaskSet
from raymeta.tasks.manifest import Manifest, changes, other_values, same, trained_on


class Fitted(NamedTuple):
    """A configuration on a run's own data, and what a person should know of these."""

    config: RunConfig
    notes: list[str]


def on_recorded_data(run: Run, config: RunConfig) -> Fitted:
    """`config` of a run to resume, on the data that it began with. Raises `DataError` where they changed."""
    recorded = run.manifest
    if recorded is None:
        return Fitted(config, [_unrecorded(run)])
    tasks, told = _unchanged(config.tasks, recorded, splits_in_use(config))
    if tasks is None:
        raise DataError(
            f"--resume {run.id}: its data changed since it began: {'; '.join(told)}. Put them back, or start a new "
            f"run with -c {run.path / layout.CONFIG}"
        )
    return Fitted(config.model_copy(update={"tasks": tasks}), told)


def on_held_out_data(
    run: Run, config: RunConfig, own: TaskSet, split: Split, *, chosen: Collection[str], changed_data: bool = False
) -> Fitted:
    """`config` of a run to score on `split`, on what the run held out there; `own` are its tasks in the run's sizes.

    `chosen` are the options of data that were given on purpose. Raises `DataError` where the data changed, unless there
    are any or `changed_data` allows it; and in any case where classes to score on are among those that the run learned
    from.
    """
    recorded = run.manifest
    if recorded is None:
        return Fitted(config, [_unrecorded(run)])
    if chosen or changed_data:
        own = own.keeping(recorded)
        config = config.model_copy(update={"tasks": config.tasks.keeping(recorded)})
    told = [f"{run.id} used no {split} split: whether its classes are the same now cannot be told"]
    if split in recorded.splits:
        kept, told = _unchanged(own, recorded, [split], by_name=set(chosen) <= {"tasks.root", "tasks.file"})
        if kept is not None:
            now = kept.manifest([split])
            replaced = other_values(recorded, now, [split])
            _require_held_out(run, recorded, now, split, splits_in_use(config), among=replaced)
            fitted = config.tasks if kept is own else config.tasks.keeping(recorded).keeping_classes(recorded)
            return Fitted(config.model_copy(update={"tasks": fitted}), told)
        if not changed_data and not chosen:
            raise DataError(
                f"the {split} split of {run.id} is not what it was in the run: {'; '.join(told)}. Put the data back, "
                "name the place of others with --tasks.root, or score what is there with --changed-data"
            )
    now = own.manifest([split])
    _require_held_out(run, recorded, now, split, splits_in_use(config))
    note = f"scored on other data than the {split} split of {run.id}: {_part(now, split)} ({'; '.join(told)})"
    return Fitted(config, [note])


def _unchanged(
    tasks: TaskSet, recorded: Manifest, splits: Sequence[Split], *, by_name: bool = True
) -> tuple[TaskSet | None, list[str]]:
    """`tasks` as recorded, with the recorded side and classes if need be and `by_name` allows it, and notes; or None
    and what differs."""
    now = tasks.manifest(list(recorded.splits))
    if same(recorded, now, splits):
        return tasks, _replaced(recorded, now, splits)
    differences = changes(recorded, now, list(recorded.splits))
    there = {name for content in now.splits.values() for name in content.classes}
    wanted = {name for split in splits for name in recorded.splits[split].classes}
    if not by_name or not wanted or not wanted <= there:
        return None, differences
    try:
        chosen = tasks.keeping(recorded).keeping_classes(recorded)
        again = chosen.manifest(list(recorded.splits))
    except DataError:  # they lie where this task set cannot choose them, such as in the folder of another split
        return None, differences
    if not same(recorded, again, splits):
        return None, changes(recorded, again, splits)
    note = f"the data changed since the run began ({'; '.join(differences)}): the classes that it recorded are used"
    return chosen, [note, *_replaced(recorded, again, splits)]


def _replaced(recorded: Manifest, now: Manifest, splits: Sequence[Split]) -> list[str]:
    names = other_values(recorded, now, splits)
    if not names:
        return []
    more = ", ..." if len(names) > 5 else ""
    return [
        f"{len(names)} class{'es' * (len(names) > 1)} ({', '.join(names[:5])}{more}) have files of the same names and "
        "sizes with other content than the run had: they were replaced, or this machine decodes them otherwise"
    ]


def _require_held_out(
    run: Run,
    recorded: Manifest,
    now: Manifest,
    split: Split,
    used: Sequence[Split],
    among: Collection[str] | None = None,
) -> None:
    """Of all classes of `split`, or those whose examples are others than the run had."""
    known = trained_on(recorded, now, split, used)
    if among is not None:
        known = {name: known_as for name, known_as in known.items() if name in among}
    if known:
        told = ", ".join(f"{name} (its {known_as})" for name, known_as in list(known.items())[:5])
        raise DataError(
            f"{len(known)} of {len(now.splits[split].classes)} classes of the {split} split are among those that "
            f"{run.id} learned from: {told}{', ...' if len(known) > 5 else ''}. Give it classes that it never saw; "
            "rename folders that only share a name"
        )


def twins(manifest: Manifest) -> list[str]:
    """A warning where classes that are held out hold the same examples as classes that are learned from."""
    texts = []
    for split in manifest.splits:
        if known := trained_on(manifest, manifest, split, list(manifest.splits)):
            told = ", ".join(f"{name} (as {known_as})" for name, known_as in list(known.items())[:5])
            more = ", ..." if len(known) > 5 else ""
            texts.append(f"the {split} split has classes that are in other splits, too: {told}{more}")
    return texts


def _part(now: Manifest, split: Split) -> str:
    return replace(now, splits={split: now.splits[split]}).text()


def _unrecorded(run: Run) -> str:
    return (
        f"{run.id} did not record its data, as runs of earlier versions did not: whether its classes are still those "
        "that it held out cannot be told"
    )
