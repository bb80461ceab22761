"""Networks, one a file, and what is found out about models that people bring.

`base` says what a model specification is. `layers/` holds the layers that networks are built from.

`from raymeta.models import ResNet12`: the models themselves are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raymeta.system.public_names import resolved

if TYPE_CHECKING:
    from raymeta.models.backbones import Backbone as Backbone
    from raymeta.models.conv4 import Conv4 as Conv4
    from raymeta.models.custom import Custom as Custom
    from raymeta.models.derived import Derived as Derived
    from raymeta.models.instance import Instance as Instance
    from raymeta.models.mlp import MLP as MLP
    from raymeta.models.resnet12 import ResNet12 as ResNet12
    from raymeta.models.supernet import Supernet as Supernet
    from raymeta.models.text import TextModel as TextModel

_HOMES = {
    "MLP": "mlp",
    "Backbone": "backbones",
    "Conv4": "conv4",
    "Custom": "custom",
    "Derived": "derived",
    "Instance": "instance",
    "ResNet12": "resnet12",
    "Supernet": "supernet",
    "TextModel": "text",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    return resolved(__name__, _HOMES, name)
