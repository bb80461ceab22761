"""What a trained model makes of files, and how good that is: `python -m raymeta.features MODEL FILE [FILE ...]`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymeta.errors import ConfigError, DataError, EnvironmentProblem
from raymeta.system.command_line import Parser, add_verbose, dashed, run_command, say
from raymeta.system.files import write_problem, write_whole
from raymeta.system.quick_torch import import_torch

if TYPE_CHECKING:
    from torch import Tensor

MAP_METHODS = ("pca", "tsne", "umap")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("features", lambda: _features(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raymeta features",
        description="Embed files with a trained model, before any adapting. Of a folder with one sub-folder per class, "
        "a linear probe says how good the embeddings are, beside raw inputs and an untrained network.",
        epilog="example: raymeta features latest photos --out photos.npz --map photos.html",
    )
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, or an exported folder")
    parser.add_argument("files", nargs="+", metavar="FILE|DIR", help="files as for predict, or one folder of classes")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new .npz or .parquet file")
    parser.add_argument("--neighbours", type=int, default=5, metavar="K", help="nearest others of each example [5]")
    parser.add_argument("--map", type=Path, metavar="FILE", help="draw the examples in the plane, as a new HTML file")
    parser.add_argument("--map-method", choices=MAP_METHODS, default="pca", help="[pca]; tsne needs scikit-learn, umap "
                        "umap-learn")  # fmt: skip
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    parser.add_argument("--trust", action="store_true", help="import the code that the model names")
    add_verbose(parser)
    return parser


def _features(arguments: argparse.Namespace) -> int:
    for out, suffixes in ((arguments.out, (".npz", ".parquet")), (arguments.map, (".html",))):
        if out is not None and (out.suffix not in suffixes or out.exists()):
            what = "is there already" if out.exists() else f"must end with {' or '.join(suffixes)}"
            raise ConfigError(f"{out} {what}: name another file")
    if arguments.neighbours < 0:
        raise ConfigError(f"--neighbours {arguments.neighbours}: give a number from 0")

    import_torch()
    from raymeta.use.embedding import features_of, flat_map, judged, nearest
    from raymeta.use.opening import open_model

    model = open_model(arguments.model, output=arguments.output, trust=arguments.trust)
    names, items, labels = _examples(arguments.files, model.reader.kind)
    if len(items) < 2:
        raise DataError("one example has no neighbours: give at least two")
    x = model.reader.read(items)
    z = features_of(model, x)
    columns: dict[str, Any] = {"features": z.numpy(), "files": names}
    columns |= {"labels": labels} if labels else {}
    columns |= {"neighbours": nearest(z, arguments.neighbours).numpy()} if arguments.neighbours else {}
    _write(arguments.out, columns)
    lines = [f"{arguments.out}: {len(z)} examples with {z.shape[1]} features"]
    if labels and len(set(labels)) > 1:
        probes = judged(model, x, z, labels).items()
        lines += [f"  linear probe on {name}: {100 * p.accuracy:.1f} % left out one by one" for name, p in probes]
    if arguments.map is not None:
        write_whole(arguments.map, _drawn(flat_map(z, arguments.map_method), names, labels).encode())
        lines.append(f"  map ({arguments.map_method}): {arguments.map}")
    say("\n".join(lines))
    return 0


def _examples(arguments: Sequence[str], kind: str) -> tuple[list[str], list[Any], list[str]]:
    """Names, examples and, of a folder of classes or a table with labels, labels."""
    from raymeta.tasks.images.files import subfolders
    from raymeta.use.items import named_items
    from raymeta.use.support import labelled_examples

    if len(arguments) == 1 and Path(arguments[0]).is_dir() and subfolders(Path(arguments[0])):
        found = labelled_examples(Path(arguments[0]))
        return found.names, found.items, found.labels
    names, items = named_items(arguments, kind)
    return names, items, []


def _write(out: Path, columns: dict[str, Any]) -> None:
    import numpy as np

    try:
        if out.suffix == ".npz":
            data = io.BytesIO()
            arrays: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
            np.savez(data, **arrays)
            write_whole(out, data.getvalue())
            return
        from raymeta.runs.read import require_pandas

        table = {name: list(values) for name, values in columns.items()}
        require_pandas().DataFrame(table).to_parquet(out, index=False)
    except ImportError as error:
        raise EnvironmentProblem("Parquet files need pyarrow: pip install pyarrow, or write .npz") from error
    except OSError as error:
        raise write_problem(out, error) from error


def _drawn(flat: Tensor, names: Sequence[str], labels: Sequence[str]) -> str:
    """A page that opens offline."""
    from raymeta.views.figures.examples import examples_map
    from raymeta.views.notebook import figure_of

    text: str = figure_of(examples_map(flat.tolist(), names, labels)).to_html(include_plotlyjs=True, full_html=True)
    return text


if __name__ == "__main__":
    sys.exit(main())
