"""Exact laws of the algorithms: closed forms, finite differences, identities between methods."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta import ANIL, MAML, Baseline, Episode, Examples, JointTraining, MetaSGD, ProtoNet, Reptile, meta_gradient
from raymeta.adaptation.descent import descend
from raymeta.adaptation.embedding import means_of_classes
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.protonet import squared_distances
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.layers.convert import convert
from raymeta.tasks.episodes import stack_episodes

VECTORIZE = ("vmap", "loop")


class Point(nn.Module):
    """A model that is its parameter: outputs θ [n, d] whatever the input, so losses are functions of θ."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), -1)


def quadratic(theta: Tensor, y: Tensor) -> Tensor:
    """½ (θ − a)ᵀ A (θ − a) with y [1, d, d + 1] = (A | a)."""
    matrix, center = y[0, :, :-1], y[0, :, -1]
    return 0.5 * (theta[0] - center) @ matrix @ (theta[0] - center)


def quadratic_episode(support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Episode:
    sides = [torch.cat([matrix, center[:, None]], 1)[None] for matrix, center in (support, query)]
    return Episode(*(Examples(torch.zeros(1, 1, dtype=torch.float64), y) for y in sides))


def scalar_gradient(algorithm: Algorithm, vectorize: str = "vmap", **params: Tensor) -> dict[str, Tensor]:
    """Meta-gradient of the reference quadratics L_S = ½·2(θ − 1)², L_Q = ½·3(θ + 1)² at φ = 0."""

    def one(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    episode = quadratic_episode((2 * one(1)[None], one(1)), (3 * one(1)[None], one(-1)))
    return meta_gradient(
        Point(one(0)), algorithm, [episode], loss=quadratic, vectorize=vectorize, params=params or None
    )


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        (MAML(inner_lr=0.1, inner_steps=2), 2.6112),
        (MAML(inner_lr=0.1, inner_steps=2, first_order=True), 4.08),
        (MAML(inner_lr=0.1, inner_steps=1), 2.88),
        (MAML(inner_lr=0.1, inner_steps=2, step_weights=(0.1, 0.9)), 2.63808),
        (MAML(inner_lr=0.1, inner_steps=0), 3.0),
        (MAML(inner_lr=0.0, inner_steps=3), 3.0),
        (JointTraining(), 3.0),
        (Reptile(inner_lr=0.1, inner_steps=2, inner_optimizer="sgd"), -0.36),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Algorithm) else str(value),
)
def test_golden_numbers(algorithm: Algorithm, value: float, vectorize: str) -> None:
    assert scalar_gradient(algorithm, vectorize)["theta"].item() == pytest.approx(value, abs=1e-12)


def test_golden_meta_sgd() -> None:
    rate = torch.tensor([0.1], dtype=torch.float64)
    gradient = scalar_gradient(MetaSGD(), **{"inner_lr/theta": rate})
    assert gradient["theta"].item() == pytest.approx(2.88, abs=1e-12)
    assert gradient["inner_lr/theta"].item() == pytest.approx(7.2, abs=1e-12)


def spd(dim: int, generator: torch.Generator) -> Tensor:
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return root @ root.T / dim + torch.eye(dim, dtype=torch.float64)


@pytest.fixture
def quadratics() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    vectors = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return spd(4, generator), vectors[0], spd(4, generator), vectors[1], vectors[2]


def test_maml_on_matrix_quadratics(quadratics: tuple[Tensor, ...]) -> None:
    a_matrix, a, b_matrix, b, phi = quadratics
    alpha, steps = 0.1, 3
    power = torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - alpha * a_matrix, steps)
    theta = a + power @ (phi - a)
    episode = quadratic_episode((a_matrix, a), (b_matrix, b))
    for first_order, expected in ((False, power @ b_matrix @ (theta - b)), (True, b_matrix @ (theta - b))):
        algorithm = MAML(inner_lr=alpha, inner_steps=steps, first_order=first_order)
        gradient = meta_gradient(Point(phi), algorithm, [episode], loss=quadratic)["theta"]
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)


def test_first_order_has_the_derivative_one_in_any_mode() -> None:
    """Reverse, forward, and under a second derivative."""
    start = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def last(w: Tensor) -> Tensor:
        trajectory = descend(
            lambda params: (params["w"] ** 4).sum(), {"w": w}, lambda step: 0.1, num_steps=2, first_order=True
        )
        return trajectory.params[-1]["w"]

    one = torch.eye(2, dtype=torch.float64)
    assert torch.equal(torch.func.jacrev(last)(start), one)
    assert torch.equal(torch.func.jacfwd(last)(start), one)
    assert torch.equal(torch.autograd.functional.jacobian(last, start), one)
    assert torch.equal(torch.func.hessian(lambda w: (last(w) ** 2).sum())(start), 2 * one)


def test_reptile_is_the_sum_of_inner_gradients(quadratics: tuple[Tensor, ...]) -> None:
    a_matrix, a, b_matrix, b, phi = quadratics
    alpha = 0.05
    g = a_matrix @ (phi - a)
    episode = quadratic_episode((a_matrix, a), (b_matrix, b))
    for steps, expected in ((1, g), (2, 2 * g - alpha * a_matrix @ g)):
        algorithm = Reptile(inner_lr=alpha, inner_steps=steps, inner_optimizer="sgd")
        delta = meta_gradient(Point(phi), algorithm, [episode], loss=quadratic)["theta"]
        torch.testing.assert_close(delta / alpha, expected, rtol=1e-11, atol=1e-12)


def test_first_order_equals_second_where_the_inner_loss_is_linear(quadratics: tuple[Tensor, ...]) -> None:
    _, c, b_matrix, b, phi = quadratics
    zero = torch.zeros(4, 4, dtype=torch.float64)

    def linear_or_quadratic(theta: Tensor, y: Tensor) -> Tensor:
        return quadratic(theta, y) + (y[0, :, :-1].square().sum() == 0) * (theta[0] @ y[0, :, -1])

    episode = quadratic_episode((zero, c), (b_matrix, b))
    both = [
        meta_gradient(
            Point(phi), MAML(inner_lr=0.3, inner_steps=3, first_order=f), [episode], loss=linear_or_quadratic
        )["theta"]
        for f in (False, True)
    ]
    torch.testing.assert_close(both[0], both[1], rtol=1e-14, atol=1e-14)


def test_gap_of_first_order_is_linear_in_the_rate() -> None:
    model, episodes = tanh_net(norm=None), classification(4)

    def gap(rate: float) -> float:
        both = [meta_gradient(model, MAML(inner_lr=rate, first_order=f), episodes) for f in (False, True)]
        return float(sum((both[0][n] - both[1][n]).square().sum() for n in both[0]) ** 0.5)

    assert gap(1e-2) / gap(1e-3) == pytest.approx(10, rel=0.05)


def tanh_net(norm: type[nn.Module] | None, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [] if norm is None else [norm(6)]
        model = nn.Sequential(nn.Linear(4, 6), *middle, nn.Tanh(), nn.Linear(6, 3)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.7)
    return model


def classification(count: int, seed: int = 1) -> list[Episode]:
    generator = torch.Generator().manual_seed(seed)

    def side(per_class: int) -> Examples:
        y = torch.arange(3).repeat_interleave(per_class)
        return Examples(torch.randn(len(y), 4, generator=generator, dtype=torch.float64), y, y + 2)

    return [Episode(side(2), side(3)) for _ in range(count)]


def independent_meta_loss(
    model: nn.Module, params: dict[str, Tensor], episodes: list[Episode], rate: float, steps: int, head_only: bool
) -> Tensor:
    """Mean adapted query loss by plain autograd on the user's own layers: no part of raymeta is used."""
    losses = []
    for support, query in episodes:
        theta = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(model, theta, (support.x,)), support.y)
            names = [n for n in theta if not head_only or n.startswith(f"{len(model) - 1}.")]  # type: ignore[arg-type]
            gradients = torch.autograd.grad(loss, [theta[n] for n in names])
            stepped = {n: theta[n] - rate * g for n, g in zip(names, gradients, strict=True)}
            theta = {n: stepped.get(n, theta[n]).detach().requires_grad_() for n in theta}
        losses.append(F.cross_entropy(functional_call(model, theta, (query.x,)), query.y).detach())
    return torch.stack(losses).mean()


NORMS = {
    "none": None,
    "batch": lambda n: nn.BatchNorm1d(n, track_running_stats=False),
    "layer": nn.LayerNorm,
    "group": lambda n: nn.GroupNorm(2, n),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("kind", ["maml", "anil"])
def test_meta_gradient_equals_finite_differences(norm: str, vectorize: str, kind: str) -> None:
    model, episodes = tanh_net(NORMS[norm]), classification(3)
    rate, steps = 0.2, 2
    algorithm = (MAML if kind == "maml" else ANIL)(inner_lr=rate, inner_steps=steps)
    gradient = meta_gradient(model, algorithm, episodes, vectorize=vectorize)
    params = {name: p.detach() for name, p in model.named_parameters()}
    assert list(gradient) == list(params)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in params.items()}
        h = 1e-5
        ends = [
            independent_meta_loss(
                model, {n: p + s * h * direction[n] for n, p in params.items()}, episodes, rate, steps, kind == "anil"
            )
            for s in (1, -1)
        ]
        measured = float((ends[0] - ends[1]) / (2 * h))
        ours = float(sum((gradient[n] * direction[n]).sum() for n in params))
        assert ours == pytest.approx(measured, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    "algorithm",
    [
        MAML(inner_lr=0.3, inner_steps=3),
        MAML(inner_lr=0.3, inner_steps=3, step_weights=(0.2, 0.3, 0.5)),
        MAML(inner_lr=0.3, inner_steps=2, first_order=True),
        ANIL(inner_lr=0.3, inner_steps=3),
        MetaSGD(),
        Reptile(inner_lr=0.01, inner_steps=4, inner_batch_size=4),
        ProtoNet(),
        JointTraining(),
        Baseline(),
        Baseline(head="cosine"),
    ],
    ids=lambda a: type(a).__name__,
)
def test_loop_equals_vmap(algorithm: Algorithm) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # No bias before the norm: its gradient is rounding noise, which Adam would blow up.
        layers = (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5))
        model = nn.Sequential(*layers).double()
    both = [meta_gradient(model, algorithm, classification(5), vectorize=v) for v in VECTORIZE]
    assert any(value.abs().sum() > 0 for value in both[0].values())
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)


def test_multi_step_loss_is_the_weighted_sum_of_truncated_gradients() -> None:
    model, episodes, weights = tanh_net(NORMS["batch"]), classification(3), (0.2, 0.3, 0.5)
    whole = meta_gradient(model, MAML(inner_lr=0.2, inner_steps=3, step_weights=weights), episodes)
    parts = [meta_gradient(model, MAML(inner_lr=0.2, inner_steps=k + 1), episodes) for k in range(3)]
    for name, value in whole.items():
        expected = sum(w * part[name] for w, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)


def test_anil_is_maml_that_adapts_only_the_head() -> None:
    model, episodes = tanh_net(NORMS["batch"]), classification(3)
    anil = meta_gradient(model, ANIL(inner_lr=0.2, inner_steps=3), episodes)
    maml = meta_gradient(model, MAML(inner_lr=0.2, inner_steps=3, adapt_only=("3.*",)), episodes)
    for name, value in anil.items():
        torch.testing.assert_close(value, maml[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_boil_is_maml_that_adapts_all_but_the_head(first_order: bool) -> None:
    model, episodes = tanh_net(NORMS["batch"]), classification(3)
    body = tuple(f"{name}.*" for name, child in model.named_children() if name != "3" and list(child.parameters()))
    options = {
        "inner_lr": 0.2,
        "inner_steps": 3,
        "first_order": first_order,
        "inner_loss_reduction": "sum_over_classes",
    }
    boil = meta_gradient(model, ANIL(adapts="body", **options), episodes)
    maml = meta_gradient(model, MAML(adapt_only=body, **options), episodes)
    assert boil.keys() == maml.keys()
    assert all(torch.equal(value, maml[name]) for name, value in boil.items())


def test_boil_needs_a_body() -> None:
    with pytest.raises(ConfigError, match="nothing would adapt"):
        meta_gradient(torch.nn.Linear(4, 3).double(), ANIL(adapts="body"), classification(1))


def test_meta_sgd_with_constant_rates_is_maml_and_its_rate_gradient_has_a_closed_form() -> None:
    model, episodes = tanh_net(None), classification(1)
    rates = {f"inner_lr/{n}": torch.full_like(p, 0.2) for n, p in model.named_parameters()}
    gradient = meta_gradient(model, MetaSGD(), episodes, params=rates)
    maml = meta_gradient(model, MAML(inner_lr=0.2, inner_steps=1), episodes)
    support, query = episodes[0]
    params = {n: p.detach().requires_grad_() for n, p in model.named_parameters()}
    g_support = torch.autograd.grad(
        F.cross_entropy(functional_call(model, params, (support.x,)), support.y), list(params.values())
    )
    adapted = {n: (p - 0.2 * g).detach().requires_grad_() for (n, p), g in zip(params.items(), g_support, strict=True)}
    g_query = torch.autograd.grad(
        F.cross_entropy(functional_call(model, adapted, (query.x,)), query.y), list(adapted.values())
    )
    for (name, _), gs, gq in zip(params.items(), g_support, g_query, strict=True):
        torch.testing.assert_close(gradient[name], maml[name], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(gradient[f"inner_lr/{name}"], -gs * gq, rtol=1e-11, atol=1e-13)


def test_sum_over_classes_is_the_way_times_the_mean() -> None:
    model, episodes = tanh_net(None), classification(2)
    summed = meta_gradient(model, MAML(inner_lr=0.1, inner_loss_reduction="sum_over_classes"), episodes)
    mean = meta_gradient(model, MAML(inner_lr=0.3), episodes)  # three classes
    for name, value in summed.items():
        torch.testing.assert_close(value, mean[name], rtol=1e-10, atol=1e-13)


def test_bias_before_batch_norm_has_no_gradient() -> None:
    gradient = meta_gradient(tanh_net(NORMS["batch"]), MAML(inner_lr=0.3, inner_steps=2), classification(3))
    assert gradient["0.bias"].abs().max() < 1e-14


def test_attention_is_exact_at_second_order() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.norm, self.head = nn.Linear(4, 12), nn.LayerNorm(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x[:, None, :].repeat(1, 3, 1) + torch.eye(3, 4, dtype=x.dtype)).chunk(3, -1)
            return self.head(self.norm(F.scaled_dot_product_attention(q, k, v)).mean(1))

    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Attention().double()
    episodes = classification(2)
    gradients = [meta_gradient(model, MAML(inner_lr=0.3, inner_steps=1), episodes, vectorize=v) for v in VECTORIZE]
    params = {n: p.detach() for n, p in model.named_parameters()}
    direction = {n: torch.randn_like(p) for n, p in params.items()}
    ends = [
        independent_meta_loss(
            model, {n: p + s * 1e-5 * direction[n] for n, p in params.items()}, episodes, 0.3, 1, False
        )
        for s in (1, -1)
    ]
    for gradient in gradients:
        ours = float(sum((gradient[n] * direction[n]).sum() for n in params))
        assert ours == pytest.approx(float((ends[0] - ends[1]) / 2e-5), rel=1e-6)


def test_episodes_of_unequal_shapes_are_averaged_over_tasks() -> None:
    model, episodes = tanh_net(NORMS["batch"]), classification(3)
    short = Episode(episodes[0].support, Examples(*(v[:6] for v in episodes[0].query)))  # type: ignore[index]
    mixed = meta_gradient(model, MAML(inner_lr=0.2), [short, *episodes[1:]])
    alone = [meta_gradient(model, MAML(inner_lr=0.2), [e]) for e in (short, *episodes[1:])]
    for name, value in mixed.items():
        torch.testing.assert_close(value, sum(a[name] for a in alone) / 3, rtol=1e-10, atol=1e-13)


def test_meta_gradient_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    model[0].bias.requires_grad_(False)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    gradient = meta_gradient(model, MAML(inner_lr=0.2, inner_steps=2), classification(2))
    assert "0.bias" not in gradient
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model[1], nn.BatchNorm1d)
    assert all(p.grad is None for p in model.parameters())


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="at least one episode"):
        meta_gradient(tanh_net(None), MAML(), [])
    with pytest.raises(ConfigError, match="matches no parameter"):
        meta_gradient(tanh_net(None), MAML(adapt_only=("body.*",)), classification(1))
    with pytest.raises(ConfigError, match="not learned"):
        meta_gradient(tanh_net(None), MAML(), classification(1), params={"nothing": torch.zeros(1)})


# Prototypical networks


def proto_problem(seed: int = 0) -> tuple[Problem, Learned]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = convert(nn.Linear(4, 3, bias=False).double())
    problem = Problem(model, goal="classification")
    return problem, Learned(problem.initial_params(), {})


def proto_logits(problem: Problem, learned: Learned, support: Examples, x: Tensor, way: int = 3) -> Tensor:
    phase = Phase(training=False, way=way)
    return ProtoNet().adapt(problem, learned, support, noise={}, phase=phase).predictors[0](x)


def test_protonet_golden_probabilities() -> None:
    centers = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    p = (-squared_distances(torch.tensor([[0.5, 0.0]]), centers)).softmax(-1)
    torch.testing.assert_close(p, torch.tensor([[0.8808, 0.1192]]), atol=5e-5, rtol=0)


def test_protonet_is_a_linear_classifier_and_one_shot_is_nearest_neighbour() -> None:
    problem, learned = proto_problem()
    episode = classification(1)[0]
    one_shot = Examples(*(v[::2] for v in episode.support))  # type: ignore[index]
    logits = proto_logits(problem, learned, one_shot, episode.query.x)
    z_S, z_Q = one_shot.x @ learned.params["weight"].T, episode.query.x @ learned.params["weight"].T
    assert torch.equal(logits.argmax(-1), torch.cdist(z_Q, z_S).argmin(-1))
    c = means_of_classes(z_S.flatten(1), one_shot.y, 3)
    linear = z_Q @ (2 * c).T - c.square().sum(-1)
    torch.testing.assert_close(logits.log_softmax(-1), linear.log_softmax(-1), rtol=1e-10, atol=1e-12)


def test_protonet_ignores_order_and_repetition_of_support() -> None:
    problem, learned = proto_problem()
    support, query = classification(1)[0]
    logits = proto_logits(problem, learned, support, query.x)
    order = torch.randperm(len(support.y), generator=torch.Generator().manual_seed(0))
    shuffled = Examples(support.x[order], support.y[order])
    twice = Examples(support.x.repeat(2, 1), support.y.repeat(2))
    for other in (shuffled, twice):
        torch.testing.assert_close(proto_logits(problem, learned, other, query.x), logits, rtol=1e-10, atol=1e-12)


# Baselines and state


def test_baseline_starts_uniform_and_freezes_the_body() -> None:
    problem = Problem(convert(tanh_net(NORMS["batch"])), goal="classification")
    learned = Learned(problem.initial_params(), {})
    episodes = stack_episodes(classification(2))
    keys = [TaskKey(0, "test", 0, i) for i in range(2)]
    phase = Phase(training=False)
    algorithm = Baseline(test_inner_steps=20, head_lr=0.1)
    noise = algorithm.noise(problem, keys, episodes, phase)
    scores = algorithm.scores(problem, learned, episodes, noise=noise, phase=phase)
    assert scores["loss"].shape == (2, 21)
    torch.testing.assert_close(scores["loss"][:, 0], torch.full((2,), 3.0, dtype=torch.float64).log())
    support = [
        algorithm.adapt(
            problem, learned, e.support, noise={"order": noise["order"][t]}, phase=Phase(training=False, way=3)
        )
        for t, e in enumerate(classification(2))
    ]
    for adaptation, episode in zip(support, classification(2), strict=True):
        before, after = (
            F.cross_entropy(p(episode.support.x), episode.support.y)
            for p in (adaptation.predictors[0], adaptation.predictors[-1])
        )
        assert after < before


def test_linear_head_fit_is_convex() -> None:
    """Frozen features: the regularised head reaches the same optimum from two mini-batch orders."""
    problem = Problem(convert(tanh_net(None)), goal="classification")
    learned = Learned(problem.initial_params(), {})
    episode = classification(1)[0]
    algorithm = Baseline(
        test_inner_steps=4000, head_lr=0.5, head_batch_size=6, head_momentum=0, head_dampening=0, head_weight_decay=0.05
    )
    outputs = []
    for index in range(2):
        batch = stack_episodes([episode])
        noise = algorithm.noise(problem, [TaskKey(0, "test", 0, index)], batch, Phase(training=False))
        phase = Phase(training=False, way=3)
        order = {"order": noise["order"][0]}
        adaptation = algorithm.adapt(problem, learned, episode.support, noise=order, phase=phase)
        outputs.append(adaptation.predictors[-1](episode.query.x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-8)


def test_reptile_driver_state_is_the_mean_of_final_moments() -> None:
    problem = Problem(convert(tanh_net(None)), goal="classification")
    algorithm = Reptile(inner_steps=3, inner_batch_size=6, inner_state="driver")
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator())
    batch = stack_episodes(classification(4))
    keys = [TaskKey(0, "train", 0, i) for i in range(4)]
    noise = algorithm.noise(problem, keys, batch, Phase())
    sums = algorithm.contribution(problem, learned, batch, noise=noise, phase=Phase())
    state = algorithm.fold_state(learned.state, {n: sums.sums[n] / 4 for n in learned.state}, {})
    assert state["inner_count"] == 3
    moments = [v for n, v in state.items() if n != "inner_count"]
    assert all((v >= 0).all() for v in moments)
    assert any((v > 0).any() for v in moments)


def test_reptile_refuses_state_on_actors() -> None:
    with pytest.raises(ValueError, match="depend on the number of workers"):
        Reptile(inner_state="actor")


def test_running_statistics_move_towards_the_mean_of_batches() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    results = []
    for vectorize in VECTORIZE:
        problem = Problem(convert(model), goal="classification", batch_norm="running", vectorize=vectorize)
        learned = ProtoNet().init(problem, problem.initial_params(), torch.Generator())
        batch = stack_episodes(classification(3))
        sums = ProtoNet().contribution(problem, learned, batch, noise={}, phase=Phase())
        results.append(
            ProtoNet().fold_state(learned.state, {n: sums.sums[n] / 3 for n in learned.state}, problem.momenta())
        )
    features = [model[0](torch.cat([e.support.x, e.query.x])) for e in classification(3)]
    mean = torch.stack([z.mean(0) for z in features]).mean(0)
    var = torch.stack([z.var(0) for z in features]).mean(0)
    for state in results:
        torch.testing.assert_close(state["1.running_mean"], 0.1 * mean, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(state["1.running_var"], 0.9 + 0.1 * var, rtol=1e-9, atol=1e-12)


def test_support_policy_does_not_look_at_other_queries() -> None:
    """Under `support` a query's prediction is the same whatever other queries come with it; not so `transductive`."""
    episode = classification(1)[0]
    differences = {}
    for policy in ("support", "transductive"):
        problem = Problem(convert(tanh_net(NORMS["batch"])), goal="classification", batch_norm=policy)
        learned = Learned(problem.initial_params(), {})
        phase = Phase(training=False, way=3)
        predict = MAML(inner_lr=0.1).adapt(problem, learned, episode.support, noise={}, phase=phase).predictors[-1]
        differences[policy] = (predict(episode.query.x)[:2] - predict(episode.query.x[:2])).abs().max()
    assert differences["support"] < 1e-12
    assert differences["transductive"] > 1e-3
