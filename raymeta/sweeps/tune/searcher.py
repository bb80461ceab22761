"""Gives Ray Tune its trials: first those that an earlier attempt left unfinished, then what the proposer says."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from raymeta.sweeps.records import ENDED, Record, Records
from raymeta.sweeps.search.proposer import Proposer
from raymeta.sweeps.tune.stopping import Interruption, NotPickled


def unfinished(records: Records) -> list[dict[str, Any]]:
    """Trials to run, as Tune's configurations hold them."""
    return [_configuration(record) for record in records.all() if record.status not in ENDED]


def _configuration(record: Record) -> dict[str, Any]:
    point = record.changes[-1]["point"] if record.changes else record.point
    return {"id": record.id, "index": record.index, "repeat": record.repeat, "point": dict(point)}


class TuneSearcher(NotPickled, Searcher):
    """Ray Tune's view of a proposer. It keeps no state: records do."""

    def __init__(self, records: Records, proposer: Proposer, sign: int, interruption: Interruption) -> None:
        super().__init__(metric="score", mode="max")
        self._records, self._proposer, self._sign, self._interruption = records, proposer, sign, interruption
        self._todo = unfinished(records)

    def suggest(self, trial_id: str) -> Any:
        if self._interruption.reason is not None:
            return Searcher.FINISHED
        if not self._todo and not self._note():
            done = len(self._records.groups()) >= self._proposer.total
            return Searcher.FINISHED if done else None
        return {"trial": self._todo.pop(0)}

    def note_all(self) -> None:
        """Note every configuration of a list that is known from the start."""
        while self._note():
            pass

    def _note(self) -> bool:
        """Note the next configuration with all its repeats; False where there is none now."""
        index = self._records.next_index()
        if index >= self._proposer.total:
            return False
        point = self._proposer.propose(self._records.history(self._sign)[:index])
        if point is None:
            return False
        for repeat in range(self._records.repeats):
            self._todo.append(_configuration(self._records.new(index, repeat, point)))
        return True

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Noted by the watch, in the records."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to save."""

    def get_state(self) -> dict[str, Any]:
        return {}
