"""Checkpoints: complete or absent, verified when read, without pickle.

`checkpoints/step-00012000/{params.safetensors, outer.safetensors, state.json}` is written beside and renamed into
place; `index.json` names the last and the best. `state.json` holds the SHA-256 of both tensor files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from raymeta.algorithms.problem import Learned
from raymeta.errors import CheckpointError, EnvironmentProblem
from raymeta.files import sync_directory, write_json, write_whole

PARAMS, OUTER, STATE = "params.safetensors", "outer.safetensors", "state.json"
_STATE_PREFIX = "state|"


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of outer step `step` (so many steps were done)."""

    step: int
    learned: Learned
    outer: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    validation_due: bool = False  # these parameters are being validated, so `best` does not know them yet

    def clone(self) -> Checkpoint:
        """One that keeps its values while training goes on."""
        learned = Learned(*({name: value.clone() for name, value in part.items()} for part in self.learned))
        return replace(self, learned=learned)


@dataclass(frozen=True)
class CheckpointStore:
    """Keeps the last `keep` checkpoints of a run and the best one."""

    directory: Path
    keep: int = 3
    _written: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)  # states, by checkpoint

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Write a checkpoint, mark it as best if asked, and delete those no longer kept.

        Saving a step again writes only what is known now about its validation.

        Raises `EnvironmentProblem` where it cannot be written (disk full); what was there before stays whole.
        """
        final = self.directory / _name(checkpoint.step)
        try:
            self._write_or_amend(checkpoint, final)
            self._update_index(final.name, best)
        except (OSError, EnvironmentProblem) as error:
            _discard(final.with_name(f".{final.name}.partial"))
            raise EnvironmentProblem(
                f"the checkpoint of step {checkpoint.step} could not be saved: {error}. "
                f"The last good checkpoint is {self.index().get('last', 'none')}: free space and continue with --resume"
            ) from error

    def has(self, step: int) -> bool:
        """Whether this attempt has written the checkpoint of `step`."""
        return _name(step) in self._written

    def _write_or_amend(self, checkpoint: Checkpoint, final: Path) -> None:
        known = {"best": checkpoint.best, "validation_due": checkpoint.validation_due}
        if before := self._written.get(final.name):
            state = before | known
            if state != before:
                write_json(final / STATE, state)
        else:
            state = self._write(checkpoint, final, known)
        self._written[final.name] = state

    def _write(self, checkpoint: Checkpoint, final: Path, known: dict[str, Any]) -> dict[str, Any]:
        partial = final.with_name(f".{final.name}.partial")
        _discard(partial)
        partial.mkdir(parents=True)
        tensors = checkpoint.learned.params | {_STATE_PREFIX + n: v for n, v in checkpoint.learned.state.items()}
        files = {PARAMS: save(_plain(tensors)), OUTER: save(_plain(checkpoint.outer))}
        for name, content in files.items():
            write_whole(partial / name, content)
        state = {
            "step": checkpoint.step,
            **known,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        write_json(partial / STATE, state)
        sync_directory(partial)
        stale = final.with_name(f".{final.name}.stale")
        if final.exists():  # written by an earlier attempt, perhaps damaged since
            _discard(stale)
            final.rename(stale)
        partial.rename(final)
        _discard(stale)
        sync_directory(self.directory)
        return state

    def _update_index(self, name: str, best: bool) -> None:
        index = self.index() | {"last": name} | ({"best": name} if best else {})
        write_json(self.directory / "index.json", index)
        kept = {index.get("best"), *sorted(p.name for p in self.directory.glob("step-*"))[-self.keep :], name}
        for path in self.directory.glob("step-*"):
            if path.name not in kept:
                _discard(path)

    def index(self) -> dict[str, str]:
        """Names of the `last` and `best` checkpoints; empty before the first."""
        try:
            content = json.loads((self.directory / "index.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content if isinstance(content, dict) else {}

    def names(self) -> list[str]:
        """Complete checkpoints, newest first."""
        return sorted((p.name for p in self.directory.glob("step-*") if self._complete(p)), reverse=True)

    def load(self, name: str) -> Checkpoint:
        """Read and verify one checkpoint; raises `CheckpointError` naming the file that is damaged."""
        folder = self.directory / name
        try:
            state = json.loads((folder / STATE).read_text())
            tensors = {}
            for file in (PARAMS, OUTER):
                content = (folder / file).read_bytes()
                if hashlib.sha256(content).hexdigest() != state["sha256"][file]:
                    raise CheckpointError(f"{folder / file} is damaged: its SHA-256 is not the one in {STATE}")
                tensors[file] = load(content)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error
        every = tensors[PARAMS]
        params = {n: v for n, v in every.items() if not n.startswith(_STATE_PREFIX)}
        folded = {n.removeprefix(_STATE_PREFIX): v for n, v in every.items() if n.startswith(_STATE_PREFIX)}
        due = bool(state.get("validation_due"))
        return Checkpoint(state["step"], Learned(params, folded), tensors[OUTER], state["best"], due)

    def load_last(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be read (None without any), and what was wrong with newer ones.

        Raises `CheckpointError` where there are checkpoints and none can be read.
        """
        problems: list[str] = []
        names = self.names()
        for name in names:
            try:
                return self.load(name), problems
            except CheckpointError as error:
                problems.append(str(error))
        if names:
            raise CheckpointError("no checkpoint can be read: " + "; ".join(problems))
        return None, problems

    def load_best(self) -> tuple[Checkpoint | None, list[str]]:
        """The best checkpoint by validation; falls back to the newest readable one and says so."""
        name = self.index().get("best")
        if name is None:
            return self.load_last()
        try:
            return self.load(name), []
        except CheckpointError as error:
            checkpoint, problems = self.load_last()
            return checkpoint, [str(error), *problems]

    def _complete(self, folder: Path) -> bool:
        return (folder / STATE).exists()


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
