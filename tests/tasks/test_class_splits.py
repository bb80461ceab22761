"""Which class is where: the published lists and the cut by ratio."""

from __future__ import annotations

import pytest

from raymeta.errors import DataError
from raymeta.keys import SPLITS
from raymeta.tasks.images.omniglot.files import vinyals_names
from raymeta.tasks.images.splits import cut, published, require_present, shuffled

SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
FINE = {fine: coarse for coarse, fines in SUPERCLASSES.items() for fine in fines.split()}


@pytest.mark.parametrize("name", ["cifar_fs", "fc100"])
def test_cifar_lists_use_every_class_once(name: str) -> None:
    listed = [fine for split in SPLITS for fine in published(name)[split]]
    assert sorted(listed) == sorted(FINE)


def test_fc100_splits_share_no_superclass() -> None:
    coarse = [{FINE[fine] for fine in published("fc100")[split]} for split in SPLITS]
    assert [len(part) for part in coarse] == [12, 4, 4]
    assert len(set().union(*coarse)) == 20
    assert coarse[2] == {"aquatic_mammals", "insects", "medium_mammals", "people"}


def test_omniglot_list_divides_characters_but_not_alphabets() -> None:
    names = vinyals_names()
    listed = [name for split in SPLITS for name in names[split]]
    assert len(listed) == len(set(listed)) == 1623
    alphabets = {split: {name.split("/")[0] for name in names[split]} for split in SPLITS}
    assert [len(alphabets[split]) for split in SPLITS] == [33, 5, 13]
    assert alphabets["train"] & alphabets["test"] == {"Gurmukhi"}
    assert sum(name.startswith("Gurmukhi/") for name in names["train"]) == 41


def test_mini_imagenet_list_has_wordnet_ids() -> None:
    listed = [name for split in SPLITS for name in published("mini_imagenet_ravi")[split]]
    assert len(set(listed)) == len(listed) == 100
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in listed)


def test_cut_is_a_partition_in_the_old_order() -> None:
    names = [f"c{i:02}" for i in range(20)]
    parts = cut(names, 3, 4, seed=5)
    assert [len(parts[split]) for split in SPLITS] == [13, 3, 4]
    assert sorted(name for split in SPLITS for name in parts[split]) == names
    assert all(parts[split] == sorted(parts[split]) for split in SPLITS)
    assert cut(names, 3, 4, seed=6) != parts


def test_shuffle_never_changes() -> None:
    """The order a seed gives decides which classes a published result was tested on."""
    assert "".join(shuffled("abcdefgh", 0)) == "acbfedgh"


def test_missing_classes_are_named() -> None:
    splits = published("cifar_fs")
    require_present(splits, FINE, "there", "remedy")
    present = dict.fromkeys(set(FINE) - {"apple", "worm"})
    with pytest.raises(DataError, match=r"2 of 100 classes are not in there: apple, worm\. remedy"):
        require_present(splits, present, "there", "remedy")
