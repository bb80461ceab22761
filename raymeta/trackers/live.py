"""The live display of a run on a terminal, drawn with rich."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raymeta.system.streams import QuietStream
from raymeta.system.text import clean
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.names import FAULT_KINDS
from raymeta.trackers.progress import Progress, adaptation_text, event_label, step_text
from raymeta.trackers.scores import Scores

_REFRESH_S = 0.125
_MAX_ROWS = 12
_STYLES: dict[str, str] = {
    "warning": "yellow",
    **dict.fromkeys(FAULT_KINDS, "yellow"),
    "failed": "bold red",
    "stopped": "yellow",
    "best": "green",
    "finished": "bold green",
}


class LiveTerminal:
    """Title, bar, losses, validation and workers in place; events as lines above."""

    def __init__(
        self, outlet: QuietStream, progress: Progress, *, clock: Callable[[], float], capture_stderr: bool = False
    ) -> None:
        """`capture_stderr` prints what others write to stderr and to a stdout on a terminal above the display."""
        self._outlet, self._progress, self._clock = outlet, progress, clock
        self._drawn_s = -math.inf
        self._console = Console(
            file=cast(IO[str], outlet), force_terminal=True, highlight=False, markup=False, emoji=False
        )
        # No refreshing thread: all drawing happens in the driver's thread, and what is drawn never blocks it.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stderr=capture_stderr,
            redirect_stdout=capture_stderr and sys.stdout is not None and sys.stdout.isatty(),
        )
        self._live.start()
        self._draw()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._progress.update(step, metrics, self._clock())
        if self._clock() - self._drawn_s >= _REFRESH_S:
            self._draw()

    def validation(self, step: int, scores: Scores) -> None:
        self._progress.scores = scores
        self._draw()

    def event(self, kind: str, message: str, **fields: object) -> None:
        label = f"{event_label(kind)}: " if kind != "validation" else ""
        self._console.print(Text(label + clean(message), style=_STYLES.get(kind, "dim")))

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        self._progress.rows = tuple(rows)

    def close(self) -> None:
        self._draw()
        self._live.stop()
        self._outlet.drain()

    def _draw(self) -> None:
        self._drawn_s = self._clock()
        self._live.update(_display(self._progress), refresh=True)


def _display(progress: Progress) -> RenderableType:
    parts: list[RenderableType] = [Text(progress.title, style="bold"), _bar(progress)]
    if progress.metrics:
        parts.append(Text("  ".join(progress.pieces())))
    if progress.scores is not None:
        scores = progress.scores
        parts.append(Text(f"validation {scores.text}"))
        if adapting := adaptation_text(scores):
            parts.append(Text(adapting))
    if progress.rows:
        parts.append(_workers(progress.rows))
    return Group(*parts)


def _bar(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(ProgressBar(total=max(progress.steps, 1), completed=progress.step), step_text(progress))
    return grid


def _workers(rows: Sequence[WorkerRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, justify in (("worker", "left"), ("node", "left"), ("tasks/s", "right"), ("restarts", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in rows[:_MAX_ROWS]:
        style = "yellow" if row.restarts else ""
        cells = (clean(row.name), clean(row.node), f"{row.tasks_per_s:.3g}", str(row.restarts))
        table.add_row(*(Text(cell) for cell in cells), style=style)
    if len(rows) > _MAX_ROWS:
        rest = rows[_MAX_ROWS:]
        cells = (f"{len(rest)} more", "", f"{sum(row.tasks_per_s for row in rest):.3g}", "")
        table.add_row(*cells[:3], str(sum(row.restarts for row in rest)), style="dim")
    return table
