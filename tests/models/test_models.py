"""Models: shapes, parameter counts, features, and the errors of what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.backbones import Backbone
from raymeta.models.base import ModelSpec
from raymeta.models.conv4 import Conv4
from raymeta.models.custom import Custom
from raymeta.models.layers.convolution import FEW_VALUES, Conv2d
from raymeta.models.layers.pooling import max_pool
from raymeta.models.mlp import MLP
from raymeta.models.resnet12 import ResNet12

SPECS: list[tuple[ModelSpec, tuple[int, ...]]] = [
    (MLP(), (1,)),
    (MLP(hidden=(8,), norm="layer"), (3, 4)),
    (Conv4(width=8), (1, 28, 28)),
    (Conv4(width=8, downsample="pool", pooling="flatten"), (3, 32, 32)),
    (Conv4(width=8, norm="group"), (1, 28, 28)),
    (Conv4(width=8, norm="none"), (1, 28, 28)),
    (ResNet12(widths=(4, 5, 6, 7)), (3, 32, 32)),
    (Backbone(arch="resnet18"), (3, 64, 64)),
]


@pytest.mark.parametrize(("spec", "shape"), SPECS, ids=lambda v: type(v).__name__ if isinstance(v, ModelSpec) else "")
def test_outputs_and_features(spec: ModelSpec, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, features = spec.build(shape, 5), spec.build(shape, None)
    x = torch.rand(3, *shape)
    assert model(x).shape == (3, 5)
    assert features(x).dim() == 2
    assert isinstance(model.get_submodule("head"), nn.Linear)


def test_strided_conv4_is_mamls_omniglot_network() -> None:
    """Four 3x3 convolutions of 64 without bias, a gain and a shift after each, and a head of 64 inputs."""
    model = Conv4().build((1, 28, 28), 5)
    expected = 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64 + 64 * 5 + 5
    assert sum(p.numel() for p in model.parameters()) == expected
    wide = Conv4(pooling="flatten").build((1, 28, 28), 5)
    assert wide.get_submodule("head").in_features == 2 * 2 * 64


def test_features_of_pooled_conv4_are_64_on_omniglot() -> None:
    model = Conv4(downsample="pool", pooling="flatten").build((1, 28, 28), None)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 64)


@pytest.mark.parametrize("shape", [(2, 3, 6, 4), (1, 2, 7, 5)])
def test_pooling_as_a_compiler_sees_it_equals_torchs(shape: tuple[int, ...]) -> None:
    """Also where pixels are equal: the first of them gets the gradient."""
    torch.manual_seed(0)
    x = torch.randint(0, 3, shape).to(torch.float64)
    weights = torch.randn(*shape[:2], shape[2] // 2, shape[3] // 2, dtype=torch.float64)
    compiled = torch.compile(max_pool, backend="eager", fullgraph=True)

    def gradient(pool: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        (pool(leaf) * weights).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    assert torch.equal(compiled(x), nn.functional.max_pool2d(x, 2))
    assert torch.equal(gradient(compiled), gradient(lambda x: nn.functional.max_pool2d(x, 2)))


def test_a_perceptron_sees_means_of_squares_of_pixels() -> None:
    spec, x = MLP(hidden=(5,), activation="sigmoid", shrink=2), torch.rand(3, 2, 5, 4)
    model = spec.build((2, 5, 4), 3)
    means = torch.stack([x[:, :, i : i + 4 : 2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
    first, head = (layer for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    assert first.in_features == 2 * 2 * 2
    torch.testing.assert_close(model(x), head(first(means.flatten(1)).sigmoid()))
    with pytest.raises(ConfigError, match="mlp with shrink needs images"):
        spec.build((8,), 3)
    with pytest.raises(ConfigError, match="shrink 2 is more than images"):
        spec.build((1, 1, 8), 3)


def test_truncated_normal_init() -> None:
    model = MLP(init="truncated_normal").build((1,), 1)
    weights = torch.cat([p.reshape(-1) for n, p in model.named_parameters() if n.endswith("weight")])
    biases = torch.cat([p.reshape(-1) for n, p in model.named_parameters() if n.endswith("bias")])
    assert float(weights.abs().max()) <= 0.02
    assert 0.007 < float(weights.std()) < 0.01
    assert not biases.any()


@pytest.mark.parametrize(
    ("spec", "shape", "text"),
    [
        (Conv4(), (1,), "--model mlp"),
        (Conv4(downsample="pool"), (1, 8, 8), "8"),
        (Backbone(arch="resnet19"), (3, 32, 32), "resnet"),
        (Custom(path="nowhere.at:all"), (1,), "nowhere"),
        (Custom(path="math:nothing"), (1,), "nothing"),
        (Custom(path="math:sqrt"), (1,), "sqrt"),
    ],
)
def test_what_does_not_fit_is_told(spec: ModelSpec, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        spec.build(shape, 5)


def net(num_outputs: int, width: int = 7) -> nn.Module:
    """A user's own model."""
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, num_outputs))


def test_custom_models_get_the_arguments_they_take() -> None:
    model = Custom(path=f"{__name__}:net", options={"width": 9}).build((3,), 5)
    assert model(torch.rand(2, 3)).shape == (2, 5)
    assert model[0].out_features == 9  # type: ignore[index,union-attr]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 2, 1, (14, 14)),
        (3, 2, 1, (7, 6)),
        (3, 1, 1, (5, 6)),
        (3, 2, 0, (5, 6)),
        (1, 2, 0, (5, 5)),
        (3, 3, 0, (10, 11)),
        ((3, 1), (2, 3), (1, 0), (9, 8)),
        (2, 3, 1, (8, 9)),
    ],
)
def test_a_product_of_patches_is_the_convolution(kernel: Any, stride: Any, padding: Any, size: tuple[int, int]) -> None:
    """What a compiler is given, with its derivative, for every way in which patches may overlap or leave gaps."""
    layer = Conv2d(2, 3, kernel, stride=stride, padding=padding).double()
    x = torch.randn(4, 2, *size, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    expected = layer(x)
    weights = torch.randn_like(expected)
    product = layer._product(x, *layer._output_size(x))
    torch.testing.assert_close(product, expected, rtol=1e-13, atol=1e-13)
    gradients = [torch.autograd.grad((out * weights).sum(), inputs) for out in (product, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


def test_a_compiler_gets_products_where_patches_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    own = Conv2d._product

    def product(self: Conv2d, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        products.append(len(x) * height * width * self.weight[0].numel())
        return own(self, x, height, width)

    monkeypatch.setattr(Conv2d, "_product", product)
    image = torch.rand(2, 2, 6, 6)
    Conv2d(2, 2, 3)(image)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    unusual = [{"groups": 2}, {"dilation": 2}, {"padding": 1, "padding_mode": "circular"}, {"padding": "same"}]
    for options in unusual:
        layer = Conv2d(2, 2, 3, **options)  # type: ignore[arg-type]
        assert torch.equal(layer(image), nn.Conv2d.forward(layer, image)), options
    Conv2d(2, 2, 3)(image[0])
    Conv2d(64, 2, 3)(torch.rand(2, 64, 64, 64))
    assert not products
    Conv2d(2, 2, 3)(image)
    Conv2d(64, 2, 3, stride=2, padding=1)(torch.rand(25, 64, 14, 14))
    assert products == [2 * 16 * 18, 25 * 49 * 576]
    assert max(products) <= FEW_VALUES < 2 * 62 * 62 * 576
