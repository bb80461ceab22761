"""Models that people bring: heads, modes, tensors beside parameters, and what is told before a run."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import replace_config
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import raymeta
from raymeta import ANIL, MAML, Episode, Examples, ProtoNet, meta_gradient
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT, Algorithm
from raymeta.api.checkpoints import run_config
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.engine.worker.shard_function import Asked, ShardFunction
from raymeta.errors import ConfigError
from raymeta.models.conv4 import Conv4
from raymeta.models.layers.convert import convert
from raymeta.models.mlp import MLP
from raymeta.models.resnet12 import ResNet12
from raymeta.tasks.episodes import stack_episodes
from raymeta.tree import Layout

WAY = 3
SHORT: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 6, "model.width": 4}


def episodes(*shape: int, num_tasks: int = 3, dtype: torch.dtype = torch.float64) -> list[Episode]:
    generator = torch.Generator().manual_seed(0)

    def side() -> Examples:
        return Examples(torch.randn(6, *shape, generator=generator, dtype=dtype), torch.arange(WAY).repeat(2))

    return [Episode(side(), side()) for _ in range(num_tasks)]


def by_hand(
    model: nn.Module,
    tasks: list[Episode],
    adapts: Callable[[str], bool],
    *,
    num_steps: int = 3,
    lr: float = 0.3,
    first_order: bool = False,
) -> dict[str, Tensor]:
    """The meta-gradient of gradient descent on the parameters that adapt, by plain autograd."""
    params = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    losses = []
    for support, query in tasks:
        theta = dict(params)
        for _ in range(num_steps):
            names = [name for name in theta if adapts(name)]
            loss = F.cross_entropy(functional_call(model, theta, (support.x,)), support.y)
            inner = torch.autograd.grad(loss, [theta[n] for n in names], create_graph=True, materialize_grads=True)
            theta |= {n: theta[n] - lr * (g.detach() if first_order else g) for n, g in zip(names, inner, strict=True)}
        losses.append(F.cross_entropy(functional_call(model, theta, (query.x,)), query.y))
    gradient = torch.autograd.grad(torch.stack(losses).mean(), list(params.values()), materialize_grads=True)
    return dict(zip(params, gradient, strict=True))


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9) -> None:
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}")


# ---- first order where only a part adapts ----------------------------------------------------------------------------

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: MLP(hidden=(6,), activation="tanh").build((5,), WAY), (5,)),
    "conv4": (lambda: Conv4(width=4, depth=2).build((1, 8, 8), WAY), (1, 8, 8)),
    "resnet12": (lambda: ResNet12(widths=(2, 3, 4, 5)).build((1, 16, 16), WAY), (1, 16, 16)),
}
PARTIAL: dict[str, Algorithm] = {
    "anil": ANIL(inner_lr=0.3, inner_steps=3, first_order=True),
    "adapt_only": MAML(inner_lr=0.3, inner_steps=3, first_order=True, adapt_only=("head.*",)),
}


def plain_net(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return make().double(), shape


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("method", PARTIAL)
@pytest.mark.parametrize("network", NETWORKS)
def test_first_order_keeps_the_outer_derivative_of_what_does_not_adapt(
    network: str, method: str, vectorize: Any
) -> None:
    model, shape = plain_net(network)
    found = meta_gradient(model, PARTIAL[method], episodes(*shape), vectorize=vectorize)
    assert_close(found, by_hand(model, episodes(*shape), lambda n: n.startswith("head."), first_order=True))


@pytest.mark.slow
@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("method", PARTIAL)
def test_first_order_of_a_part_is_right_when_compiled(method: str, vectorize: Any) -> None:
    model, shape = plain_net("mlp")
    problem = Problem(convert(model), goal="classification", vectorize=vectorize)
    learned = PARTIAL[method].init(problem, problem.initial_params(), torch.Generator())
    layout = Layout.of(learned.params)
    function = ShardFunction(PARTIAL[method], problem, layout, Layout.of({}), compiled=True)
    asked = Asked(TASK_GRADIENT, stack_episodes(episodes(*shape)), {}, Phase(way=WAY))
    sums = function(learned, asked).vector[: layout.size]
    expected = by_hand(model, episodes(*shape), lambda n: n.startswith("head."), first_order=True)
    assert_close({n: g / 3 for n, g in layout.unflatten(sums).items()}, expected)


# ---- an inner loop over something that is no parameter ---------------------------------------------------------------


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_derivative_inside_another_is_differentiated_whatever_its_variables_are(start: float) -> None:
    """A context that starts from a constant, as CAVIA's: the parameters are reached through its inner loss alone."""
    torch.manual_seed(0)
    x, t, w = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 3), (5,), (3,)))

    def inner(params: dict[str, Tensor], context: Tensor) -> Tensor:
        return ((x @ params["w"] * (1 + context) - t) ** 2).mean()

    def outer(params: dict[str, Tensor]) -> Tensor:
        context = {"c": torch.tensor(start, dtype=torch.float64)}
        for _ in range(2):
            gradient, _ = gradient_and_value(lambda c: inner(params, c["c"]), context)
            context = {"c": context["c"] - 0.1 * gradient["c"]}
        return inner(params, context["c"])

    plain = gradient_and_value(outer, {"w": w})[0]["w"]
    mapped = torch.vmap(lambda z: gradient_and_value(outer, {"w": w})[0]["w"])(torch.zeros(1))[0]
    eps = 1e-6
    basis = torch.eye(3, dtype=torch.float64)
    differences = torch.stack([(outer({"w": w + eps * e}) - outer({"w": w - eps * e})) / (2 * eps) for e in basis])
    torch.testing.assert_close(plain, differences, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(mapped, differences, rtol=1e-7, atol=1e-7)


# ---- heads -----------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A body and a head, put together in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "head registered first":
            self.head = nn.Linear(3, WAY)
        self.body = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3))
        if kind != "head registered first":
            self.head = nn.Linear(3, WAY)
        if kind == "shared":
            self.embedding = nn.Embedding(WAY, 3)
            self.embedding.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        if self.kind == "functional":
            return F.linear(z, self.head.weight, self.head.bias)
        if self.kind == "twice":
            return self.head(torch.tanh(self.head(z)))
        if self.kind == "shared":
            z = z + self.embedding.weight.sum(0)
        outputs = self.head(z)
        if self.kind == "log_softmax after":
            return F.log_softmax(outputs / 0.1, -1)
        return outputs + z if self.kind == "residual" else outputs


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize(
    "kind",
    ["plain", "head registered first", "log_softmax after", "residual", "shared", "functional", "twice"],
)
def test_anil_is_maml_that_adapts_the_head_or_says_that_it_cannot(kind: str, vectorize: Any) -> None:
    torch.manual_seed(0)
    model = Net(kind).double()
    anil = ANIL(inner_lr=0.3, inner_steps=3)
    if kind in ("plain", "head registered first"):
        expected = by_hand(model, episodes(5), lambda name: name.startswith("head."))
        assert_close(meta_gradient(model, anil, episodes(5), vectorize=vectorize), expected)
        return
    with pytest.raises(ConfigError, match="cannot be adapted or replaced as the model's head"):
        meta_gradient(model, anil, episodes(5), vectorize=vectorize)
    # The way out that the text gives works for all of them but a head that forward does not call.
    if kind != "shared":
        maml = MAML(inner_lr=0.3, inner_steps=3, adapt_only=("head.*",))
        expected = by_hand(model, episodes(5), lambda name: name.startswith("head."))
        assert_close(meta_gradient(model, maml, episodes(5), vectorize=vectorize), expected)


def test_a_head_can_be_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, WAY)).double()
    with pytest.raises(ConfigError, match="the rest of the model fails without it"):
        meta_gradient(model, ANIL(), episodes(5), head="0")
    with pytest.raises(ConfigError, match="the model has no layer 7; it has 0, 1, 2"):
        meta_gradient(model, ANIL(), episodes(5), head="7")
    assert meta_gradient(model, ANIL(), episodes(5), head="2").keys() == dict(model.named_parameters()).keys()


def convolution_head(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Unflatten(1, (8, 1, 1)),
        nn.Flatten(), nn.Sequential(nn.Linear(8, num_outputs)),
    )  # fmt: skip


def test_the_option_model_head_names_a_layer(tmp_path: Path) -> None:
    model = {"name": "custom", "path": f"{__name__}:convolution_head", "head": "6"}
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    run = raymeta.meta_train(algorithm="anil", model=model, output=str(tmp_path), **sizes)
    assert run.summary["headline"]["episodes"] == 6


# ---- modes -----------------------------------------------------------------------------------------------------------


def test_norms_of_our_own_in_eval_mode_use_their_running_statistics() -> None:
    """As torch's do: the same network in torch's layers is the reference."""
    torch.manual_seed(0)
    ours = Conv4(width=4, depth=1).build((1, 6, 6), WAY).double()
    norm = ours.get_submodule("norm1")
    theirs = copy.deepcopy(ours)
    theirs.norm1 = nn.BatchNorm2d(4).double()
    for model in (ours, theirs):
        model.get_submodule("norm1").running_mean.copy_(torch.linspace(-1, 1, 4))
        model.get_submodule("norm1").running_var.copy_(torch.linspace(0.5, 2, 4))
        model.eval()
    assert norm is ours.get_submodule("norm1")
    expected = by_hand(theirs, episodes(1, 6, 6), lambda name: True, num_steps=1, lr=0.1)
    assert_close(meta_gradient(ours, MAML(inner_lr=0.1), episodes(1, 6, 6)), expected)
    assert_close(meta_gradient(theirs, MAML(inner_lr=0.1), episodes(1, 6, 6)), expected)


class KeepsTrunkInEval(nn.Module):
    """The usual way to keep a trunk fixed: `train` puts it back into eval mode."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, p: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.Dropout(p))
        self.head = nn.Linear(8, num_outputs)

    def train(self, mode: bool = True) -> KeepsTrunkInEval:
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class LeftInEval(KeepsTrunkInEval):
    """A trunk that was put into eval mode once."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, p: float) -> None:
        super().__init__(input_shape, num_outputs, p)
        self.trunk.eval()

    def train(self, mode: bool = True) -> LeftInEval:
        nn.Module.train(self, mode)
        return self


@pytest.mark.parametrize("kind", [KeepsTrunkInEval, LeftInEval])
def test_what_is_in_eval_mode_stays_in_it_while_training(kind: type[nn.Module], tmp_path: Path) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    hashes = set()
    for p in (0.0, 0.9):
        model = {"name": "custom", "path": f"{__name__}:{kind.__name__}", "options": {"p": p}}
        run = raymeta.meta_train(model=model, output=str(tmp_path), **sizes)
        hashes.add(run.summary["params_sha256"])
    assert len(hashes) == 1


# ---- tensors beside parameters ---------------------------------------------------------------------------------------


class RandomFeatures(nn.Module):
    """Features that are drawn, by numpy or by Python, and kept as a buffer or as a plain attribute."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, kind: str) -> None:
        super().__init__()
        drawn = np.random.randn(784, 8) if "numpy" in kind else [[random.gauss(0, 1) for _ in range(8)]] * 784
        features = torch.tensor(drawn, dtype=torch.float32) / 28
        if "plain" in kind:
            self.features = features
        else:
            self.register_buffer("features", features)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(x.flatten(1) @ self.features))


@pytest.mark.parametrize("kind", ["numpy", "numpy plain", "python", "python plain"])
def test_what_a_model_draws_when_it_is_built_follows_from_the_seed(kind: str, tmp_path: Path) -> None:
    model = {"name": "custom", "path": f"{__name__}:RandomFeatures", "options": {"kind": kind}}
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    runs = []
    for _ in range(2):
        runs.append(raymeta.meta_train(model=model, output=str(tmp_path), seed=7, **sizes))
        np.random.rand()
        random.random()
    assert runs[0].summary["params_sha256"] == runs[1].summary["params_sha256"]
    assert raymeta.meta_test(runs[0], episodes=6).summary.value == runs[0].summary["headline"]["value"]


OFFSET = 0.0


class FromOutside(nn.Module):
    """A buffer and a frozen weight from something that changes, such as a file."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((784,), OFFSET))
        self.scale = nn.Parameter(torch.full((784,), 1 + OFFSET), requires_grad=False)
        self.head = nn.Linear(784, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1) * self.scale + self.shift)


def test_tensors_that_are_not_learned_come_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    model = {"name": "custom", "path": f"{__name__}:FromOutside"}
    whole = raymeta.meta_train(model=model, output=str(tmp_path), **sizes | {"steps": 4})
    half = raymeta.meta_train(model=model, output=str(tmp_path), **sizes)
    monkeypatch.setitem(globals(), "OFFSET", 0.7)
    assert raymeta.meta_test(whole, episodes=6).summary.value == whole.summary["headline"]["value"]
    resumed = raymeta.meta_train(resume=half.path, steps=4)
    assert resumed.summary["params_sha256"] == whole.summary["params_sha256"]
    exported = raymeta.load_run(resumed.path).model()
    assert float(exported.shift[0]) == 0.0  # type: ignore[index]
    assert float(exported.scale[0]) == 1.0  # type: ignore[index]


def test_fixed_tensors_are_one_file_under_the_name_of_every_checkpoint(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    model = {"name": "custom", "path": f"{__name__}:FromOutside"}
    run = raymeta.meta_train(model=model, output=str(tmp_path), checkpoint_every=1, **sizes)
    files = [folder / "fixed.safetensors" for folder in (run.path / "checkpoints").glob("step-*")]
    assert len(files) == 2
    assert len({file.stat().st_ino for file in files}) == 1
    shipped = raymeta.meta_train(output=str(tmp_path), **SHORT)
    assert not list(shipped.path.rglob("fixed.safetensors")), "the networks of raymeta have no such tensors"


def test_a_checkpoint_of_other_code_is_refused(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    run = raymeta.meta_train(model={"name": "custom", "path": f"{__name__}:FromOutside"}, output=str(tmp_path), **sizes)
    checkpoint, _ = CheckpointStore(run.path / "checkpoints").load_last()
    assert checkpoint is not None
    assert checkpoint.fixed.keys() == {"shift", "scale"}
    changed = replace_config(run.path, (run.path / "config.yaml").read_text().replace("FromOutside", "WithoutShift"))
    with pytest.raises(ConfigError, match=r"no longer has the tensor shift"):
        raymeta.meta_test(changed, episodes=6, trust=True)


class WithoutShift(FromOutside):
    """The code of `FromOutside` after somebody changed it."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__(input_shape, num_outputs)
        self.shift = None

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def test_an_exported_model_normalises_as_its_run_did(tmp_path: Path) -> None:
    """`running`: one image at a time, in eval mode. The other policies: the batch at hand, in either mode."""
    options: dict[str, Any] = {"algorithm": "protonet", "output": str(tmp_path), **SHORT}
    run = raymeta.meta_train(batch_norm="running", **options)
    model = raymeta.load_run(run.path).model().eval()
    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.cat([model(one[None]) for one in x]))
        assert not torch.allclose(model(x), model.train()(x), atol=1e-3)
    other = raymeta.load_run(raymeta.meta_train(**options).path).model()
    with torch.no_grad():
        assert torch.equal(other.train()(x), other.eval()(x))
    assert not any("running" in name for name, _ in other.named_buffers())


@pytest.mark.parametrize("momentum", [0.1, 0.6, None])
def test_running_statistics_move_by_the_momentum_of_their_layer(momentum: float | None, tmp_path: Path) -> None:
    """After two steps on one task each the statistics are those of torch's layer on the same batches."""
    config = load_config(
        preset="glyphs-5w1s-maml",
        overrides={
            "algorithm": "protonet",
            "batch_norm": "running",
            "model": {"name": "custom", "path": f"{__name__}:normed", "options": {"momentum": momentum}},
            "outer.lr": 1e-30,
            **{key: value for key, value in SHORT.items() if key != "model.width"},
            "meta_batch_size": 1,
            "shard_size": 1,
        },
    ).config
    built = build(config)
    from raymeta.api.train import Training

    run = Training(config, directory=tmp_path / "run").execute()
    checkpoint, _ = CheckpointStore(run.path / "checkpoints").load_last()
    assert checkpoint is not None
    norm = nn.BatchNorm1d(6, momentum=momentum)
    linear = built.initial.params["1.weight"], built.initial.params["1.bias"]
    for step in range(2):
        episode = config.tasks.episode(raymeta.TaskKey(config.seed, "train", step, 0))
        norm(F.linear(torch.cat([episode.support.x, episode.query.x]).flatten(1), *linear))
    torch.testing.assert_close(checkpoint.learned.state["2.running_mean"], norm.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(checkpoint.learned.state["2.running_var"], norm.running_var, rtol=1e-4, atol=1e-5)


def normed(input_shape: tuple[int, ...], num_outputs: int | None, momentum: float | None) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.BatchNorm1d(6, momentum=momentum))


# ---- the policy `support` --------------------------------------------------------------------------------------------


class OverTime(nn.Module):
    """Batch norm over merged rows, with the examples first or, transposed, the places first."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(20, WAY)

    def forward(self, x: Tensor) -> Tensor:
        if self.transposed:
            z = self.norm(x.transpose(0, 1).reshape(-1, 4)).reshape(5, len(x), 4).transpose(0, 1)
        else:
            z = self.norm(x.reshape(-1, 4)).reshape(len(x), 5, 4)
        return self.head(z.reshape(len(x), 20))


def test_reference_rows_are_all_rows_of_the_support_examples() -> None:
    """Under `support` queries are normalised by the support set's statistics; merged rows of each example count."""
    torch.manual_seed(0)
    model = OverTime(False).double()
    support, query = episodes(5, 4)[0]
    problem = Problem(convert(model), goal="classification", batch_norm="support")
    learned = Learned(problem.initial_params(), {})
    found = problem.forward(learned, query.x, Phase(), support_x=support.x)
    rows = support.x.reshape(-1, 4)
    z = (query.x - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(found, model.head(z.reshape(6, 20)))


def test_rows_that_are_not_the_examples_are_refused_under_the_policy_support() -> None:
    with pytest.raises(ConfigError, match="batch_norm support needs the examples of a batch to stay its first rows"):
        meta_gradient(OverTime(True).double(), MAML(), episodes(5, 4), batch_norm="support")
    assert meta_gradient(OverTime(True).double(), MAML(), episodes(5, 4))


# ---- what is told before step 1 --------------------------------------------------------------------------------------


def lstm(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Recurrent(input_shape[-1], num_outputs)


class Recurrent(nn.Module):
    """Rows of an image as a sequence."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(width, 8, batch_first=True), nn.Linear(8, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[:, 0])[0][:, -1])


def test_auto_takes_the_path_on_which_training_validation_and_test_can_be_computed(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"} | {"validate_every": 1}
    model = {"name": "custom", "path": f"{__name__}:lstm"}
    run = raymeta.meta_train(model=model, output=str(tmp_path), validation_episodes=4, **sizes)
    (chosen,) = [event["message"] for event in run.events() if event["kind"] == "vectorize"]
    assert chosen.startswith("loop by rule: side by side is not possible: layer lstm (LSTM)")
    with pytest.raises(raymeta.RaymetaError, match=r"layer lstm \(LSTM\).*vectorize: loop"):
        raymeta.meta_train(model=model, output=str(tmp_path / "vmap"), vectorize="vmap", **sizes)
    assert not (tmp_path / "vmap").exists()


class Dense(nn.Module):
    """A dense block that computes its concatenations again, as torchvision's DenseNet with memory_efficient=True."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        from torchvision.models import DenseNet

        self.net = DenseNet(4, (1, 1), 4, num_classes=num_outputs, memory_efficient=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.expand(-1, 3, -1, -1))


def test_activations_that_are_computed_again_are_refused_before_the_run(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    with pytest.raises(raymeta.RaymetaError, match="memory_efficient=False"):
        raymeta.meta_train(
            model={"name": "custom", "path": f"{__name__}:Dense"}, vectorize="loop", output=str(tmp_path), **sizes
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_a_loss_that_no_derivative_reaches_is_refused(vectorize: Any) -> None:
    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(1) != y).double().mean()

    with pytest.raises(ConfigError, match="the loss does not depend on the outputs"):
        meta_gradient(nn.Linear(5, WAY).double(), MAML(), episodes(5), loss=loss, vectorize=vectorize)


def test_advice_names_only_options_that_the_method_has() -> None:
    def margin(outputs: Tensor, y: Tensor) -> Tensor:
        return F.multi_margin_loss(outputs, y)

    with pytest.raises(raymeta.RaymetaError, match="set first_order: true"):
        meta_gradient(nn.Linear(5, WAY).double(), MAML(), episodes(5), loss=margin, vectorize="loop")
    with pytest.raises(raymeta.RaymetaError, match="use a method that has first_order"):
        meta_gradient(nn.Linear(5, WAY).double(), raymeta.MetaSGD(), episodes(5), loss=margin, vectorize="loop")


def test_reptile_draws_other_orders_at_another_step() -> None:
    model, tasks = nn.Linear(5, WAY).double(), episodes(5)
    reptile = raymeta.Reptile(inner_steps=4, inner_batch_size=2)
    first, again, later = (meta_gradient(model, reptile, tasks, step=step)["weight"] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_outputs_for_every_pixel_have_an_accuracy_over_their_classes() -> None:
    problem = Problem(nn.Conv2d(2, WAY, 1), goal="classification")
    outputs = torch.eye(WAY)[torch.tensor([[0, 1], [2, 1]])].permute(2, 0, 1)[None]  # [1, 3, 2, 2]
    metrics = problem.metrics(outputs, torch.tensor([[[0, 1], [2, 2]]]))
    assert float(metrics["accuracy"]) == 0.75


def test_complex_parameters_are_refused_in_runs_and_right_in_gradients(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"several types|are complex"):
        raymeta.meta_train(model={"name": "custom", "path": f"{__name__}:spectral"}, output=str(tmp_path), steps=1)
    torch.manual_seed(0)
    model = nn.Sequential(Spectral(5), nn.Linear(5, WAY).double())
    assert_close(
        meta_gradient(model, MAML(inner_lr=0.3, inner_steps=3), episodes(5)),
        by_hand(model, episodes(5), lambda name: True),
    )


class Spectral(nn.Module):
    """A filter on frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.randn(width // 2 + 1, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=self.width)


def spectral(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Spectral(784), nn.Linear(784, num_outputs).double())


def test_protonet_of_a_model_in_eval_mode_is_the_papers_protocol() -> None:
    """Snell et al. evaluate with running statistics: support and queries do not see each other."""
    torch.manual_seed(0)
    model = Conv4(width=4, depth=1).build((1, 6, 6), None).double().eval()
    problem = Problem(convert(model), goal="classification")
    learned = Learned(problem.initial_params(), {})
    support, query = episodes(1, 6, 6)[0]
    adaptation = ProtoNet().adapt(problem, learned, support, noise={}, phase=Phase(training=False, way=WAY))
    alone = torch.cat([adaptation.predictors[-1](one[None]) for one in query.x])
    torch.testing.assert_close(adaptation.predictors[-1](query.x), alone)


# ---- a module that is handed over ------------------------------------------------------------------------------------


def handed(num_outputs: int = 5) -> nn.Module:
    torch.manual_seed(3)
    norm = nn.BatchNorm1d(8)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), norm, nn.ReLU(), nn.Linear(8, num_outputs))


def test_a_module_is_trained_from_its_own_weights_and_stays_as_it_is(tmp_path: Path) -> None:
    module = handed()
    before = copy.deepcopy(module.state_dict())
    sizes: dict[str, Any] = {"output": str(tmp_path), **SHORT, "outer.lr": 1e-20, "outer.optimizer": "sgd"}
    del sizes["model.width"]
    run = raymeta.meta_train(model=module, **sizes)
    trained = raymeta.load_run(run.path).model()
    assert torch.equal(trained.get_parameter("1.weight"), before["1.weight"])
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert raymeta.meta_test(run, episodes=6).summary.value == run.summary["headline"]["value"]


def test_a_module_is_handed_over_again_where_a_run_is_opened_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"output": str(tmp_path), **SHORT}
    del sizes["model.width"]
    whole = raymeta.meta_train(model=handed(), **sizes | {"steps": 3})
    run = raymeta.meta_train(model=handed(), **sizes)
    monkeypatch.setattr("raymeta.models.instance._HANDED_OVER", {})  # as another process
    with pytest.raises(ConfigError, match="was handed over as an object, which no file holds: hand it over again"):
        raymeta.meta_test(run, episodes=6)
    with pytest.raises(ConfigError, match="cannot change model"):
        raymeta.meta_train(resume=run.path, steps=3, model=nn.Sequential(nn.Flatten(), nn.Linear(784, 5)))
    resumed = raymeta.meta_train(resume=run.path, steps=3, model=handed())
    assert resumed.summary["params_sha256"] == whole.summary["params_sha256"]
    monkeypatch.setattr("raymeta.models.instance._HANDED_OVER", {})
    assert isinstance(raymeta.load_run(run.path).model(handed()), nn.Sequential)


def test_a_module_of_another_size_is_told(tmp_path: Path) -> None:
    sizes = {"output": str(tmp_path), **SHORT}
    del sizes["model.width"]
    with pytest.raises(ConfigError, match=r"returns \[n, 7\] .* and \[n, 5\] is needed"):
        raymeta.meta_train(model=handed(7), **sizes)


# ---- a new head under running statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_baselines_score_by_their_definition_under_running_statistics(head: str, tmp_path: Path) -> None:
    """The exported body in eval mode, and a new head fitted by torch's own SGD, give the scores of the run's test."""
    algorithm = raymeta.Baseline(head=head, test_inner_steps=10, head_lr=0.1)  # type: ignore[arg-type]
    options = {**SHORT, "steps": 10, "tasks.shot": 3, "outer.lr": 0.01}
    run = raymeta.meta_train(algorithm=algorithm, batch_norm="running", output=str(tmp_path), **options)
    body = raymeta.load_run(run.path).model().eval()
    body.head = nn.Identity()
    config = run_config(run, {}, trust=True)
    problem = build(config, ()).blueprint.problem()
    accuracies = []
    for index in range(6):
        key = raymeta.TaskKey(0, "test", 0, index)
        support, query = config.tasks.episode(key)
        batch = stack_episodes([Episode(support, query)])
        noise = algorithm.noise(problem, [key], batch, Phase(training=False, way=5))
        with torch.no_grad():
            z_SD, z_QD = body(support.x), body(query.x)
        weight = noise["directions"][0].clone() if head == "cosine" else torch.zeros(5, z_SD.shape[1])
        new = {"weight": weight.requires_grad_()}
        if head == "linear":
            new["bias"] = torch.zeros(5, requires_grad=True)
        sgd = torch.optim.SGD(new.values(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=1e-3)
        for order in noise["order"][0]:
            for rows in order.split(algorithm.head_batch_size):
                sgd.zero_grad()
                torch.autograd.backward(F.cross_entropy(logits(new, z_SD[rows]), support.y[rows]))
                sgd.step()
        accuracies.append(float((logits(new, z_QD).argmax(1) == query.y).float().mean()))
    assert sum(accuracies) / 6 == pytest.approx(run.summary["headline"]["value"], abs=1e-6)


def logits(head: dict[str, Tensor], z: Tensor) -> Tensor:
    if "bias" in head:
        return F.linear(z, head["weight"], head["bias"])
    return 2.0 * F.normalize(z, dim=-1) @ F.normalize(head["weight"], dim=-1).T


# ---- what an outside look found --------------------------------------------------------------------------------------


class OtherwiseAtTest(nn.Module):
    """Gives probabilities in eval mode, as many classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, WAY)

    def forward(self, x: Tensor) -> Tensor:
        z = self.head(torch.tanh(self.body(x)))
        return z if self.training else z.softmax(1)


def test_a_head_is_checked_in_eval_mode_too() -> None:
    with pytest.raises(ConfigError, match="cannot be adapted or replaced as the model's head"):
        meta_gradient(OtherwiseAtTest().double(), ANIL(), episodes(5))


@pytest.mark.parametrize("head", ["[cls]", "frozen"])
def test_a_head_of_any_name_adapts_and_one_of_nothing_is_refused(head: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double()
    model.add_module(head, nn.Linear(4, WAY).double())
    if head == "frozen":
        model.get_submodule(head).requires_grad_(False)
        with pytest.raises(ConfigError, match="has no learnable parameters, so nothing would adapt"):
            meta_gradient(model, ANIL(), episodes(5))
        return
    found = meta_gradient(model, ANIL(inner_lr=0.3, inner_steps=3), episodes(5))
    assert_close(found, by_hand(model, episodes(5), lambda name: name.startswith(head)))


@pytest.mark.parametrize("called", [False, True])
def test_a_train_of_the_models_own_decides_modes_from_the_first_call_on(called: bool) -> None:
    torch.manual_seed(0)
    model = KeepsNormInEval().double()
    if called:
        model.train()
    fresh = copy.deepcopy(model)
    expected = by_hand(model.train(), episodes(5), lambda name: True)
    for _ in range(2):
        assert_close(meta_gradient(fresh, MAML(inner_lr=0.3, inner_steps=3), episodes(5)), expected)


class KeepsNormInEval(nn.Module):
    """Its `train` keeps the norm's statistics as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, WAY)
        self.norm.running_mean += 1  # type: ignore[operator]

    def train(self, mode: bool = True) -> KeepsNormInEval:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.norm(x)))


def test_what_is_known_of_a_model_is_not_believed_after_it_changed() -> None:
    torch.manual_seed(0)
    model, tasks, algorithm = Shifts().double(), episodes(5), MAML(inner_lr=0.3, inner_steps=3)
    meta_gradient(model, algorithm, tasks, vectorize="loop")
    model.shift = 0.5
    found = meta_gradient(model, algorithm, tasks, vectorize="loop")
    moved = [Episode(*(side._replace(x=side.x + 0.5) for side in task)) for task in tasks]
    model.shift = 0.0
    assert_close(found, meta_gradient(model, algorithm, moved, vectorize="loop"), rtol=1e-12)
    assert all(torch.equal(one.support.x, other.support.x) for one, other in zip(tasks, episodes(5), strict=True))


class Shifts(nn.Module):
    """Moves its input in place where it was told to."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.head = 0.0, nn.Linear(5, WAY)

    def forward(self, x: Tensor) -> Tensor:
        if self.shift:
            x.add_(self.shift)
        return self.head(x)


class MixesByItself(nn.Module):
    """Batch statistics without a layer of batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, WAY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.batch_norm(x, None, None, training=True))


def test_statistics_without_a_layer_are_refused_under_the_policy_support() -> None:
    with pytest.raises(ConfigError, match="batch_norm support needs the examples of a batch to stay its first rows"):
        meta_gradient(MixesByItself().double(), MAML(), episodes(5), batch_norm="support")


def test_advice_under_loop_is_not_to_set_loop() -> None:
    def writes(outputs: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, y)
        outputs += 1
        return loss + outputs.exp().mean()

    with pytest.raises(Exception, match="place") as caught:
        meta_gradient(nn.Linear(5, WAY).double(), MAML(), episodes(5), loss=writes, vectorize="loop")
    assert "vectorize: loop" not in str(caught.value)


def expanded(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, num_outputs))
    model.register_buffer("scale", torch.ones(1).expand(4))
    model.register_parameter("order", nn.Parameter(torch.arange(3), requires_grad=False))
    return model


def test_buffers_of_shared_memory_and_frozen_numbers_come_back(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SHORT.items() if key != "model.width"}
    run = raymeta.meta_train(model={"name": "custom", "path": f"{__name__}:expanded"}, output=str(tmp_path), **sizes)
    assert raymeta.meta_test(run, episodes=6).summary.value == run.summary["headline"]["value"]


def test_a_module_with_other_settings_is_another_one(tmp_path: Path) -> None:
    sizes = {"output": str(tmp_path), **SHORT}
    del sizes["model.width"]
    mild, steep = (nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.LeakyReLU(slope)) for slope in (0.1, -3.0))
    run = raymeta.meta_train(model=mild, **sizes)
    raymeta.meta_train(model=steep, **sizes)
    assert raymeta.meta_test(run, episodes=6).summary.value == run.summary["headline"]["value"]
    with pytest.raises(ConfigError, match="cannot change model"):
        raymeta.meta_train(resume=run.path, steps=3, model=steep)


def test_a_module_is_handed_over_with_the_name_of_its_head(tmp_path: Path) -> None:
    sizes = {"output": str(tmp_path), **SHORT, "algorithm": "anil", "model.head": "4"}
    del sizes["model.width"]
    run = raymeta.meta_train(model=handed(), **sizes)
    assert run.summary["headline"]["episodes"] == 6
    assert re.search(r"head: .4", (run.path / "config.yaml").read_text())
