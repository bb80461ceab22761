"""Where a run stands: everything that an outer step may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raymeta.engine.driver.checkpoint import Checkpoint
from raymeta.engine.driver.memory import Chunks
from raymeta.engine.driver.outer import OuterOptimizer
from raymeta.tree import Params


@dataclass
class RunState:
    """Where a run stands: what is learned, after how many steps, and the best validation so far."""

    outer: OuterOptimizer
    chunks: Chunks = field(default_factory=Chunks)
    step: int = 0
    best: dict[str, Any] | None = None  # {step, name, value, rank}
    validation_due: bool = False  # restored from a checkpoint whose validation had not come yet
    tasks: int = 0
    train_s: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    fixed: Params = field(default_factory=dict)  # tensors of the model that are not learned

    def checkpoint(self) -> Checkpoint:
        """The state of now; its parameters are live ones."""
        return Checkpoint(
            self.step,
            self.outer.learned,
            self.outer.state_tensors(),
            self.best,
            self.tasks,
            self.train_s,
            tuple(self.chunks.halvings),
            self.validation_due,
            self.fixed,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; nothing random has to be restored."""
        self.outer.load(checkpoint.learned, checkpoint.outer)
        self.step, self.best, self.validation_due = checkpoint.step, checkpoint.best, checkpoint.validation_due
        self.tasks, self.train_s = checkpoint.tasks, checkpoint.train_s
        self.chunks.halvings[:] = checkpoint.halvings
