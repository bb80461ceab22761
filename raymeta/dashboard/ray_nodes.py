"""What Ray's own dashboard says about the nodes of its cluster, asked over HTTP: no connection to Ray is needed."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from raymeta.views.figures.style import is_number

TIMEOUT_S = 1.0
LIMIT_BYTES = 4 * 2**20


async def nodes(url: str) -> list[dict[str, Any]] | None:
    """A row {name, state, cpu, memory, gpus} for each node; None where no Ray dashboard answers at `url`."""
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/nodes?view=summary") as answer,
        ):
            data = await answer.content.read(LIMIT_BYTES)
            found = json.loads(data)["data"]["summary"] if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
        return None
    return [_row(node) for node in found if isinstance(node, dict)] if isinstance(found, list) else None


def _row(node: dict[str, Any]) -> dict[str, Any]:
    raylet, memory, gpus = node.get("raylet"), node.get("mem"), node.get("gpus")
    cpu = node.get("cpu")
    return {
        "name": str(node.get("hostname") or node.get("ip")),
        "state": str(raylet.get("state", "–")).lower() if isinstance(raylet, dict) else "–",
        "cpu": round(cpu, 1) if is_number(cpu) else None,
        "memory": memory[2] if isinstance(memory, list) and len(memory) > 2 and is_number(memory[2]) else None,
        "gpus": len(gpus) if isinstance(gpus, list) else 0,
    }
