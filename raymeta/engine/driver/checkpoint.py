"""Checkpoints: complete or absent, verified when read, without pickle.

`checkpoints/step-00012000/{params.safetensors, outer.safetensors, state.json}` is written beside and renamed into
place; `index.json` names the last and the best. `state.json` holds the SHA-256 of the tensor files, and the best
validation so far, so that a lost index can be rebuilt; both files are sealed, see `seals`. A checkpoint that is damaged
or missing is always told. Where the model has tensors that are not learned, `fixed.safetensors` holds them: one file
with a name in each checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from raymeta.adaptation.problem import Learned
from raymeta.engine.driver.memory import Halving
from raymeta.errors import CheckpointError, EnvironmentProblem
from raymeta.runs.layout import numbered, read_format
from raymeta.runs.seals import sealed, unsealed
from raymeta.system.files import sync_directory, write_json, write_problem, write_whole
from raymeta.system.reading import first_line, read_json, read_safetensors
from raymeta.tree import Params

PARAMS, OUTER, FIXED, STATE = "params.safetensors", "outer.safetensors", "fixed.safetensors", "state.json"
INDEX = "index.json"
_STATE_PREFIX = "state|"
_NAME = re.compile(r"step-\d{8,}")


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of outer step `step` (so many steps were done)."""

    step: int
    learned: Learned
    outer: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    tasks: int = 0  # computed until here by all attempts, in `train_s` seconds
    train_s: float = 0.0
    halvings: tuple[Halving, ...] = ()  # of the tasks computed at once
    validation_due: bool = False  # these parameters are being validated, so `best` does not know them yet
    fixed: Params = field(default_factory=dict)  # tensors of the model that are not learned

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
        final = self.directory / checkpoint_name(checkpoint.step)
        try:
            self._write_or_amend(checkpoint, final)
            self._update_index(final.name, best)
        except (OSError, EnvironmentProblem) as error:
            _discard(final.with_name(f".{final.name}.partial"))
            problem = write_problem(self.directory, error) if isinstance(error, OSError) else error
            last = self.index().get("last")
            then = f". The last good checkpoint is {last}: continue from it with --resume" if last else ""
            text = f"the checkpoint of step {checkpoint.step} could not be saved: {problem}{then}"
            raise EnvironmentProblem(text) from error

    def has(self, step: int) -> bool:
        """Whether this attempt has written the checkpoint of `step`."""
        return checkpoint_name(step) in self._written

    def _write_or_amend(self, checkpoint: Checkpoint, final: Path) -> None:
        halvings = [halving._asdict() for halving in checkpoint.halvings]
        known = {"best": checkpoint.best, "validation_due": checkpoint.validation_due, "halvings": halvings}
        if before := self._written.get(final.name):
            state = before | known
            if state != before:
                write_json(final / STATE, sealed(numbered(state)))
        else:
            state = self._write(checkpoint, final, known)
        self._written[final.name] = state

    def _write(self, checkpoint: Checkpoint, final: Path, known: dict[str, Any]) -> dict[str, Any]:
        partial = final.with_name(f".{final.name}.partial")
        _discard(partial)
        self.directory.mkdir(exist_ok=True)  # and nothing above it: a run that was deleted does not come back in parts
        partial.mkdir()
        tensors = checkpoint.learned.params | {_STATE_PREFIX + n: v for n, v in checkpoint.learned.state.items()}
        files = {PARAMS: save(_plain(tensors)), OUTER: save(_plain(checkpoint.outer))}
        for name, content in files.items():
            write_whole(partial / name, content)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        if checkpoint.fixed:
            hashes[FIXED] = self._write_fixed(checkpoint.fixed, partial / FIXED)
        state = {
            "step": checkpoint.step,
            **known,
            "tasks": checkpoint.tasks,
            "train_s": checkpoint.train_s,
            "sha256": hashes,
        }
        write_json(partial / STATE, sealed(numbered(state)))
        sync_directory(partial)
        stale = final.with_name(f".{final.name}.stale")
        if final.exists():  # written by an earlier attempt, perhaps damaged since
            _discard(stale)
            final.rename(stale)
        partial.rename(final)
        _discard(stale)
        sync_directory(self.directory)
        return state

    def _write_fixed(self, fixed: Params, path: Path) -> str:
        """As another name of the file that this attempt wrote last, where that is there; returns its SHA-256."""
        for name, state in reversed(self._written.items()):
            with contextlib.suppress(OSError):
                os.link(self.directory / name / FIXED, path)
                return str(state["sha256"][FIXED])
        content = save(_plain(fixed))
        write_whole(path, content)
        return hashlib.sha256(content).hexdigest()

    def _update_index(self, name: str, best: bool) -> None:
        index = self.index() | {"last": name} | ({"best": name} if best else {})
        write_json(self.directory / INDEX, sealed(index))
        names = self.names()
        kept = {index.get("best"), *names[: self.keep], name}
        for superfluous in set(names) - kept:
            _discard(self.directory / superfluous)

    def index(self) -> dict[str, str]:
        """Names of the `last` and `best` checkpoints; empty before the first.

        An `index.json` that is missing or damaged is rebuilt from what the newest checkpoint says.
        """
        try:
            return self._read_index()
        except (OSError, ValueError):
            return self._rebuilt_index()

    def _read_index(self) -> dict[str, str]:
        content = unsealed(read_json(self.directory / INDEX))
        if "last" not in content or not all(_NAME.fullmatch(str(name)) for name in content.values()):
            raise ValueError("it does not name the checkpoints")
        return {key: str(name) for key, name in content.items()}

    def _problem_of_index(self) -> list[str]:
        try:
            self._read_index()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            return [f"{self.directory / INDEX} cannot be used ({first_line(error)}) and is made again from the rest"]
        return []

    def _rebuilt_index(self) -> dict[str, str]:
        for name in self.names():
            try:
                checkpoint = self.load(name)
            except CheckpointError:  # told by whoever loads it
                continue
            return {"last": name} | ({"best": checkpoint_name(checkpoint.best["step"])} if checkpoint.best else {})
        return {}

    def names(self) -> list[str]:
        """Checkpoints, newest first. They were renamed into place whole, so what lacks a file was damaged since."""
        names = (path.name for path in self.directory.glob("step-*") if _NAME.fullmatch(path.name))
        return sorted(names, key=lambda name: int(name.removeprefix("step-")), reverse=True)

    def load(self, name: str) -> Checkpoint:
        """Read and verify one checkpoint; raises `CheckpointError` naming the file that is damaged."""
        folder = self.directory / name
        try:
            state = read_format(unsealed(read_json(folder / STATE)))
            files = (PARAMS, OUTER, *([FIXED] if FIXED in state["sha256"] else []))
            tensors = {file: _verified(folder / file, state["sha256"][file]) for file in files}
            step, best = int(state["step"]), state["best"]
            if checkpoint_name(step) != name:
                raise ValueError(f"{STATE} tells of step {step}")
            tasks, train_s = int(state.get("tasks", 0)), float(state.get("train_s", 0))
            halvings = tuple(Halving(**halving) for halving in state.get("halvings", []))
            if best is not None:
                best = {**best, "step": int(best["step"]), "rank": float(best["rank"])}
        except (OSError, MemoryError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
            raise CheckpointError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error
        every = tensors[PARAMS]
        params = {n: v for n, v in every.items() if not n.startswith(_STATE_PREFIX)}
        folded = {n.removeprefix(_STATE_PREFIX): v for n, v in every.items() if n.startswith(_STATE_PREFIX)}
        learned, due = Learned(params, folded), bool(state.get("validation_due"))
        return Checkpoint(step, learned, tensors[OUTER], best, tasks, train_s, halvings, due, tensors.get(FIXED, {}))

    def load_last(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be read (None without any), and what was wrong with newer ones.

        Raises `CheckpointError` where there were checkpoints and none can be read.
        """
        problems = self._problem_of_index()
        names = self.names()
        last = self.index().get("last")
        if last is not None and last not in names:
            problems.append(f"{self.directory / last} is missing, although index.json names it as the last checkpoint")
        for name in names:
            try:
                return self.load(name), problems
            except CheckpointError as error:
                problems.append(str(error))
        if problems:
            raise CheckpointError("no checkpoint can be read: " + "; ".join(problems))
        return None, problems

    def load_best(self) -> tuple[Checkpoint | None, list[str]]:
        """The best checkpoint by validation; falls back to the newest readable one and says so."""
        name = self.index().get("best")
        if name is None:
            return self.load_last()
        try:
            return self.load(name), self._problem_of_index()
        except CheckpointError as error:
            checkpoint, problems = self.load_last()
            return checkpoint, [str(error), *problems]


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint at the end of outer step `step`."""
    return f"step-{step:08d}"


def _verified(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        content = read_safetensors(path)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {STATE}")
    return load(content)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
