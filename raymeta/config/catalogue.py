"""What a person asks of the methods before choosing one, and the rules by which candidates are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from raymeta.errors import ConfigError

Goal = Literal["classification", "regression", "noisy labels", "other domains", "control", "optimisation", "search"]
Cost = Literal["low", "medium", "high"]


class Entry(NamedTuple):
    """A method for people who choose: its paper, and what it asks and gives."""

    paper: str
    learns: str
    inner_cost: str
    """of adapting to one task"""
    memory: str
    """of training"""
    set_first: str
    """the options that matter most"""
    choose: str
    """when it is the right one"""
    goals: tuple[Goal, ...] = ("classification",)
    cost: Cost = "low"
    any_way: bool = False
    """whether the number of classes may differ from training"""
    least_shot: int = 1
    """examples of a class from which on it makes sense"""


_BOTH: tuple[Goal, ...] = ("classification", "regression")
_K = "K forward and backward passes of the support set"
_ONE = "one forward pass"
_ONE_GRAPH = "one graph of the network"
_GRAPH = "K graphs of the network; one with checkpoint_inner_steps"

CATALOGUE: Mapping[str, Entry] = {
    "maml": Entry(
        "Finn et al., ICML 2017",
        "an initialisation",
        _K,
        _GRAPH,
        "inner_lr, inner_steps, test_inner_steps",
        "the first to try with gradients: any network, any loss; first_order where memory or time is short",
        _BOTH,
        "high",
    ),
    "maml_pp": Entry(
        "Antoniou et al., ICLR 2019",
        "an initialisation, rates and batch norm for each step",
        _K,
        _GRAPH,
        "inner_steps (no more at test than in training), the epoch of its schedules",
        "MAML is unstable, or the last points of accuracy are wanted",
        _BOTH,
        "high",
    ),
    "imaml": Entry(
        "Rajeswaran et al., NeurIPS 2019",
        "an initialisation, by the solved inner problem",
        _K + " and cg_steps more",
        "one graph, whatever K is",
        "proximal, inner_steps, cg_steps",
        "many inner steps are needed",
        _BOTH,
        "high",
    ),
    "anil": Entry(
        "Raghu et al., ICLR 2020",
        "a body, and an initial head",
        "K steps of the head alone",
        "one graph of the body",
        "inner_lr, inner_steps",
        "nearly MAML's accuracy for a fraction of its time",
        _BOTH,
        "low",
    ),
    "meta_sgd": Entry(
        "Li et al., arXiv:1707.09835",
        "an initialisation and a rate for each element",
        _K,
        _GRAPH,
        "init_lr",
        "few inner steps, and no patience for a search of inner rates",
        _BOTH,
        "high",
    ),
    "meta_curvature": Entry(
        "Park and Oliva, NeurIPS 2019",
        "an initialisation and matrices that multiply inner gradients",
        _K,
        _GRAPH,
        "inner_lr, inner_steps",
        "one inner step should do more; not with wide linear layers",
        _BOTH,
        "high",
    ),
    "cavia": Entry(
        "Zintgraf et al., ICML 2019",
        "a network that a few context parameters steer",
        "K steps of the context",
        _GRAPH,
        "num_context, inner_lr, enters",
        "tasks differ in a few numbers, such as amplitude and phase",
        _BOTH,
        "medium",
    ),
    "leo": Entry(
        "Rusu et al., ICLR 2019",
        "a code of each class, and its decoder",
        "steps on codes and on weights, no body",
        "one graph of small networks",
        "a pre-trained body: --start, --freeze",
        "good fixed features are at hand",
        ("classification",),
        "medium",
        True,
    ),
    "meta_lstm": Entry(
        "Ravi and Larochelle, ICLR 2017",
        "an initialisation and the rule of its steps",
        _K + " with an LSTM for each parameter",
        "K graphs and K states of the rule",
        "inner_steps, narrow networks",
        "a learned rule of adaptation is the question itself",
        _BOTH,
        "high",
    ),
    "hsml": Entry(
        "Yao et al., ICML 2019",
        "clusters of tasks, and an initialisation for each mixture of them",
        _K,
        _GRAPH,
        "inner_lr, the sizes of the clusters",
        "tasks come in kinds",
        _BOTH,
        "high",
    ),
    "reptile": Entry(
        "Nichol et al., arXiv:1803.02999",
        "an initialisation",
        "K mini-batch steps",
        "one graph",
        "inner_steps, test_inner_steps, tasks.train_shot",
        "no second derivatives, long inner loops",
        _BOTH,
        "medium",
    ),
    "protonet": Entry(
        "Snell et al., NIPS 2017",
        "features",
        _ONE,
        "one graph",
        "tasks.train_way (large)",
        "the first to try for classes: fast, robust, any number of classes",
        any_way=True,
    ),
    "matching": Entry(
        "Vinyals et al., NIPS 2016",
        "features",
        _ONE,
        "one graph",
        "scale, tasks.train_way",
        "classes are not clusters, so single examples should count",
        any_way=True,
    ),
    "siamese": Entry(
        "Koch et al., ICML workshop 2015",
        "features, from pairs",
        _ONE,
        "one graph",
        "pair_loss, margin",
        "same or different is the question, such as recognising a face",
        any_way=True,
    ),
    "relation": Entry(
        "Sung et al., CVPR 2018",
        "features and their comparison",
        _ONE + " and a comparison for each class",
        "one graph",
        "hidden, tasks.query_shot",
        "distances between features are not enough",
        any_way=True,
    ),
    "r2d2": Entry(
        "Bertinetto et al., ICLR 2019",
        "features for ridge regression",
        _ONE + " and a system of S equations",
        "one graph",
        "tasks.train_way, init_scale",
        "a few examples of each class, and accuracy before speed",
        any_way=True,
        least_shot=2,
    ),
    "logistic": Entry(
        "Bertinetto et al., ICLR 2019",
        "features for logistic regression",
        _ONE + " and newton_steps systems of S equations",
        "one graph",
        "newton_steps, init_ridge",
        "as r2d2, with probabilities of each class by itself",
        any_way=True,
        least_shot=2,
    ),
    "metaoptnet": Entry(
        "Lee et al., CVPR 2019",
        "features for a support vector machine",
        _ONE + " and qp_steps of a solver",
        "one graph",
        "cost, qp_steps, tasks.train_shot",
        "5 or more examples of each class",
        any_way=True,
        cost="medium",
        least_shot=2,
    ),
    "baseline": Entry(
        "Chen et al., ICLR 2019",
        "features, by classifying all training classes",
        "test_inner_steps passes of a new head",
        "one graph",
        "head, head_lr",
        "the reference that a metric method has to beat",
        any_way=True,
    ),
    "joint": Entry(
        "the reference to beat",
        "one model for all tasks",
        "test_inner_steps of fine-tuning",
        "one graph",
        "inner_lr",
        "to see what meta-learning adds",
        _BOTH,
    ),
    "cnp": Entry(
        "Garnelo et al., ICML 2018",
        "an encoder of sets and a decoder",
        _ONE,
        "one graph",
        "the sizes of both networks",
        "functions with uncertainty, at once and for any number of points",
        _BOTH,
    ),
    "np": Entry(
        "Garnelo et al., arXiv:1807.01622",
        "an encoder of sets, a random vector and a decoder",
        _ONE,
        "one graph",
        "the size of the random vector",
        "whole functions should be sampled",
        ("regression",),
    ),
    "pfn": Entry(
        "Müller et al., ICLR 2022",
        "a transformer that answers from the support set",
        _ONE,
        "attention over the episode",
        "layers, width, the prior (tasks)",
        "a prior of tasks can be drawn: functions, tables",
        _BOTH,
        "medium",
    ),
    "snail": Entry(
        "Mishra et al., ICLR 2018",
        "attention and convolutions over the support as a sequence",
        _ONE,
        "one graph",
        "scale",
        "sequences; order may matter",
        cost="medium",
    ),
    "mann": Entry(
        "Santoro et al., ICML 2016",
        "an LSTM with a memory",
        "one step for each example",
        "the whole sequence",
        "memory sizes; no batch norm",
        "examples come one after another, and answers are wanted from the first on",
        cost="medium",
    ),
    "cnaps": Entry(
        "Requeima et al., NeurIPS 2019",
        "what gains, shifts and a head to give a frozen body",
        _ONE,
        "one graph",
        "a pre-trained body: --start, --freeze",
        "many kinds of pictures, one pre-trained body",
        any_way=True,
        cost="medium",
    ),
    "meta_weight_net": Entry(
        "Shu et al., NeurIPS 2019",
        "weights of training examples by their loss",
        "four maps a step",
        "one graph",
        "weighting_lr",
        "labels are wrong, and a few clean ones are at hand",
        ("noisy labels",),
        "medium",
    ),
    "plain": Entry(
        "the reference",
        "one classifier",
        "none",
        _ONE_GRAPH,
        "part: train or clean",
        "the reference for l2rw and meta_weight_net",
        ("noisy labels",),
    ),
    "l2rw": Entry(
        "Ren et al., ICML 2018",
        "one classifier; weights of examples anew in each step",
        "two maps a step",
        "two graphs of the network",
        "clean images (tasks.clean), outer.lr",
        "labels are wrong, and few clean ones are at hand; nothing to tune",
        ("noisy labels",),
        "medium",
    ),
    "erm": Entry(
        "Gulrajani and Lopez-Paz, ICLR 2021",
        "one classifier for all domains",
        "none",
        _ONE_GRAPH,
        "outer.lr",
        "the first to try where test images are of another kind than training images",
        ("other domains",),
    ),
    "mldg": Entry(
        "Li et al., AAAI 2018",
        "one classifier whose steps help domains that are put aside",
        "one virtual step in training",
        "two graphs of the network",
        "inner_lr, query_weight, first_order, tasks.pairing",
        "to compare with erm: their accuracies on domains that were held out are close",
        ("other domains",),
        "medium",
    ),
    "maml_rl": Entry(
        "Finn et al., ICML 2017",
        "an initial policy",
        "K batches of trajectories",
        "K graphs",
        "horizon, trajectories",
        "control in a space of tensors",
        ("control",),
        "high",
    ),
    "l2l": Entry(
        "Andrychowicz et al., NIPS 2016",
        "an optimiser",
        "unroll steps",
        "one window",
        "unroll, windows",
        "many small problems of one kind are optimised",
        ("optimisation",),
        "medium",
    ),
    "learned_mlp": Entry(
        "Metz et al., ICML 2019",
        "an optimiser",
        "unroll steps",
        "one window; one unroll with train: pes",
        "train, unroll, windows",
        "as l2l, for a smaller and faster optimiser, or one for long trainings",
        ("optimisation",),
        "medium",
    ),
    "darts": Entry(
        "Liu et al., ICLR 2019",
        "an architecture, by gradients, beside the weights that all architectures share",
        "none",
        "two graphs of the search network; one with order: first",
        "order, architecture_lr, the model's width, cells, nodes",
        "an architecture of cells for one training set; --model derived trains what it finds",
        ("search",),
        "high",
    ),
    "enas": Entry(
        "Pham et al., ICML 2018",
        "a network that chooses architectures, beside the weights that all of them share",
        "none",
        "one graph of the search network",
        "controller_lr, entropy_weight, architectures drawn in a step (meta_batch_size)",
        "as darts, where the network that is trained should be one architecture at a time, not a mixture",
        ("search",),
        "high",
    ),
    "nas_evolution": Entry(
        "Real et al., AAAI 2019",
        "nothing by gradients: a population",
        "an evaluation for each child",
        "the population",
        "population, sample",
        "architectures, or anything without derivatives",
        ("search",),
        "medium",
    ),
    "nas_reinforce": Entry(
        "Zoph and Le, ICLR 2017",
        "a network that chooses architectures",
        "an evaluation for each sample",
        "one graph of the controller",
        "outer.lr, baseline_decay, entropy_weight",
        "many evaluations are affordable, and what is good should be learned, not one architecture alone",
        ("search",),
        "medium",
    ),
}
ALIASES: Mapping[str, str] = {"metail": "hsml", "regularized_evolution": "nas_evolution"}
"""Second names of methods."""


class Wish(NamedTuple):
    """What was asked for, and whether a method meets it."""

    text: str
    meets: Callable[[Entry], bool]


_COSTS = ("low", "medium", "high")


def _goal(goal: Goal) -> Callable[[re.Match[str]], Wish]:
    return lambda found: Wish(f"goal {goal}", lambda entry: goal in entry.goals)


def _shot(found: re.Match[str]) -> Wish:
    shot = int(found[1])
    return Wish(f"{shot} examples of each class", lambda entry: entry.least_shot <= shot)


def _cost(most: Cost) -> Callable[[re.Match[str]], Wish]:
    allowed = _COSTS[: _COSTS.index(most) + 1]
    return lambda found: Wish(f"cost {' or '.join(allowed)}", lambda entry: entry.cost in allowed)


def _classes(found: re.Match[str]) -> Wish:
    return Wish(f"goal classification, {found[1]} classes", lambda entry: "classification" in entry.goals)


RULES: tuple[tuple[str, str, Callable[[re.Match[str]], Wish]], ...] = (
    ("N classes", r"(\d+)[ -]*(?:classes|way)", _classes),
    (
        "N images, examples, texts or rows each",
        r"(\d+)[ -]*(?:shots?|(?:images?|examples?|texts?|rows?)(?: each)?)",
        _shot,
    ),
    (
        "any number of classes",
        r"(?:any|other|more|unknown) (?:number of )?classes|new classes",
        lambda found: Wish("any number of classes", lambda entry: entry.any_way),
    ),
    ("classification", r"classification|classify", _goal("classification")),
    ("regression", r"regression|values|functions", _goal("regression")),
    ("noisy labels", r"noisy labels?|wrong labels?", _goal("noisy labels")),
    ("other domains", r"(?:other|new|unseen) domains?|domain generali[sz]ation", _goal("other domains")),
    ("control", r"control|reinforcement|policy", _goal("control")),
    ("optimisation", r"optimi[sz](?:ation|er)", _goal("optimisation")),
    ("search", r"(?:architecture )?search", _goal("search")),
    ("no GPU, cheap", r"no gpu|cpu|laptop|cheap|fast", _cost("low")),
    ("moderate", r"moderate|medium", _cost("medium")),
)
"""What `--for` understands, by example; each part of the text, between commas, must be one of these."""


def wishes(text: str) -> list[Wish]:
    """What `text` asks for. Raises `ConfigError` for a part that is not understood."""
    found = []
    for part in (part.strip().lower() for part in text.split(",")):
        match = next(((rule, m) for _, pattern, rule in RULES if (m := re.fullmatch(pattern, part))), None)
        if match is None:
            known = "; ".join(example for example, _, _ in RULES)
            raise ConfigError(f"--for: {part!r} is not understood. Give parts between commas, such as: {known}")
        found.append(match[0](match[1]))
    return found


def candidates(text: str) -> tuple[list[Wish], list[str]]:
    """The wishes, and the methods that meet all of them: the cheapest first, of those the ones for any number of
    classes, else in the order of the catalogue."""
    asked = wishes(text)
    names = [name for name, entry in CATALOGUE.items() if all(wish.meets(entry) for wish in asked)]
    return asked, sorted(names, key=lambda name: (_COSTS.index(CATALOGUE[name].cost), not CATALOGUE[name].any_way))
