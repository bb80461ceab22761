"""Every few-shot method trained for the same time on the same core, and tested on the same tasks.

    taskset -c 0 python benchmarks/methods.py --setting omniglot-5w1s --root FOLDER --budget 180

FOLDER holds omniglot/omniglot_bits.npz, or emoji/emoji32.npz. Each method has the options of its preset for Omniglot,
with convolutional networks of 16 channels, and no validation: what is tested are the last parameters. The budget counts
seconds of the processor from the first step on, so that other programs of the machine do not shorten it; with Ray
workers it is seconds of the clock. Writes results/benchmarks/methods-SETTING.json after each method; the same command
goes on with those that are missing. MAML and ProtoNet come first: what the others are compared with. A method that
needs a trained body (`PRETRAINED`) has half of the seconds for that.

    taskset -c 0 python benchmarks/methods.py --setting omniglot-5w1s --root FOLDER --budget 90 --tried

measures what was tried for methods that missed their level (`TRIED`) instead, beside their own rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from budget import Trained, in_own_process, trained
from PIL import Image
from published import PUBLISHED
from record import RESULTS, record

from raymeta.api.evaluate import Evaluation, meta_test
from raymeta.config.load import load_config
from raymeta.config.schema import RunConfig
from raymeta.models.conv4 import Conv4
from raymeta.presets.files import preset_names
from raymeta.tasks.base import TaskSet
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.omniglot.task_set import Omniglot
from raymeta.trackers.scores import half_width, paired

WIDTH, EPISODES, QUERIES = 16, 600, 5
MARGIN = 0.02
"""How far below its reference a method may be."""
BY_GRADIENTS = (
    *("maml", "anil", "meta_sgd", "maml_pp", "cavia", "meta_curvature", "imaml"),
    *("reptile", "leo", "hsml", "joint", "meta_lstm"),
)
OTHERS = (
    *("protonet", "matching", "siamese", "relation", "r2d2", "snail", "metaoptnet"),
    *("mann", "cnp", "logistic", "baseline", "pfn", "cnaps"),
)
LEFT_OUT = {
    "metail": "another name of hsml",
    "np": "regression",
    "plain": "one training set, not tasks of new classes",
    "l2rw": "one training set with wrong labels",
    "meta_weight_net": "one training set with wrong labels",
    "metadistil": "one training set and a teacher",
    "mkd": "one training set and a teacher",
    "dada": "changes of the images of one training set",
    "erm": "domains of one training set",
    "mldg": "domains of one training set",
    "darts": "a search of architectures for one training set",
    "enas": "a search of architectures for one training set",
    "maml_rl": "control",
    "l2l": "an optimiser of small problems",
    "learned_mlp": "an optimiser of small problems",
    "nas_evolution": "a search of architectures",
    "nas_reinforce": "a search of architectures",
    "regularized_evolution": "another name of nas_evolution",
}
"""Methods that are not for tasks of new classes, and why."""
REFERENCE = dict.fromkeys(BY_GRADIENTS, "maml") | dict.fromkeys(OTHERS, "protonet")
PRETRAINED: dict[str, tuple[str, dict[str, Any]]] = {"cnaps": ("protonet", {"algorithm.freeze_body": True})}
"""Methods of a body that is trained before and frozen: by which method, and the options that freeze it."""
TRIED: dict[str, tuple[dict[str, Any], ...]] = {
    "metaoptnet": ({"algorithm.init_scale": 10.0}, {"algorithm.cost": 1.0}),
    "siamese": ({"algorithm.pair_loss": "contrastive"}, {"algorithm.pair_loss": "triplet"}),
    "relation": ({"outer.lr": 0.003}, {"outer.lr": 0.003, "outer.clip_norm": 10.0}),
    "meta_sgd": ({"tasks.train_query_shot": 1}, {"tasks.train_query_shot": 1, "algorithm.init_lr": (0.4, 0.4)}),
    "cavia": ({"tasks.train_query_shot": 1}, {"tasks.train_query_shot": 1, "algorithm.inner_lr": 10.0}),
    "imaml": ({"algorithm.inner_steps": 5, "algorithm.cg_steps": 2, "algorithm.inner_lr": 0.4},),
    "snail": ({"algorithm.scale": 4}, {"outer.lr": 0.003}),
    "cnp": ({"outer.lr": 0.003}, {"tasks.train_query_shot": 15}),
    "pfn": ({"outer.lr": 0.002},),
    "reptile": ({"algorithm.inner_lr": 0.003},),
    "baseline": ({"outer.lr": 0.003},),
}
"""Other options for methods that missed their level: other losses, sizes, rates, or numbers of queries."""
IN_TURN = [name for pair in zip(BY_GRADIENTS, OTHERS, strict=False) for name in pair] + [*OTHERS[len(BY_GRADIENTS) :]]
SECOND = 1
"""Where scores stand over instances of a class: the second one, of which one example was seen."""


class Setting(NamedTuple):
    """The tasks of a comparison: where they lie, classes, and the largest episode that a class has images for."""

    name: str
    way: int
    per_class: int
    task_set: Callable[..., TaskSet]

    def tasks(self, preset: Any, root: Path) -> TaskSet:
        """Test tasks of the setting, with training episodes as those of a preset as far as there are images."""
        shot = min(preset.train_shot or preset.shot, self.per_class - 1)
        asked = preset.query_shot if preset.train_query_shot is None else preset.train_query_shot
        sizes = {"way": self.way, "shot": 1, "query_shot": QUERIES}
        training = {"train_shot": shot, "train_query_shot": min(asked, self.per_class - shot)}
        return self.task_set(root, **sizes, **training, train_way=max(preset.train_way or 0, self.way))


def omniglot(root: Path, **sizes: int) -> TaskSet:
    return Omniglot(root=str(root / "omniglot"), rotations="classes", **cast(Any, sizes))


def emoji(root: Path, **sizes: int) -> TaskSet:
    """A class is an emoji, its images are the styles it is drawn in."""
    return Images(root=str(emoji_folder(root / "emoji" / "emoji32.npz")), **cast(Any, sizes))


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("omniglot-5w1s", 5, 20, omniglot),
        Setting("omniglot-20w1s", 20, 20, omniglot),
        Setting("emoji-5w1s", 5, 7, emoji),
    )
}


def emoji_folder(packed: Path) -> Path:
    """The pictures as files SPLIT/NAME/STYLE.png, written once for a copy of the packed file."""
    folder = Path(tempfile.gettempdir()) / f"raymeta-emoji-{packed.stat().st_size}-{os.getuid()}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as place, np.load(packed, allow_pickle=False) as found:
        splits = [("train", "val", "test")[number] for number in found["split"]]
        for name, split, drawn in zip(found["names"], splits, found["images"], strict=True):
            of_class = Path(place) / "pictures" / split / str(name)
            of_class.mkdir(parents=True)
            for style, pixels in zip(found["styles"], drawn, strict=True):
                Image.fromarray(pixels).save(of_class / f"{style}.png")
        (Path(place) / "pictures").rename(folder)
    return folder


def configuration(method: str, setting: Setting, root: Path, workers: int, output: str, **more: Any) -> RunConfig:
    """The options of the method's preset, and `more`, for the tasks of the setting."""
    preset, switch = preset_of(method, setting)
    found = load_config(preset=preset).config
    of_tasks = {key.removeprefix("tasks."): more.pop(key) for key in [*more] if key.startswith("tasks.")}
    tasks = replace(setting.tasks(found.tasks, root), **of_tasks)
    options: dict[str, Any] = {"tasks": tasks, "workers": workers, "output": output}
    options |= {"validate_every": 0, "checkpoint_every": 10**6, "device": "cpu", "compile": False, **switch, **more}
    if isinstance(found.model, Conv4):
        options["model.width"] = WIDTH
    return load_config(preset=preset, overrides=options).config


def preset_of(method: str, setting: Setting) -> tuple[str, dict[str, Any]]:
    """The preset that a method has here or else for five classes, or another's and what makes it this method."""
    hyphened = method.replace("_", "-")
    for name in (f"{setting.name}-{hyphened}", f"omniglot-5w1s-{hyphened}"):
        if name in preset_names():
            return name, {}
    return f"omniglot-5w1s-{REFERENCE[method]}", {"algorithm": method}


def from_scratch_or_body(
    method: str, setting: Setting, root: Path, budget_s: float, workers: int, output: str, **more: Any
) -> tuple[Trained, Trained | None]:
    """The method's training and that of its body, if it needs one; both together have the seconds."""
    if method not in PRETRAINED:
        return trained(configuration(method, setting, root, workers, output, **more), budget_s), None
    other, options = PRETRAINED[method]
    body = trained(configuration(other, setting, root, workers, output), budget_s / 2)
    config = configuration(method, setting, root, workers, output, start=str(body.run.path), **options, **more)
    return trained(config, budget_s - body.seconds), body


def measured(
    method: str, setting: str, root: Path, budget_s: float, workers: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Train and test one method, with `options` in place of its own; for a process of its own, whose memory is told."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="raymeta-methods-") as output:
        began = time.perf_counter()
        done, body = from_scratch_or_body(method, SETTINGS[setting], root, budget_s, workers, output, **options)
        wall_s = time.perf_counter() - began
        tested = meta_test(done.run, episodes=EPISODES, workers=workers)
    state, config = done.state, done.config
    before = {} if body is None else {"body": {"of": PRETRAINED[method][0], "steps": body.state.step}}
    return {
        "preset_used": config.preset,
        **before,
        "steps": state.step,
        "steps_of_preset": config.steps,
        "tasks": state.tasks,
        "tasks_per_s": state.tasks / done.seconds,
        "seconds": done.seconds + (0.0 if body is None else body.seconds),
        "wall_minutes": wall_s / 60,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **score(tested),
    }


def score(tested: Evaluation) -> dict[str, Any]:
    """Accuracy after adapting, and the number of right answers in each task, from which all else can be computed."""
    of_instances = tested.settings["axis"] == "instance"
    values = tested.scores.main[:, SECOND if of_instances else -1]
    size = tested.settings
    asked = size["way"] * (1 if of_instances else size["query_shot"])
    right = np.rint(values * asked).astype(int)
    assert np.allclose(right / asked, values), "accuracies are shares of the queries"
    return {
        "accuracy": float(np.mean(right / asked)),
        "ci95": half_width(right / asked),
        "by_inner_step" if not of_instances else "by_instance": [float(v) for v in tested.scores.main.mean(0)],
        "episodes_sha256": size["episodes_sha256"],
        "queries": asked,
        "right": " ".join(map(str, right)),
    }


def compared(rows: dict[str, Any], setting: str) -> dict[str, Any]:
    """The rows with what can be said of each as soon as its reference is there."""
    for method, row in rows.items():
        published = PUBLISHED[setting].get(method)
        row["published"] = None if published is None else published._asdict()
        reference = rows.get(REFERENCE[method], {})
        if "right" not in row or "right" not in reference:
            continue
        row["reference"], row["level"] = REFERENCE[method], reference["accuracy"] - MARGIN
        row["reached"] = row["accuracy"] >= row["level"]
        beside(reference, row)
    return rows


def beside(reference: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The row with its paired difference to another one, where both were tested on the same tasks."""
    if "right" in row and row["episodes_sha256"] == reference["episodes_sha256"]:
        row["difference"], row["difference_ci95"] = paired(values_of(reference), values_of(row))
    return row


def as_text(options: dict[str, Any]) -> str:
    """As it is typed, for people and for comparisons."""
    return " ".join(f"--{key} {json.dumps(value)}" for key, value in options.items())


def values_of(row: dict[str, Any]) -> list[float]:
    """The accuracy of each test task."""
    return [int(right) / row["queries"] for right in row["right"].split()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--root", type=Path, required=True, help="folder with omniglot/ and emoji/")
    parser.add_argument("--budget", type=float, default=180, help="seconds of training for each method")
    parser.add_argument("--methods", default=",".join(IN_TURN), help="names between commas; all that fit unless given")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--tried", action="store_true", help="what was tried for methods that missed their level")
    asked = parser.parse_args(arguments)
    methods = asked.methods.split(",")
    if unknown := [name for name in methods if name not in REFERENCE]:
        parser.error(f"not methods for tasks of new classes: {', '.join(unknown)}. Choose among {', '.join(IN_TURN)}")
    content = begun(asked.setting, asked.budget, asked.workers)
    if content is None:
        parser.error(f"methods-{asked.setting}.json was made with other options: give those again, or remove it")
    how = asked.setting, asked.root, asked.budget, asked.workers
    if asked.tried:
        for method in methods:
            own = content["methods"].get(method, {})
            for options in TRIED.get(method, ()) if "accuracy" in own else ():
                tried = content["tried"].setdefault(method, {})
                if "accuracy" not in tried.get(name := as_text(options), {}):
                    tried[name] = beside(own, in_own_process(measured, method, *how, options))
                    print(method, name, tried[name].get("accuracy", "failed"), flush=True)
                    record(f"methods-{asked.setting}", content)
        return 0
    for method in in_order(methods):
        if "accuracy" not in content["methods"].get(method, {}):
            row = in_own_process(measured, method, *how, {})
            content["methods"][method] = row
            content["methods"] = compared(content["methods"], asked.setting)
            print(method, content["methods"][method].get("accuracy", "failed"), flush=True)
            record(f"methods-{asked.setting}", content)
    return 0


def in_order(methods: Sequence[str]) -> list[str]:
    """The references of these methods first."""
    return list(dict.fromkeys([*sorted({REFERENCE[name] for name in methods}), *methods]))


def begun(setting: str, budget_s: float, workers: int) -> dict[str, Any] | None:
    """The content to go on with; None where it was made otherwise."""
    path = RESULTS / f"methods-{setting}.json"
    asked: dict[str, Any] = {
        "setting": setting,
        "budget_s": budget_s,
        "budget_counts": "clock" if workers else "processor",
        "workers": workers,
        "threads": 1,
        "cores": len(os.sched_getaffinity(0)),
        "width": WIDTH,
        "test_episodes": EPISODES,
        "query_shot": QUERIES,
        "level": f"accuracy of the reference (maml or protonet) - {MARGIN}, decided before the run",
        "left_out": LEFT_OUT,
    }
    if not path.exists():
        return {**asked, "methods": {}, "tried": {}}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept = {"methods": content["methods"], "tried": content.get("tried", {})}
    same = all(content.get(key) == value for key, value in asked.items() if key != "left_out")  # the registry grows
    return {**asked, **kept} if same else None


if __name__ == "__main__":
    sys.exit(main())
