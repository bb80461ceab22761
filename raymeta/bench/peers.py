"""The same gradient by other libraries, each in the fastest form that its documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from raymeta.adaptation.descent import RATES
from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.maml import MAML
from raymeta.algorithms.meta_sgd import MetaSGD
from raymeta.algorithms.reptile import Reptile
from raymeta.bench.case import Case
from raymeta.bench.peer_one_pass import LOGITS, one_pass_autograd
from raymeta.bench.peer_setting import Gradient, Setting
from raymeta.tree import Params


def available(case: Case) -> dict[str, Callable[[Case, torch.device], Gradient]]:
    """The peers that are installed and have the method, by name; of each family of methods at least a plain loop."""
    if type(case.algorithm) is not MAML or case.work != "gradient":
        own = written_out(case)
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


def written_out(case: Case) -> Callable[[Case, torch.device], Gradient] | None:
    """The method as people write it on plain torch, where that stands here."""
    if case.work != "gradient":
        return evaluation_autograd if case.work == "evaluation" and isinstance(case.algorithm, MAML) else None
    if type(case.algorithm) in LOGITS and case.goal == "classification":
        return one_pass_autograd
    own = {ANIL: anil_autograd, Reptile: reptile_autograd, MetaSGD: autograd_loop}
    return own.get(type(case.algorithm))


def autograd_loop(case: Case, device: torch.device) -> Gradient:
    """torch.autograd.grad with create_graph, task after task; the rates are learned in Meta-SGD."""
    setting = Setting(case, device)
    params = dict(setting.net.named_parameters())
    names, leaves = list(params), list(params.values())
    rates = [setting.beside.get(f"{RATES}{name}", setting.lr) for name in names]

    def gradient() -> Params:
        setting.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            theta: list[Tensor] = list(leaves)
            for _ in range(setting.steps):
                loss = setting.loss(functional_call(setting.net, dict(zip(names, theta, strict=True)), (sx,)), sy)
                grads = torch.autograd.grad(loss, theta, create_graph=not setting.first_order)
                theta = [t - rate * g for t, rate, g in zip(theta, rates, grads, strict=True)]
            setting.loss(functional_call(setting.net, dict(zip(names, theta, strict=True)), (qx,)), qy).backward()
        return setting.collected()

    return gradient


def evaluation_autograd(case: Case, device: torch.device) -> Gradient:
    """Losses of the queries before and after each inner step, whose graphs are not kept; task after task."""
    setting = Setting(case, device)
    names, leaves = zip(*setting.params.items(), strict=True)

    def loss(theta: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = setting.loss(functional_call(setting.net, dict(zip(names, theta, strict=True)), (x,)), y)
        return result

    def scores() -> Params:
        losses = []
        for sx, sy, qx, qy in setting.tasks:
            theta = leaves
            losses.append(loss(theta, qx, qy).detach())
            for _ in range(setting.steps):
                grads = torch.autograd.grad(loss(theta, sx, sy), theta)
                theta = tuple((t - setting.lr * g).requires_grad_() for t, g in zip(theta, grads, strict=True))
                losses.append(loss(theta, qx, qy).detach())
        return {"loss": torch.stack(losses).view(len(setting.tasks), -1)}

    return scores


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
        setting.zero_grad()
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
        setting.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            clone = learner.clone()
            for _ in range(setting.steps):
                clone.adapt(setting.loss(clone(sx), sy))
            setting.loss(clone(qx), qy).backward()
        return setting.collected()

    return gradient


def anil_autograd(case: Case, device: torch.device) -> Gradient:
    """Features of support and queries once, inner steps on the head by torch.autograd.grad; task after task."""
    setting = Setting(case, device)
    body, head = setting.net[:-1], setting.net[-1]  # type: ignore[index]

    def gradient() -> Params:
        setting.zero_grad()
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
