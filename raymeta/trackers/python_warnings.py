"""Events of a run as Python warnings, for a caller who sees no terminal of ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from raymeta.errors import RaymetaWarning
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.names import FAULT_KINDS
from raymeta.trackers.scores import Scores


class PythonWarnings:
    """Tells a Python caller, who sees no terminal of ours, what a person should know."""

    def event(self, kind: str, message: str, **fields: object) -> None:
        if kind in ("note", "warning", *FAULT_KINDS):
            warnings.warn(message, RaymetaWarning, stacklevel=2)

    def step(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def validation(self, step: int, scores: Scores) -> None: ...

    def workers(self, rows: Sequence[WorkerRow]) -> None: ...

    def close(self) -> None: ...
