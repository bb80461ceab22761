"""A command line checked without running it: whether the command would take these arguments."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from raymeta import evaluate, train, tune
from raymeta.__main__ import COMMANDS, module_of
from raymeta.config.__main__ import main as config_command
from raymeta.config.arguments import split_arguments
from raymeta.config.load import load_config
from raymeta.runs.__main__ import parser as runs_parser

HOME = Path(__file__).parents[2]


def parse(command: str, arguments: list[str]) -> None:
    """Raise or exit where a command would refuse its arguments, without running it."""
    assert command in COMMANDS
    if command == "train":
        flags, overrides = split_arguments(arguments, train.FLAGS)
        load_config(files=[Path(f) for f in flags.get("config", [])], overrides=overrides)
    elif command == "tune":
        flags = split_arguments(arguments, tune.FLAGS).flags
        assert all((HOME / file).is_file() for file in flags.get("config", []))
    elif command == "evaluate":
        evaluate.parser().parse_args(evaluate.dashed(arguments))
    elif command == "runs":
        runs_parser().parse_args(arguments)
    elif command == "config":
        assert config_command(arguments) == 0
    else:
        module = import_module(module_of(command))
        with pytest.raises(SystemExit) as exit_of_help:
            module.main([*arguments, "--help"])
        assert exit_of_help.value.code == 0
