"""An adapted model as one file that predicts without raymeta: a program of torch.export, or an ONNX graph."""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raymeta.errors import ConfigError, EnvironmentProblem, RaymetaError
from raymeta.system.files import write_whole
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.inputs import only
from raymeta.use.adapted import Adapted

TOLERANCE = 1e-5
"""Largest difference of a probability from raymeta's that is accepted."""
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
_ABOUT = "about.json"
"""The extra file of a torch program: labels and preprocessing."""


class _Predictor(nn.Module):
    """Inputs [n, ...] to calibrated probabilities [n, way]."""

    def __init__(self, adapted: Adapted) -> None:
        super().__init__()
        self._predict = adapted.model.predictor(adapted.support, adapted.way)
        self._temperature = 1.0 if adapted.calibration is None else adapted.calibration.temperature

    def forward(self, x: Tensor) -> Tensor:
        return (self._predict(x) / self._temperature).softmax(1)


def write_standalone(adapted: Adapted, out: Path, form: str) -> float:
    """Write `out` in the form `torch` or `onnx`, and compare its probabilities on the support set with raymeta's.

    Returns the largest difference. Raises `ConfigError` for a model that cannot be written so, `EnvironmentProblem`
    without the packages.
    """
    if out.suffix != SUFFIXES[form]:
        raise ConfigError(f"{out} should end with {SUFFIXES[form]}, as others expect of such files")
    x = only(adapted.support.x).to(adapted.model.dtype)
    x = torch.cat([x, x])[: max(len(x), 3)]  # one or two rows would be taken for fixed sizes
    expected = adapted.probabilities(x)
    try:
        found = _torch(adapted, x, out) if form == "torch" else _onnx(adapted, x, out)
    except RaymetaError:
        raise
    except Exception as error:  # the exporters raise anything
        raise_if_interrupt(error)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"this model cannot be written as {form} ({reason[:300]}): use --format raymeta") from error
    difference = float((found.double() - expected).abs().max())
    if not difference <= TOLERANCE:
        out.unlink(missing_ok=True)
        raise ConfigError(f"the {form} file would differ by {difference:.1g} from raymeta's answers: it was not kept")
    return difference


def _program(adapted: Adapted, x: Tensor) -> torch.export.ExportedProgram:
    module = _Predictor(adapted).eval()
    count = torch.export.Dim("examples", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (x,), dynamic_shapes=({0: count},))


def _torch(adapted: Adapted, x: Tensor, out: Path) -> Tensor:
    program = _program(adapted, x)
    torch.export.save(program, out, extra_files={_ABOUT: json.dumps(_contents(adapted))})
    found: Tensor = torch.export.load(out).module()(x)
    return found


def _onnx(adapted: Adapted, x: Tensor, out: Path) -> Tensor:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise EnvironmentProblem(f"ONNX files need {package}: pip install onnx onnxscript onnxruntime")
    onnx, onnxruntime = import_module("onnx"), import_module("onnxruntime")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph: Any = torch.onnx.export(
            _program(adapted, x), (x,), dynamo=True, verbose=False, input_names=["x"], output_names=["probabilities"]
        )
    model = graph.model_proto
    for name, value in _contents(adapted).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    onnx.checker.check_model(model)
    write_whole(out, model.SerializeToString())
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(found)


def _contents(adapted: Adapted) -> dict[str, Any]:
    """What a program needs to know beside the numbers."""
    return {"labels": adapted.classes, "preprocessing": adapted.model.tasks.preprocessing, "outputs": "probabilities"}
