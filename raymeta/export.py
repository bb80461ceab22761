"""Write a trained model for others, or an adapted one for use without raymeta: `python -m raymeta.export MODEL`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from raymeta.errors import ConfigError
from raymeta.system.command_line import Parser, add_verbose, dashed, run_command, say
from raymeta.system.quick_torch import import_torch

FORMATS = ("raymeta", "torch", "onnx")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("export", lambda: _export(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raymeta export",
        description="Write a trained model as a folder of weights, configuration and card; or an adapted model as one "
        "file that predicts without raymeta.",
        epilog="examples: raymeta export latest --out my-model; raymeta export my-classes --format onnx --out it.onnx",
    )
    parser.add_argument("model", metavar="MODEL|ADAPTED", help="a run, a checkpoint, or a folder of raymeta adapt")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR|FILE", help="a new folder, or a new file")
    parser.add_argument("--format", choices=FORMATS, default="raymeta", help="raymeta: a folder for raymeta adapt "
                        "and raymeta.from_pretrained; torch (torch.export), onnx: an adapted model")  # fmt: skip
    parser.add_argument("--license", metavar="NAME", help="licence of the model, for its card, such as Apache-2.0")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to a Hugging Face hub, too (private "
                        "where it is new; pip install 'raymeta[hub]')")  # fmt: skip
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    parser.add_argument("--trust", action="store_true", help="import the code that the model names")
    add_verbose(parser)
    return parser


def _export(arguments: argparse.Namespace) -> int:
    import_torch()
    from raymeta.algorithms.base import TrainedModel
    from raymeta.use.folder import is_adapted_folder, read_adapted, require_free, write_model
    from raymeta.use.opening import open_model
    from raymeta.use.push import push, require_hub

    require_free(arguments.out)
    if arguments.format == "raymeta":
        if arguments.push is not None:
            require_hub(arguments.push)
        model = open_model(arguments.model, output=arguments.output, trust=arguments.trust, measured=True)
        write_model(model.licensed(arguments.license), arguments.out)
        by_examples = f"adapt it: raymeta adapt {arguments.out} --support DIR --out ADAPTED"
        knows_its_classes = isinstance(model.algorithm, TrainedModel)
        further = f"predict: raymeta predict {arguments.out} FILES" if knows_its_classes else by_examples
        say(f"{arguments.out}\n{further}")
        if arguments.push is not None:
            say(f"pushed to {push(arguments.out, arguments.push)}")
        return 0
    if arguments.push is not None or arguments.license is not None:
        raise ConfigError("--push and --license are of models (--format raymeta): leave them out")
    path = Path(arguments.model)
    if not is_adapted_folder(path):
        raise ConfigError(
            f"--format {arguments.format} writes what predicts classes, and {arguments.model} has none yet: adapt it "
            "first, with raymeta adapt MODEL --support DIR --out ADAPTED. A model of --tasks classification adapts to "
            "nothing: leave --format out, and take raymeta predict FOLDER FILES, or "
            "raymeta.from_pretrained(FOLDER).module()"
        )
    from raymeta.use.standalone import write_standalone

    largest = write_standalone(read_adapted(path, trust=arguments.trust), arguments.out, arguments.format)
    say(f"{arguments.out}: its outputs differ by at most {largest:.1g} from raymeta's on the support set")
    return 0


if __name__ == "__main__":
    sys.exit(main())
