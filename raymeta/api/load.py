"""A run or a sweep opened for looking at: data frames, configuration, the trained model, figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from raymeta.api.checkpoints import best_checkpoint, run_config, take_fixed_tensors
from raymeta.config.build import build
from raymeta.runs.read import Run, require_pandas, resolve_run
from raymeta.runs.tables import frames
from raymeta.views.figures.episodes import sheet
from raymeta.views.notebook import figure_of, notebook_html
from raymeta.views.pages.episodes import read_episodes
from raymeta.views.pages.run import embedded, run_figures, run_page
from raymeta.views.pages.sweep import sweep_figures, sweep_page
from raymeta.views.sources.run import RunSource
from raymeta.views.sources.sweep import SweepSource

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from torch import nn


@final
class RunView(Run):
    """A run with what a notebook wants of it. Everything is read when asked for, so it stays current."""

    @classmethod
    def of(cls, run: Run, *, trust: bool = False) -> RunView:
        return cls(run.path, run.info, run.mirror, trusted=trust or run.trusted)

    def frames(self) -> dict[str, pd.DataFrame]:
        """`metrics`, `validations`, `tests` (a row for each test task), `workers` and `events` as data frames.

        Raises `EnvironmentProblem` without pandas.
        """
        return frames(self)

    def figures(self) -> dict[str, go.Figure]:
        """The figures of the run's page as Plotly figures, by name. Raises `EnvironmentProblem` without plotly."""
        return {name: figure_of(spec) for name, spec in run_figures(RunSource(self.path)).items()}

    def episodes(self) -> list[dict[str, Any]]:
        """The test episodes that were written out, worst first: labels, probabilities [K + 1, Q, way], pictures."""
        return read_episodes(self.path, embedded)[0]

    def episode_figures(self) -> dict[str, go.Figure]:
        """A figure for each of `episodes()`: the fits of a regression, or the confidence in the true classes."""
        found = {}
        for item in self.episodes():
            if item["kind"] == "fit":
                found[f"episode {item['index']}"] = figure_of(item["spec"])
            elif item["kind"] == "classes":
                content = {"probabilities": item["probabilities"], "query_y": item["query"]}
                found[f"episode {item['index']}"] = figure_of(sheet(content))
        return found

    def model(self, module: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
        """The model of the run's best checkpoint, all of its tensors. Raises `CheckpointError` without any.

        With `batch_norm: running` it uses the running statistics in eval mode, as any module does. Under the other
        policies there are none: batch norm uses the batch that it is given in both modes.

        `module` is handed over again where the run was trained on one that was. With `trust`, code that the run's
        configuration names is imported; needed unless it was named in this process.

        Parameters of an algorithm beside the model's own (Meta-SGD's rates) are not part of it; `raymeta.meta_test`
        adapts with them.
        """
        given = {} if module is None else {"model": module}
        config = run_config(self, given, trust=trust or self.trusted)
        built, checkpoint = build(config, ()), best_checkpoint(self)
        take_fixed_tensors(built, checkpoint)
        return built.blueprint.problem().exported(checkpoint.learned)

    def _repr_html_(self) -> str:
        """What a notebook shows of the run: its facts, its worst test task, and what to ask for next."""
        source = RunSource(self.path)
        sheets = [item["sheet"] for item in read_episodes(self.path, embedded)[0] if item.get("sheet")]
        return notebook_html(run_page(source), list(run_figures(source)), sheets[:1])


@final
class SweepView:
    """A sweep with what a notebook wants of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def frame(self) -> pd.DataFrame:
        """A row for each trial; options under their dotted keys. Raises `EnvironmentProblem` without pandas."""
        rows = SweepSource(self.path).trials()
        return require_pandas().DataFrame(
            [{**{k: v for k, v in row.items() if k != "config"}, **row["config"]} for row in rows]
        )

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json`; empty as long as there is none."""
        return SweepSource(self.path).summary

    def figures(self) -> dict[str, go.Figure]:
        """The figures of the sweep's page as Plotly figures, by name."""
        return {name: figure_of(spec) for name, spec in sweep_figures(SweepSource(self.path)).items()}

    def _repr_html_(self) -> str:
        source = SweepSource(self.path)
        return notebook_html(sweep_page(source), list(sweep_figures(source)))


def load_run(reference: str | Path, *, output: str | Path = "results", trust: bool = False) -> RunView:
    """The run in a folder, or the one that `raymeta runs show` would find in `output`: `load_run("latest").figures()`.

    With `trust`, code that the run names may be imported, for `model()` and `meta_test`.

    Raises `ConfigError` for an unknown or ambiguous reference, `DataError` if there are no runs at all.
    """
    return RunView.of(resolve_run(str(reference), output), trust=trust)
