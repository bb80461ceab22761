"""The page of machines: which workers of which running runs are where, and how busy they are."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from typing import Any

from raymeta.views.figures import workers as figures
from raymeta.views.figures.style import is_number
from raymeta.views.pages.document import Block, Page, chart, duration, fact, note, section, table
from raymeta.views.sources.run import RunSource

Row = dict[str, Any]


def cluster_page(sources: Sequence[RunSource], *, ray_url: str = "", ray_nodes: Sequence[Row] | None = None) -> Page:
    """Workers of the running runs by node; nodes as Ray's own dashboard tells them, where there is one."""
    running = [source for source in sources if source.run.status == "running"]
    rows = [row for source in running for row in _worker_rows(source)]
    nodes = sorted({str(row["node"]) for row in rows})
    facts = [
        fact("Running runs", str(len(running))),
        fact("Workers", str(len(rows)), f"on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"),
        fact("Tasks per second", f"{sum(row['rate'] for row in rows):,.0f}", "all workers together"),
        fact("This machine", f"{os.cpu_count()} CPUs", _load()),
    ]
    sections = [
        section("nodes", "Nodes", [*_ray(ray_url, ray_nodes), _node_table(rows)]),
        section("workers", "Workers", _workers(rows)),
    ]
    return {
        "kind": "cluster",
        "id": "",
        "title": "Cluster",
        "status": "",
        "live": True,
        "facts": facts,
        "ray": ray_url if ray_nodes is not None else "",
        "sections": [s for s in sections if s["blocks"]],
    }


def _load() -> str:
    if not hasattr(os, "getloadavg"):
        return platform.node()
    return f"{platform.node()}, load {os.getloadavg()[0]:.1f}"


def _worker_rows(source: RunSource) -> list[Row]:
    snapshots = source.workers()
    if not snapshots:
        return []
    at = snapshots[-1].get("time")
    age = time.time() - at if is_number(at) else None
    return [
        {
            "run": source.id,
            "name": str(w.get("name")),
            "node": str(w.get("node")),
            "pid": w.get("pid"),
            "tasks": w.get("tasks"),
            "rate": float(w["tasks_per_s"]) if is_number(w.get("tasks_per_s")) else 0.0,
            "restarts": w.get("restarts"),
            "age": duration(age),
        }
        for w in snapshots[-1]["workers"]
    ]


def _ray(url: str, nodes: Sequence[Row] | None) -> list[Block | None]:
    if nodes is None:
        text = f"No Ray dashboard answers at {url}" if url else "No Ray dashboard is asked"
        return [note(f"{text}; nodes are those of the workers below. --ray names another address.")]
    columns = ("Node", "State", "CPU in %", "Memory in %", "GPUs")
    rows = [[n["name"], n["state"], n["cpu"], n["memory"], n["gpus"]] for n in nodes]
    return [table("ray", "Nodes of the Ray cluster", columns, rows)]


def _node_table(rows: Sequence[Row]) -> Block | None:
    lines = []
    for node in sorted({row["node"] for row in rows}):
        ours = [row for row in rows if row["node"] == node]
        lines.append([node, len(ours), len({row["run"] for row in ours}), round(sum(row["rate"] for row in ours), 1)])
    return table("nodes", "Nodes with workers", ("Node", "Workers", "Runs", "Tasks per second"), lines)


def _workers(rows: Sequence[Row]) -> list[Block | None]:
    if not rows:
        return [note("No run is running. Workers appear here while one is.")]
    shown = [{**row, "name": f"{row['name']} of {row['run']}"} for row in rows]
    cells = [
        [{"text": r["run"], "run": r["run"]}, r["name"], r["node"], r["pid"], r["tasks"], round(r["rate"], 1),
         r["restarts"], r["age"]]
        for r in rows
    ]  # fmt: skip
    titles = ("Run", "Worker", "Node", "Process", "Tasks", "Tasks per second", "Restarts", "Seen ago")
    return [chart("shares", figures.shares([{"workers": shown}])), table("workers", "Workers", titles, cells)]
