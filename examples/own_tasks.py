"""A task set of one's own: regression on random cubic polynomials."""

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

import raymeta
from raymeta.options import STRICT
from raymeta.tasks.base import Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cubics(raymeta.TaskSet):
    goal, input_shape, num_outputs = "regression", (1,), 1
    shot: PositiveInt = 10
    """support points of a task"""

    def size(self, split):
        return Size(way=1, shot=self.shot, query_shot=20)

    def num_classes(self, split):
        return 0

    def episode(self, key):  # everything random comes from the key
        draws = torch.from_numpy(key.generator().uniform(-1, 1, 4 + self.shot + 20)).float()
        x = draws[4:, None]
        y = 2 * x ** torch.arange(4) @ draws[:4, None]
        sides = [v.split([self.shot, 20]) for v in (x, y)]
        return raymeta.Episode(*(raymeta.Examples(*side) for side in zip(*sides, strict=True)))


if __name__ == "__main__":
    options = {"algorithm.inner_lr": 0.1, "model.init": "default"}
    run = raymeta.meta_train("sinusoid-maml", tasks="own_tasks:Cubics", steps=300, validate_every=0, **options)
    print(run.summary["headline"], run.summary["by_inner_step"])
