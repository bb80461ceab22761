"""One training problem as tasks: parts apart, labels wrong as asked and for ever, domains held out, clear errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import raymeta
from raymeta.adapt import main as adapt
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.errors import ConfigError, DataError
from raymeta.evaluate import main as evaluate
from raymeta.export import main as export
from raymeta.keys import TaskKey
from raymeta.serve.__main__ import main as serve
from raymeta.tasks import Classification, Glyphs
from raymeta.tasks.border import require_labels, require_sound, sound_episodes
from raymeta.tasks.classification.noise import given_labels
from raymeta.tasks.classification.parts import batch_size, kept_of

SMALL: dict[str, Any] = {"classes": 4, "drawers": 20, "clean": 3, "val": 2, "test": 5, "batch": 8, "clean_batch": 6}
ANGLES: dict[str, Any] = SMALL | {
    "domains": "angles",
    "angles": (0.0, 30.0, 60.0, 90.0),
    "val": 1,
    "test": 1,
    "batch": 2,
}


def keys(split: Any, count: int, step: int = 0) -> list[TaskKey]:
    return [TaskKey(0, split, step, index) for index in range(count)]


def of_part(tasks: Classification, part: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images of a part and their true classes."""
    rows = tasks.loaded.parts[part]
    return tasks.loaded.data.images[rows], tasks.loaded.data.label[rows]


# Parts


def test_parts_hold_every_image_once_and_as_many_of_each_class_as_asked() -> None:
    tasks = Classification(**SMALL)
    rows = np.concatenate(list(tasks.loaded.parts.values()))
    assert sorted(rows.tolist()) == list(range(80))
    counts = {part: np.bincount(of_part(tasks, part)[1]).tolist() for part in tasks.loaded.parts}
    assert counts == {"clean": [3] * 4, "val": [2] * 4, "test": [5] * 4, "train": [10] * 4}


def test_a_share_is_one_image_at_least_and_none_only_where_none_is_asked() -> None:
    tasks = Classification(**SMALL | {"clean": 0.01, "val": 0, "test": 0.01})
    assert [len(tasks.loaded.parts[part]) for part in ("clean", "val", "test", "train")] == [4, 0, 4, 72]


def test_shares_are_of_each_class() -> None:
    tasks = Classification(**SMALL | {"clean": 0.1, "val": 0.2, "test": 0.25})
    assert [len(tasks.loaded.parts[part]) for part in ("clean", "val", "test", "train")] == [8, 16, 20, 36]


def test_another_seed_cuts_otherwise_and_the_same_one_alike() -> None:
    one, same, other = (Classification(**SMALL, data_seed=seed).loaded.parts["test"].tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_a_long_tail_falls_from_the_first_class_to_the_last() -> None:
    tasks = Classification(**SMALL | {"drawers": 110}, imbalance=10)
    counts = np.bincount(of_part(tasks, "train")[1])
    assert counts.tolist() == [100, 46, 22, 10]
    assert np.bincount(of_part(tasks, "test")[1]).tolist() == [5] * 4
    assert kept_of(3, 3, 4, 100.0) == 1


# Labels


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("noise", ["uniform_flip", "pair_flip", "background_flip"])
def test_as_many_labels_are_wrong_as_asked(noise: Any, share: float) -> None:
    label = np.arange(20000) % 5
    u = np.random.Generator(np.random.Philox(key=1)).random((20000, 2))
    given = given_labels(noise, share, label, u, 5)
    wrong = (given != label)[label > 0] if noise == "background_flip" else given != label
    assert abs(wrong.mean() - share) < 0.015
    assert set(given.tolist()) <= set(range(5))


def test_wrong_labels_are_of_the_kind_that_was_asked() -> None:
    label, u = np.arange(6000) % 3, np.random.Generator(np.random.Philox(key=2)).random((6000, 2))
    uniform, pair, background = (
        given_labels(noise, 1.0, label, u, 3)  # type: ignore[arg-type]
        for noise in ("uniform_flip", "pair_flip", "background_flip")
    )
    steps = np.bincount((uniform - label) % 3)
    assert steps[0] == 0
    assert abs(steps[1] - steps[2]) < 250
    assert ((pair - label) % 3 == 1).all()
    assert not background.any()


def test_an_image_has_the_same_wrong_label_for_ever() -> None:
    """Whatever the batches are, and however many images and classes there are besides."""
    tasks = Classification(**SMALL, noise="pair_flip")
    more = Classification(**SMALL | {"drawers": 30, "classes": 5, "batch": 5}, noise="pair_flip")

    def wrong(tasks: Classification) -> Any:
        data, is_wrong = tasks.loaded.data, tasks.loaded.labels != tasks.loaded.data.label
        return dict(zip(zip(data.label.tolist(), data.item.tolist(), strict=True), is_wrong.tolist(), strict=True))

    one, other = wrong(tasks), wrong(more)
    assert any(one.values())
    assert all(other[example] == is_wrong for example, is_wrong in one.items())
    seen: dict[bytes, int] = {}
    for step in range(20):
        support = tasks.episodes(keys("train", 2, step)).support
        for image, y in zip(support.x.flatten(0, 1), support.y.flatten().tolist(), strict=True):  # type: ignore[union-attr]
            assert seen.setdefault(image.numpy().tobytes(), y) == y


def test_another_kind_of_noise_makes_the_same_images_wrong() -> None:
    one, other = (Classification(**SMALL, noise=noise) for noise in ("uniform_flip", "pair_flip"))  # type: ignore[arg-type]
    for tasks in (one, other):
        assert tasks.loaded.parts["train"].tolist() == one.loaded.parts["train"].tolist()
    label = one.loaded.data.label
    assert ((one.loaded.labels != label) == (other.loaded.labels != label)).all()


def test_a_file_keeps_its_wrong_label_when_others_come(tmp_path: Path) -> None:
    tasks = Classification(root=folder_of(tmp_path, "a", "b", count=9), **OWN, noise="pair_flip")  # type: ignore[arg-type]

    def wrong() -> set[str]:
        data = tasks.loaded.data
        assert data.names is not None
        return set(data.names[tasks.loaded.labels != data.label].tolist())

    tasks.check()
    before = wrong()
    assert before
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a" / "!first.png")
    tasks.check()
    assert wrong() - {"a/!first.png"} == before


# Tasks


def test_support_has_given_labels_and_query_true_ones() -> None:
    tasks = Classification(**SMALL, noise="uniform_flip", noise_share=1.0)
    batch = tasks.episodes(keys("train", 8))
    assert batch.support.y.shape == (8, 8)
    assert batch.query.y.shape == (8, 6)
    assert (batch.support.y != batch.support.class_id).all()
    assert torch.equal(batch.query.y, batch.query.class_id)
    whole = tasks.episodes(keys("test", 3))
    assert torch.equal(whole.query.y, whole.query.class_id)


def test_batches_are_of_their_part_without_repetition() -> None:
    tasks = Classification(**SMALL)
    known = {part: {image.tobytes() for image in of_part(tasks, part)[0]} for part in ("train", "clean")}
    for episode in (tasks.episode(key) for key in keys("train", 10)):
        for side, part in ((episode.support, "train"), (episode.query, "clean")):
            images = {(image * 255).round().byte().numpy().tobytes() for image in side.x}  # type: ignore[union-attr]
            assert len(images) == len(side.y)
            assert images <= known[part]


def test_a_small_clean_part_is_seen_whole() -> None:
    tasks = Classification(**SMALL | {"clean": 1, "clean_batch": 6})
    query = tasks.episode(keys("train", 1)[0]).query
    assert sorted(query.y.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("split", "count"), [("val", 1), ("test", 2)])
def test_validation_and_test_show_each_image_once(split: Any, count: int) -> None:
    tasks = Classification(**SMALL, test_batch=10)
    assert tasks.num_episodes("train") is None
    assert tasks.num_episodes(split) == count
    batch = tasks.episodes(keys(split, count))
    found = sorted((image * 255).round().byte().numpy().tobytes() for image in batch.query.x.flatten(0, 1))  # type: ignore[union-attr]
    assert found == sorted(image.tobytes() for image in of_part(tasks, split)[0])
    assert tasks.num_episodes(split) * len(batch.query.y[0]) == len(found)


def test_what_fills_no_batch_is_told() -> None:
    tasks = Classification(**SMALL | {"test": 4, "classes": 5, "clean": 2}, test_batch=7)
    assert tasks.num_episodes("test") == 4
    assert not [note for note in tasks.notes() if "test" in note]
    prime = Classification(**SMALL | {"classes": 3, "test": 7, "clean": 2}, test_batch=4)
    assert prime.num_episodes("test") == 7
    left = Classification(**SMALL | {"classes": 2, "test": 11, "clean": 2}, test_batch=4)
    assert "1 of 22 test images left out: batches of 3 are full" in left.notes()


def test_batches_leave_the_fewest_over() -> None:
    assert [batch_size(count, 10) for count in (3, 10, 11, 13, 21, 100)] == [3, 10, 10, 6, 7, 10]


def test_it_stands_the_border() -> None:
    for tasks in (Classification(**SMALL, noise="uniform_flip"), Classification(**ANGLES)):
        require_sound(tasks, ("train", "val", "test"), seed=0, num_episodes=4, class_ids=True, queries=True)
        assert len(sound_episodes(tasks, keys("train", 5)).support.y) == 5


def test_another_process_that_received_the_images_makes_the_same_tasks() -> None:
    for tasks in (Classification(**SMALL, noise="uniform_flip"), Classification(**ANGLES, held_out="30")):
        there = pickle.loads(pickle.dumps(tasks))
        there.receive(tasks.to_send())
        there.require(())
        for split in ("train", "test"):
            one, other = (t.episodes(keys(split, 3)) for t in (tasks, there))
            assert all(torch.equal(a, b) for sides in zip(one, other, strict=True) for a, b in zip(*sides, strict=True))


def test_a_run_remembers_images_and_labels_of_each_part() -> None:
    tasks = Classification(**SMALL)
    manifest = tasks.manifest()
    assert {split: content.num_examples for split, content in manifest.splits.items()} == {
        "train": 52, "val": 8, "test": 20,
    }  # fmt: skip
    noisy = Classification(**SMALL, noise="pair_flip")
    assert noisy.contents("train").sha256 != tasks.contents("train").sha256
    assert noisy.contents("test") == tasks.contents("test")
    assert noisy.drawn_from("test") == tasks.drawn_from("test")
    assert [note for note in noisy.notes() if "of 40 training labels are wrong (pair_flip 0.4)" in note]


# Domains


def test_the_domain_that_is_held_out_is_the_test_part_and_never_trained_on() -> None:
    tasks = Classification(**ANGLES, held_out="30")
    data = tasks.loaded.data
    assert set(data.domain[tasks.loaded.parts["test"]]) == {1}
    assert sorted(tasks.loaded.parts["test"]) == np.flatnonzero(data.domain == 1).tolist()
    for part in ("train", "val"):
        assert set(data.domain[tasks.loaded.parts[part]]) == {0, 2, 3}  # type: ignore[index]
    assert not len(tasks.loaded.parts["clean"])
    assert Classification(**ANGLES, held_out=30).held_out == "30"


def test_each_angle_has_as_many_images_of_each_class_each_in_one_angle() -> None:
    data = Classification(**ANGLES).loaded.data
    assert np.bincount(data.label * 4 + data.domain).tolist() == [5] * 16
    flat = Glyphs(train_classes=4, val_classes=1, test_classes=1, drawers=20).load()["train"].images
    straight, quarter = data.domain == 0, data.domain == 3
    assert (data.images[straight] == flat[straight]).all()
    assert (data.images[quarter] == np.rot90(flat[quarter], axes=(-2, -1))).mean() > 0.99


def domains_of(tasks: Classification, count: int, step: int = 0) -> list[tuple[set[int], set[int]]]:
    """The domains of each task's support and query, by the images themselves."""
    data = tasks.loaded.data
    of = {image.tobytes(): int(d) for image, d in zip(data.images, data.domain, strict=True)}

    def found(x: Any) -> set[int]:
        return {of[(image * 255).round().byte().numpy().tobytes()] for image in x}

    return [(found(e.support.x), found(e.query.x)) for e in map(tasks.episode, keys("train", count, step))]


def test_some_domains_are_in_query_and_all_others_in_support() -> None:
    tasks = Classification(**ANGLES, held_out="0", meta_test=1)
    seen = domains_of(tasks, 20)
    for support, query in seen:
        assert support | query == {1, 2, 3}
        assert len(query) == 1
    assert {min(query) for _, query in seen} == {1, 2, 3}
    assert tasks.episode(keys("train", 1)[0]).support.y.shape == (4,)


def test_pairs_of_a_step_go_through_all_domains_for_training() -> None:
    tasks = Classification(**ANGLES, pairing="pairs", meta_test=2)
    for step in range(5):
        pairs = domains_of(tasks, 4, step)
        first, second = pairs[:2], pairs[2:]
        for of_round in (first, second):
            supports, queries = ([next(iter(pair[side])) for pair in of_round] for side in (0, 1))
            assert sorted(supports + queries) == [0, 1, 2, 3]
    orders = {tuple(min(support) for support, _ in domains_of(tasks, 2, step)) for step in range(12)}
    assert len(orders) > 3


# Other sources


def folder_of(root: Path, *names: str, count: int = 6) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((9, 9, 3), 20 * number + i, np.uint8)).save(root / name / f"{i}.png")
    return root


OWN: dict[str, Any] = {"source": "images", "clean": 1, "val": 1, "test": 1, "batch": 3, "clean_batch": 2}


def test_a_folder_of_classes(tmp_path: Path) -> None:
    tasks = Classification(root=folder_of(tmp_path, "cat", "ant", "bee"), **OWN)  # type: ignore[arg-type]
    tasks.check()
    assert [tasks.class_name("test", c) for c in range(3)] == ["ant", "bee", "cat"]
    assert tasks.input_shape == (3, 9, 9)
    assert {int(image[0, 0, 0]) // 20 for image in tasks.loaded.data.images[tasks.loaded.data.label == 2]} == {0}
    assert tasks.reader() is not None


def test_what_lies_in_a_folder_is_found_out(tmp_path: Path) -> None:
    assert Classification().source == "glyphs"
    assert Classification(root=folder_of(tmp_path / "own", "a", "b")).source == "images"
    for file, source in (("omniglot_bits.npz", "omniglot"), ("emoji32.npz", "emoji")):
        (tmp_path / source).mkdir()
        (tmp_path / source / file).touch()
        assert Classification(root=str(tmp_path / source)).source == source
    refused(ValueError, "glyphs are drawn", lambda: Classification(source="glyphs", root=str(tmp_path)))


def test_folders_of_domains(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "art/cat", "art/dog", "photo/cat", "photo/dog", "sketch/cat", "sketch/dog")
    tasks = Classification(root=root, **OWN, domains="folders", held_out="art")  # type: ignore[arg-type]
    tasks.check()
    data = tasks.loaded.data
    assert (data.classes, data.domains) == (["cat", "dog"], ["art", "photo", "sketch"])
    assert set(data.images[(data.domain == 2) & (data.label == 1)].ravel() // 20) == {5}
    assert len(tasks.loaded.parts["test"]) == 12


def test_classes_of_folders_of_domains_are_chosen_in_all_of_them(tmp_path: Path) -> None:
    root = folder_of(tmp_path, *(f"{domain}/{name}" for domain in ("art", "photo", "sketch") for name in "abcd"))
    tasks = Classification(root=root, **OWN, classes=2, domains="folders", held_out="art")  # type: ignore[arg-type]
    tasks.check()
    data = tasks.loaded.data
    assert (len(data.classes), data.domains) == (2, ["art", "photo", "sketch"])


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    tasks = Classification(root=folder_of(tmp_path, "a", "b"), **OWN)  # type: ignore[arg-type]
    tasks.check()
    before = tasks.contents("train").sha256
    for file in (tmp_path / "a").iterdir():
        Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(file, compress_level=0)
    tasks.check()
    assert tasks.contents("train").sha256 != before


@pytest.mark.slow
def test_omniglots_characters_and_alphabets(omniglot_root: Path) -> None:
    root = str(omniglot_root)
    characters = Classification(source="omniglot", root=root, classes=5, clean=4, val=2, test=4)
    assert [len(rows) for rows in characters.loaded.parts.values()] == [50, 20, 10, 20]
    alphabets = Classification(source="omniglot", root=root, classes=3, label="group")
    assert all("/" not in name for name in alphabets.loaded.data.classes)
    assert len(alphabets.loaded.data.label) % 20 == 0


def test_styles_of_emoji_are_domains_and_an_emoji_stays_in_one_part(emoji_root: Path) -> None:
    tasks = Classification(
        source="emoji", root=str(emoji_root), label="group", domains="styles", held_out="noto", val=0.1, test=0
    )
    tasks.check()
    data = tasks.loaded.data
    assert tasks.input_shape == (3, 32, 32)
    assert len(tasks.loaded.parts["test"]) == 825
    emoji = {
        part: set(zip(data.label[rows], data.item[rows], strict=True)) for part, rows in tasks.loaded.parts.items()
    }
    assert not emoji["train"] & emoji["val"]  # type: ignore[index]


def test_an_emoji_that_is_a_class_has_draws_for_each_of_its_pictures(tmp_path: Path) -> None:
    names, styles = [f"e{i}" for i in range(5)], [f"s{i}" for i in range(20)]
    images = np.zeros((5, 20, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "emoji32.npz", images=images, names=names, groups=["g"] * 5, styles=styles)
    tasks = Classification(root=str(tmp_path), noise="uniform_flip", noise_share=0.5)
    tested = [rows.tolist() for rows in np.split(np.sort(tasks.loaded.parts["test"]) % 20, 5)]
    assert len(set(map(tuple, tested))) > 1
    for c in range(5):
        assert len(set(tasks.loaded.labels[tasks.loaded.data.label == c].tolist())) > 2


# Errors


def refused(error: type[Exception], match: str, make: Callable[[], object]) -> None:
    with pytest.raises(error, match=match):
        make()


def test_mistakes_are_told_with_what_to_do(tmp_path: Path) -> None:
    folder_of(tmp_path / "split", "train/a", "train/b", "test/a", "test/b")
    folder_of(tmp_path / "uneven", "art/a", "art/b", "photo/a")
    folder_of(tmp_path / "flat", "a", "b")

    def checked(**options: Any) -> Callable[[], object]:
        return lambda: Classification(**SMALL | options).check()

    def own(name: str, **options: Any) -> Callable[[], object]:
        return lambda: Classification(root=str(tmp_path / name), **OWN, **options).check()

    refused(DataError, r"class glyph 0 has 20 images, and tasks.test 15, tasks.val 2.*lower", checked(test=15))
    refused(DataError, r"tasks.test 19, tasks.val 1, tasks.clean 1 leave", checked(test=19, val=0.01, clean=0.01))
    refused(DataError, r"has 40 images, and a batch is 64: lower tasks.batch", checked(batch=64))
    refused(DataError, r"the val part has no images: raise tasks.val, or .*validate_every 0", checked(val=0))
    refused(DataError, r"tasks.held_out 7 is no domain: the domains are 0, 30", checked(**ANGLES, held_out=7))
    refused(DataError, r"3 domains to train on, and tasks.meta_test 3", checked(**ANGLES, held_out=0, meta_test=3))
    refused(DataError, r"holds folders of splits: .*tasks.clean", own("split"))
    refused(DataError, r"there is no photo/b", own("uneven", domains="folders"))
    refused(DataError, r"a, b hold images themselves.*ROOT/DOMAIN/CLASS", own("flat", domains="folders"))
    refused(DataError, r"tasks.classes 3 are more than the 2", own("flat", classes=3))
    folder_of(tmp_path / "single", "a")
    refused(DataError, r"there is one class, a: images of two", own("single"))
    refused(DataError, r"no folder .*nowhere", own("nowhere"))
    refused(DataError, r"give the folder .* as tasks.root", lambda: Classification(**OWN).check())
    refused(DataError, r"there is no .*emoji32.npz", checked(source="emoji", root=str(tmp_path)))
    (tmp_path / "emoji32.npz").write_bytes(b"no")
    refused(DataError, r"emoji32.npz is damaged", checked(source="emoji", root=str(tmp_path)))


def test_options_that_do_not_go_together_are_refused() -> None:
    refused(ValueError, "held_out names a domain", lambda: Classification(held_out="0"))
    refused(ValueError, "domains styles are those of source emoji", lambda: Classification(domains="styles"))
    refused(ValueError, "domains folders need source images", lambda: Classification(domains="folders"))
    refused(ValueError, "clean is 0", lambda: Classification(clean=0))
    refused(ValueError, "1.5 is neither a share below 1 nor a whole number", lambda: Classification(clean=1.5))
    for angles in ((), (0.0, 0.0), (0.0, float("nan"))):
        refused(ValueError, "angles name a domain each", lambda angles=angles: Classification(angles=angles))


def test_batches_of_one_problem_are_not_mixed() -> None:
    options = {"algorithm": "plain", "tasks": {"name": "classification", **SMALL}, "mixing": "mlti"}
    config = load_config(overrides=options).config
    refused(ConfigError, "one training problem: leave mixing out", lambda: build(config))


@pytest.mark.parametrize("algorithm", ["l2rw", "meta_weight_net", "dada"])
def test_class_weights_are_refused_where_examples_are_taken_one_by_one(algorithm: str) -> None:
    options = {"algorithm": algorithm, "tasks": {"name": "classification", **SMALL}, "model": "mlp"}
    config = load_config(overrides=options | {"class_weights": [1, 2, 3, 4]}).config
    refused(ConfigError, f"{algorithm} takes the loss of each by itself", lambda: build(config))


SEARCH = {"name": "supernet", "width": 2, "cells": 3, "nodes": 1}


@pytest.mark.parametrize(
    ("algorithm", "model", "pattern", "said"),
    [
        ("meta_weight_net", "mlp", "body.*", "no parameter of the model"),
        ("meta_weight_net", "mlp", "weighting.*", "no parameter of the weighting network"),
        ("dada", "mlp", "body.*", "no parameter of the model"),
        ("metadistil", "mlp", "body.*", "no parameter of the model"),
        ("darts", SEARCH, "[!a]*", "no parameter of the weights"),
        ("darts", SEARCH, "alpha.normal", "freeze holds alpha.normal"),
        ("enas", SEARCH, "controller.*", "no parameter of the controller"),
        ("enas", SEARCH, "body.alpha.reduction", "freeze holds alpha.reduction"),
    ],
)
def test_what_a_method_steps_cannot_be_frozen_whole(algorithm: str, model: Any, pattern: str, said: str) -> None:
    options = {"tasks": {"name": "classification", **SMALL}, "model": model, "freeze": [pattern]}
    config = load_config(overrides={"algorithm": algorithm, **options}).config
    refused(ConfigError, said, lambda: build(config))


def test_methods_that_adapt_do_not_take_it_and_those_that_train_one_model_take_nothing_else() -> None:
    refused(
        ConfigError,
        "batches of one training problem: choose .*plain",
        lambda: load_config(overrides={"algorithm": "protonet", "tasks": "classification"}),
    )
    config = load_config(overrides={"algorithm": "plain", "tasks": "glyphs", "tasks.train_classes": 8}).config
    refused(ConfigError, "another class in each: use --tasks classification", lambda: build(config))


# A run


def test_a_run_scores_the_whole_test_part_and_adapts_to_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {f"tasks.{name}": value for name, value in SMALL.items()} | {"tasks.test_batch": 5, "model.hidden": [4]}
    run = raymeta.meta_train(
        algorithm="plain", tasks="classification", model="mlp", output=str(tmp_path), steps=2, meta_batch_size=2,
        validate_every=0, **options,
    )  # fmt: skip
    assert run.summary["headline"]["episodes"] == 4
    assert [e["message"] for e in run.events() if e["kind"] == "testing"] == ["scoring 4 test batches"]
    assert (run.summary["headline"]["of"], run.summary["headline"]["split"]) == ("batches", "test")
    assert run.summary["over_classes"] is None
    assert evaluate([str(run.path), "--no-save"]) == 0
    said = capsys.readouterr().out
    assert "4 classes, the whole test part in batches" in said
    assert " over 4 batches\n" in said
    folder_of(tmp_path / "own", "a", "b")
    assert adapt([str(run.path), "--support", str(tmp_path / "own"), "--out", str(tmp_path / "adapted")]) == 2
    assert "was trained by plain for classes of its own, and adapts to no others" in capsys.readouterr().err
    assert serve([str(run.path)]) == 2
    assert "was trained by plain for classes of its own, and adapts to no others" in capsys.readouterr().err
    assert export([str(run.path), "--out", str(tmp_path / "it.pt2"), "--format", "torch"]) == 2
    assert "A model of --tasks classification adapts to nothing: leave --format out" in capsys.readouterr().err
    assert export([str(run.path), "--out", str(tmp_path / "out")]) == 0
    assert "adapt it" not in capsys.readouterr().out
    assert "raymeta adapt" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_labels_beyond_the_classes_are_refused() -> None:
    one = Classification(**SMALL).episode(keys("train", 1)[0])
    require_labels(one, "here", 4, each=False)
    for label in (4, -1):
        y = one.support.y.clone()
        y[0] = label
        wrong = one._replace(support=one.support._replace(y=y))
        refused(
            DataError, "here: labels in support are", lambda wrong=wrong: require_labels(wrong, "here", 4, each=False)
        )
