"""A run knows its data: it is tested on what it held out, goes on with what it had, and is paired on equal episodes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from recorded import replace_config

import raymeta
from raymeta.api.evaluate import paired_difference, same_episodes
from raymeta.errors import ConfigError, DataError, RaymetaWarning
from raymeta.evaluate import main as evaluate
from raymeta.keys import TaskKey
from raymeta.runs.__main__ import main as runs_command
from raymeta.runs.read import Run
from raymeta.tasks.episodes import Episode, Examples, Size
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.glyphs import Glyphs
from raymeta.tasks.manifest import DATA, Manifest, contents_of_files
from raymeta.tasks.sinusoid import Sinusoid
from raymeta.train import main as train

pytestmark = pytest.mark.filterwarnings("ignore:.* switches ")

NAMES = [f"c{i:02d}" for i in range(20)]
SMALL: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 12, "model.width": 4}
SMALL |= {"algorithm": "protonet", "tasks.way": 2, "tasks.shot": 1, "checkpoint_every": 1}


def pictures(root: Path, names: Iterable[str], n: int = 4, side: int = 16, seed: int = 0, ending: str = "png") -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.{ending}")
    return root


def trained(root: Path, output: Path, **options: Any) -> Run:
    run: Run = raymeta.meta_train(tasks="images", output=str(output), **{"tasks.root": str(root), **SMALL, **options})
    return run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    home = tmp_path_factory.mktemp("original")
    root = pictures(home / "photos", NAMES)
    return root, trained(root, home / "runs")


@pytest.fixture
def photos(original: tuple[Path, Run], tmp_path: Path) -> Path:
    """The folder of `run`, for a test to change."""
    return Path(shutil.copytree(original[0], tmp_path / "photos"))


@pytest.fixture
def run(original: tuple[Path, Run], photos: Path, tmp_path: Path) -> Run:
    folder = Path(shutil.copytree(original[1].path, tmp_path / "runs" / original[1].id))
    text = (folder / "config.yaml").read_text().replace(str(original[0]), str(photos))
    return replace_config(folder, text)


def values(run: Run, **options: Any) -> list[float]:
    found: list[float] = raymeta.meta_test(run, episodes=12, **options).to_json()["values"]
    return found


def own_values(run: Run) -> list[float]:
    found: list[float] = json.loads((run.path / "eval" / "test.json").read_text())["values"]
    return found


def classes(run: Run, split: str) -> list[str]:
    manifest = run.manifest
    assert manifest is not None
    return list(manifest.splits[split].classes)  # type: ignore[index]


# What is written


def test_a_run_writes_down_its_data(run: Run, photos: Path) -> None:
    content = json.loads((run.path / DATA).read_text())
    assert (content["side"], content["channels"], content["unit"]) == (16, 3, "images")
    tasks = Images(root=str(photos), way=2)
    for split in ("train", "val", "test"):
        pool = tasks.splits[split]  # type: ignore[index]
        part = content["splits"][split]
        assert list(part["classes"]) == pool.names
        assert [one["examples"] for one in part["classes"].values()] == pool.counts.tolist()
        assert (part["num_classes"], part["num_examples"]) == (len(pool.names), 4 * len(pool.names))
    assert Manifest.from_json(content).to_json() == content


def test_it_is_shown(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs_command(["show", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "train 13 classes, 52 images" in said
    assert "side 16, channels 3" in said
    assert runs_command(["show", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["splits"]["test"]["num_classes"] == 4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"splits": {"train": 3}}', "{" * 5000])
def test_a_damaged_one_is_told(run: Run, text: str) -> None:
    (run.path / DATA).write_text(text)
    with pytest.raises(DataError, match=r"data\.json cannot be read"):
        raymeta.meta_test(run)


def test_a_pipe_in_its_place_is_not_waited_for(run: Run) -> None:
    (run.path / DATA).unlink()
    os.mkfifo(run.path / DATA)
    with pytest.raises(DataError, match=r"data\.json cannot be read"):
        raymeta.meta_test(run)


def test_a_changed_one_is_told(run: Run) -> None:
    """A class that was moved from train to test by hand is no class that was held out."""
    content = json.loads((run.path / DATA).read_text())
    content["splits"]["test"]["sha256"] = "0" * 64
    (run.path / DATA).write_text(json.dumps(content))
    with pytest.raises(DataError, match="its sha256 is not that of its content"):
        raymeta.meta_test(run)


# Evaluated


def test_an_unchanged_folder_is_scored_without_a_word(run: Run, recwarn: pytest.WarningsRecorder) -> None:
    assert values(run) == own_values(run)
    assert not [w for w in recwarn if issubclass(w.category, RaymetaWarning)]


def test_a_folder_that_grew_is_tested_on_the_classes_that_were_held_out(run: Run, photos: Path) -> None:
    pictures(photos, ["a_new_class"], seed=5)
    assert set(Images(root=str(photos), way=2).splits["test"].names) & set(classes(run, "train")), "the cut moved"
    with pytest.warns(RaymetaWarning, match=r"1 class more \(a_new_class\).*classes that it recorded are used"):
        again = values(run)
    assert again == own_values(run)
    with pytest.warns(RaymetaWarning, match="recorded are used"):
        assert values(run, **{"tasks.way": 3}) != again, "sizes may differ as before"


def test_changes_in_other_splits_do_not_concern_a_test(run: Run, photos: Path) -> None:
    (photos / classes(run, "train")[0] / "0.png").unlink()
    assert values(run) == own_values(run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("file gone", r"1 class with other files \({name}: 4 images then, 3 now\)"),
        ("file replaced", r"{name}: other names or sizes"),
        ("file renamed", r"{name}: other names or sizes"),
        ("class gone", r"1 class gone \({name}\)"),
    ],
)
def test_a_held_out_class_that_changed_is_refused_by_name(change: str, told: str, run: Run, photos: Path) -> None:
    name = classes(run, "test")[1]
    match change:
        case "file gone":
            (photos / name / "3.png").unlink()
        case "file replaced":
            Image.new("RGB", (16, 16)).save(photos / name / "3.png")
        case "file renamed":
            (photos / name / "3.png").rename(photos / name / "x.png")
        case _:
            shutil.rmtree(photos / name)
    with pytest.raises(DataError, match=told.format(name=name)):
        raymeta.meta_test(run)


def test_files_of_the_same_name_and_size_with_other_pixels_are_told(tmp_path: Path) -> None:
    root = pictures(tmp_path / "photos", NAMES, ending="bmp")
    run = trained(root, tmp_path / "runs")
    name = classes(run, "test")[0]
    pictures(root, [name], seed=9, ending="bmp")
    with pytest.warns(RaymetaWarning, match=rf"1 class \({name}\) have files of the same names and sizes with other"):
        raymeta.meta_test(run, episodes=2)


def test_classes_that_were_exchanged_are_never_tested_on(tmp_path: Path) -> None:
    """Files of the same names and sizes, so that only their pixels tell."""
    root = pictures(tmp_path / "photos", NAMES, ending="bmp")
    for i, name in enumerate(NAMES):
        pictures(root, [name], seed=i, ending="bmp")
    run = trained(root, tmp_path / "runs")
    learned, held_out = classes(run, "train")[0], classes(run, "test")[0]
    (root / learned).rename(root / "between")
    (root / held_out).rename(root / learned)
    (root / "between").rename(root / held_out)
    for allowed in (False, True):
        with pytest.raises(DataError, match=rf"learned from: {held_out} \(its train class {learned}\)"):
            raymeta.meta_test(run, episodes=2, changed_data=allowed)


def test_a_class_that_changed_its_split_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for split in ("train", "val", "test"):
        pictures(root / split, [f"{split}{i}" for i in range(4)])
    run = trained(root, tmp_path / "runs")
    (root / "train" / "train1").rename(root / "test" / "train1")
    with pytest.raises(DataError, match=r"1 class in another split \(train1 was in train and is in test\)"):
        raymeta.meta_test(run)


# On other data, on purpose


def test_other_classes_may_be_scored_on_purpose(run: Run, tmp_path: Path) -> None:
    other = pictures(tmp_path / "other", [f"d{i:02d}" for i in range(15)], side=24, seed=3)
    with pytest.warns(RaymetaWarning, match=r"scored on other data than the test split of .*: test 3 classes"):
        evaluation = raymeta.meta_test(run, episodes=4, **{"tasks.root": str(other)})
    own = raymeta.meta_test(run, episodes=4)
    assert not same_episodes(own, evaluation)
    with pytest.raises(ConfigError, match="cannot be paired"):
        paired_difference(own, evaluation)


def test_other_data_come_in_the_side_that_was_trained_at(run: Run, tmp_path: Path) -> None:
    other = pictures(tmp_path / "other", [f"d{i:02d}" for i in range(15)], side=24, seed=3)
    with pytest.warns(RaymetaWarning, match=r"images; side 16, channels 3 \("):
        raymeta.meta_test(run, episodes=2, **{"tasks.root": str(other)})
    with pytest.warns(RaymetaWarning, match="side 20, channels 3, where the run had side 16, channels 3"):
        raymeta.meta_test(run, episodes=2, **{"tasks.side": 20})


def test_other_data_may_be_a_test_folder_alone(run: Run, tmp_path: Path) -> None:
    other = pictures(tmp_path / "other" / "test", ["x", "y", "z"], seed=3).parent
    pictures(other / "valid", ["v", "w"], seed=4)
    with pytest.warns(RaymetaWarning, match=r"test 3 classes, 12 images"):
        assert len(raymeta.meta_test(run, episodes=4, **{"tasks.root": str(other)}).to_json()["values"]) == 4


def test_a_moved_folder_that_grew_is_scored_as_it_was(run: Run, photos: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    photos.rename(moved)
    pictures(moved, ["a_new_class"], seed=5)
    with pytest.warns(RaymetaWarning, match="classes that it recorded are used"):
        assert values(run, **{"tasks.root": str(moved)}) == own_values(run)


@pytest.mark.parametrize("named", ["as they were", "otherwise"])
def test_trained_classes_are_never_tested_on(named: str, run: Run, photos: Path, tmp_path: Path) -> None:
    other = pictures(tmp_path / "other", [f"d{i:02d}" for i in range(20)], seed=4)
    known = classes(run, "train")[3]
    held_out = Images(root=str(other), way=2).splits["test"].names[0]
    name = known if named == "as they were" else held_out
    shutil.rmtree(other / held_out)
    shutil.copytree(photos / known, other / name)
    lists = {
        f"tasks.{s}_classes": n for s, n in {"train": ["d00"], "val": ["d01", "d02"], "test": [name, "d04"]}.items()
    }
    for allowed in (False, True):
        with pytest.raises(
            DataError, match=rf"1 of 2 classes of the test split .* learned from: {name} \(its train class"
        ):
            raymeta.meta_test(run, changed_data=allowed, **{"tasks.root": str(other), **lists})


def test_a_class_that_is_there_twice_is_told(tmp_path: Path) -> None:
    """Under another name, with one part in training and one in the test."""
    root = tmp_path / "photos"
    for i, split in enumerate(("train", "val", "test")):
        pictures(root / split, [f"{split}{n}" for n in range(4)], seed=i)
    shutil.rmtree(root / "test" / "test2")
    shutil.copytree(root / "train" / "train1", root / "test" / "test2")
    with pytest.warns(
        RaymetaWarning, match=r"the test split has classes that are in other splits, too: test2 \(as train"
    ):
        trained(root, tmp_path / "runs")


def test_other_data_where_the_folder_changed_come_in_the_old_side(run: Run, photos: Path) -> None:
    shutil.rmtree(photos)
    pictures(photos, [f"n{i:02d}" for i in range(15)], side=24, seed=8)
    with pytest.raises(DataError, match="is not what it was in the run"):
        raymeta.meta_test(run, episodes=2)
    with pytest.warns(RaymetaWarning, match=r"scored on other data .*images; side 16, channels 3 \("):
        raymeta.meta_test(run, episodes=2, changed_data=True)


def test_a_cut_by_another_seed_is_refused(run: Run) -> None:
    with pytest.raises(DataError, match=r"are among those that .* learned from"):
        raymeta.meta_test(run, **{"tasks.split_seed": 3})


def test_the_training_split_may_be_scored(run: Run, recwarn: pytest.WarningsRecorder) -> None:
    assert len(values(run, split="train")) == 12
    assert len(values(run, split="val")) == 12
    assert not [w for w in recwarn if issubclass(w.category, RaymetaWarning)]


def test_a_run_that_recorded_nothing_is_scored_with_a_note(run: Run) -> None:
    (run.path / DATA).unlink()
    with pytest.warns(RaymetaWarning, match="did not record its data"):
        assert values(run) == own_values(run)


# Resumed


def resumed(run: Run, *options: str) -> int:
    return train(["--resume", str(run.path), "--steps", "4", "-q", *options])


def test_a_resumed_run_goes_on_with_its_own_classes(run: Run, photos: Path, tmp_path: Path) -> None:
    undisturbed = trained(photos, tmp_path / "whole", steps=4)
    pictures(photos, ["a_new_class"], seed=5)
    assert resumed(run) == 0
    again = Run.open(run.path)
    assert (again.summary or {})["params_sha256"] == (undisturbed.summary or {})["params_sha256"]
    assert own_values(again) == own_values(undisturbed)
    assert [e["message"] for e in again.events() if e["kind"] == "note" and "recorded are used" in e["message"]]
    assert classes(again, "test") == classes(undisturbed, "test")
    assert resumed(run, "--test_episodes", "2") == 0, "and once more, from what it wrote"


def test_a_run_is_not_resumed_on_changed_data(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = classes(run, "train")[0]
    (photos / name / "0.png").unlink()
    before = (run.path / "events.jsonl").read_text()
    assert resumed(run) == 3
    assert f"its data changed since it began: 1 class with other files ({name}: 4 images then, 3 now)" in (
        capsys.readouterr().err
    )
    assert (run.path / "events.jsonl").read_text() == before, "nothing was touched"


# Paired


def test_equal_data_elsewhere_pair_and_other_data_do_not(run: Run, photos: Path, tmp_path: Path) -> None:
    here = raymeta.meta_test(run, episodes=4)
    moved = tmp_path / "moved"
    photos.rename(moved)
    there = raymeta.meta_test(run, episodes=4, **{"tasks.root": str(moved), "tasks.data": "local"})
    assert same_episodes(here, there)
    assert here.to_json()["values"] == there.to_json()["values"]
    other = trained(pictures(tmp_path / "other", NAMES, seed=1), tmp_path / "others")
    assert not same_episodes(here, raymeta.meta_test(other, episodes=4))
    assert not same_episodes(there, raymeta.meta_test(run, episodes=4, **{"tasks.root": str(moved), "tasks.shot": 2}))


def test_pictures_of_equal_names_and_sizes_do_not_pair(tmp_path: Path) -> None:
    one, other = (pictures(tmp_path / f"p{i}", NAMES, seed=i, ending="bmp") for i in range(2))
    assert (
        Images(root=str(one), way=2).contents("test").sha256 == Images(root=str(other), way=2).contents("test").sha256
    )
    assert Images(root=str(one), way=2).drawn_from("test") != Images(root=str(other), way=2).drawn_from("test")


def test_scores_of_other_pictures_are_told_apart_from_pairs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained(pictures(tmp_path / "ships", [f"s{i}" for i in range(20)], seed=1), tmp_path / "others")
    assert evaluate([str(run.path), str(other.path), "--episodes", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{other.id}: scored on other episodes than {run.id}, not paired"
    )
    assert runs_command(["compare", str(run.path), str(other.path)]) == 0
    said = capsys.readouterr().out
    assert "scored on other test tasks, not paired" in said
    assert "difference" not in said


def test_what_leaves_test_episodes_as_they_are_leaves_their_mark() -> None:
    """Options of training do not; the data and the sizes of episodes do."""
    small = {"train_classes": 6, "val_classes": 5, "test_classes": 5}
    mark = Glyphs(**small).drawn_from("test")  # type: ignore[arg-type]
    assert Glyphs(**small, train_way=3, data="local").drawn_from("test") == mark  # type: ignore[arg-type]
    assert Glyphs(**small, glyph_seed=1).drawn_from("test") != mark  # type: ignore[arg-type]
    assert Glyphs(**small, shot=2).drawn_from("test") != mark  # type: ignore[arg-type]
    assert Sinusoid(train_query_shot=3).drawn_from("test") == Sinusoid().drawn_from("test")
    assert Sinusoid(query_shot=3).drawn_from("test") != Sinusoid().drawn_from("test")


def test_data_without_files_are_told_by_their_options() -> None:
    small = {"train_classes": 6, "val_classes": 5, "test_classes": 5}
    same_data, other = Glyphs(**small, way=3, shot=2, data="local"), Glyphs(**small, glyph_seed=1)  # type: ignore[arg-type]
    assert Glyphs(**small).manifest().sha256 == same_data.manifest().sha256  # type: ignore[arg-type]
    assert Glyphs(**small).manifest().sha256 != other.manifest().sha256  # type: ignore[arg-type]


# Tables and texts


@dataclass(frozen=True, kw_only=True)
class Table(raymeta.TaskSet):
    """Linear regression on the rows of a file."""

    path: str
    listed: bool = False
    goal, unit, input_shape, num_outputs = "regression", "rows", (2,), 1

    def size(self, split: str) -> Size:
        return Size(1, 4, 4)

    def num_classes(self, split: str) -> int:
        return 0

    def contents(self, split: Any) -> Any:
        return (
            contents_of_files({"table": [Path(self.path)]}, are_classes=False)
            if self.listed
            else super().contents(split)
        )

    def episode(self, key: TaskKey) -> Episode:
        rows = torch.from_numpy(np.loadtxt(self.path, delimiter=",")).float()
        rows = rows[torch.from_numpy(key.generator().permutation(len(rows))[:8])]
        return Episode(Examples(rows[:4, :2], rows[:4, 2:]), Examples(rows[4:, :2], rows[4:, 2:]))


@pytest.mark.parametrize("listed", [False, True])
def test_tables_are_remembered_too(listed: bool, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    rows = np.random.default_rng(0).normal(size=(20, 3))
    np.savetxt(file, rows, delimiter=",")
    options = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 4, "checkpoint_every": 1}
    tasks = Table(path=str(file), listed=listed)
    run = raymeta.meta_train("sinusoid-maml", tasks=tasks, output=str(tmp_path / "runs"), **options)
    assert raymeta.meta_test(run, episodes=4).to_json()["values"] == own_values(run)
    np.savetxt(file, rows[:15] + 1, delimiter=",")
    with pytest.raises(DataError, match=r"the test split of .* is not what it was in the run"):
        raymeta.meta_test(run)
    with pytest.raises(DataError, match="its data changed since it began"):
        raymeta.meta_train(resume=run.path, steps=3)
    with pytest.warns(RaymetaWarning, match="scored on other data"):
        raymeta.meta_test(run, episodes=2, changed_data=True)
