"""A task set of one's own: regression on random cubic polynomials."""

import torch
from pydantic.dataclasses import dataclass

import raymeta
from raymeta import Episode, Examples, Size


@dataclass(frozen=True, kw_only=True)
class Cubics(raymeta.TaskSet):
    shot: int = 10
    goal, input_shape, num_outputs = "regression", (1,), 1

    def size(self, split):
        return Size(way=1, shot=self.shot, query_shot=20)

    def num_classes(self, split):
        return 0

    def episode(self, key):  # everything random comes from the key
        w, x = torch.from_numpy(key.generator().uniform(-1, 1, (4 + self.shot + 20, 1))).float().tensor_split([4])
        y = 2 * x ** torch.arange(4) @ w
        return Episode(Examples(x[: self.shot], y[: self.shot]), Examples(x[self.shot :], y[self.shot :]))


if __name__ == "__main__":
    options = {"name": "cubics-maml", "model.init": "default", "algorithm.inner_lr": 0.1}
    run = raymeta.meta_train("sinusoid-maml", tasks="own_tasks:Cubics", steps=200, validate_every=0, **options)
    print(run.summary["headline"], run.summary["by_inner_step"])
