"""A labelled data set as one training problem: its tasks are batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.classification.batches import drawn, drawn_of_domains, paired_domains, split_domains
from raymeta.tasks.classification.labelled import Ids
from raymeta.tasks.classification.parts import batch_size
from raymeta.tasks.classification.problem import TrainingProblem
from raymeta.tasks.classification.sources import task_set_of
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tasks.images.pictures import Pictures
from raymeta.tasks.manifest import ClassContents, Contents, Manifest, mark_of_bytes, sha256_of


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Classification(TrainingProblem):
    """Images of fixed classes: labels mean the same in every task, and there is one model to be trained.

    Each class is cut into four parts: `clean`, `val` and `test`, whose labels are right, and the rest to train on,
    whose labels may be wrong (`noise`). A training task is two batches: support from the training part, query from the
    clean one. `class_id` is the true class. Validation and test score their part once and whole, a batch an episode;
    images that fill no batch are left out and told.

    With `domains`, images are of several kinds, and every batch is of one or several of them. Support and query of a
    task are then both from the training part, of different domains that the task draws: see `pairing`. A domain that
    is `held_out` is the test part.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.loaded.data.images.shape[1:])

    @property
    def num_outputs(self) -> int:
        return len(self.loaded.data.classes)

    def num_classes(self, split: Split) -> int:
        return len(self.loaded.data.classes)

    def class_name(self, split: Split, class_id: int) -> str:
        return self.loaded.data.classes[class_id]

    def label_names(self, recorded: Manifest | None = None) -> Sequence[str] | None:
        if recorded is None or "train" not in recorded.splits:
            return super().label_names()
        return [name.removeprefix("train/") for name in recorded.splits["train"].classes]

    def size(self, split: Split) -> Size:
        """`way` classes, and so many images of each as would make up a batch: batches are drawn from all classes."""
        way, support = self.num_outputs, self._num_support()
        query = self._num_query() if split == "train" else self._batch_of(split)
        return Size(way, -(-support // way), -(-query // way))

    def _num_support(self) -> int:
        if self.domains == "none":
            return self.batch
        return self.batch * (1 if self.pairing == "pairs" else len(self.loaded.domains) - self.meta_test)

    def _num_query(self) -> int:
        if self.domains == "none":
            return min(self.clean_batch, len(self.loaded.parts["clean"]))
        return self.batch * (1 if self.pairing == "pairs" else self.meta_test)

    def _batch_of(self, split: Split) -> int:
        return batch_size(len(self.loaded.parts[split]), self.test_batch)

    def num_episodes(self, split: Split) -> int | None:
        return None if split == "train" else len(self.loaded.parts[split]) // max(1, self._batch_of(split))

    def reader(self, recorded: Manifest | None = None) -> Pictures | None:
        like = task_set_of(self._from, self.root, self._asked())
        if like is None or recorded is not None:
            channels, side, _ = self.input_shape if recorded is None else cast(tuple[int, ...], recorded.input_shape)
            inverted = self.source in ("glyphs", "omniglot")
            return Pictures(side=side, channels=3 if channels == 3 else 1, inverted=inverted)
        return like.reader()

    # Episodes.

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        if any(key.split != keys[0].split for key in keys):
            raise ValueError("the keys of one batch of episodes must be of one split")
        support, query = self._rows(keys)
        given, true = self.loaded.labels, self.loaded.data.label
        of_training = keys[0].split == "train" and bool(self.loaded.domains)
        return Episode(self._examples(support, given), self._examples(query, given if of_training else true))

    def _rows(self, keys: Sequence[TaskKey]) -> Sequence[Ids]:
        """Places of the images in support and query [T, n]."""
        parts, split = self.loaded.parts, keys[0].split
        if split != "train":
            (support,) = drawn(keys, [parts["train"]], [self.batch])
            return support, self._whole(keys, split)
        if not self.loaded.domains:
            return drawn(keys, [parts["train"], parts["clean"]], [self.batch, self._num_query()])
        count = len(self.loaded.domains)
        pairs = self.pairing == "pairs"
        order = paired_domains(keys, count, self.meta_test) if pairs else split_domains(keys, count)
        rows = drawn_of_domains(keys, self.loaded.domains, order, self.batch, 0 if pairs else count)
        return np.split(rows, [self._num_support()], axis=1)

    def _whole(self, keys: Sequence[TaskKey], split: Split) -> Ids:
        """A piece of the part for each key; beyond the last one it begins again."""
        size, count = self._batch_of(split), cast(int, self.num_episodes(split))
        places = np.array([key.index % count for key in keys])[:, None] * size + np.arange(size)
        return self.loaded.parts[split][places]

    def _examples(self, rows: Ids, labels: Ids) -> Examples:
        data = self.loaded.data
        x = np.divide(data.images[rows], 255, dtype=np.float32)
        return Examples(*map(torch.from_numpy, (x, labels[rows], data.label[rows])))

    # What a run remembers, and the dry run.

    def contents(self, split: Split) -> Contents:
        """Images and given labels of the split; training has those of the clean part, too. The same classes are in all
        splits, so each has the split's name before its own."""
        data, parts = self.loaded.data, self.loaded.parts
        rows = np.concatenate([parts["train"], parts["clean"]]) if split == "train" else parts[split]
        classes = {}
        for c, name in enumerate(data.classes):
            own = np.sort(rows[data.label[rows] == c])
            classes[f"{split}/{name}"] = ClassContents(len(own), values=mark_of_bytes(data.images[own].tobytes()))
        given = self.loaded.labels[rows].tolist() if split == "train" else []
        sha256 = sha256_of([[name, *one] for name, one in classes.items()] + [given, data.domain[rows].tolist()])
        return Contents(classes, sha256, len(classes))

    def drawn_from(self, split: Split) -> object:
        own = [self.batch, self.clean_batch, self.pairing, self.meta_test] if split == "train" else []
        return [type(self).__qualname__, split, self.size(split), self.contents(split).sha256, *own]

    def notes(self) -> Sequence[str]:
        left_out = (self._left_out("val"), self._left_out("test"))
        return (*self.read_notes(), *self._noise_notes(), *(text for text in left_out if text))

    def _noise_notes(self) -> list[str]:
        if self.noise == "none":
            return []
        rows = self.loaded.parts["train"]
        wrong = int((self.loaded.labels[rows] != self.loaded.data.label[rows]).sum())
        return [f"{wrong:,} of {len(rows):,} training labels are wrong ({self.noise} {self.noise_share:g})"]

    def _left_out(self, split: Split) -> str:
        count, size = len(self.loaded.parts[split]), self._batch_of(split)
        left = count % size if size else 0
        return f"{left} of {count:,} {split} images left out: batches of {size} are full" if left else ""

    def check(self) -> None:
        self.require(SPLITS)

    def require(self, splits: Sequence[Split]) -> None:
        """Look at the files again; raises `DataError` unless the parts that `splits` need have a batch each."""
        if "_received" not in self.__dict__:
            self._cut(self._look().data)
        if len(self.loaded.data.classes) < 2:
            raise DataError(
                f"there is one class, {self.loaded.data.classes[0]}: images of two are needed to tell apart"
            )
        for split in splits:
            if split == "train":
                self._require_batches()
            elif not len(self.loaded.parts[split]):
                without = ", or train without validation (validate_every 0)" if split == "val" else ""
                raise DataError(f"the {split} part has no images: raise tasks.{split}{without}")

    def _require_batches(self) -> None:
        what, asked = "training part", [self.loaded.parts["train"]]
        if self.loaded.domains:
            self._require_domains()
            what, asked = "training part of a domain", self.loaded.domains
        fewest = min(map(len, asked))
        if fewest < self.batch:
            raise DataError(f"the {what} has {fewest} images, and a batch is {self.batch}: lower tasks.batch")

    def _require_domains(self) -> None:
        count = len(self.loaded.domains)
        if self.meta_test >= count:
            raise DataError(
                f"there are {count} domains to train on, and tasks.meta_test {self.meta_test} of them are to be in "
                "query: at least one must be in support"
            )
