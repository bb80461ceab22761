"""A training problem as it is asked for and held: images, given labels, and the parts."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.classification.domains import by_angle, by_folder, place_of
from raymeta.tasks.classification.labelled import Ids, Labelled
from raymeta.tasks.classification.noise import DRAWS, Noise, given_labels
from raymeta.tasks.classification.parts import HELD_BACK, Cut, Part, parts_of
from raymeta.tasks.classification.sources import Asked, Read, SourceName, read, source_in, stamp_of, task_set_of
from raymeta.tasks.data_folder import Folder
from raymeta.tasks.held import Held


def _share_or_number(amount: float) -> float:
    if amount > 1 and not amount.is_integer():
        raise ValueError(f"{amount:g} is neither a share below 1 nor a whole number of images")
    return amount


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_share_or_number)]
DomainName = Annotated[str, BeforeValidator(lambda value: f"{value:g}" if isinstance(value, int | float) else value)]
_HELD: Held[Read] = Held()


class Loaded(NamedTuple):
    """Images, the labels that a training set has of each, and the places of each part's images."""

    data: Labelled
    labels: Ids  # [n]
    parts: dict[Part, Ids]
    domains: list[Ids]  # of the training part, for each domain that is trained on


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingProblem(TaskSet):
    """The options of `Classification`, and what is held of its images once a process."""

    goal: ClassVar[Goal] = "classification"
    unit: ClassVar[str] = "images"
    one_problem: ClassVar[bool] = True

    source: SourceName | None = None
    """images: drawn glyphs (no data needed), Omniglot, emoji, or `images`, a folder with one sub-folder per class; what
    lies in `root` unless it is given, and glyphs without that"""
    root: Folder | None = None
    """folder of the source's data; by default omniglot or emoji in $RAYMETA_DATA or ~/.cache/raymeta"""
    label: Literal["class", "group"] = "class"
    """what is told apart: characters of Omniglot or their alphabets, emoji or their groups"""
    classes: int | None = Field(default=None, ge=2)
    """classes, chosen by `data_seed`; by default 10 of glyphs and Omniglot, and all of emoji and folders"""
    drawers: PositiveInt = 100
    """images of each class of glyphs"""
    clean: Amount = 0.1
    """share of each class in the clean part, or images of each class from 1 on; none with domains"""
    val: Amount = 0.05
    """share of each class (in each domain) to choose checkpoints by, or images from 1 on"""
    test: Amount = 0.2
    """share of each class (in each domain) to report on, or images from 1 on; without effect with held_out"""
    batch: PositiveInt = 32
    """training images in a task's support, of each of its domains where there are any"""
    clean_batch: PositiveInt = 32
    """clean images in a task's query, all that there are where these are fewer; with domains, `batch` of each domain"""
    test_batch: PositiveInt = 20
    """most images in an episode of validation and test"""
    noise: Noise = "none"
    """what wrong labels are: any other class, class 0 (background_flip), or the next one (pair_flip)"""
    noise_share: float = Field(default=0.4, ge=0, le=1)
    """probability that the label of a training image is wrong"""
    imbalance: float = Field(default=1.0, ge=1)
    """how many times as many training images the first class has as the last one, in a long tail"""
    data_seed: int = Field(default=0, ge=0, lt=2**64)
    """seed of the choice of classes, of the parts and of wrong labels"""
    domains: Literal["none", "angles", "styles", "folders"] = "none"
    """kinds of images: turned by one of `angles`, styles of emoji, or folders around the class folders"""
    angles: tuple[float, ...] = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
    """degrees by which images are turned, a domain each"""
    held_out: DomainName | None = None
    """name of the domain that is tested and not trained on"""
    pairing: Literal["split", "pairs"] = "split"
    """domains of a task: `meta_test` in query and all others in support, or one in each (DomainBed)"""
    meta_test: PositiveInt = 1
    """domains that are in query at a time"""

    @model_validator(mode="after")
    def _source_is_known(self) -> TrainingProblem:
        if self.source == "glyphs" and self.root is not None:
            raise ValueError("root is a folder, and glyphs are drawn: leave one of source and root out")
        object.__setattr__(self, "source", self.source or source_in(self.root))
        return self

    @model_validator(mode="after")
    def _angles_differ(self) -> TrainingProblem:
        names = [f"{angle:g}" for angle in self.angles]
        if not names or len(set(names)) < len(names) or not all(map(math.isfinite, self.angles)):
            raise ValueError("angles name a domain each: give some, all different and finite, such as [0, 30, 60]")
        return self

    @model_validator(mode="after")
    def _domains_agree(self) -> TrainingProblem:
        if self.domains == "none" and self.held_out is not None:
            raise ValueError("held_out names a domain: say what the domains are, such as tasks.domains angles")
        if self.domains == "styles" and self.source != "emoji":
            raise ValueError("domains styles are those of source emoji: choose angles, or folders with source images")
        if self.domains == "folders" and self.source != "images":
            raise ValueError("domains folders need source images: choose angles, or styles with source emoji")
        if self.domains == "none" and not self.clean:
            raise ValueError("clean is 0: a clean part is needed, if only to compare with")
        return self

    # What is held.

    @property
    def loaded(self) -> Loaded:
        """All images with their labels and parts, loaded on first use and kept as they are until the next `check`."""
        held: Loaded | None = self.__dict__.get("_loaded")
        return self._cut(self._look().data) if held is None else held

    @property
    def _from(self) -> SourceName:
        return cast(SourceName, self.source)  # found out when the options were checked

    def _asked(self) -> Asked:
        return Asked(self.classes, self.label == "group", self.data_seed, self.drawers, self.domains == "folders")

    def _look(self) -> Read:
        """Look at the files, and read them unless this process holds them as they are now."""
        like, asked = task_set_of(self._from, self.root, self._asked()), self._asked()
        found = stamp_of(self._from, self.root, like)
        source = (self.source, self.root, asked, self.domains, self.angles if self.domains == "angles" else ())
        held = _HELD.get(source, found.stamp)
        if held is None:
            held = read(self._from, self.root, asked, like, found)
            held = held._replace(data=self._with_domains(held.data))
            _HELD.keep(source, found.stamp, held)
        self.__dict__["_read"] = held
        return held

    def _with_domains(self, data: Labelled) -> Labelled:
        match self.domains:
            case "angles":
                return by_angle(data, self.angles, self.data_seed)
            case "folders":
                return by_folder(data)
            case "styles":
                return data
            case "none":
                return data._replace(domain=np.zeros_like(data.domain), domains=[])

    def _cut(self, data: Labelled) -> Loaded:
        held_out = place_of(self.held_out, data.domains)
        amounts: dict[Part, float] = {part: getattr(self, part) for part in HELD_BACK}
        if data.domains:
            amounts["clean"] = 0
        parts = parts_of(data, Cut(amounts, self.data_seed, self.imbalance, held_out))
        u = data.draws(self.data_seed, "label", DRAWS)
        labels = given_labels(self.noise, self.noise_share, data.label, u, len(data.classes))
        trained = [d for d in range(len(data.domains)) if d != held_out]
        of_train = data.domain[parts["train"]]
        loaded = Loaded(data, labels, parts, [parts["train"][of_train == d] for d in trained])
        self.__dict__["_loaded"] = loaded
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Images do not travel with the task set."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_loaded", "_read", "_received")}

    def to_send(self) -> object:
        return self.loaded.data

    def receive(self, data: object) -> None:
        self._cut(cast(Labelled, data))
        self.__dict__["_received"] = True

    def read_notes(self) -> tuple[str, ...]:
        """What a person should know of how the files were read; nothing where the images were received."""
        read: Read | None = self.__dict__.get("_read")
        return () if read is None else read.notes
