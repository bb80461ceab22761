"""A training loop of one's own around raymeta's exact meta-gradient: any module, loss, optimiser and data."""

import torch
from torch import nn

import raymeta
from raymeta.tasks import Sinusoid

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
tasks, maml = Sinusoid(shot=10), raymeta.MAML(inner_lr=0.01, inner_steps=1)

for step in range(200):
    episodes = [tasks.episode(raymeta.TaskKey(0, "train", step, i)) for i in range(25)]
    gradient = raymeta.meta_gradient(model, maml, episodes)  # by parameter name; the model is not touched
    for name, parameter in model.named_parameters():
        parameter.grad = gradient[name]
    optimizer.step()
    if step % 50 == 0:
        norm = torch.stack([g.norm() for g in gradient.values()]).norm()
        print(f"step {step}: norm of the meta-gradient {norm:.3f}")
