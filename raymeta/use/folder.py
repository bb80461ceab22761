"""The folders in which models and adapted models lie: plain files, tensors without pickle, hashes of everything.

    MODEL/     config.yaml, model.safetensors, model.json, README.md (the card)
    ADAPTED/   the same, and support.safetensors, adapted.json

`model.json` and `adapted.json` carry the number of their format and their own hash, and the hashes of the files beside
them. A folder is complete or absent, and nothing that was there before is replaced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from raymeta import __version__
from raymeta.adaptation.problem import Learned
from raymeta.config.load import dump, load_config
from raymeta.config.strangers import give
from raymeta.errors import ConfigError, DataError, RaymetaError
from raymeta.runs.layout import CONFIG, numbered, read_format
from raymeta.runs.seals import sealed, unsealed
from raymeta.system.files import sync_directory, write_json, write_problem, write_whole
from raymeta.system.reading import first_line, read_json, read_regular, read_safetensors
from raymeta.tasks.episodes import Examples
from raymeta.tasks.inputs import tensors_of
from raymeta.tasks.recorded import Recorded
from raymeta.tree import Params
from raymeta.use.adapted import Adapted, LeftOut
from raymeta.use.card import card
from raymeta.use.pretrained import Pretrained
from raymeta.use.seen import Seen
from raymeta.use.trust import Calibration, Doubt

TENSORS, MODEL, CARD = "model.safetensors", "model.json", "README.md"
SUPPORT, ADAPTED = "support.safetensors", "adapted.json"
RECORDED = f"{Recorded.__module__}:{Recorded.__qualname__}"
_PARTS = ("params", "state", "fixed")


def is_model_folder(path: Path) -> bool:
    return (path / MODEL).exists()


def is_adapted_folder(path: Path) -> bool:
    return (path / ADAPTED).exists()


def write_model(model: Pretrained, out: Path) -> None:
    """Raises `ConfigError` where `out` is there and not empty, `EnvironmentProblem` where it cannot be written."""
    _write(out, lambda folder: _write_model(model, folder))


def write_adapted(adapted: Adapted, out: Path) -> None:
    """As `write_model`, with the support set."""

    def write(folder: Path) -> None:
        _write_model(adapted.model, folder)
        tensors = {**dict(tensors_of(adapted.support.x)), "y": adapted.support.y}
        data = _saved(tensors)
        write_whole(folder / SUPPORT, data)
        content = {
            "raymeta": __version__,
            "classes": adapted.classes,
            "names": adapted.names,
            "calibration": None if adapted.calibration is None else adapted.calibration._asdict(),
            "unknown_below": adapted.unknown_below,
            "left_out": None if adapted.left_out is None else adapted.left_out._asdict(),
            "doubts": [doubt._asdict() for doubt in adapted.doubts],
            "sha256": {SUPPORT: _sha256(data), MODEL: _sha256(read_regular(folder / MODEL))},
        }
        write_json(folder / ADAPTED, sealed(numbered(content)))

    _write(out, write)


def require_free(out: Path) -> None:
    """Raise `ConfigError` where something is there that would be replaced."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(f"{out} is there already, and nothing is replaced: name another one with --out")


def _write(out: Path, write: Callable[[Path], None]) -> None:
    require_free(out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        write(partial)
        sync_directory(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise write_problem(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_model(model: Pretrained, folder: Path) -> None:
    parts = dict(zip(_PARTS, (model.learned.params, model.learned.state, model.fixed), strict=True))
    tensors = _saved({f"{part}|{name}": value for part, values in parts.items() for name, value in values.items()})
    config = dump(model.config).encode()
    write_whole(folder / TENSORS, tensors)
    write_whole(folder / CONFIG, config)
    content = {
        "raymeta": __version__,
        "name": model.name,
        "about": dict(model.about),
        "seen": None if model.seen is None else model.seen.ranges,
        "license": model.about.get("license"),
        "sha256": {TENSORS: _sha256(tensors), CONFIG: _sha256(config)},
    }
    write_json(folder / MODEL, sealed(numbered(content)))
    write_whole(folder / CARD, card(model))


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    data: bytes = save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_model(folder: Path, *, trust: bool = False) -> Pretrained:
    """The model in `folder`; code that its configuration names is imported only with `trust`.

    Raises `DataError` naming a file that is missing, was changed, or is not what it should be.
    """
    content = _content(folder, MODEL)
    _require_hashes(folder, content)
    parts = _parts(_tensors(folder / TENSORS), folder / TENSORS)
    give(RECORDED)  # our own, without a name of its own since nobody trains on it
    config = load_config(files=[folder / CONFIG], foreign=True, trust=trust).config
    if not isinstance(config.tasks, Recorded):
        raise DataError(f"{folder / CONFIG} is not that of an exported model: its tasks are not recorded ones")
    seen = content.get("seen")
    try:
        ranges = None if seen is None else Seen({str(k): (float(low), float(high)) for k, (low, high) in seen.items()})
        model = Pretrained(
            str(content["name"]),
            config,
            Learned(parts["params"], parts["state"]),
            parts["fixed"],
            dict(content["about"]),
            ranges,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / MODEL} is damaged: {type(error).__name__} {error}"[:300]) from error
    _require_shapes(model, folder)
    return model


def load_adapted(folder: str | Path, *, trust: bool = False) -> Adapted:
    """The adapted model that `raymeta adapt` wrote. Raises `DataError` for what is none."""
    return read_adapted(Path(folder), trust=trust)


def read_adapted(folder: Path, *, trust: bool = False) -> Adapted:
    """The adapted model in `folder`. Raises as `read_model`."""
    if not is_adapted_folder(folder):
        raise DataError(
            f"{folder} holds no adapted model: make one with raymeta adapt MODEL --support DIR --out {folder}"
        )
    content = _content(folder, ADAPTED)
    _require_hashes(folder, content)
    model = read_model(folder, trust=trust)
    tensors = _tensors(folder / SUPPORT)
    try:
        y = tensors.pop("y")
        named = {name.removeprefix('x["').removesuffix('"]'): value for name, value in tensors.items()}
        support = Examples(tensors.get("x", named), y, y)
        calibration, left_out = content["calibration"], content["left_out"]
        return Adapted(
            model,
            support,
            list(map(str, content["classes"])),
            list(map(str, content["names"])),
            model.reader if model.tasks.preprocessing is not None else None,
            None if calibration is None else Calibration(**calibration),
            None if content["unknown_below"] is None else float(content["unknown_below"]),
            None if left_out is None else _left_out(left_out),
            [Doubt(**doubt) for doubt in content["doubts"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / ADAPTED} is damaged: {type(error).__name__} {error}"[:300]) from error


def adapted_facts(folder: Path) -> dict[str, Any]:
    """What `adapted.json` says, without the tensors. Raises `DataError` where it is missing or was changed."""
    return _content(folder, ADAPTED)


def _left_out(content: Mapping[str, Any]) -> LeftOut:
    confusions = [(str(label), str(answer), int(times)) for label, answer, times in content["confusions"]]
    return LeftOut(**{**content, "confusions": confusions})


def _content(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        return read_format(unsealed(read_json(path)))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be used: {first_line(error)}") from error


def _require_hashes(folder: Path, content: Mapping[str, Any]) -> None:
    hashes = content.get("sha256")
    if not isinstance(hashes, dict) or not hashes:
        raise DataError(f"{folder} does not say the hashes of its files: it is no folder that raymeta wrote")
    for name, expected in hashes.items():
        path = folder / Path(str(name)).name
        try:
            data = read_regular(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {first_line(error)}") from error
        if _sha256(data) != expected:
            raise DataError(f"{path} was changed or cut off since it was written: get the folder again")


def _tensors(path: Path) -> Params:
    try:
        tensors: Params = load(read_safetensors(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    return tensors


def _parts(tensors: Params, path: Path) -> dict[str, Params]:
    parts: dict[str, Params] = {part: {} for part in _PARTS}
    for key, value in tensors.items():
        part, _, name = key.partition("|")
        if part not in parts:
            raise DataError(f"{path} holds {key}, which is nothing of a model")
        parts[part][name] = value
    return parts


def _require_shapes(model: Pretrained, folder: Path) -> None:
    """Raise `DataError` unless the tensors are those of the network that the configuration builds."""
    try:
        built = model.built
    except (KeyError, RuntimeError) as error:
        if isinstance(error, RaymetaError):
            raise
        raise DataError(f"{folder / TENSORS} does not fit {folder / CONFIG}: {first_line(error)}") from error
    ours = {**built.blueprint.layout.shapes, **built.blueprint.state_layout.shapes}
    theirs = {name: tuple(v.shape) for part in model.learned[:2] for name, v in part.items()}
    if ours != theirs:
        name = sorted(n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n))[0]
        raise DataError(
            f"{folder / TENSORS} does not fit {folder / CONFIG}: {name} is {theirs.get(name, 'missing')} in the one "
            f"and {ours.get(name, 'missing')} by the other"
        )
