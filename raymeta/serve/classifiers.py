"""The work of one replica: adapt to examples, and classify queries. Only one request at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from raymeta.errors import ConfigError, DataError, EnvironmentProblem, RaymetaError
from raymeta.serve.limits import Limits, Refused
from raymeta.serve.store import Store
from raymeta.tasks.images.files import UNREADABLE
from raymeta.tasks.inputs import Inputs
from raymeta.tasks.reader import Reader
from raymeta.use.adapted import Adapted, adapt_to
from raymeta.use.pretrained import Pretrained

T = TypeVar("T")
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
"""Of images that are decoded; other decoders of Pillow start programs, or are seldom looked at."""
OPENED = 32
"""Classifiers that are held in memory; of those used longest ago the folder is read again."""


class Item(NamedTuple):
    """One example of a request: an image's bytes, or a row by column."""

    name: str
    content: Any
    label: str = ""


class Classifiers:
    """Adapts `model`, and answers with what is in `store`."""

    def __init__(self, model: Pretrained, store: Store, limits: Limits, *, trust: bool = False) -> None:
        self._model, self._store, self._limits, self._trust = model, store, limits, trust
        self._opened: OrderedDict[str, Adapted] = OrderedDict()
        self._lock = threading.Lock()

    def create(self, name: str, items: Sequence[Item]) -> None:
        """Write the classifier `name`; where it is there, an earlier try of the same request wrote it."""
        with self._lock:
            if self._store.has(name):
                return
            model = _fitted(self._model, items)
            x = _inputs(model.reader, items, self._limits)
            labels, names = [item.label for item in items], [f"{item.label}/{item.name}" for item in items]
            self._store.write(name, _told(lambda: adapt_to(model, x, labels, names=names)))

    def predict(self, name: str, items: Sequence[Item], *, unknown: bool) -> list[dict[str, Any]]:
        """An answer for each item. Raises `Refused` (404) where there is no such classifier."""
        with self._lock:
            adapted = self._read(name)
            x = _inputs(adapted.model.reader, items, self._limits)
            answers = _told(lambda: adapted.predict(x, unknown=unknown))
        return [answer.as_json(item.name) for answer, item in zip(answers, items, strict=True)]

    def _read(self, name: str) -> Adapted:
        if not self._store.has(name):
            self._opened.pop(name, None)
            raise Refused(404, "there is no such classifier")
        try:
            adapted = self._opened.pop(name, None) or self._store.read(name, trust=self._trust)
        except (DataError, ConfigError) as error:
            raise Refused(500, "the files of this classifier are damaged: delete it, and create it again") from error
        self._opened[name] = adapted
        while len(self._opened) > OPENED:
            self._opened.popitem(last=False)
        return adapted


def _told(do: Callable[[], T]) -> T:
    """What the model cannot do with the examples is a mistake of the request."""
    try:
        return do()
    except EnvironmentProblem:
        raise
    except RaymetaError as error:
        raise Refused(422, " ".join(str(error).split())) from error


def _fitted(model: Pretrained, items: Sequence[Item]) -> Pretrained:
    """With the reader for these examples, unless they are not what it reads, which `_inputs` tells."""
    rows = [item.content for item in items]
    return model if any(isinstance(row, bytes) for row in rows) else _told(lambda: model.fitted_to(rows))


def _inputs(reader: Reader, items: Sequence[Item], limits: Limits) -> Inputs:
    pictures = reader.kind == "pictures"
    if any(isinstance(item.content, bytes) != pictures for item in items):
        form = "images as multipart/form-data" if pictures else "rows as JSON"
        raise Refused(415, f"this classifier takes {reader.item}s: send {form}")
    if not pictures:
        return _told(lambda: reader.read([item.content for item in items]))
    with TemporaryDirectory(prefix="raymeta-serve-") as folder:
        paths = [Path(folder) / str(place) for place in range(len(items))]
        for path, item in zip(paths, items, strict=True):
            path.write_bytes(item.content)
            _require_image(path, item.name, limits)
        try:
            return reader.read(paths)
        except (DataError, ConfigError) as error:
            raise Refused(422, _unreadable(paths, items)) from error


def _require_image(path: Path, name: str, limits: Limits) -> None:
    """Raises `Refused` by the head of the file, before anything of it is decoded."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:
        raise Refused(413, f"{name} has more than {limits.pixels:,} pixels: send it smaller") from error
    except UNREADABLE as error:
        raise Refused(422, f"{name} is no image that is read here ({', '.join(FORMATS)})") from error
    if pixels > limits.pixels:
        raise Refused(413, f"{name} has {pixels:,} pixels, more than {limits.pixels:,}: send it smaller")


def _unreadable(paths: Sequence[Path], items: Sequence[Item]) -> str:
    """The first file that cannot be decoded, by the name that its sender gave it."""
    for path, item in zip(paths, items, strict=True):
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.load()
        except UNREADABLE:
            return f"{item.name} is damaged or cut off: its pixels cannot be read"
    return "one of the images cannot be read"
