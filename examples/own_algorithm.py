"""A method of one's own: ridge regression on learned features (R2-D2, Bertinetto et al., ICLR 2019)."""

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass

import raymeta
from raymeta import Adaptation


@dataclass(frozen=True, kw_only=True, config=raymeta.options.STRICT)
class Ridge(raymeta.Algorithm):
    ridge: PositiveFloat = 1.0
    """weight of the penalty on a task's head; the text under a field is its help"""

    def num_outputs(self, tasks):
        return None  # the model ends with features

    def adapt(self, problem, learned, support, *, noise, phase):
        z_SD = problem.forward(learned, support.x, phase)
        y_SW = torch.eye(phase.way).to(z_SD)[support.y]
        solved_SW = torch.linalg.solve(z_SD @ z_SD.T + self.ridge * torch.eye(len(z_SD)).to(z_SD), y_SW)
        return Adaptation([lambda x: 10 * problem.forward(learned, x, phase, support_x=support.x) @ z_SD.T @ solved_SW])


if __name__ == "__main__":  # named by its import path, so that `raymeta evaluate --trust` finds it
    options = {"name": "glyphs-ridge", "algorithm": "own_algorithm:Ridge"}
    run = raymeta.meta_train(**options, steps=10, validate_every=0, test_episodes=50)
    print(run.summary["headline"])
