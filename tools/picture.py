"""Draw docs/adaptation.png from a finished classification run: an episode before and after adapting, and its curves.

    python tools/picture.py RUN

The episode is the first of the test split, not a chosen one; the curves are the run's metrics.jsonl and a test on
600 episodes with the run's own protocol.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from raymeta import TaskKey, load_run, meta_test
from raymeta.adaptation.problem import Phase
from raymeta.api.checkpoints import best_checkpoint, run_config
from raymeta.api.evaluate import TEST_SEED, Evaluation
from raymeta.config.build import build
from raymeta.runs.read import Run
from raymeta.tasks.episodes import Episode, one_task
from raymeta.trackers.scores import half_width

TARGET = Path(__file__).parents[1] / "docs" / "adaptation.png"
EPISODES = 600
INK, MUTED, RIGHT, WRONG = "#1f2933", "#7b8794", "#0b7a75", "#d1495b"
LETTERS = "ABCDEFGHIJKLMNOPQRST"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder, its id, or `latest`")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    evaluation = meta_test(run, episodes=EPISODES)
    style = {"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED}
    with plt.rc_context({**style, "axes.edgecolor": "#cbd2d9", "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(10, 4.9), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[1.05, 1], wspace=0.04)
        episode, guesses = adapt_to_first_episode(run)
        draw_episode(left, episode, guesses)
        top, bottom = right.subplots(2, 1)
        draw_validation(top, run, chance=1 / evaluation.settings["way"])
        draw_adaptation(bottom, evaluation)
        figure.savefig(arguments.target, dpi=130, facecolor="white")
    plt.close(figure)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1024:.0f} KiB")
    return 0


def adapt_to_first_episode(run: Run) -> tuple[Episode, list[np.ndarray]]:
    """The first test episode, and the predicted class of each query [Q] before and after each inner step."""
    config = run_config(run, {"workers": 0})
    blueprint = build(config).blueprint
    problem = blueprint.problem()
    problem.set_training(False)
    batch = config.tasks.episodes([key := TaskKey(TEST_SEED, "test", 0, 0)])
    episode = Episode(one_task(batch.support, 0), one_task(batch.query, 0))
    phase = Phase(training=False, way=problem.way_of(batch))
    noise = config.algorithm.noise(problem, [key], batch.support, phase)
    noise = {name: value[0] for name, value in noise.items()}
    learned = best_checkpoint(run).learned
    adaptation = config.algorithm.adapt(problem, learned, episode.support, noise=noise, phase=phase)
    with torch.no_grad():
        return episode, [predict(episode.query.x).argmax(-1).numpy() for predict in adaptation.predictors]


def draw_episode(figure: Any, episode: Episode, guesses: list[np.ndarray]) -> None:
    """A column per class: its support image on top, its queries below with the class predicted before → after."""
    y = episode.query.y.numpy()
    way, shots = int(y.max()) + 1, len(y) // (int(y.max()) + 1)
    right = [int((guess == y).sum()) for guess in (guesses[0], guesses[-1])]
    figure.suptitle(
        f"A test task, predictions before → after {len(guesses) - 1} inner steps on the first row\n"
        f"right before: {right[0]} of {len(y)}, after: {right[1]} of {len(y)}",
        fontsize=10,
    )
    axes = figure.subplots(shots + 1, way)
    for n in range(way):
        _image(axes[0, n], episode.support.x[n], INK)
        axes[0, n].set_title(LETTERS[n], fontsize=11, fontweight="bold", pad=3)
        for q in range(shots):
            index = n * shots + q
            before, after = int(guesses[0][index]), int(guesses[-1][index])
            colour = RIGHT if after == n else WRONG
            _image(axes[q + 1, n], episode.query.x[index], colour)
            text = f"{LETTERS[before]} → {LETTERS[after]} {'✓' if after == n else '✗'}"
            axes[q + 1, n].set_xlabel(text, fontsize=8, color=colour, labelpad=2)
    axes[0, 0].set_ylabel("support", fontsize=9)
    axes[1 + shots // 2, 0].set_ylabel("query", fontsize=9)


def _image(ax: Axes, x: torch.Tensor, colour: str) -> None:
    ax.imshow(x.mean(0), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=1.2)


def draw_validation(ax: Axes, run: Run, chance: float) -> None:
    """Validation accuracy with its 95 % interval over outer steps."""
    rows = [row for row in run.metrics() if "val/accuracy" in row]
    step = np.array([row["step"] for row in rows])
    value = 100 * np.array([row["val/accuracy"] for row in rows])
    ci95 = 100 * np.array([row["val/accuracy_ci95"] for row in rows])
    ax.fill_between(step, value - ci95, value + ci95, color=RIGHT, alpha=0.18, linewidth=0)
    ax.plot(step, value, color=RIGHT, marker="o", markersize=3.5)
    _chance(ax, chance)
    ax.set(xlabel="outer step", ylabel="accuracy in %", ylim=(0, 100), xlim=(0, None))
    ax.set_title(f"Validation: {run.config['validation_episodes']} tasks with new classes", fontsize=10, loc="left")


def draw_adaptation(ax: Axes, evaluation: Evaluation) -> None:
    """Test accuracy before adapting and after each inner step, with 95 % intervals over episodes."""
    scores = 100 * evaluation.scores.main
    mean, ci95 = scores.mean(0), [half_width(column) for column in scores.T]
    ax.bar(range(len(mean)), mean, width=0.55, color=[MUTED, *[RIGHT] * (len(mean) - 1)], alpha=0.85)
    ax.errorbar(range(len(mean)), mean, ci95, fmt="none", ecolor=INK, capsize=3, linewidth=1.2)
    for k, (m, c) in enumerate(zip(mean, ci95, strict=True)):
        ax.annotate(f"{m:.1f} ± {c:.1f}", (k, m + c), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    _chance(ax, 1 / evaluation.settings["way"])
    ax.set(xlabel="inner step (0: before adapting)", ylabel="accuracy in %", ylim=(0, 100), xlim=(-0.5, len(mean)))
    ax.set_xticks(range(len(mean)))
    ax.set_title(f"Test: {len(scores)} tasks with other new classes, 95 % intervals", fontsize=10, loc="left")


def _chance(ax: Axes, chance: float) -> None:
    ax.axhline(100 * chance, color=MUTED, linestyle=":", linewidth=1)
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    ax.annotate("chance", (1, 100 * chance), (0, 2), **place, color=MUTED, fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
