"""What data are: what a run remembers of its own, so that it is told when they change.

    data.json   {format, tasks, unit, input_shape, side, channels, sha256, notes, preprocessing, splits: {SPLIT:
                 {num_classes, num_examples, sha256, classes: {NAME: {examples, files, values}}}}}

`preprocessing` stands where it was found in the training data: means, categories, a vocabulary.

`files` is a hash over the names and sizes of a class's files, `values` one over its examples as they are in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.tasks.inputs import Shape

FORMAT = 1
DATA = "data.json"
"""Its file in a run."""
_MARK = 16  # hexadecimal digits of the hash of a class: enough to tell classes apart
_NAMED = 5


class ClassContents(NamedTuple):
    """One class: how many examples, a mark of its files' names and sizes, and one of the examples themselves."""

    examples: int
    files: str = ""
    values: str = ""


class Contents(NamedTuple):
    """What one split holds: its classes in the order in which they are numbered, and a hash that identifies it all.

    Data without classes (regression, tables, texts) have a hash alone, or name their files in place of classes.
    """

    classes: dict[str, ClassContents]
    sha256: str
    num_classes: int

    @property
    def num_examples(self) -> int:
        return sum(content.examples for content in self.classes.values())


def contents_of_files(files: Mapping[str, Sequence[Path]], *, are_classes: bool = True) -> Contents:
    """The contents of a split that comes from these files, by class: their names and sizes.

    Tables and texts without classes give names of their own and say so: a file may then serve several splits.
    """
    classes = {
        name: ClassContents(len(paths), mark_of((path.name, path.stat().st_size) for path in paths))
        for name, paths in files.items()
    }
    sha256 = sha256_of([[name, *content] for name, content in classes.items()])
    return Contents(classes, sha256, len(classes) if are_classes else 0)


def sha256_of(value: object) -> str:
    """A hash of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def mark_of(files: Iterable[tuple[str, int]]) -> str:
    """A short hash over names and sizes of files."""
    return sha256_of([list(file) for file in files])[:_MARK]


def mark_of_bytes(data: bytes | memoryview) -> str:
    """A short hash over examples as they lie in memory."""
    return hashlib.sha256(data).hexdigest()[:_MARK]


@dataclass(frozen=True)
class Manifest:
    """The data of a run: what they are, and what each split in use holds."""

    tasks: str
    unit: str
    input_shape: Shape
    splits: dict[Split, Contents]
    notes: tuple[str, ...] = ()
    preprocessing: dict[str, Any] | None = None
    """how an example becomes an input, where that was found in the training data: kind and settings of its reader"""

    @property
    def sha256(self) -> str:
        """Over names, numbers and sizes of everything, and the shape of an input."""
        return sha256_of(
            [_shape_as_json(self.input_shape), {split: content.sha256 for split, content in self.splits.items()}]
        )

    def to_json(self) -> dict[str, Any]:
        """The content of data.json."""
        shape = self.input_shape
        return {
            "format": FORMAT,
            "tasks": self.tasks,
            "unit": self.unit,
            "input_shape": _shape_as_json(shape),
            **({"channels": shape[0], "side": shape[1]} if isinstance(shape, tuple) and len(shape) == 3 else {}),
            "sha256": self.sha256,
            "notes": list(self.notes),
            **({} if self.preprocessing is None else {"preprocessing": self.preprocessing}),
            "splits": {
                split: {
                    "num_classes": content.num_classes,
                    "num_examples": content.num_examples,
                    "sha256": content.sha256,
                    "classes": {name: one._asdict() for name, one in content.classes.items()},
                }
                for split, content in self.splits.items()
            },
        }

    @classmethod
    def from_json(cls, content: object) -> Manifest:
        """What `to_json` gave. Raises `DataError` for anything else."""
        try:
            found = _from_json(cast(dict[str, Any], content))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"data.json is damaged or not ours: {type(error).__name__} {error}"[:200]) from error
        return found

    def text(self) -> str:
        """One line for people: classes and examples of each split, and the shape of an input."""
        parts = [_split_text(split, content, self.unit) for split, content in self.splits.items()]
        return "; ".join([*parts, shape_text(self.input_shape)])


def _from_json(content: dict[str, Any]) -> Manifest:
    splits: dict[Split, Contents] = {}
    for split in (split for split in SPLITS if split in content["splits"]):
        part = content["splits"][split]
        classes = {
            str(name): ClassContents(int(one["examples"]), str(one["files"]), str(one["values"]))
            for name, one in part["classes"].items()
        }
        splits[split] = Contents(classes, str(part["sha256"]), int(part["num_classes"]))
    shape = _shape_from_json(content["input_shape"])
    notes = tuple(map(str, content.get("notes", ())))
    how = content.get("preprocessing")
    found = Manifest(
        str(content["tasks"]), str(content["unit"]), shape, splits, notes, None if how is None else dict(how)
    )
    if content["sha256"] != found.sha256:
        raise ValueError("its sha256 is not that of its content")
    return found


def _shape_as_json(shape: Shape) -> object:
    return list(shape) if isinstance(shape, tuple) else {name: list(one) for name, one in sorted(shape.items())}


def _shape_from_json(content: Any) -> Shape:
    if isinstance(content, dict):
        return {str(name): tuple(map(int, one)) for name, one in content.items()}
    return tuple(map(int, content))


def shape_text(shape: Shape) -> str:
    """`side 84, channels 3` of images, `inputs [7]` of anything else."""
    if isinstance(shape, dict):
        return "inputs " + ", ".join(f"{name} {list(one)}" for name, one in sorted(shape.items()))
    if len(shape) == 3 and shape[1] == shape[2]:
        return f"side {shape[1]}, channels {shape[0]}"
    return f"inputs {list(shape)}"


def _split_text(split: Split, content: Contents, unit: str) -> str:
    if not content.num_classes:
        files = f"{len(content.classes)} file{'s' * (len(content.classes) > 1)}"
        return f"{split} {files}" if content.classes else f"{split} without classes"
    amount = f", {content.num_examples:,} {unit}" if content.classes else ""
    return f"{split} {content.num_classes:,} class{'es' * (content.num_classes > 1)}{amount}"


# Two manifests compared: `then` is what a run recorded, `now` what the same task set finds today.


def same(then: Manifest, now: Manifest, splits: Sequence[Split]) -> bool:
    """Whether nothing changed in `splits`, as far as names, numbers, sizes and the shape of an input tell."""
    return then.input_shape == now.input_shape and all(
        split in then.splits and split in now.splits and then.splits[split].sha256 == now.splits[split].sha256
        for split in splits
    )


def other_values(then: Manifest, now: Manifest, splits: Sequence[Split]) -> list[str]:
    """Classes of `splits` whose files have the names and sizes of then, and other examples in them."""
    return [
        name
        for split in splits
        for name, one in now.splits[split].classes.items()
        if (old := then.splits[split].classes.get(name)) is not None and one.values != old.values
    ]


def changes(then: Manifest, now: Manifest, splits: Sequence[Split]) -> list[str]:
    """What differs in `splits`, in words for people."""
    was, here = _places(then), _places(now)
    gone = [name for name, split in was.items() if name not in here and split in splits]
    new = [name for name, split in here.items() if name not in was and split in splits]
    moved = [n for n, split in here.items() if n in was and was[n] != split and {split, was[n]} & set(splits)]
    told = [
        _counted(gone, "gone"),
        _counted(new, "more"),
        _counted(moved, "in another split", lambda n: f"{n} was in {was[n]} and is in {here[n]}"),
        _counted(_changed(then, now, splits), "with other files", lambda n: _files_text(then, now, n, here[n])),
    ]
    if then.input_shape != now.input_shape:
        told.append(f"{shape_text(now.input_shape)}, where the run had {shape_text(then.input_shape)}")
    texts = [text for text in told if text]
    return texts or [f"the episodes of the {split} split are others" for split in _differing(then, now, splits)]


def trained_on(then: Manifest, now: Manifest, split: Split, used: Sequence[Split] = SPLITS) -> dict[str, str]:
    """Classes of `split` now that a run of the splits `used` learned from: by name, with what it knew them as.

    A class is known by its name, and by examples that are equal under another name.
    """
    if split == "train" or not now.splits[split].num_classes:
        return {}
    earlier = [s for s in SPLITS[: SPLITS.index(split)] if s in then.splits and s in used]
    names = {name: f"{s} class {name}" for s in earlier for name in then.splits[s].classes}
    values = {one.values: names[name] for s in earlier for name, one in then.splits[s].classes.items() if one.examples}
    found = {}
    for name, one in now.splits[split].classes.items():
        if known := names.get(name) or (values.get(one.values) if one.values else None):
            found[name] = known
    return found


def _places(manifest: Manifest) -> dict[str, Split]:
    return {name: split for split, content in manifest.splits.items() for name in content.classes}


def _changed(then: Manifest, now: Manifest, splits: Sequence[Split]) -> list[str]:
    return [
        name
        for split in splits
        if split in then.splits and split in now.splits
        for name, one in now.splits[split].classes.items()
        if (old := then.splits[split].classes.get(name)) is not None and old[:2] != one[:2]
    ]


def _files_text(then: Manifest, now: Manifest, name: str, split: Split) -> str:
    before, after = then.splits[split].classes[name].examples, now.splits[split].classes[name].examples
    how = f"{before} {then.unit} then, {after} now" if before != after else "other names or sizes"
    return f"{name}: {how}"


def _differing(then: Manifest, now: Manifest, splits: Sequence[Split]) -> list[Split]:
    return [split for split in splits if not same(then, now, [split])]


def _counted(names: Sequence[str], what: str, told: Callable[[str], str] = str) -> str:
    """`3 classes more (a, b, c)`; nothing for none."""
    if not names:
        return ""
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} class{'es' * (len(names) > 1)} {what} ({'; '.join(map(told, names[:_NAMED]))}{more})"
