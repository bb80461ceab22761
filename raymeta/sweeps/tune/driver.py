"""A whole sweep on Ray Tune: new, or from the plain records of one that was stopped or killed.

`Tuner.restore` is not used: it unpickles what lies on the disk, and a resumed sweep needs nothing but its records.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from raymeta.config import yaml_lines
from raymeta.config.load import Override, dump
from raymeta.config.strangers import require_trusted
from raymeta.engine.executors.placement import Node, PoolOptions, require_known_address
from raymeta.engine.executors.ray_actors.cluster import Cluster
from raymeta.errors import ConfigError, DataError, EnvironmentProblem
from raymeta.runs import layout
from raymeta.runs.inside import require_no_way_out
from raymeta.runs.lock import DirectoryLock
from raymeta.runs.read import find_runs
from raymeta.runs.write import new_run_directory
from raymeta.sweeps.display import Standing, open_display
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.file.schema import Pbt
from raymeta.sweeps.file.sweep import Sweep
from raymeta.sweeps.records import ENDED, Records
from raymeta.sweeps.resources import require_fit, share_of
from raymeta.sweeps.search.proposer import Listed, Proposer, proposer
from raymeta.sweeps.summary import SweepFiles
from raymeta.system.files import write_whole
from raymeta.system.signals import first_signal
from raymeta.trackers.terminal import Mode

_WAIT_FOR_DEAD_S = 30.0
"""How long workers of a killed driver may take to notice."""
_CRASHES = 3
"""Times that a trial goes on after its process died."""

# Read when ray.tune is imported or a trial is started: no files of Tune's own, no change of folder, our signals.
_TUNE_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass
class Outcome:
    """How a sweep ended."""

    directory: Path
    summary: dict[str, Any]
    reason: str | None


def new_directory(sweep: Sweep, output: Path) -> Path:
    """Make `output/sweeps/ID` with all that a sweep can be resumed from."""
    directory = new_run_directory(output / layout.SWEEPS, sweep.name, datetime.now()).absolute()
    _write(sweep, directory)
    return directory


def _write(sweep: Sweep, directory: Path) -> None:
    write_whole(directory / layout.BASE, dump(sweep.first))
    write_whole(directory / layout.SWEEP, yaml_lines.write(sweep.resolved()))


def find_sweep(reference: str, output: Path) -> Path:
    """The folder of a sweep: a path, an id, the unique beginning of one, or `latest`.

    Raises `ConfigError`, or `DataError` where there are no sweeps.
    """
    if (Path(reference) / layout.SWEEP).is_file():
        return Path(reference).absolute()
    folder = output / layout.SWEEPS
    found = sorted(path.parent for path in folder.glob(f"*/{layout.SWEEP}"))
    if not found:
        raise DataError(f"no sweeps in {folder}/: start one with raymeta tune -c FILE, or name another --output")
    if reference == "latest":
        return max(found, key=lambda path: (path / layout.SWEEP).stat().st_mtime).absolute()
    matches = [path for path in found if path.name.startswith(reference)]
    if len(matches) != 1:
        listed = ", ".join(path.name for path in (matches or found)[:5])
        problem = "is the beginning of several sweeps" if matches else f"is no sweep in {folder}/"
        raise ConfigError(f"--resume {reference} {problem}: {listed}")
    return matches[0].absolute()


def run_sweep(
    directory: Path,
    *,
    address: str | None = None,
    changes: Mapping[str, Any] | None = None,
    overrides: Sequence[Override] = (),
    trust: bool = False,
    mode: Mode = "auto",
    quiet: bool = False,
) -> Outcome:
    """Run all trials of the sweep in `directory` that have not ended yet.

    With `changes`, even none, it is one that goes on: its folder may be a stranger's, so that `trust` is needed for the
    code that it names, and `overrides` say where its trials are mirrored.

    Raises `EnvironmentProblem` where Ray is missing or not reachable, a trial can never fit, or another driver works
    on the sweep.
    """
    resumed = changes is not None
    if resumed and not trust:
        require_no_way_out(directory)
    sweep = load_sweep(
        directory / layout.SWEEP, overrides=overrides, changes=changes, check=False, foreign=resumed, trust=trust
    )
    require_machine(sweep, address)
    lock = DirectoryLock(directory)
    try:
        if not lock.held:
            raise EnvironmentProblem(f"another driver works on {directory}: wait for it or stop it first")
        chosen = proposer(sweep)
        driver = _Driver(directory, sweep, _records(directory, sweep, chosen), chosen)
        if resumed:  # trials read what this driver made sure of
            _write(sweep, directory)
        with driver.files.kept_up_to_date():
            cluster = Cluster(PoolOptions(address=address))
            try:
                require_fit(sweep, cluster.nodes())
                return driver.run(mode, quiet)
            finally:
                cluster.close()
    finally:
        lock.release()


def require_machine(sweep: Sweep, address: str | None) -> None:
    """Raise `EnvironmentProblem` where Ray Tune is missing, or a trial can never fit on the cluster to be started."""
    if address is not None:
        require_known_address(address)
    os.environ.update({name: os.environ.get(name, value) for name, value in _TUNE_ENVIRONMENT.items()})
    _require_tune()
    if address is None and not _ray_runs():
        require_fit(sweep, [this_machine()])


def _records(directory: Path, sweep: Sweep, chosen: Proposer) -> Records:
    """What earlier attempts left. Raises `ConfigError` where the sweep now has fewer configurations than they tried."""
    records = Records.load(directory / layout.RECORDS, sweep.file.repeats)
    tried = len(records.groups())
    if tried > chosen.total:
        raise ConfigError(
            f"{directory} has tried {tried} configurations, and samples {sweep.file.samples} asks for {chosen.total}: "
            "leave --samples out, or give more"
        )
    _require_searched(records, sweep)
    _wait_for_the_dead(directory)
    records.catch_up(directory / layout.TRIALS)
    return records


def _require_searched(records: Records, sweep: Sweep) -> None:
    """Raise `DataError` for a record with an option that the sweep does not search, and thus never wrote."""
    searched = {dimension.key for dimension in sweep.space.all()}
    for record in records.all():
        points = [record.point, *(change["point"] for change in record.changes)]
        if unknown := {key for point in points for key in point} - searched:
            raise DataError(
                f"{records.directory / record.id}.json sets {sorted(unknown)[0]}, which the sweep does not search: "
                "delete it to run this trial again"
            )
        if sweep.foreign and not sweep.trust:
            require_trusted(points, f"{records.directory / record.id}.json")


def _require_tune() -> None:
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(f"sweeps need Ray Tune ({error}): pip install 'raymeta[tune]'") from error


def _ray_runs() -> bool:
    import ray

    return bool(ray.is_initialized())


def this_machine() -> Node:
    """What a cluster started here will have; known without starting it."""
    import torch

    return Node("here", {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}, {})


def _wait_for_the_dead(directory: Path) -> None:
    """Processes of a killed driver end within seconds; two writers of a run must not meet."""
    deadline = time.monotonic() + _WAIT_FOR_DEAD_S
    while alive := [run.id for run in find_runs(directory / layout.TRIALS) if run.status == "running"]:
        if time.monotonic() > deadline:
            raise EnvironmentProblem(
                f"trials {', '.join(alive)} of {directory} are still being written: another driver works on this "
                "sweep; wait for it or stop it first"
            )
        time.sleep(0.5)


@dataclass
class _Driver:
    """One attempt at a sweep."""

    directory: Path
    sweep: Sweep
    records: Records
    proposer: Proposer
    files: SweepFiles = field(init=False)

    def __post_init__(self) -> None:
        self.files = SweepFiles(self.sweep, self.records, self.directory)

    @property
    def total(self) -> int:
        return self.proposer.total * self.sweep.file.repeats

    def run(self, mode: Mode, quiet: bool) -> Outcome:
        from raymeta.sweeps.tune.callback import TuneCallback
        from raymeta.sweeps.tune.stopping import Interruption, SweepStopper

        title = f"{self.sweep.name}  {self.directory}  {self.total} trials of {self.sweep.steps:,} steps"
        standing = Standing(self.sweep, self.records, self.total, title, time.monotonic)
        interruption = Interruption(self.directory, self.sweep.file.time_limit)
        stopper = SweepStopper(self.sweep.file.stop, self.sweep.sign(), self.records, interruption)
        display = open_display(mode, standing, quiet=quiet)
        scheduler = self.sweep.file.scheduler.name
        watch = TuneCallback(self.records, self.files, display, stopper, interruption, scheduler)
        try:
            with first_signal(lambda: interruption.ask("signal")):
                self._tune(watch, stopper, interruption)
            watch.interrupted()
        finally:
            interruption.close()
            display.close()
        ended = self.records.count(*ENDED) == self.total
        reason = None if ended else interruption.reason
        return Outcome(self.directory, self.files.write("finished" if ended else "stopped", reason or ""), reason)

    def _tune(self, watch: Any, stopper: Any, interruption: Any) -> None:
        from ray import tune

        from raymeta.sweeps.tune.schedulers import scheduler_of
        from raymeta.sweeps.tune.searcher import TuneSearcher, unfinished
        from raymeta.sweeps.tune.trial import SweepTrial

        file = self.sweep.file
        trainable = tune.with_parameters(SweepTrial, directory=str(self.directory))
        trainable = tune.with_resources(trainable, self._resources)
        feed: Any = TuneSearcher(self.records, self.proposer, self.sweep.sign(), interruption)
        space: dict[str, Any] = {}
        left = self.total - self.records.count(*ENDED)
        if isinstance(file.scheduler, Pbt):  # Tune takes no searcher beside it
            assert isinstance(self.proposer, Listed)
            feed.note_all()
            feed, space, left = None, {"trial": tune.grid_search(unfinished(self.records))}, 1
        if not left:
            return
        tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=left,
                search_alg=feed,
                scheduler=scheduler_of(self.sweep, self.records.all()),
                max_concurrent_trials=file.concurrent,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"]["id"],
                trial_dirname_creator=lambda trial: trial.config["trial"]["id"],
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self.directory),
                stop=stopper,
                callbacks=[watch],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_CRASHES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=3),
            ),
        ).fit()

    def _resources(self, config: dict[str, Any]) -> Any:
        from ray import tune

        share = share_of(self.sweep.file.resources, self.sweep.config(config["trial"]["point"]))
        return tune.PlacementGroupFactory(share.bundles, strategy="PACK")
