"""Few-shot intents of CLINC150 in a published class split: a ProtoNet on a small encoder against bags of words.

    python benchmarks/own_text.py --root FOLDER    # with text/clinc150.tsv.gz and splits/protaugment_clinc150.json

Both are scored on the same 600 episodes of test classes, 5-way 5-shot. Trains on one core for a few minutes; writes
results/benchmarks/own-text.json and fails unless the ProtoNet is better by more than both intervals.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from record import record

import raymeta
from raymeta.api.evaluate import TEST_SEED
from raymeta.keys import TaskKey
from raymeta.tasks import Text
from raymeta.tasks.text.words import MOST_WORDS, Words, vocabulary_of

SPLIT = "01"  # of the five of ProtAugment (Dopierre et al., ACL 2021): 50 classes each for train, val and test
EPISODES, STEPS, TRAIN_WAY = 600, 1000, 20
TRAINING: dict[str, Any] = {"algorithm": "protonet", "model": "text", "steps": STEPS, "outer.lr": 0.005}
TRAINING |= {"model.width": 512, "meta_batch_size": 2, "shard_size": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with text/ and splits/")
    root = parser.parse_args().root
    torch.set_num_threads(1)
    tasks = published(root)
    tasks.check()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that the preset's switch drops
        options = TRAINING | {"validate_every": 500, "validation_episodes": 200, "test_episodes": EPISODES}
        run = raymeta.meta_train(tasks=tasks, output=folder, device="cpu", **options)
        score, seconds = run.summary["headline"], time.perf_counter() - start
    bags = {name: bag_of_words(tasks, weighted=weighted) for name, weighted in (("counts", False), ("idf", True))}
    print(f"protonet {score['value']:.4f} ± {score['ci95']:.4f} after {seconds:.0f} s; bags of words {bags}")
    better = all(score["value"] - score["ci95"] > bag["value"] + bag["ci95"] for bag in bags.values())
    content = {
        "unit": "accuracy, 5-way 5-shot",
        "split": SPLIT,
        "episodes": EPISODES,
        "training": TRAINING,
        "train_way": TRAIN_WAY,
    }
    content |= {
        "seconds": seconds,
        "protonet": {k: score[k] for k in ("value", "ci95")},
        "bag_of_words": bags,
        "met": better,
    }
    print(f"wrote {record('own-text', content)}")
    return 0 if better else 1


def published(root: Path) -> Text:
    """CLINC150 without the sentences out of scope, its classes split as published."""
    lists = json.loads((root / "splits" / "protaugment_clinc150.json").read_text(encoding="utf-8"))["splits"][SPLIT]
    classes: dict[str, Any] = {f"{split}_classes": tuple(names) for split, names in lists.items()}
    return Text(file=str(root / "text" / "clinc150.tsv.gz"), label="intent", train_way=TRAIN_WAY, **classes)


def bag_of_words(tasks: Text, *, weighted: bool) -> dict[str, float]:
    """The nearest class mean by counts of words, at length 1; `weighted` by how rare a word is in training texts."""
    manifest = tasks.manifest()
    texts = [row["text"] for row in tasks.rows().content]
    every = Words(column=tasks.text, length=64, vocabulary=vocabulary_of(texts, MOST_WORDS, 1))
    counted = tasks.keeping(dataclasses.replace(manifest, preprocessing=every.to_json()))
    idf = rarity(counted, every.num_tokens) if weighted else torch.ones(every.num_tokens)
    right = torch.tensor([accuracy(counted, index, idf) for index in range(EPISODES)], dtype=torch.float64)
    return {"value": float(right.mean()), "ci95": 1.96 * float(right.std()) / EPISODES**0.5}


def rarity(tasks: Text, size: int) -> torch.Tensor:
    """log((1 + texts) / (1 + texts with the word)) + 1 over the training texts."""
    x: Any = tasks.loaded.splits["train"].x
    there = torch.zeros(size)
    for tokens, mask in zip(x["tokens"], x["mask"], strict=True):
        there[torch.from_numpy(tokens[mask]).unique()] += 1
    return ((1 + len(x["tokens"])) / (1 + there)).log() + 1


def accuracy(tasks: Text, index: int, idf: torch.Tensor) -> float:
    """Of one test episode, the same that the network is scored on."""
    support, query = tasks.episode(TaskKey(TEST_SEED, "test", 0, index))
    s, q = (bags(side.x, idf) for side in (support, query))
    means = torch.stack([s[support.y == label].mean(0) for label in range(tasks.way)])
    return float((torch.cdist(q, means).argmin(1) == query.y).double().mean())


def bags(x: Any, idf: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(len(x["tokens"]), len(idf)).scatter_add_(1, x["tokens"], x["mask"].float()) * idf
    return counts / counts.norm(dim=1, keepdim=True)


if __name__ == "__main__":
    sys.exit(main())
