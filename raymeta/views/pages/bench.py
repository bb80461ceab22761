"""The page of measured meta-gradients: what `raymeta bench --json FILE` wrote, case by case.

Read of it, all of which may be absent:

    command, date, commit, changed_since_commit, hardware {cpu, cores, machine, gpus}, versions, device, rounds
    cases: [{case, tasks, flops_per_task, peak_flops, left_out {path: why}, rows: [{
        path, tasks_per_s, of_the_floor, best_peer, over_best_peer, peak_memory_mb, first_call_s}]}]

Rates and ratios are {median, least, most} over rounds. Anything else in the file is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymeta.views.figures import bench as figures
from raymeta.views.figures.bench import Rate, Role
from raymeta.views.figures.style import is_number
from raymeta.views.pages.document import (
    Block,
    Page,
    Section,
    chart,
    code,
    count,
    fact,
    note,
    section,
    table,
    when,
    wide,
)
from raymeta.views.sources.bench import BenchSource
from raymeta.views.sources.files import Row

START = "raymeta bench --json {folder}/bench.json"
MAX_ROWS = 60
SHOWN_LETTERS = 400
COLUMNS = (
    "Path", "Tasks per second", "Slowest round", "Fastest round", "× best peer", "× best peer, range", "Of the floor",
    "Memory in MB", "First call in s",
)  # fmt: skip


def bench_page(folder: str, sources: Sequence[BenchSource], *, chosen: str = "") -> Page:
    """The result named `chosen`, or the newest; which others there are, and what in the folder could not be read."""
    results = sorted((s for s in sources if s.is_result), key=lambda source: (source.date, source.name), reverse=True)
    source = next((s for s in results if s.name == chosen), results[0] if results else None)
    blocks = _start(folder) if source is None else _circumstances(source)
    sections = [*(_cases(source) if source else []), section("made", "How it was measured", blocks)]
    sections.append(section("others", "Other files", _others([s for s in sources if not s.is_result])))
    options = [[s.name, f"{s.name}, {when(s.date)}"] for s in results]
    control = {"name": "result", "label": "Result", "value": source.name if source else "", "options": options}
    return {
        "kind": "bench",
        "id": source.name if source else "",
        "title": "Bench",
        "status": "",
        "live": False,
        "facts": _facts(source) if source else [],
        "controls": [control] if len(results) > 1 else [],
        "sections": [s for s in sections if s["blocks"]],
    }


def _start(folder: str) -> list[Block | None]:
    missing = "There is no result of raymeta bench yet. Measure meta-gradients on this machine, beside other libraries:"
    return [note(missing), code("Command", START.format(folder=folder))]


def _facts(source: BenchSource) -> list[dict[str, str]]:
    content, hardware = source.content, _mapping(source.content.get("hardware"))
    commit = str(content.get("commit") or "–")[:12]
    gpus = hardware.get("gpus")
    machine = [f"{count(hardware.get('cores'))} cores", str(hardware.get("machine") or "")]
    machine += [_cut(gpu) for gpu in gpus[:8]] if isinstance(gpus, list) else []
    return [
        fact("Processor", _cut(hardware.get("cpu") or "–"), ", ".join(part for part in machine if part)),
        fact("Device", _cut(content.get("device") or "–"), f"{count(content.get('rounds'))} rounds, one thread"),
        fact("Commit", commit, "and changes that were not committed" if content.get("changed_since_commit") else ""),
        fact("Measured", when(content.get("date"))),
    ]


def _circumstances(source: BenchSource) -> list[Block | None]:
    command, versions = source.content.get("command"), _mapping(source.content.get("versions"))
    rows = [[_cut(name), _cut(version)] for name, version in list(versions.items())[:MAX_ROWS]]
    return [
        None if source.cases() else note("This file holds no case.", "bad"),
        code("Command", _cut(command)) if command else None,
        table("versions", "Versions", ("Package", "Version"), rows),
    ]


def _others(sources: Sequence[BenchSource]) -> list[Block | None]:
    broken = [note(f"{source.name}: {source.problem}", "bad") for source in sources if source.problem]
    foreign = [source.name for source in sources if not source.problem]
    text = f"Not results of raymeta bench, and so not shown: {', '.join(foreign)}."
    return [*broken, note(text) if foreign else None]


def _cases(source: BenchSource) -> list[Section]:
    return [
        section(f"case-{position}", _cut(case.get("case") or f"Case {position}"), _case(position, case))
        for position, case in enumerate(source.cases(), start=1)
    ]


def _case(position: int, case: Row) -> list[Block | None]:
    found = case.get("rows")
    rows = [row for row in found[:MAX_ROWS] if isinstance(row, dict)] if isinstance(found, list) else []
    rows.sort(key=lambda row: (_spread(row.get("tasks_per_s")) or (-1.0,))[0], reverse=True)
    measured = [(row, spread) for row in rows if (spread := _spread(row.get("tasks_per_s")))]
    drawn = [Rate(_path(row), _role(row), *spread) for row, spread in measured]
    left_out = list(_mapping(case.get("left_out")).items())[:MAX_ROWS]
    return [
        note(_words(case, measured)),
        wide(chart(f"rates:{position}", figures.rates(drawn))),
        table(f"paths:{position}", f"Paths of {_cut(case.get('case'))}", COLUMNS, [_cells(row) for row in rows]),
        table(f"left:{position}", "Left out", ("Left out", "Why"), [[_cut(path), _cut(why)] for path, why in left_out]),
    ]


def _words(case: Row, measured: Sequence[tuple[Row, tuple[float, float | None, float | None]]]) -> str:
    """What a reader wants to know first: our fastest path beside the best peer and the floor."""
    if not measured:
        return "No path of this case was measured."
    words = [f"{count(case.get('tasks'))} tasks a call."]
    ours = [(spread[0], row) for row, spread in measured if _role(row) == "raymeta"]
    if ours:
        rate, row = max(ours, key=lambda pair: pair[0])
        words.append(f"Our fastest path is {_path(row)} at {rate:,.0f} tasks per second.")
        if over := _spread(row.get("over_best_peer")):
            words.append(f"That is {over[0]:.2f} times the best peer, {_cut(row.get('best_peer') or 'unnamed')}.")
        if share := _spread(row.get("of_the_floor")):
            words.append(f"It has {share[0]:.2f} of the floor's rate.")
    flops, peak = case.get("flops_per_task"), case.get("peak_flops")
    if is_number(flops) and is_number(peak) and flops > 0 and peak > 0:
        words.append(f"By arithmetic alone {peak / flops:,.0f}, at {peak / 1e9:,.0f} GFLOP/s.")
    return " ".join(words)


def _cells(row: Row) -> list[object]:
    rate, over, share = (_spread(row.get(key)) for key in ("tasks_per_s", "over_best_peer", "of_the_floor"))
    memory, first = row.get("peak_memory_mb"), row.get("first_call_s")
    return [
        _path(row),
        *(None if value is None else _rounded(value) for value in (rate or (None, None, None))),
        None if over is None else round(over[0], 2),
        None if over is None or over[1] is None or over[2] is None else f"{over[1]:.2f} to {over[2]:.2f}",
        None if share is None else round(share[0], 2),
        round(memory, 1) if is_number(memory) else None,
        round(first, 2) if is_number(first) else None,
    ]


def _spread(found: object) -> tuple[float, float | None, float | None] | None:
    """(median, least, most) where there is a median; the range only where it holds the median."""
    if not isinstance(found, Mapping) or not is_number(median := found.get("median")) or median < 0:
        return None
    least, most = found.get("least"), found.get("most")
    if not is_number(least) or not is_number(most) or not 0 <= least <= median <= most:
        return float(median), None, None
    return float(median), float(least), float(most)


def _role(row: Row) -> Role:
    path = str(row.get("path"))
    return "floor" if path == "floor" else "raymeta" if path.startswith("raymeta") else "peer"


def _path(row: Row) -> str:
    return _cut(row.get("path") or "unnamed")


def _rounded(value: float) -> float:
    return round(value) if value >= 1000 else float(f"{value:.4g}")


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _cut(found: object) -> str:
    """Text of a length that can be shown."""
    shown = str(found)
    return shown if len(shown) <= SHOWN_LETTERS else shown[: SHOWN_LETTERS - 1] + "…"
