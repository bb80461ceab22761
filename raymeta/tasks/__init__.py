"""Task sets: pure functions from a task's key to its episode.

`base` says what a task set is, and `episodes` holds all algebra on episodes. `border` checks what comes in, and
`manifest` is what a run remembers of its data.

`from raymeta.tasks import Sinusoid`: the task sets themselves are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raymeta.system.public_names import resolved

if TYPE_CHECKING:
    from raymeta.tasks.cell_table import CellTable as CellTable
    from raymeta.tasks.function import FunctionTasks as FunctionTasks
    from raymeta.tasks.gaussian_process import GaussianProcess as GaussianProcess
    from raymeta.tasks.given import from_arrays as from_arrays
    from raymeta.tasks.given import from_dataset as from_dataset
    from raymeta.tasks.given import from_frame as from_frame
    from raymeta.tasks.given import from_function as from_function
    from raymeta.tasks.grouped.arrays import ArrayTasks as ArrayTasks
    from raymeta.tasks.images.cifar100 import FC100 as FC100
    from raymeta.tasks.images.cifar100 import CifarFS as CifarFS
    from raymeta.tasks.images.folder import Images as Images
    from raymeta.tasks.images.glyphs import Glyphs as Glyphs
    from raymeta.tasks.images.mini_imagenet import MiniImagenet as MiniImagenet
    from raymeta.tasks.images.omniglot.task_set import Omniglot as Omniglot
    from raymeta.tasks.mixture import Mixture as Mixture
    from raymeta.tasks.navigation import Navigation as Navigation
    from raymeta.tasks.perceptrons import Perceptrons as Perceptrons
    from raymeta.tasks.quadratics import Quadratics as Quadratics
    from raymeta.tasks.sinusoid import Sinusoid as Sinusoid
    from raymeta.tasks.tables.task_set import Tables as Tables
    from raymeta.tasks.tabular_prior import TabularPrior as TabularPrior
    from raymeta.tasks.text.task_set import Text as Text

_HOMES = {
    "FC100": "images.cifar100",
    "ArrayTasks": "grouped.arrays",
    "CellTable": "cell_table",
    "CifarFS": "images.cifar100",
    "GaussianProcess": "gaussian_process",
    "FunctionTasks": "function",
    "Glyphs": "images.glyphs",
    "Images": "images.folder",
    "MiniImagenet": "images.mini_imagenet",
    "Mixture": "mixture",
    "Navigation": "navigation",
    "Omniglot": "images.omniglot.task_set",
    "Perceptrons": "perceptrons",
    "Quadratics": "quadratics",
    "Sinusoid": "sinusoid",
    "TabularPrior": "tabular_prior",
    "Tables": "tables.task_set",
    "Text": "text.task_set",
    "from_arrays": "given",
    "from_dataset": "given",
    "from_frame": "given",
    "from_function": "given",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolved(__name__, _HOMES, name)
