"""Names of algorithms, task sets and models, and the classes they stand for.

The registries are text, so that listing names imports nothing heavy. Third parties add names through the entry-point
groups `raymeta.algorithms`, `raymeta.tasks` and `raymeta.models`, or give an import path as the name:
`mypackage.module:MyAlgorithm`.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from raymeta.errors import ConfigError
from raymeta.system.text import did_you_mean, nearest
from raymeta.system.their_code import imported

Section = Literal["tasks", "model", "algorithm"]
SECTIONS: tuple[Section, ...] = get_args(Section)

BUILT_IN: dict[Section, dict[str, str]] = {
    "algorithm": {
        "maml": "raymeta.algorithms.maml:MAML",
        "maml_pp": "raymeta.algorithms.maml_pp:MAMLPlusPlus",
        "cavia": "raymeta.algorithms.cavia:CAVIA",
        "meta_curvature": "raymeta.algorithms.meta_curvature:MetaCurvature",
        "leo": "raymeta.algorithms.leo:LEO",
        "meta_lstm": "raymeta.algorithms.meta_lstm:MetaLSTM",
        "imaml": "raymeta.algorithms.imaml:IMAML",
        "anil": "raymeta.algorithms.anil:ANIL",
        "meta_sgd": "raymeta.algorithms.meta_sgd:MetaSGD",
        "reptile": "raymeta.algorithms.reptile:Reptile",
        "protonet": "raymeta.algorithms.protonet:ProtoNet",
        "r2d2": "raymeta.algorithms.r2d2:R2D2",
        "logistic": "raymeta.algorithms.logistic:Logistic",
        "metaoptnet": "raymeta.algorithms.metaoptnet:MetaOptNet",
        "matching": "raymeta.algorithms.matching:MatchingNet",
        "siamese": "raymeta.algorithms.siamese:Siamese",
        "relation": "raymeta.algorithms.relation:RelationNet",
        "mann": "raymeta.algorithms.mann:MANN",
        "cnaps": "raymeta.algorithms.cnaps:CNAPs",
        "hsml": "raymeta.algorithms.hsml:HSML",
        "metail": "raymeta.algorithms.hsml:HSML",
        "snail": "raymeta.algorithms.snail:SNAIL",
        "cnp": "raymeta.algorithms.cnp:CNP",
        "np": "raymeta.algorithms.neural_process:NP",
        "pfn": "raymeta.algorithms.pfn:PFN",
        "meta_weight_net": "raymeta.algorithms.meta_weight_net:MetaWeightNet",
        "plain": "raymeta.algorithms.plain:Plain",
        "l2rw": "raymeta.algorithms.l2rw:L2RW",
        "erm": "raymeta.algorithms.erm:ERM",
        "mldg": "raymeta.algorithms.mldg:MLDG",
        "darts": "raymeta.algorithms.darts:DARTS",
        "enas": "raymeta.algorithms.enas:ENAS",
        "joint": "raymeta.algorithms.joint:JointTraining",
        "baseline": "raymeta.algorithms.baseline:Baseline",
        "maml_rl": "raymeta.algorithms.maml_rl:MAMLRL",
        "l2l": "raymeta.algorithms.l2l:L2L",
        "learned_mlp": "raymeta.algorithms.learned_mlp:LearnedMLP",
        "nas_evolution": "raymeta.algorithms.nas_evolution:RegularizedEvolution",
        "nas_reinforce": "raymeta.algorithms.nas_reinforce:Reinforce",
        "regularized_evolution": "raymeta.algorithms.nas_evolution:RegularizedEvolution",
    },
    "tasks": {
        "sinusoid": "raymeta.tasks.sinusoid:Sinusoid",
        "quadratics": "raymeta.tasks.quadratics:Quadratics",
        "navigation": "raymeta.tasks.navigation:Navigation",
        "cell_table": "raymeta.tasks.cell_table:CellTable",
        "perceptrons": "raymeta.tasks.perceptrons:Perceptrons",
        "mixture": "raymeta.tasks.mixture:Mixture",
        "gaussian_process": "raymeta.tasks.gaussian_process:GaussianProcess",
        "glyphs": "raymeta.tasks.images.glyphs:Glyphs",
        "classification": "raymeta.tasks.classification.task_set:Classification",
        "omniglot": "raymeta.tasks.images.omniglot.task_set:Omniglot",
        "images": "raymeta.tasks.images.folder:Images",
        "tables": "raymeta.tasks.tables.task_set:Tables",
        "text": "raymeta.tasks.text.task_set:Text",
        "arrays": "raymeta.tasks.grouped.arrays:ArrayTasks",
        "function": "raymeta.tasks.function:FunctionTasks",
        "cifar_fs": "raymeta.tasks.images.cifar100:CifarFS",
        "fc100": "raymeta.tasks.images.cifar100:FC100",
        "mini_imagenet": "raymeta.tasks.images.mini_imagenet:MiniImagenet",
        "tabular_prior": "raymeta.tasks.tabular_prior:TabularPrior",
    },
    "model": {
        "mlp": "raymeta.models.mlp:MLP",
        "conv4": "raymeta.models.conv4:Conv4",
        "text": "raymeta.models.text:TextModel",
        "resnet12": "raymeta.models.resnet12:ResNet12",
        "backbone": "raymeta.models.backbones:Backbone",
        "supernet": "raymeta.models.supernet:Supernet",
        "derived": "raymeta.models.derived:Derived",
        "custom": "raymeta.models.custom:Custom",
        "instance": "raymeta.models.instance:Instance",
    },
}
_BASES: dict[Section, str] = {
    "algorithm": "raymeta.algorithms.base:Algorithm",
    "tasks": "raymeta.tasks.base:TaskSet",
    "model": "raymeta.models.base:ModelSpec",
}
_GROUPS: dict[Section, str] = {"algorithm": "raymeta.algorithms", "tasks": "raymeta.tasks", "model": "raymeta.models"}


@cache
def registry(section: Section) -> dict[str, str]:
    """Import path by name: the built-in variants, then those of installed packages in name order.

    Raises `ConfigError` where a package registers a name that is taken.
    """
    paths = dict(BUILT_IN[section])
    for point in sorted(entry_points(group=_GROUPS[section])):
        if paths.get(point.name, point.value) != point.value:
            raise ConfigError(
                f"{_package(point)} registers {section} {point.name}, a name that {paths[point.name]} has already: "
                f"rename its entry point in the group {_GROUPS[section]}, or uninstall it"
            )
        paths[point.name] = point.value
    return paths


def _package(point: EntryPoint) -> str:
    return "an installed package" if point.dist is None else f"the installed package {point.dist.name}"


def import_path(section: Section, name: str) -> str:
    """Where `name` lives; an import path is its own, so equal results mean the same variant."""
    return registry(section).get(name, name)


def base_class(section: Section) -> type[Any]:
    """The abstract class that all variants of `section` derive from."""
    base: type[Any] = imported(_BASES[section], section)
    return base


def variant_class(section: Section, name: str) -> type[Any]:
    """The class called `name`.

    Raises `ConfigError` for an unknown name, a path that cannot be imported, or a class of another kind.
    """
    require_name(section, name)
    path = import_path(section, name)
    cls = imported(path, section)
    if not (isinstance(cls, type) and issubclass(cls, base_class(section)) and dataclasses.is_dataclass(cls)):
        raise ConfigError(
            f"{section} {name} must be a dataclass derived from {_BASES[section].replace(':', '.')}, but {path} is not"
        )
    result: type[Any] = cls
    return result


def require_name(section: Section, name: str) -> None:
    """Raise `ConfigError` for what is neither a name nor an import path; nothing is imported."""
    if not all(import_path(section, name).partition(":")):
        hint = did_you_mean(nearest(name.replace("-", "_"), registry(section)), after=" ")
        raise ConfigError(
            f"there is no {section} called {name}: {hint}choose one of {', '.join(registry(section))}, "
            "or give an import path such as mypackage.module:MyClass"
        )


def section_of(instance: object) -> Section | None:
    """Which section `instance` can stand in."""
    return next((section for section in SECTIONS if isinstance(instance, base_class(section))), None)


def name_of(instance: object) -> str:
    """The name that a configuration gives to the class of `instance`: a registered one, or else its import path.

    Raises `ConfigError` where it is no algorithm, task set or model.
    """
    cls = type(instance)
    section = section_of(instance)
    if section is None:
        raise ConfigError(f"{cls.__qualname__} is no algorithm, task set or model")
    path = f"{cls.__module__}:{cls.__qualname__}"
    for name, registered in registry(section).items():
        same_package = registered.partition(":")[0].partition(".")[0] == cls.__module__.partition(".")[0]
        third_party = name not in BUILT_IN[section]  # may be registered where it is re-exported
        if registered == path or (third_party and same_package and imported(registered, section) is cls):
            return name
    return path
