"""The configuration: layers, switches of variants, errors, round trips, presets."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from raymeta.algorithms.maml import MAML
from raymeta.algorithms.reptile import Reptile
from raymeta.config import __main__ as command
from raymeta.config import variants
from raymeta.config.arguments import Flag, split_arguments
from raymeta.config.class_options import REQUIRED
from raymeta.config.describe import all_keys, run_options, section_options
from raymeta.config.load import dump, load_config
from raymeta.config.schema import RunConfig, RunOptions, seconds
from raymeta.config.yaml_lines import parse, scalar, write
from raymeta.engine.driver.outer import OuterOptions
from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.mlp import MLP
from raymeta.options import (
    FREE_ON_RESUME,
    IMPORTED,
    NOT_SEARCHED,
    OF_THE_PERSON,
    OF_WORKERS,
    OWNED_BY_SWEEP,
    marked,
)
from raymeta.presets.files import DEFAULT, description, preset_names
from raymeta.system.text import dotted
from raymeta.tasks.sinusoid import Sinusoid

FLAGS = (
    Flag(("-c", "--config"), "many", "file", "FILE"),
    Flag(("--resume",), "maybe", "run"),
    Flag(("-q", "--quiet"), "nothing", "quiet"),
    Flag(("--log-format",), "one", "format"),
)
Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "run.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_file


def load(*argv: str, files: list[Path] | None = None, preset: str | None = None) -> RunConfig:
    return load_config(preset=preset, files=files or [], overrides=split_arguments(argv, FLAGS).overrides).config


def mistakes(*argv: str, files: list[Path] | None = None, preset: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*argv, files=files, preset=preset)
    return str(caught.value).splitlines()


# Order of the layers


def test_defaults_then_preset_then_files_in_order_then_command_line(file: Write) -> None:
    one = file("preset: sinusoid-maml\nseed: 1\nsteps: 11\nalgorithm: {inner_lr: 0.5, inner_steps: 2}")
    two = file("seed: 2\nalgorithm: {inner_lr: 0.6}", "two.yaml")
    config = load("--algorithm.inner_lr", "0.7", files=[one, two])
    assert (config.meta_batch_size, config.validation_episodes) == (25, 200)  # preset, default
    assert (config.steps, config.seed) == (11, 2)
    assert config.algorithm == MAML(inner_lr=0.7, inner_steps=2, test_inner_steps=10)


def test_without_preset_and_file_the_default_preset_is_used(file: Write) -> None:
    assert load("--steps", "7").preset == DEFAULT
    with pytest.raises(ConfigError, match="tasks is missing"):
        load(files=[file("steps: 7")])


@pytest.mark.parametrize(
    ("argv", "preset", "expected"),
    [((), None, "sinusoid-maml"), ((), "omniglot-5w1s-anil", "omniglot-5w1s-anil"),
     (("--preset", "omniglot-5w1s-maml"), "omniglot-5w1s-anil", "omniglot-5w1s-maml")],
)  # fmt: skip
def test_the_preset_of_the_highest_layer_is_the_base_and_is_recorded(
    file: Write, argv: tuple[str, ...], preset: str | None, expected: str
) -> None:
    files = [file("preset: omniglot-5w1s-reptile"), file("preset: sinusoid-maml", "two.yaml")]
    config = load(*argv, files=files, preset=preset)
    assert config == load(preset=expected)
    assert config.preset == expected


def test_a_section_with_nothing_in_it_changes_nothing(file: Write) -> None:
    emptied = file("preset: sinusoid-maml\nouter:\nalgorithm:\n  # inner_lr: 1\n")
    assert load(files=[emptied]) == load(preset="sinusoid-maml")


def test_dotted_keys_in_a_file_equal_nested_ones(file: Write) -> None:
    nested = file("preset: sinusoid-maml\nalgorithm: {name: maml, inner_lr: 0.3, adapt_only: [a, b]}\nouter: {lr: 0.1}")
    dotted = file(
        "preset: sinusoid-maml\nalgorithm.inner_lr: 0.3\nalgorithm: maml\nalgorithm.adapt_only: [a, b]\nouter.lr: 0.1",
        "b.yaml",
    )
    assert load(files=[nested]) == load(files=[dotted])
    twice = file("preset: sinusoid-maml\nalgorithm: {inner_lr: 0.3}\nalgorithm.inner_lr: 0.4", "c.yaml")
    assert mistakes(files=[twice])[0].startswith(f"{twice}:3: algorithm.inner_lr is given twice")


# Switching a variant


def test_switching_the_algorithm_starts_from_its_own_defaults_and_tells_what_was_dropped() -> None:
    overrides = split_arguments(["--algorithm", "reptile"], FLAGS).overrides
    loaded = load_config(preset="omniglot-5w1s-maml", overrides=overrides)
    assert loaded.config.algorithm == Reptile()  # MAML's inner_lr 0.4 must not survive
    assert loaded.config.outer == OuterOptions(**Reptile.outer)
    (note,) = loaded.notes
    for word in ("command line --algorithm", "maml", "reptile", "algorithm.inner_lr", "outer.lr"):
        assert word in note


@pytest.mark.parametrize("order", [1, -1])
def test_a_layer_that_switches_keeps_its_own_settings_in_any_order(file: Write, order: int) -> None:
    lines = ["outer: {lr: 0.5}", "algorithm: {name: reptile, inner_lr: 0.7}", "preset: omniglot-5w1s-maml"][::order]
    from_file = load(files=[file("\n".join(lines))])
    pairs = [("--outer.lr", "0.5"), ("--algorithm.inner_lr", "0.7"), ("--algorithm", "reptile")][::order]
    from_command_line = load(*(token for pair in pairs for token in pair), preset="omniglot-5w1s-maml")
    assert from_file == from_command_line
    assert from_file.algorithm == Reptile(inner_lr=0.7)
    assert from_file.outer == OuterOptions(**{**Reptile.outer, "lr": 0.5})


@pytest.mark.parametrize("name", ["maml", "raymeta.algorithms.maml:MAML"])
def test_naming_the_variant_that_is_there_drops_nothing(name: str) -> None:
    overrides = split_arguments([f"algorithm={name}"], FLAGS).overrides
    loaded = load_config(preset="omniglot-5w1s-maml", overrides=overrides)
    assert loaded.config == load(preset="omniglot-5w1s-maml")
    assert loaded.notes == []


def test_switching_tasks_keeps_the_outer_optimiser() -> None:
    config = load("--tasks", "omniglot", preset=DEFAULT)
    assert config.outer == load(preset=DEFAULT).outer
    assert dataclasses.asdict(config.tasks) == dataclasses.asdict(variants.variant_class("tasks", "omniglot")())


def test_the_outer_defaults_are_the_algorithms_then_the_general_ones() -> None:
    parts: dict[str, Any] = {"tasks": Sinusoid(), "model": MLP()}
    assert RunConfig(**parts, algorithm=Reptile(), outer={"lr": 0.5}).outer == OuterOptions(
        **{**Reptile.outer, "lr": 0.5}
    )
    assert RunConfig(**parts, algorithm=MAML()).outer == OuterOptions()


# Python callers


def test_instances_are_taken_as_they_are() -> None:
    algorithm, tasks = MAML(inner_lr=0.3), Sinusoid(shot=3)
    config = load_config(overrides={"algorithm": algorithm, "tasks": tasks, "model": MLP(), "outer.lr": 0.1}).config
    assert config.algorithm is algorithm
    assert config.tasks is tasks
    assert config.outer.lr == 0.1


@dataclasses.dataclass(frozen=True)
class Odd(ModelSpec):
    """A third party's plain dataclass."""

    size: int = 3

    def build(self, input_shape: tuple[int, ...], num_outputs: int | None) -> Any: ...


class NoDataclass(ModelSpec):
    def build(self, input_shape: tuple[int, ...], num_outputs: int | None) -> Any: ...


def test_a_variant_that_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(ConfigError, match="NoDataclass must be a dataclass"):
        load_config(overrides={"model": NoDataclass()})
    with pytest.raises(ConfigError, match="inner_lr where that is made"):
        load_config(overrides={"algorithm": MAML(), "algorithm.inner_lr": 1.0})


def test_a_variant_may_be_an_import_path(file: Write) -> None:
    config = load("--model", f"{__name__}:Odd", "--model.size", "5", preset="sinusoid-maml")
    assert config.model == Odd(size=5)
    assert load(files=[file(dump(config))]) == config


def test_installed_packages_add_variants_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("odd", f"{__name__}:Odd", "raymeta.models")]
    monkeypatch.setattr(variants, "entry_points", lambda group: [p for p in points if p.group == group])
    variants.registry.cache_clear()
    try:
        assert load("--model", "odd", preset="sinusoid-maml").model == Odd()
        assert variants.name_of(Odd()) == "odd"
        variants.registry.cache_clear()
        points[:] = [EntryPoint("mlp", f"{__name__}:Odd", "raymeta.models")]
        with pytest.raises(ConfigError, match="registers model mlp"):
            variants.registry("model")
    finally:
        variants.registry.cache_clear()


@pytest.mark.parametrize("section", variants.SECTIONS)
def test_every_built_in_variant_exists_and_knows_its_name(section: variants.Section) -> None:
    for name, path in variants.BUILT_IN[section].items():
        cls = variants.variant_class(section, name)
        assert f"{cls.__module__}:{cls.__qualname__}" == path
        assert all(option.meaning for option in section_options(section, name).values()), name


# Errors


def test_all_mistakes_are_told_at_once_each_with_its_place(file: Write) -> None:
    path = file(
        "preset: sinusoid-maml\nalgorithm:\n  iner_lr: 0.3\n  inner_steps: -1\nstps: 5\n"
        "outer:\n  lr: fast\nseed: 1.5\ntasks: {way: 3}\nseed: 2\n"
    )
    told = "\n".join(mistakes("--workers", "-2", files=[path]))
    for expected in (
        f"{path}:3: there is no option algorithm.iner_lr: did you mean algorithm.inner_lr?",
        f"{path}:4: algorithm.inner_steps -1 should be greater than or equal to 0. It is inner steps K in training",
        f"{path}:5: there is no option stps: did you mean steps?",
        f"{path}:7: outer.lr 'fast' should be a valid number",
        f"{path}:8: seed 1.5 should be a valid integer",
        f"{path}:9: tasks.way belongs to glyphs",
        f"{path}:10: seed is given twice (before in line 8)",
        "command line --workers: workers -2 should be greater than or equal to 0",
        "(whole number ≥ 0)",
    ):
        assert expected in told
    assert len(told.splitlines()) == 8


def test_an_option_of_another_variant_is_explained() -> None:
    assert mistakes("--algorithm.inner_lr", "0.1", preset="omniglot-5w1s-protonet") == [
        "command line --algorithm.inner_lr: algorithm.inner_lr belongs to maml, maml_pp, cavia, meta_curvature, "
        "imaml, anil, reptile, hsml, metail, mldg, joint and maml_rl; this run uses protonet"
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--algorithm.first_order", "yes"), "first_order 'yes' should be a valid boolean"),
        (("--algorithm.first_order", "1"), "should be a valid boolean"),
        (("--steps", "007"), "steps '007' should be a valid integer"),
        (("--steps", "true"), "steps True should be a valid integer"),
        (("--steps",), "command line --steps (without a value)"),
        (("--name",), "should be a valid string"),
        (("--algorithm.inner_lr", ".nan"), "should be a finite number"),
        (("--outer.lr", ".inf"), "should be a finite number"),
        (("--outer.lr", "0"), "should be greater than 0"),
        (("--steps.foo", "3"), "should be a valid integer"),
        (("--inner_lr", "3"), "did you mean algorithm.inner_lr?"),
        (("--time-limit", "soon"), "write 90, 20s, 55m or 1h30m"),
        (("--time-limit", "0"), "should be greater than 0"),
        (("--device", "tpu"), "'cpu'"),
        (("--tasks", "images"), "tasks.root is missing: folder with one sub-folder per class"),
        (("--algorithm", "mamll"), "did you mean maml?"),
        (("--algorithm", "nowhere.at_all:MAML"), "cannot be imported: No module named 'nowhere'"),
        (("--algorithm", "raymeta.algorithms.maml:Nothing"), "cannot be imported"),
        (("--algorithm", "raymeta.models.mlp:MLP"), "must be a dataclass derived from"),
        (("--algorithm", ":x"), "there is no algorithm called :x"),
        (("--algorithm", "[1]"), "algorithm is a name or a mapping of options"),
        (("--outer", "3"), "outer is a mapping of options"),
        (("--tasks", "tabular_prior", "--tasks.train_shots", "3"), "tasks.train_shots [3] has too few values. It is"),
        (("--algorithm.step_weights", "[1, 2]"), "step_weights has 2 entries for 1 inner_steps"),
        (("--preset", "sinusoid-mamm"), "did you mean sinusoid-maml?"),
        (("--tasks", "sinusoid", "--algorithm", "protonet"), "protonet does classification, but tasks sinusoid"),
    ],
)
def test_a_mistake_on_the_command_line_is_refused(argv: tuple[str, ...], expected: str) -> None:
    assert expected in "\n".join(mistakes(*argv))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2", ":2: column 2: "),
        ("a: b: c", ":1: column 5: "),
        ("steps: 5\n\tx: 1", ":2: column 1: "),
        ("steps: 5\nname: \x07", ":2: "),
        ("a: &x [*x]", "an alias that contains itself"),
        ("a: !!python/object:os.system x", "is not supported"),
        ("a: 1\n---\nb: 2", "another document"),
        ("- steps", "is a mapping of options, not a list"),
        ("steps", "is a mapping of options, not a str"),
    ],
)
def test_what_is_no_configuration_file_is_refused(file: Write, text: str, expected: str) -> None:
    path = file(text)
    told = "\n".join(mistakes(files=[path]))
    assert told.startswith(str(path))
    assert expected in told


def test_files_that_cannot_be_read_are_all_told(tmp_path: Path, file: Write) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    bad = [tmp_path / "absent.yaml", tmp_path, tmp_path / "latin.yaml", file("[")]
    told = mistakes(files=bad)
    assert [str(path) in line for path, line in zip(bad, told, strict=True)] == [True] * 4
    assert ConfigError.exit_code == 2


# Scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1.5E+2", 150.0), ("6e4", 60000), ("-3", -3), (".5", 0.5), ("007", "007"), ("no", "no"),
     ("yes", "yes"), ("on", "on"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
     ("1_000", "1_000"), ("0x10", "0x10"), ("12:30", "12:30"), ("2020-01-01", "2020-01-01"), ("-", "-"),
     ("-.inf", float("-inf"))],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    for got in (scalar(text), parse(f"a: {text}", "f").value["a"] if text != "-" else value):
        assert got == value
        assert type(got) is type(value)


def test_every_text_survives_writing_and_reading() -> None:
    texts = "007 1e-3 6e4 no yes on true null ~ 1 1.5 .inf 0x10 1_000 12:30 2020-01-01 = << - # ' \" [ { & * ! | > % @"
    values = {
        "texts": [*texts.split(), "", " a", "a: b", "x\ny", "é☃", "\x07"],
        "numbers": [1e-5, 1e16, 0.1, -0.0, 10**20],
    }
    assert parse(write({**values, "mapping": {"007": {}}}), "f").value == {**values, "mapping": {"007": {}}}


def test_text_options_take_what_looks_like_a_number_as_it_was_written(file: Write) -> None:
    assert load("--name", "1.50").name == "1.50"
    assert load(files=[file("preset: sinusoid-maml\nname: 007\noutput: 2026")]).output == "2026"


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("20s", 20), ("55m", 3300), ("1h30m", 5400), ("1h30m5s", 5405), ("0.5h", 1800)]
)
def test_durations_are_seconds(text: str, expected: float, file: Write) -> None:
    config = load("--time-limit", text)
    assert config.time_limit == expected
    assert load(files=[file(dump(config))]).time_limit == expected


@pytest.mark.parametrize("text", ["", "h", "m5", "1m1h", "5 m", "-5", "1d", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text)


# The command line


def test_keys_and_flags_are_told_apart() -> None:
    argv = "-c a.yaml --meta-batch-size 3 outer.momentum=0.5 --outer.weight_decay=-.5 -q --algorithm.first-order"
    flags, overrides = split_arguments([*argv.split(), *["--name", "x=y", "--config", "b.yaml", "--resume"]], FLAGS)
    assert flags == {"config": ["a.yaml", "b.yaml"], "quiet": True, "resume": True}
    assert [(o.key, o.value) for o in overrides] == [
        ("meta_batch_size", 3),
        ("outer.momentum", 0.5),
        ("outer.weight_decay", -0.5),
        ("algorithm.first_order", True),
        ("name", True),  # a KEY=VALUE follows, so that it has no value: refused when it is checked
        ("x", "y"),
    ]


def test_a_switch_may_be_followed_by_a_key() -> None:
    config = load("--algorithm.first_order", "steps=5", "--outer.momentum", "0.5")
    assert (config.algorithm, config.steps) == (dataclasses.replace(load().algorithm, first_order=True), 5)  # type: ignore[type-var]


def test_values_may_be_lists_mappings_and_quoted() -> None:
    config = load("--tags", "[a, '7']", "--model", "custom", "--model.path", "m:f", "--model.options", "{a: 1}",
                  "--model.options.b", "[1e-3]", "--name", "'2'")  # fmt: skip
    assert config.tags == ["a", "7"]
    assert config.model.options == {"a": 1, "b": [0.001]}  # type: ignore[attr-defined]
    assert config.name == "2"
    assert load("--tags", "a, b").tags == ["a", "b"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["run.yaml"], "belongs to no option"),
        (["--"], "belongs to no option"),
        (["-x"], "there is no flag -x"),
        (["--resum", "latest"], "did you mean --resume?"),
        (["-c"], "-c needs a value"),
        (["--quiet=false"], "takes no value"),
        (["--tags", "[a"], "command line --tags"),
    ],
)
def test_a_malformed_command_line_is_refused(argv: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match="command line") as caught:
        split_arguments(argv, FLAGS)
    assert expected in str(caught.value)


# Round trips and presets


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize(
    "argv",
    [(), ("--seed", "5", "--tags", "a,7", "--name", "no", "--time-limit", "1h", "--outer.clip_norm", "1e-3"),
     ("--tasks", "glyphs", "--model", "resnet12", "--algorithm", "reptile"),
     ("--tasks", "images", "--tasks.root", "~/a: b", "--tasks.channels", "3", "--model", "custom",
      "--model.path", "m:f", "--model.options", "{x: 1e-3, y: [null, 'null', {}]}", "--algorithm", "baseline")],
    ids=["as it is", "scalars", "switched", "free text"],
)  # fmt: skip
def test_a_printed_configuration_reloads_to_an_equal_one(name: str, argv: tuple[str, ...], file: Write) -> None:
    config = load(*argv, preset=name)
    again = load(files=[file(dump(config))])
    assert again == config
    assert dump(again) == dump(config)


PINNED: dict[str, dict[str, Any]] = {
    # Finn et al. 2017, section 5.1 and appendix; their code for batch and iterations
    "sinusoid-maml": {
        "tasks.name": "sinusoid", "tasks.shot": 10, "tasks.train_query_shot": 10, "model.hidden": [40, 40],
        "model.init": "truncated_normal", "algorithm.name": "maml", "algorithm.inner_lr": 0.01,
        "algorithm.inner_steps": 1, "algorithm.test_inner_steps": 10, "algorithm.first_order": False,
        "meta_batch_size": 25, "steps": 70000, "outer.optimizer": "adam", "outer.lr": 0.001,
    },
    # Finn et al. 2017, appendix A.1; the scale of the rates from their code (a loss summed over classes)
    "omniglot-5w1s-maml": {
        "tasks.name": "omniglot", "tasks.way": 5, "tasks.shot": 1, "tasks.query_shot": 1,
        "tasks.train_query_shot": None, "tasks.rotations": "episode", "model.name": "conv4", "model.width": 64,
        "model.downsample": "stride", "model.pooling": "mean", "algorithm.inner_lr": 0.4,
        "algorithm.inner_loss_reduction": "sum_over_classes", "algorithm.inner_steps": 1,
        "algorithm.test_inner_steps": 3, "meta_batch_size": 32, "steps": 60000, "outer.optimizer": "adam",
        "outer.lr": 0.001, "batch_norm": "transductive",
    },
    "omniglot-20w1s-maml": {
        "tasks.way": 20, "tasks.shot": 1, "tasks.query_shot": 1, "tasks.rotations": "episode",
        "model.downsample": "stride", "model.pooling": "mean", "model.width": 64, "algorithm.inner_lr": 0.1,
        "algorithm.inner_loss_reduction": "sum_over_classes", "algorithm.inner_steps": 5,
        "algorithm.test_inner_steps": None, "meta_batch_size": 16, "steps": 60000, "outer.lr": 0.001,
    },
    # Yao et al. 2021, Omniglot with one shot
    "omniglot-20w1s-metamix": {
        "tasks.way": 20, "tasks.shot": 1, "tasks.query_shot": 1, "model.width": 64, "algorithm.inner_lr": 0.1,
        "algorithm.inner_steps": 5, "algorithm.test_inner_steps": 10, "meta_batch_size": 8, "steps": 50000,
        "mixing": "metamix", "mixing_beta": 2, "mixing_layers": None, "channel_shuffle": 0.5,
        "channel_shuffle_after": 2000, "outer.optimizer": "adam", "outer.lr": 0.001,
    },
    # Nichol et al. 2018, README command and appendix
    "omniglot-5w1s-reptile": {
        "tasks.way": 5, "tasks.shot": 1, "tasks.query_shot": 1, "tasks.train_shot": 10, "tasks.train_query_shot": 0,
        "model.downsample": "stride", "model.pooling": "flatten", "algorithm.name": "reptile",
        "algorithm.inner_lr": 0.001, "algorithm.inner_steps": 5, "algorithm.inner_batch_size": 10,
        "algorithm.test_inner_steps": 50, "algorithm.test_inner_batch_size": 5, "algorithm.inner_optimizer": "adam",
        "meta_batch_size": 5, "steps": 100000, "outer.optimizer": "sgd", "outer.lr": 1.0, "outer.schedule": "linear",
        "outer.final_lr": 0.0, "batch_norm": "transductive",
    },
    # Snell et al. 2017, section 3.1 and their code
    "omniglot-5w1s-protonet": {
        "tasks.way": 5, "tasks.shot": 1, "tasks.query_shot": 15, "tasks.train_way": 60, "tasks.train_query_shot": 5,
        "tasks.rotations": "classes", "tasks.split_scheme": "vinyals", "model.downsample": "pool",
        "model.pooling": "flatten", "model.width": 64, "algorithm.name": "protonet", "outer.optimizer": "adam",
        "outer.lr": 0.001, "outer.schedule": "step", "outer.step_every": 2000, "outer.step_factor": 0.5,
    },
    # Raghu et al. 2020: MAML's settings with five steps of the head
    "omniglot-5w1s-anil": {"algorithm.name": "anil", "algorithm.inner_steps": 5, "tasks.way": 5, "tasks.shot": 1},
    # Li et al. 2017, section 4: rates from [0.005, 0.1], one step, 15 queries
    "omniglot-5w1s-meta-sgd": {
        "algorithm.name": "meta_sgd", "algorithm.init_lr": [0.005, 0.1], "algorithm.inner_steps": 1, "steps": 60000,
        "tasks.query_shot": 15,
    },
    # Antoniou et al. 2019, the released configurations
    "omniglot-5w1s-maml-pp": {
        "algorithm.name": "maml_pp", "algorithm.inner_lr": 0.1, "algorithm.inner_steps": 5,
        "algorithm.multi_step_epochs": 10, "algorithm.epoch_steps": 500, "algorithm.learned_rates": True,
        "algorithm.step_statistics": True, "algorithm.step_affine": True, "meta_batch_size": 8, "steps": 50000,
        "model.downsample": "pool", "model.pooling": "flatten", "model.width": 64, "outer.schedule": "cosine",
        "outer.lr": 0.001, "outer.final_lr": 0.00001,
    },
    # Zintgraf et al. 2019, their code's settings of mini-ImageNet
    "omniglot-5w1s-cavia": {
        "algorithm.name": "cavia", "algorithm.enters": "film", "algorithm.num_context": 100, "algorithm.inner_lr": 1.0,
        "algorithm.inner_steps": 2, "algorithm.clip_task_value": 10.0, "meta_batch_size": 16, "steps": 60000,
        "outer.step_every": 5000, "outer.step_factor": 0.9,
    },
    # Park and Oliva 2019 with MAML's settings of Omniglot
    "omniglot-5w1s-meta-curvature": {
        "algorithm.name": "meta_curvature", "algorithm.inner_lr": 0.4, "algorithm.inner_steps": 1, "steps": 60000,
        "algorithm.inner_loss_reduction": "sum_over_classes",
    },
    # Rusu et al. 2019, released code, mini-ImageNet with one shot
    "omniglot-5w1s-leo": {
        "algorithm.name": "leo", "algorithm.num_latents": 64, "algorithm.latent_steps": 5, "algorithm.weight_steps": 5,
        "algorithm.init_latent_lr": 1.0, "algorithm.init_weight_lr": 0.001, "algorithm.dropout": 0.308,
        "algorithm.kl_weight": 0.756, "algorithm.encoder_weight": 5.757e-6, "algorithm.l2_weight": 3.623e-10,
        "algorithm.orthogonality_weight": 0.188, "meta_batch_size": 12, "tasks.query_shot": 15,
        "outer.clip_value": 0.1, "outer.clip_norm": 0.1,
    },
    # Ravi and Larochelle 2017, mini-ImageNet with one shot
    "omniglot-5w1s-meta-lstm": {
        "algorithm.name": "meta_lstm", "algorithm.inner_steps": 12, "algorithm.hidden": 20, "steps": 75000,
        "model.width": 32, "outer.lr": 0.001, "outer.clip_norm": 0.25, "tasks.query_shot": 15,
    },
    # Oh et al. 2021: 0.5 on the body, one step
    "omniglot-5w1s-boil": {
        "algorithm.name": "anil", "algorithm.adapts": "body", "algorithm.inner_lr": 0.5, "algorithm.inner_steps": 1,
    },
    # Rajeswaran et al. 2019, the authors' code
    "omniglot-5w1s-imaml": {
        "algorithm.name": "imaml", "algorithm.inner_steps": 16, "algorithm.inner_lr": 0.1, "algorithm.proximal": 2.0,
        "algorithm.cg_steps": 5, "meta_batch_size": 32, "tasks.query_shot": 1, "outer.lr": 0.001,
    },
    # Garnelo et al. 2018, section 4.1 and code; arXiv:1807.01622
    "gp-cnp": {
        "tasks.name": "gaussian_process", "tasks.length_scale": [0.4, 0.4], "tasks.noise": [0.02, 0.02],
        "tasks.train_shots": [1, 10], "algorithm.name": "cnp", "algorithm.hidden": 128, "outer.lr": 0.0001,
        "meta_batch_size": 64, "steps": 200000,
    },
    "gp-np": {"tasks.name": "gaussian_process", "tasks.train_shots": [1, 10], "algorithm.name": "np"},
    "omniglot-5w1s-cnp": {"algorithm.name": "cnp", "tasks.way": 5, "tasks.shot": 1},
    "omniglot-5w1s-cnaps": {"algorithm.name": "cnaps", "tasks.way": 5, "tasks.shot": 1, "outer.lr": 0.001},
    # Yao et al. 2019, section 5.1 and appendix
    "mixture-hsml": {
        "tasks.name": "mixture", "tasks.shot": 10, "tasks.train_query_shot": 10, "algorithm.name": "hsml",
        "algorithm.inner_lr": 0.001, "algorithm.inner_steps": 5, "algorithm.embedding": 40, "algorithm.leaves": 4,
        "algorithm.parents": 2, "algorithm.sigma": 2.0, "algorithm.reconstruction": 0.01, "meta_batch_size": 25,
        "steps": 70000, "outer.lr": 0.001,
    },
    "omniglot-5w1s-hsml": {"algorithm.name": "hsml", "algorithm.sigma": 10.0, "tasks.way": 5, "tasks.shot": 1},
    # Mishra et al. 2018, section 5.1 and appendix
    "omniglot-5w1s-snail": {
        "algorithm.name": "snail", "algorithm.scale": 1, "tasks.way": 5, "tasks.shot": 1, "meta_batch_size": 32,
        "outer.optimizer": "adam", "outer.lr": 0.001,
    },
    # Santoro et al. 2016, section 4: ten instances of each of five classes
    "omniglot-5w1s-mann": {
        "algorithm.name": "mann", "algorithm.hidden": 200, "algorithm.memory_slots": 128, "algorithm.memory_width": 40,
        "algorithm.read_heads": 4, "tasks.way": 5, "tasks.shot": 1, "tasks.query_shot": 9, "meta_batch_size": 16,
        "steps": 100000, "model.hidden": [], "outer.lr": 0.0001,
    },
    # Müller et al. 2022; sizes for two processors
    "gp-pfn": {
        "tasks.name": "gaussian_process", "tasks.length_scale": [0.4, 0.4], "tasks.train_shots": [1, 20],
        "algorithm.name": "pfn", "algorithm.bars": 100, "outer.schedule": "cosine",
    },
    "tabular-pfn": {"tasks.name": "tabular_prior", "algorithm.name": "pfn", "algorithm.standardize": True},
    "omniglot-5w1s-pfn": {"algorithm.name": "pfn", "tasks.way": 5, "tasks.shot": 1},
    # Ren et al. 2018 and Shu et al. 2019: noise, batch and rates; Gulrajani and Lopez-Paz 2021: RotatedMNIST
    "glyphs-plain": {"tasks.name": "classification", "tasks.noise_share": 0.4, "algorithm.part": "train"},
    "glyphs-l2rw": {
        "tasks.noise": "uniform_flip", "tasks.noise_share": 0.4, "tasks.clean": 0.1, "algorithm.name": "l2rw",
        "outer.optimizer": "sgd", "outer.lr": 0.1, "outer.momentum": 0.9, "outer.weight_decay": 0.0005,
    },
    "glyphs-meta-weight-net": {
        "algorithm.name": "meta_weight_net", "algorithm.hidden": 100, "algorithm.weighting_lr": 0.001,
        "algorithm.weighting_decay": 0.0001, "tasks.noise": "uniform_flip", "outer.lr": 0.1, "outer.momentum": 0.9,
    },
    # Zhou et al. 2022: the authors' script for CIFAR-100
    "glyphs-metadistil": {
        "algorithm.name": "metadistil", "algorithm.temperature": 4.0, "algorithm.teacher_lr": 0.05, "outer.lr": 0.05,
        "outer.optimizer": "sgd", "outer.momentum": 0.9, "outer.weight_decay": 0.0005, "model.width": 8,
        "algorithm.teacher_width": 64,
    },
    "glyphs-mkd": {"algorithm.name": "mkd", "algorithm.temperature": 4.0, "algorithm.teacher_width": 64},
    # Li et al. 2020
    "glyphs-dada": {
        "algorithm.name": "dada", "algorithm.policy_lr": 0.005, "algorithm.temperature": 0.5, "outer.lr": 0.1,
        "outer.weight_decay": 0.0002,
    },
    "glyphs-erm": {
        "tasks.domains": "angles", "tasks.angles": [0, 15, 30, 45, 60, 75], "tasks.batch": 64, "algorithm.name": "erm",
        "outer.lr": 0.001,
    },
    "glyphs-mldg": {
        "tasks.domains": "angles", "tasks.pairing": "pairs", "tasks.batch": 64, "algorithm.name": "mldg",
        "algorithm.first_order": True, "algorithm.inner_optimizer": "adam", "algorithm.inner_lr": 0.001,
        "algorithm.query_weight": 1.0, "outer.optimizer": "adam", "outer.lr": 0.001,
    },
    # Andrychowicz et al. 2016, sections 3.1 and 3.2 and the authors' code; Metz et al. 2019, Vicol et al. 2021
    "quadratics-l2l": {
        "tasks.name": "quadratics", "tasks.dim": 10, "algorithm.name": "l2l", "algorithm.unroll": 20,
        "algorithm.windows": 5, "algorithm.hidden": 20, "algorithm.layers": 2, "meta_batch_size": 128, "steps": 50000,
        "outer.optimizer": "adam", "outer.lr": 0.001,
    },
    "glyphs-l2l": {
        "tasks.name": "glyphs", "model.hidden": [20], "model.activation": "sigmoid", "algorithm.name": "l2l",
        "algorithm.unroll": 20, "algorithm.windows": 5, "algorithm.init_std": 0.01, "outer.lr": 0.001,
    },
    # Liu et al. 2019, appendix A.1
    "glyphs-darts": {
        "algorithm.name": "darts", "algorithm.architecture_decay": 0.001, "outer.optimizer": "sgd", "outer.lr": 0.025,
        "outer.momentum": 0.9, "outer.weight_decay": 0.0003, "outer.schedule": "cosine", "outer.clip_norm": 5.0,
    },
    # Pham et al. 2018, section 3.2
    "glyphs-enas": {
        "algorithm.name": "enas", "algorithm.entropy_weight": 0.0001, "outer.optimizer": "sgd", "outer.lr": 0.05,
        "outer.final_lr": 0.001, "outer.momentum": 0.9, "outer.weight_decay": 0.0001, "outer.schedule": "cosine",
    },
    # Real et al. 2019 and Zoph and Le 2017, for a table
    "perceptrons-nas-evolution": {"algorithm.name": "nas_evolution", "tasks.name": "perceptrons", "validate_every": 0},
    "perceptrons-nas-reinforce": {"algorithm.name": "nas_reinforce", "algorithm.hidden": 35, "algorithm.layers": 2},
    "glyphs-learned-mlp": {"algorithm.name": "learned_mlp", "algorithm.train": "pes", "algorithm.hidden": 32},
    # no paper: must run without data
    "glyphs-5w1s-maml": {"tasks.name": "glyphs", "tasks.way": 5, "tasks.shot": 1, "algorithm.name": "maml"},
    "omniglot-5w1s-siamese": {"algorithm.pair_loss": "koch", "tasks.way": 5, "tasks.shot": 1},
    "omniglot-5w1s-matching": {"algorithm.scale": 10.0, "algorithm.full_context": False, "outer.lr": 0.001},
    "omniglot-5w1s-relation": {"tasks.train_query_shot": 19, "outer.clip_norm": 0.5, "outer.step_every": 100_000},
    "omniglot-5w1s-r2d2": {"algorithm.init_ridge": 50.0, "algorithm.init_scale": 10.0, "outer.lr": 0.005},
    "omniglot-5w1s-logistic": {"algorithm.newton_steps": 5, "outer.lr": 0.005},
    "omniglot-5w1s-metaoptnet": {"algorithm.cost": 0.1, "tasks.way": 5},
}  # fmt: skip


@pytest.mark.parametrize("name", preset_names())
def test_presets_hold_the_published_settings(name: str) -> None:
    flat = dotted(parse(dump(load(preset=name)), name).value)
    assert {key: flat[key] for key in PINNED[name]} == PINNED[name]
    assert len(description(name)) > 20


# Commands


def run_config_command(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = command.main(list(argv))
    return code, *capsys.readouterr()


def test_check_reports_every_source(capsys: pytest.CaptureFixture[str], file: Write) -> None:
    bad = file("preset: sinusoid-maml\nstps: 1")
    code, out, err = run_config_command(capsys, "check", DEFAULT, str(bad))
    assert (code, out) == (2, f"{DEFAULT}: good\n")
    assert f"{bad}:2" in err


def test_diff_compares_files_presets_and_run_folders(capsys: pytest.CaptureFixture[str], file: Write) -> None:
    folder = file(dump(load("--algorithm.inner_lr", "0.5", preset="sinusoid-maml")), "config.yaml").parent
    _, out, _ = run_config_command(capsys, "diff", "sinusoid-maml", str(folder))
    assert out == "algorithm.inner_lr: 0.01 -> 0.5\n"
    assert run_config_command(capsys, "diff", str(folder), str(folder / "config.yaml"))[1] == "no difference\n"


def test_explain_tells_meaning_range_default_and_owners(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_config_command(capsys, "explain", "algorithm.inner_lr")
    assert "algorithm.inner_lr (maml): inner learning rate α (number ≥ 0); default 0.1" in out
    assert "(reptile)" in out
    assert run_config_command(capsys, "explain", "inner_lr")[1] == out
    _, out, _ = run_config_command(capsys, "explain", "tasks.way")
    assert "(glyphs): classes in an episode (whole number ≥ 2); default 5" in out  # inherited from the base class
    code, _, err = run_config_command(capsys, "explain", "algorithm.iner_lr")
    assert code == 2
    assert "did you mean algorithm.inner_lr" in err
    for key in all_keys():
        assert run_config_command(capsys, "explain", key)[0] == 0


def test_the_schema_accepts_what_is_printed_and_refuses_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(run_config_command(capsys, "schema")[1]))
    for name in preset_names():
        content = parse(dump(load(preset=name)), name).value
        assert validator.is_valid(content), name
        assert not validator.is_valid({**content, "stps": 1})
        assert not validator.is_valid({**content, "algorithm": {**content["algorithm"], "iner_lr": 1}})
        assert not validator.is_valid({**content, "seed": -1})


def test_every_option_has_a_meaning_and_a_default() -> None:
    for option in [*run_options().values(), *section_options("outer").values()]:
        assert option.meaning
        assert option.default is not REQUIRED


def test_listing_presets_imports_nothing_heavy() -> None:
    code = (
        "import sys, raymeta.presets.__main__ as p; p.main([]); p.main(['sinusoid-maml']);"
        "print(*{'torch', 'numpy', 'pydantic', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
    assert f"{DEFAULT} " in done.stdout
    assert "truncated_normal" in done.stdout


def test_what_else_is_known_of_an_option_is_a_mark_on_its_field() -> None:
    """The schema as data has the marks too, so that they are told without the classes."""
    said = {name: option.marks for name, option in run_options().items()}
    for mark in (FREE_ON_RESUME, OF_WORKERS, OF_THE_PERSON, OWNED_BY_SWEEP, NOT_SEARCHED, IMPORTED):
        names = marked(RunOptions, mark)
        assert names, mark.name
        assert list(names) == [name for name, marks in said.items() if mark.name in marks]
    assert marked(RunOptions, OWNED_BY_SWEEP)["preset"] == "write base"
    assert said["preset"] == {"owned_by_sweep": "decided by the sweep in its trials (write base)"}
    assert not marked(RunOptions, OF_WORKERS).keys() - marked(RunOptions, FREE_ON_RESUME).keys()


def test_explain_tells_marks(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["explain", "min_workers"]) == 0
    assert "without effect where workers is 0" in capsys.readouterr().out
