"""The card of a model: what it is, what it learned from, how it scored, and where not to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raymeta.algorithms.base import TrainedModel
from raymeta.config.variants import name_of
from raymeta.tasks.inputs import sizes_text
from raymeta.trackers.scores import SCORES, over_text, score_text

if TYPE_CHECKING:
    from raymeta.use.pretrained import Pretrained

TRANSDUCTIVE = "the score above is transductive, as batch norm saw all queries of an episode together"


def card(model: Pretrained) -> str:
    """Markdown."""
    about = model.about
    rows = {
        "method": name_of(model.algorithm),
        "network": name_of(model.config.model),
        "inputs": sizes_text(model.tasks.input_shape),
        **({"classes": ", ".join(labels)} if (labels := model.tasks.label_names()) else {}),
        "preprocessing": _preprocessing(model),
        "trained on": about.get("data") or about.get("tasks") or "not recorded",
        "outer steps": about.get("steps"),
        "score": metric_text(about) or "not scored",
        "batch norm": batch_norm_text(model),
        "command": f"`{about['command']}`" if about.get("command") else "not recorded",
        "run": about.get("source"),
        "raymeta": about.get("raymeta") or "not recorded",
        "licence": about.get("license") or "not stated",
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(
        [
            f"# {model.name}",
            "",
            *(_OF_FIXED_CLASSES if isinstance(model.algorithm, TrainedModel) else _ADAPTS),
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
            "## Limits",
            "",
            *_limits(model),
            "",
        ]
    )


_PROJECT = "[raymeta](https://pypi.org/project/raymeta/)"
_ADAPTS = (
    f"A meta-trained model of {_PROJECT}. It adapts to new classes from a few examples of each:",
    "",
    "```bash",
    "raymeta adapt THIS_FOLDER --support EXAMPLES --out ADAPTED   # EXAMPLES/CLASS/*",
    "raymeta predict ADAPTED FILES",
    "```",
)
_OF_FIXED_CLASSES = (
    f"A classifier of {_PROJECT} for the classes that it was trained on; it adapts to no others:",
    "",
    "```bash",
    "raymeta predict THIS_FOLDER FILES",
    "```",
    "",
    "`raymeta.from_pretrained(THIS_FOLDER)` has the network, as `module()`, and the `reader` of its inputs.",
)


def _limits(model: Pretrained) -> list[str]:
    if isinstance(model.algorithm, TrainedModel):
        return [
            "- It answers with one of its classes, whatever it is shown, and its score says nothing of other images."
        ]
    return [
        f"- It was trained with {_episode(model)}. More classes or fewer examples make it worse: `raymeta adapt` "
        "measures it on your own examples.",
        "- It answers with one of the given classes, whatever it is shown, unless `--unknown` is used.",
        "- Its score says nothing of examples unlike its training data, which `raymeta adapt` names.",
    ]


def metric_text(about: Mapping[str, Any], which: str = "metric") -> str:
    """The score of the run on its own test classes; nothing where it was not scored. `inductive`: that with queries
    normalised by the support set."""
    metric = about.get(which)
    if not isinstance(metric, dict) or metric.get("name") not in SCORES or metric.get("value") is None:
        return ""
    text = score_text(metric["name"], metric["value"], metric.get("ci95"))
    return f"{metric.get('split', 'test')} {text} {over_text(metric)}"


def batch_norm_text(model: Pretrained) -> str:
    """Whose statistics normalise, at training and here."""
    policy = model.batch_norm
    if policy == "none":
        return "none in the network"
    if isinstance(model.algorithm, TrainedModel):
        whose = "of the examples that are given together" if policy == "transductive" else "those of training"
        return f"{policy} in training; here statistics {whose}"
    text = f"{policy} in training; here statistics of the support set"
    if policy != "transductive":
        return text
    other = metric_text(model.about, "inductive") or "not measured"
    return f"{text}; {TRANSDUCTIVE}; by the support set alone it is {other}"


def _preprocessing(model: Pretrained) -> str:
    settings = model.tasks.preprocessing
    return "not recorded" if settings is None else ", ".join(f"{name} {value}" for name, value in settings.items())


def _episode(model: Pretrained) -> str:
    size = model.tasks.size("train")
    return f"{size.way} classes and {size.shot} example{'s' * (size.shot > 1)} of each"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
