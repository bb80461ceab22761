"""The network of an architecture that was found, or of a random one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from torch import nn

from raymeta.errors import ConfigError, DataError
from raymeta.models.genotype import KINDS, OPERATIONS, Genotype, parsed, random_genotype
from raymeta.models.layers.cells import CellNetwork, edges_of
from raymeta.models.shapes import require_images
from raymeta.models.supernet import CellSpec
from raymeta.options import OUTPUT, STRICT
from raymeta.runs import layout
from raymeta.runs.read import resolve_run
from raymeta.system.reading import first_line, read_json, read_text
from raymeta.tasks.inputs import Shape

_RANDOM = re.compile(r"random:(\d{1,18})")
FOUND, GENOTYPE = "found", "genotype"
"""Where an architecture stands in `summary.json`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Derived(CellSpec):
    """A network of cells whose edges have one operation each (Liu et al., ICLR 2019).

    Its layers are named as in the supernet, so `--start RUN` begins with the shared weights of the search.
    Difference from the paper: poolings are followed by a norm as they are in the search.
    """

    genotype: str
    """the architecture: the run of a search (folder, id, URI or `latest`), a file that holds one, `random:SEED`, or the
    text itself; runs and files are read at once, so that the run's own configuration has the text"""
    nodes: PositiveInt = 4
    """nodes of a cell of a random architecture; others say it themselves"""
    affine: bool = True
    """whether norms after convolutions have a gain and a shift, which those of a search have not"""

    @field_validator("genotype", mode="before")
    @classmethod
    def _read_at_once(cls, value: Any, about: ValidationInfo) -> Any:
        output = (about.context or {}).get(OUTPUT, "results")
        return genotype_text(value, output=output) if isinstance(value, str) else value

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        channels, _, _ = require_images("derived", input_shape)
        edges = {kind: edges_of(cell) for kind, cell in zip(KINDS, self.architecture, strict=True)}
        return CellNetwork(channels, num_outputs, edges, self.size(affine=self.affine))

    @property
    def architecture(self) -> Genotype:
        drawn = _RANDOM.fullmatch(self.genotype)
        return random_genotype(int(drawn[1]), self.nodes, OPERATIONS) if drawn else parsed(self.genotype)


def genotype_text(source: str, *, output: str) -> str:
    """The text of an architecture that `source` is, or names; runs by id and `latest` are looked for in `output`.

    Raises `ValueError` where there is none.
    """
    if _RANDOM.fullmatch(source):
        return source
    if "@" in source and "|" in source:
        return str(parsed(source))
    path = Path(source).expanduser()
    try:
        text = (
            read_text(path) if path.is_file() else found_in(path if path.is_dir() else resolve_run(source, output).path)
        )
        return str(parsed(text))
    except (OSError, UnicodeDecodeError, ConfigError, DataError) as error:
        raise ValueError(
            f"{source} cannot be read: {first_line(error)}. Give the run of a finished search, a file with an "
            "architecture, or random:SEED"
        ) from error


def found_in(run: Path) -> str:
    """What the search of a finished run found. Raises `ValueError` where there is none."""
    try:
        found = read_json(run / layout.SUMMARY).get(FOUND)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{run} is no finished run: its {layout.SUMMARY} cannot be read ({first_line(error)})"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get(GENOTYPE), str):
        raise ValueError(f"{run} is no finished run of a search such as darts")
    return str(found[GENOTYPE])
