"""Whatever a person calls a model: a run, `latest`, a checkpoint, an exported or adapted folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymeta.algorithms.base import TrainedModel
from raymeta.api.checkpoints import best_checkpoint, run_config
from raymeta.api.evaluate import meta_test
from raymeta.config.variants import name_of
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.errors import CheckpointError, DataError, RaymetaWarning
from raymeta.runs import layout
from raymeta.runs.read import Run, resolve_run
from raymeta.system.reading import read_text
from raymeta.system.remote import is_uri
from raymeta.tasks.recorded import recorded
from raymeta.use.answers import Classifier
from raymeta.use.folder import is_adapted_folder, is_model_folder, read_adapted, read_model
from raymeta.use.pretrained import Pretrained
from raymeta.use.seen import seen_in
from raymeta.use.trained import classifier_of


def open_model(reference: str, *, output: str = "results", trust: bool = False, measured: bool = False) -> Pretrained:
    """The model that `reference` names; runs by id and `latest` are looked for in `output`.

    With `measured`, a run's data are looked at where they are here: what training examples look like, and how a
    transductive model scores by the support set's statistics. An exported folder has both written down.

    Code that a run or a folder names is imported only with `trust`.

    Raises `ConfigError` and `DataError` for what is none, `CheckpointError` for a run without a checkpoint.
    """
    path = Path(reference)
    if not is_uri(reference) and is_model_folder(path):
        return read_model(path, trust=trust)
    if not is_uri(reference) and (path / layout.STATE).exists():
        run = Run.open(path.resolve().parent.parent)
        return of_run(
            run, CheckpointStore(path.resolve().parent).load(path.resolve().name), trust=trust, measured=measured
        )
    return of_run(resolve_run(reference, output), trust=trust, measured=measured)


def open_classifier(reference: str, *, output: str = "results", trust: bool = False) -> Classifier:
    """What answers with classes: an adapted model's folder, or a model of `open_model` that was trained on classes.

    Raises as `read_adapted`, `open_model` and `classifier_of`.
    """
    path = Path(reference)
    others = (layout.RUN, layout.STATE)
    if is_adapted_folder(path) or (path.is_dir() and not is_model_folder(path) and not _has(path, others)):
        return read_adapted(path, trust=trust)
    return classifier_of(open_model(reference, output=output, trust=trust))


def _has(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).exists() for name in names)


def from_pretrained(path: str | Path, *, trust: bool = False, measured: bool = False) -> Pretrained:
    """The model in an exported folder, or of a run; see `open_model`."""
    return open_model(str(path), trust=trust, measured=measured)


def of_run(
    run: Run, checkpoint: Checkpoint | None = None, *, trust: bool = False, measured: bool = False
) -> Pretrained:
    """The model of a run's best checkpoint, or of the one that is given."""
    config = run_config(run, {"workers": 0, "min_workers": None, "max_workers": None}, trust=trust or run.trusted)
    checkpoint = best_checkpoint(run) if checkpoint is None else checkpoint
    tasks = recorded(config.tasks, run.manifest)
    names = {"algorithm": name_of(config.algorithm), "model": name_of(config.model), "tasks": name_of(config.tasks)}
    model = Pretrained(
        run.id,
        config.model_copy(update={"tasks": tasks}),
        checkpoint.learned,
        checkpoint.fixed,
        _about(run, checkpoint.step)
        | (_inductive(run, trust) if measured and not isinstance(config.algorithm, TrainedModel) else {})
        | names,
        seen_in(config.tasks) if measured else None,
    )
    _require_fits(model, run)
    return model


def _require_fits(model: Pretrained, run: Run) -> None:
    theirs = {name: tuple(value.shape) for name, value in model.learned.params.items()}
    ours = model.built.blueprint.layout.shapes
    if theirs != ours:
        name = sorted(n for n in {*theirs, *ours} if theirs.get(n) != ours.get(n))[0]
        raise CheckpointError(
            f"the checkpoint of {run.id} does not fit its configuration: {name} is {theirs.get(name)} in the "
            f"checkpoint and {ours.get(name)} as it is built. Was the model's code changed since?"
        )


SCORED = 50
"""Test episodes on which a transductive model is scored by the support set's statistics, too."""


def _inductive(run: Run, trust: bool) -> dict[str, Any]:
    """The score by the support set's statistics, where the run's own is transductive and its data are here."""
    if (run.summary or {}).get("batch_norm") != "transductive":
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RaymetaWarning)
            scored = meta_test(run, episodes=SCORED, trust=trust, batch_norm="support")
    except DataError:
        return {}
    return {"inductive": scored.headline._asdict()}


def _about(run: Run, step: int) -> dict[str, Any]:
    summary, environment = run.summary or {}, run.info
    return {
        "source": run.id,
        "trained": run.created,
        "steps": step,
        "metric": summary.get("headline"),
        "inner_steps": summary.get("inner_steps"),
        "batch_norm": summary.get("batch_norm"),
        "data": None if run.manifest is None else run.manifest.text(),
        "data_sha256": None if run.manifest is None else run.manifest.sha256,
        "command": _text(run.path / layout.COMMAND),
        "raymeta": environment.get("raymeta"),
    }


def _text(path: Path) -> str | None:
    try:
        return read_text(path).strip()
    except (OSError, ValueError):
        return None
