"""A sweep for people and programs: a live table on a terminal, stamped lines in a log, or JSON lines."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import IO, Any, Literal, Protocol, TextIO, cast

from raymeta.sweeps.file.space import describe
from raymeta.sweeps.file.sweep import Sweep
from raymeta.sweeps.records import ENDED, Ranked, Record, Records
from raymeta.system.files import json_text
from raymeta.system.streams import QuietStream
from raymeta.system.text import clean, duration
from raymeta.trackers.scores import name_in, score_text
from raymeta.trackers.terminal import REPORT_EVERY_S, Mode

_REFRESH_S = 0.25
_ROWS = 8

Kind = Literal["report", "finished", "stopped early", "failed", "stopped"]


class Display(Protocol):
    """Shows a sweep."""

    def reported(self, record: Record) -> None:
        """A trial made a report."""

    def ended(self, record: Record) -> None:
        """A trial ended, its status says how."""

    def draw(self, limit_s: float | None) -> None:
        """Called often; `limit_s` are the seconds until the sweep's time limit."""

    def close(self) -> None:
        """The sweep is over."""


class Standing:
    """Where a sweep is: the best so far, counts, and the time left at the pace so far."""

    def __init__(self, sweep: Sweep, records: Records, total: int, title: str, clock: Callable[[], float]) -> None:
        self.sweep, self.records, self.total, self.title = sweep, records, total, clean(title)
        self._clock = clock
        self._began, self._ended_before = clock(), records.count(*ENDED)

    def best(self) -> list[Ranked]:
        return self.records.ranking(self.sweep.sign(), self.sweep.steps)

    def score(self, value: float, ci95: float | None = None) -> str:
        return score_text(name_in(self.sweep.metric), value, ci95)

    def counts(self) -> str:
        """`5 of 16 trials ended: 3 finished, 2 stopped early, 0 failed; 2 running`."""
        count = self.records.count
        return (
            f"{count(*ENDED)} of {self.total} trials ended: {count('finished')} finished, "
            f"{count('stopped early')} stopped early, {count('failed')} failed; {count('running')} running"
        )

    def left_s(self, limit_s: float | None) -> float | None:
        """Seconds left; None before a trial ended."""
        ended = self.records.count(*ENDED)
        here = ended - self._ended_before
        pace = (self._clock() - self._began) / here * (self.total - ended) if here else None
        known = [seconds for seconds in (pace, limit_s) if seconds is not None]
        return min(known, default=None)

    def lines(self, limit_s: float | None) -> list[str]:
        """The whole standing in two lines."""
        left_s = self.left_s(limit_s)
        left = "" if left_s is None else f"; {duration(left_s)} left"
        best = self.best()
        return [f"{self.counts()}{left}", *([f"best so far: {self.ranked(best[0])}"] if best else [])]

    def ranked(self, best: Ranked) -> str:
        keys = [d.key for d in self.sweep.space.all() if not d.fixed]
        state = "" if best.complete else f" at step {best.step}"
        return f"{best.ids[0]}: {self.score(best.score, best.ci95)}{state} ({clean(describe(best.point, keys))})"

    def end_of(self, record: Record) -> str:
        """How a trial ended, with its reason."""
        score = f", {self.score(record.last.score, record.last.ci95)} at step {record.step}" if record.last else ""
        reason = f": {clean(record.reason)}" if record.reason else ""
        return f"trial {record.id} {record.status}{score}{reason}"


class PlainDisplay:
    """Stamped lines: trials that end at once, the standing every 10 s."""

    def __init__(self, outlet: QuietStream, standing: Standing, *, quiet: bool, clock: Callable[[], float]) -> None:
        self._outlet, self._standing, self._quiet, self._clock = outlet, standing, quiet, clock
        self._shown_s = clock()
        if not quiet:
            self._line(standing.title)

    def reported(self, record: Record) -> None:
        """Shown with the standing."""

    def ended(self, record: Record) -> None:
        if not self._quiet or record.status == "failed":
            self._line(self._standing.end_of(record))

    def draw(self, limit_s: float | None) -> None:
        if self._quiet or self._clock() - self._shown_s < REPORT_EVERY_S:
            return
        self._shown_s = self._clock()
        for line in self._standing.lines(limit_s):
            self._line(line)

    def close(self) -> None:
        self._outlet.drain()

    def _line(self, text: str) -> None:
        self._outlet.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")


class JsonDisplay:
    """One JSON object a line: {time, type: report|trial|standing, ...}."""

    def __init__(self, outlet: QuietStream, standing: Standing, *, clock: Callable[[], float]) -> None:
        self._outlet, self._standing, self._clock = outlet, standing, clock
        self._shown_s = -math.inf

    def reported(self, record: Record) -> None:
        if record.last is not None:
            self._object("report", {"trial": record.id, **record.last._asdict()})

    def ended(self, record: Record) -> None:
        last = record.last._asdict() if record.last else {}
        self._object("trial", {"trial": record.id, "status": record.status, "reason": record.reason, **last})

    def draw(self, limit_s: float | None) -> None:
        if self._clock() - self._shown_s < REPORT_EVERY_S:
            return
        self._shown_s = self._clock()
        best, count = self._standing.best(), self._standing.records.count
        self._object(
            "standing",
            {
                "ended": count(*ENDED),
                "total": self._standing.total,
                "running": count("running"),
                "left_s": self._standing.left_s(limit_s),
                "best": best[0]._asdict() if best else None,
            },
        )

    def close(self) -> None:
        self._outlet.drain()

    def _object(self, type_: str, content: dict[str, Any]) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._outlet.write(json_text({"time": now, "type": type_, **content}) + "\n")


class LiveDisplay:
    """A table of the best configurations in place, drawn with rich; trials that end as lines above."""

    def __init__(self, outlet: QuietStream, standing: Standing, *, clock: Callable[[], float]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._outlet, self._standing, self._clock = outlet, standing, clock
        self._drawn_s = -math.inf
        console = Console(file=cast(IO[str], outlet), force_terminal=True, highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False, redirect_stdout=False)
        self._live.start()

    def reported(self, record: Record) -> None:
        """Shown with the next drawing."""

    def ended(self, record: Record) -> None:
        style = {"failed": "bold red", "finished": "green"}.get(record.status, "yellow")
        self._live.console.print(self._standing.end_of(record), style=style)

    def draw(self, limit_s: float | None) -> None:
        if self._clock() - self._drawn_s < _REFRESH_S:
            return
        self._drawn_s = self._clock()
        self._live.update(self._table(self._standing.best()[:_ROWS], limit_s), refresh=True)

    def close(self) -> None:
        self._live.update(self._table(self._standing.best()[:_ROWS], None), refresh=True)
        self._live.stop()
        self._outlet.drain()

    def _table(self, best: Sequence[Ranked], limit_s: float | None) -> Any:
        from rich.table import Table
        from rich.text import Text

        keys = list(dict.fromkeys(d.key for d in self._standing.sweep.space.all() if not d.fixed))
        caption = self._standing.lines(limit_s)[0]
        table = Table(title=self._standing.title, caption=caption, box=None, padding=(0, 2, 0, 0))
        for name in ("trial", "score", "step", *keys):
            table.add_column(name, overflow="fold")
        for ranked in best:
            values = [str(ranked.point.get(key, "-")) for key in keys]
            cells = [ranked.ids[0], self._standing.score(ranked.score, ranked.ci95), f"{ranked.step:,}", *values]
            table.add_row(*(Text(clean(cell)) for cell in cells))
        return table


def open_display(
    mode: Mode,
    standing: Standing,
    *,
    quiet: bool,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    """The display on `stream` (stderr when None): `auto` is `live` on a terminal and `plain` elsewhere."""
    outlet = QuietStream(sys.stderr if stream is None else stream)
    if mode == "auto":
        mode = "live" if outlet.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if mode == "json" and not quiet:
        return JsonDisplay(outlet, standing, clock=clock)
    if mode == "plain" or quiet:
        return PlainDisplay(outlet, standing, quiet=quiet, clock=clock)
    return LiveDisplay(outlet, standing, clock=clock)
