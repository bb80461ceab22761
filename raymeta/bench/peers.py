"""The same gradient by other libraries, each in the fastest form that its documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.maml import MAML
from raymeta.algorithms.protonet import ProtoNet
from raymeta.algorithms.reptile import Reptile
from raymeta.bench.cases import Case
from raymeta.bench.plain import plain
from raymeta.tasks.inputs import only
from raymeta.tree import Params

Gradient = Callable[[], Params]
Tasks = list[tuple[Tensor, Tensor, Tensor, Tensor]]


class Setting:
    """What every peer gets: a plain network on the device, the loss, and the tasks one by one."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.net = plain(case.module()).to(device)
        self.loss: Any = F.cross_entropy if case.goal == "classification" else F.mse_loss
        sides = [value.to(device) for side in case.episodes() for value in (only(side.x), side.y)]
        self.tasks: Tasks = list(zip(*(side.unbind(0) for side in sides), strict=True))
        self.steps, self.first_order = case.inner_steps, case.first_order
        self.lr = float(getattr(case.algorithm, "inner_lr", 0.0))

    @property
    def params(self) -> dict[str, nn.Parameter]:
        return dict(self.net.named_parameters())

    def collected(self) -> Params:
        """The accumulated gradients."""
        return {name: p.grad.detach().clone() for name, p in self.params.items() if p.grad is not None}


def available(case: Case) -> dict[str, Callable[[Case, torch.device], Gradient]]:
    """The peers that are installed and have the method, by name."""
    written_out: dict[type, Callable[[Case, torch.device], Gradient]] = {
        ProtoNet: protonet_autograd,
        ANIL: anil_autograd,
        Reptile: reptile_autograd,
    }
    if type(case.algorithm) is not MAML:
        own = written_out.get(type(case.algorithm))
        return {} if own is None else {"torch autograd loop": own}
    peers: dict[str, Callable[[Case, torch.device], Gradient]] = {
        "torch autograd loop": autograd_loop,
        "torch.func loop": func_loop,
    }
    optional = {"higher": higher, "torchopt": torchopt, "learn2learn": learn2learn}
    peers |= {name: peer for name, peer in optional.items() if find_spec(name)}
    if find_spec("jax"):
        from raymeta.bench.peer_jax import jax_map, jax_vmap

        peers |= {"jax jit(vmap)": jax_vmap, "jax jit(map)": jax_map}
    return peers


def autograd_loop(case: Case, device: torch.device) -> Gradient:
    """torch.autograd.grad with create_graph, task after task."""
    setting = Setting(case, device)
    params = setting.params
    names, leaves = list(params), list(params.values())

    def gradient() -> Params:
        setting.net.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            theta: list[Tensor] = list(leaves)
            for _ in range(setting.steps):
                loss = setting.loss(functional_call(setting.net, dict(zip(names, theta, strict=True)), (sx,)), sy)
                grads = torch.autograd.grad(loss, theta, create_graph=not setting.first_order)
                theta = [t - setting.lr * g for t, g in zip(theta, grads, strict=True)]
            setting.loss(functional_call(setting.net, dict(zip(names, theta, strict=True)), (qx,)), qy).backward()
        return setting.collected()

    return gradient


def func_loop(case: Case, device: torch.device) -> Gradient:
    """torch.func.grad of one task, task after task."""
    setting = Setting(case, device)
    start = {name: p.detach() for name, p in setting.params.items()}

    def task_loss(params: Params, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        def support_loss(p: Params) -> Tensor:
            result: Tensor = setting.loss(functional_call(setting.net, p, (sx,)), sy)
            return result

        theta = params
        for _ in range(setting.steps):
            grads = torch.func.grad(support_loss)(theta)
            if setting.first_order:
                grads = {name: g.detach() for name, g in grads.items()}
            theta = {name: t - setting.lr * grads[name] for name, t in theta.items()}
        outer: Tensor = setting.loss(functional_call(setting.net, theta, (qx,)), qy)
        return outer

    def gradient() -> Params:
        total: Params = {}
        for task in setting.tasks:
            for name, g in torch.func.grad(task_loss)(start, *task).items():
                total[name] = total[name] + g if name in total else g
        return total

    return gradient


def higher(case: Case, device: torch.device) -> Gradient:
    """higher.innerloop_ctx, task after task."""
    import higher as library

    setting = Setting(case, device)
    optimizer = torch.optim.SGD(setting.net.parameters(), lr=setting.lr)

    def gradient() -> Params:
        setting.net.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            options = {"copy_initial_weights": False, "track_higher_grads": not setting.first_order}
            with library.innerloop_ctx(setting.net, optimizer, **options) as (net, inner):
                for _ in range(setting.steps):
                    inner.step(setting.loss(net(sx), sy))
                loss = setting.loss(net(qx), qy)
                if setting.first_order:
                    grads = torch.autograd.grad(loss, list(net.parameters()))
                    for p, g in zip(setting.net.parameters(), grads, strict=True):
                        p.grad = g if p.grad is None else p.grad + g
                else:
                    loss.backward()
        return setting.collected()

    return gradient


def torchopt(case: Case, device: torch.device) -> Gradient:
    """torchopt.MetaSGD with its states restored after every task."""
    import torchopt as library

    if case.first_order:
        raise NotImplementedError("TorchOpt documents no first-order MAML")
    setting = Setting(case, device)
    params = setting.params
    inner = library.MetaSGD(setting.net, lr=setting.lr)

    def gradient() -> Params:
        for p in params.values():
            p.grad = None
        net_state = library.extract_state_dict(setting.net, by="reference")
        inner_state = library.extract_state_dict(inner, by="reference")
        for sx, sy, qx, qy in setting.tasks:
            for _ in range(setting.steps):
                inner.step(setting.loss(setting.net(sx), sy))
            setting.loss(setting.net(qx), qy).backward()
            library.recover_state_dict(setting.net, net_state)
            library.recover_state_dict(inner, inner_state)
        return {name: p.grad.detach().clone() for name, p in params.items() if p.grad is not None}

    return gradient


def learn2learn(case: Case, device: torch.device) -> Gradient:
    """learn2learn.algorithms.MAML, task after task."""
    import learn2learn as library

    setting = Setting(case, device)
    learner = library.algorithms.MAML(setting.net, lr=setting.lr, first_order=setting.first_order)

    def gradient() -> Params:
        setting.net.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            clone = learner.clone()
            for _ in range(setting.steps):
                clone.adapt(setting.loss(clone(sx), sy))
            setting.loss(clone(qx), qy).backward()
        return setting.collected()

    return gradient


def protonet_autograd(case: Case, device: torch.device) -> Gradient:
    """One forward pass over support and queries of a task, and `backward`; task after task, as in easyfsl."""
    setting = Setting(case, device)

    def gradient() -> Params:
        setting.net.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            support, query = setting.net(torch.cat([sx, qx])).split([len(sx), len(qx)])
            centres = torch.stack([support[sy == c].mean(0) for c in range(case.way)])
            loss: Any = F.cross_entropy(-torch.cdist(query, centres).square(), qy)
            loss.backward()
        return setting.collected()

    return gradient


def anil_autograd(case: Case, device: torch.device) -> Gradient:
    """Features of support and queries once, inner steps on the head by torch.autograd.grad; task after task."""
    setting = Setting(case, device)
    body, head = setting.net[:-1], setting.net[-1]  # type: ignore[index]

    def gradient() -> Params:
        setting.net.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            support, query = body(sx), body(qx)
            theta: list[Tensor] = [head.weight, head.bias]
            for _ in range(setting.steps):
                grads = torch.autograd.grad(setting.loss(F.linear(support, *theta), sy), theta, create_graph=True)
                theta = [t - setting.lr * g for t, g in zip(theta, grads, strict=True)]
            setting.loss(F.linear(query, *theta), qy).backward()
        return setting.collected()

    return gradient


def reptile_autograd(case: Case, device: torch.device) -> Gradient:
    """torch.optim.SGD on the whole support set, and the way it went; task after task."""
    setting = Setting(case, device)
    start = {name: p.detach().clone() for name, p in setting.params.items()}
    optimizer = torch.optim.SGD(setting.net.parameters(), lr=setting.lr)

    def gradient() -> Params:
        total = {name: torch.zeros_like(p) for name, p in start.items()}
        for sx, sy, _, _ in setting.tasks:
            setting.net.load_state_dict(start)
            for _ in range(setting.steps):
                optimizer.zero_grad()
                setting.loss(setting.net(sx), sy).backward()
                optimizer.step()
            for name, p in setting.params.items():
                total[name] += start[name] - p.detach()
        setting.net.load_state_dict(start)
        return total

    return gradient
