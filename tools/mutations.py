"""Deliberate mistakes that the tests must notice: each is one small change of text in a copy of the package.

    python tools/mutations.py                   all of them, minutes
    python tools/mutations.py --part 1/4        a quarter
    python tools/mutations.py --only NAME       one
    python tools/mutations.py --list            their names, files and tests

A mistake is caught where the test that is named with it fails. That test passes without the mistake, or nothing is
concluded. The end is a table of counts. The exit status is 1 where a mistake survived, its text is not found exactly
once, or its test could not run. `tests/house/test_mutations.py` keeps the list itself in order.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 240
"""Longest time of one test; a mistake that makes it hang is caught."""


class Mutation(NamedTuple):
    """A mistake: `old` stands once in `file`, a path inside the package, and becomes `new`; `test` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


def mutations() -> list[Mutation]:
    return [
        Mutation(f"{file.rpartition('/')[2].removesuffix('.py')}: {name}", file, old, new, test)
        for file, changes in CHANGES.items()
        for name, old, new, test in changes
    ]


def occurrences(mutation: Mutation) -> int:
    """How often the old text stands in the file; it should be once."""
    return (ROOT / "raymeta" / mutation.file).read_text(encoding="utf-8").count(mutation.old)


WHOLE = "tests/laws/test_whole_runs.py::test_a_run_is_the_plain_loop"
FEWER = "tests/laws/test_whole_runs.py::test_a_test_of_fewer_steps_is_the_beginning_of_the_whole_one"
STOPPED = "tests/laws/test_whole_runs.py::test_a_stopped_run_goes_on_with_its_schedule"
LAWS = "tests/laws/test_algorithms.py::test_"
OUTER = "tests/laws/test_outer.py::test_"
MIXING = "tests/laws/test_mixing.py::test_"
UPDATES = "tests/laws/test_outer_updates.py::test_"
KEYS = "tests/laws/test_keys.py::test_"
MAML_PP = "tests/laws/test_maml_pp.py::test_"
RULES = "tests/laws/test_inner_rules.py::test_rules_are_those_of_their_papers_differentiated"
AGAIN = "tests/laws/test_inner_rules.py::test_steps_that_are_computed_again_keep_the_bits"
SUMS = "tests/laws/test_sums_and_scores.py::test_"

REWEIGHTING = "tests/laws/test_reweighting.py::test_"
DADA = "tests/laws/test_dada.py::test_"
RELAX = "tests/laws/test_relax.py::test_"
DISTILLATION = "tests/laws/test_distillation.py::test_"
DOMAINS = "tests/laws/test_domains.py::test_"
PROBLEM = "tests/tasks/test_classification.py::test_"
CNAPS = "tests/laws/test_cnaps.py::test_"
HSML = "tests/laws/test_hsml.py::test_"
SNAIL = "tests/laws/test_snail.py::test_"
CNP = "tests/laws/test_cnp.py::test_"
PFN = "tests/laws/test_pfn.py::test_"
LIKELIHOODS = "tests/laws/test_likelihoods.py::test_"
TABLES = "tests/tasks/test_tabular_prior.py::test_"
PROCESS = "tests/tasks/test_gaussian_process.py::test_"

UNROLL = "tests/laws/test_learned_optimizers.py::test_"
L2L = "tests/laws/test_l2l.py::test_"
OPTIMIZER = "tests/use/test_optimizer.py::test_"
HANDS = "tests/laws/test_hand_rules.py::test_"
TRAINED = "tests/use/test_trained.py::test_"
DISTILLED = "tests/laws/test_distillation.py::test_"
EVOLUTION = "tests/laws/test_nas_evolution.py::test_"
REINFORCE = "tests/laws/test_nas_reinforce.py::test_"
DARTS = "tests/laws/test_darts.py::test_"
ENAS = "tests/laws/test_enas.py::test_"
CELLS = "tests/models/test_cells.py::test_"
PERCEPTRONS = "tests/tasks/test_perceptrons.py::test_"

Change = tuple[str, str, str, str]
"""Name, old text, new text, test."""

CHANGES: dict[str, Sequence[Change]] = {
    "adaptation/unroll.py": [
        (
            "slope differentiated",
            "with torch.no_grad():",
            "with torch.enable_grad():",
            f"{L2L}the_slope_of_the_optimisee_is_an_input_alone",
        ),
        (
            "slope on the next batch",
            "_slope(objective, theta, t)",
            "_slope(objective, theta, t + 1)",
            f"{UNROLL}a_plain_rate_is_sgd_on_a_network_with_its_batches_bit_for_bit",
        ),
        (
            "one side of a pair twice",
            "torch.cat([draws, -draws])",
            "torch.cat([draws, draws])",
            f"{UNROLL}orthogonal_antithetic_directions_give_the_gradient_of_a_quadratic",
        ),
        (
            "pairs not divided by two",
            "(2 * sigma * len(draws))",
            "(sigma * len(draws))",
            f"{UNROLL}the_estimate_is_that_of_its_formula",
        ),
    ],
    "algorithms/learned_optimizer.py": [
        (
            "persistent strategies forget",
            "drift = rows[DRIFT] + draws",
            "drift = draws",
            f"{UNROLL}persistent_windows_add_up_to_the_whole_unroll",
        ),
        (
            "all windows perturbed alike",
            "(window + 1) * _WINDOW",
            "_WINDOW",
            f"{UNROLL}every_window_and_every_task_has_perturbations_of_its_own",
        ),
        (
            "every window begins with the first batch",
            "batches[first:]",
            "batches[: num_steps + 1]",
            f"{UNROLL}batches_go_on_from_window_to_window_and_evaluation_begins_with_the_same",
        ),
        (
            "gains begin at 0",
            "(p.detach() == 1).all()",
            "(p.detach() == 2).all()",
            f"{UNROLL}networks_start_around_zero_and_gains_around_one",
        ),
    ],
    "models/layers/optimizer_rules.py": [
        (
            "means without correction",
            "means / (1 - decays**count)",
            "means",
            f"{UNROLL}the_perceptron_is_told_what_it_says",
        ),
        (
            "squares of the means",
            "(1 - SQUARE_DECAY) * slope.square()",
            "(1 - SQUARE_DECAY) * slope.mean().square()",
            f"{UNROLL}the_perceptron_is_told_what_it_says",
        ),
    ],
    "models/layers/hand_rules.py": [
        (
            "momentum of a share of the slope",
            "mean = 0.9 * mean + slope",
            "mean = 0.9 * mean + 0.1 * slope",
            f"{HANDS}a_rule_takes_the_steps_of_torch",
        ),
    ],
    "api/optimizers.py": [
        (
            "the worst rate",
            "ends.argmin()",
            "ends.argmax()",
            f"{HANDS}the_chosen_rate_ends_lowest_of_all_that_are_tried_one_by_one",
        ),
    ],
    "use/pretrained.py": [
        (
            "a trained model normalised by a support set",
            '({"batch_norm": "support"} if adapts else {})',
            '{"batch_norm": "support"}',
            f"{TRAINED}batch_norm_follows_the_policy_of_training",
        ),
    ],
    "api/start.py": [
        (
            "a teacher that fits in part",
            "if start.prefix and left:",
            "if not start.prefix and left:",
            f"{DISTILLED}a_teacher_that_does_not_fit_is_told",
        ),
    ],
    "use/optimizer.py": [
        (
            "updates whatever the factor",
            'group["lr"] * self._update',
            "self._update",
            f"{OPTIMIZER}a_scheduler_of_torch_scales_the_updates_and_goes_on_from_its_state",
        ),
        (
            "state forgotten",
            "self.state[parameter].update(after)",
            "pass",
            f"{OPTIMIZER}a_quadratic_of_ones_own_is_minimised_as_in_the_run",
        ),
        (
            "update turned round",
            "parameter.add_(",
            "parameter.sub_(",
            f"{OPTIMIZER}a_network_of_ones_own_is_trained_as_in_the_run_and_goes_on_from_its_state",
        ),
    ],
    "adaptation/ageing.py": [
        (
            "the oldest live",
            "born[-population:]",
            "born[:population]",
            f"{EVOLUTION}the_oldest_go_whatever_they_are_worth",
        ),
        ("the worst has the child", ".argmax()", ".argmin()", f"{EVOLUTION}the_best_of_the_sample_changes_on_one_edge"),
    ],
    "algorithms/nas_evolution.py": [
        (
            "children may be their parents",
            "others = num_operations(episode) - 1",
            "others = num_operations(episode)",
            f"{EVOLUTION}every_other_operation_can_come",
        ),
    ],
    "adaptation/policy.py": [
        (
            "baseline forgotten",
            " - learned.given[BASELINE][0]",
            "",
            f"{REINFORCE}the_baseline_lowers_what_an_architecture_is_worth",
        ),
        (
            "entropy turned round",
            "reward - entropy_weight",
            "reward + entropy_weight",
            f"{REINFORCE}the_gradient_over_all_architectures_is_that_of_the_expectation",
        ),
        (
            "baseline of this step",
            "return mean if",
            "return mean if True or",
            f"{REINFORCE}the_baseline_is_the_moving_mean_of_what_came_before",
        ),
    ],
    "algorithms/darts.py": [
        (
            "up the product",
            "value - mixed[name]",
            "value + mixed[name]",
            f"{DARTS}the_gradient_goes_through_the_look_ahead",
        ),
        (
            "momentum forgotten",
            "drifted[name] - rates",
            "outer.params[name] - rates",
            f"{DARTS}the_gradient_goes_through_the_look_ahead",
        ),
        (
            "one-sided difference",
            "for sign in (1, -1)",
            "for sign in (1, 0)",
            f"{DARTS}differences_are_exact_where_slopes_are_linear",
        ),
        ("betas of the weights", "[0.5, 0.999]", "[0.9, 0.999]", f"{DARTS}the_architecture_steps_as_adam_of_the_paper"),
    ],
    "algorithms/enas.py": [
        (
            "trained as judged",
            'noise["draws"][0]',
            'noise["draws"][1]',
            f"{ENAS}every_task_trains_the_architecture_that_it_draws_first",
        ),
        ("the worst is found", "argmax()", "argmin()", f"{ENAS}what_is_found_is_the_best_of_the_last_step"),
        (
            "a baseline without memory",
            "moved(baseline,",
            "moved(None,",
            f"{ENAS}the_controller_follows_the_accuracies_above_the_baseline",
        ),
    ],
    "models/genotype.py": [
        (
            "none is an operation",
            '(operations) if name != "none"]\n    node = 0',
            "(operations)]\n    node = 0",
            f"{CELLS}the_strongest_edges_and_operations_are_kept",
        ),
    ],
    "models/supernet.py": [
        (
            "shares over edges",
            "self.alpha[kind].softmax(1)",
            "self.alpha[kind].softmax(0)",
            f"{CELLS}one_operation_an_edge_is_the_derived_network",
        ),
        (
            "the same state twice",
            "other + (other >= first)",
            "other",
            f"{ENAS}choices_are_the_same_architecture_as_parameters",
        ),
    ],
    "models/layers/controller.py": [
        (
            "choices turned round",
            "given >= logits",
            "given < logits",
            f"{REINFORCE}probabilities_add_up_and_samples_have_them",
        ),
        (
            "open beyond the last",
            ".masked_fill(closed, -torch.inf)",
            "",
            f"{ENAS}probabilities_of_all_architectures_add_up",
        ),
        (
            "choices not seen",
            "seen = (torch.arange",
            "_ = (torch.arange",
            f"{REINFORCE}what_is_chosen_changes_what_comes_after",
        ),
    ],
    "tasks/perceptrons.py": [
        (
            "operations in another order",
            'cells = all_cells(6, len(content["widths"]))',
            'cells = all_cells(6, len(content["widths"]))[:, ::-1].copy()',
            f"{PERCEPTRONS}the_file_lists_networks_as_the_table_does",
        ),
    ],
    "algorithms/reptile.py": [
        (
            "driver moments doubled",
            "{MOMENTS + n: v for n, v in moments.items()} | {COUNT: count}",
            "{MOMENTS + n: 2 * v for n, v in moments.items()} | {COUNT: count}",
            f"{WHOLE}[vmap-reptile, driver]",
        ),
        ("no bias correction", "((v / bias).sqrt() + EPS)", "(v.sqrt() + EPS)", f"{WHOLE}[vmap-reptile]"),
        ("another beta2", "BETA2, EPS = 0.999, 1e-8", "BETA2, EPS = 0.99, 1e-8", f"{WHOLE}[vmap-reptile]"),
        (
            "the same order in every pass",
            "np.concatenate([rng.permutation(num_examples) for _ in range(passes)])",
            "np.tile(rng.permutation(num_examples), passes)",
            f"{WHOLE}[vmap-reptile, sgd]",
        ),
        (
            "order not shuffled",
            "[rng.permutation(num_examples) for _ in range(passes)]",
            "[np.arange(num_examples) for _ in range(passes)]",
            f"{WHOLE}[vmap-reptile, sgd]",
        ),
        (
            "order from the stream of episodes",
            'key.generator("noise")',
            'key.generator("episode")',
            f"{WHOLE}[vmap-reptile, sgd]",
        ),
        (
            "count forgotten between steps",
            "count = learned.state.get(COUNT, torch.zeros(()))",
            "count = torch.zeros(())",
            f"{WHOLE}[vmap-reptile, driver]",
        ),
        (
            "moments forgotten between steps",
            "moments = moments or tree_map(torch.zeros_like, theta)",
            "moments = tree_map(torch.zeros_like, theta)",
            f"{WHOLE}[vmap-reptile, driver]",
        ),
        (
            "moments folded half",
            "{name: mean[name].to(value.dtype) for name, value in state.items()}",
            "{name: (value + mean[name].to(value.dtype)) / 2 for name, value in state.items()}",
            f"{WHOLE}[vmap-reptile, driver]",
        ),
        ("moments of magnitudes", "(1 - BETA2) * g.square()", "(1 - BETA2) * g.abs()", f"{WHOLE}[vmap-reptile]"),
        (
            "delta turned round",
            "tree_map(torch.sub, learned.params, theta)",
            "tree_map(torch.sub, theta, learned.params)",
            f"{LAWS}reptile_is_the_sum_of_inner_gradients",
        ),
        (
            "steps of training at test",
            "num_steps = steps_in(phase, self.inner_steps, self.test_inner_steps)",
            "num_steps = steps_in(phase, self.inner_steps, None)",
            f"{WHOLE}[vmap-reptile, sgd]",
        ),
        (
            "mini-batches of training at test",
            "self.inner_batch_size if phase.training else self.test_inner_batch_size",
            "self.inner_batch_size",
            f"{WHOLE}[vmap-reptile, sgd]",
        ),
        (
            "outer rate does not fall",
            '"lr": 1.0, "schedule": "linear", "final_lr": 0.0}',
            '"lr": 1.0, "schedule": "constant", "final_lr": 0.0}',
            f"{WHOLE}[vmap-reptile, sgd]",
        ),
    ],
    "algorithms/baseline.py": [
        (
            "no dampening",
            "keep, add = self.head_momentum, 1 - self.head_dampening",
            "keep, add = self.head_momentum, 1.0",
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "dampening of the first step",
            "velocity = gradient if velocity is None else self._momentum(velocity, gradient)",
            "velocity = self._momentum(velocity or tree_map(torch.zeros_like, gradient), gradient)",
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "momentum forgotten between passes",
            '        for order in noise["order"]:\n',
            '        for order in noise["order"]:\n            velocity = None\n',
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "decay of the wrong sign",
            "g + self.head_weight_decay * w",
            "g - self.head_weight_decay * w",
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "features not normalised",
            "F.normalize(z, dim=-1) @",
            "z @",
            f"{WHOLE}[vmap-baseline, cosine]",
        ),
        (
            "weights not normalised",
            'F.normalize(head["weight"], dim=-1).T',
            'head["weight"].T',
            f"{WHOLE}[vmap-baseline, cosine]",
        ),
        ("no scale", "return self.scale * F.normalize", "return F.normalize", f"{WHOLE}[vmap-baseline, cosine]"),
        (
            "bias does not learn",
            "head = tree_map(lambda w, v: w - self.head_lr * v, head, velocity)",
            'head = {n: w if n == "bias" else w - self.head_lr * velocity[n] for n, w in head.items()}',
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "the same order in every pass",
            "rng.random((passes, num_support))",
            "np.tile(rng.random((1, num_support)), (passes, 1))",
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "training on labels of the episode",
            "(episode.support.class_id, episode.query.class_id)",
            "(episode.support.y, episode.query.y)",
            f"{WHOLE}[vmap-baseline, linear]",
        ),
        (
            "a head that does not start at zero",
            '"weight": z_SD.new_zeros(way, z_SD.shape[1])',
            '"weight": z_SD.new_ones(way, z_SD.shape[1]).tril()',
            f"{LAWS}baseline_starts_uniform_and_freezes_the_body",
        ),
        (
            "training on a linear head",
            'if self.head == "linear":\n            logits',
            "if True:\n            logits",
            f"{WHOLE}[vmap-baseline, cosine]",
        ),
    ],
    "adaptation/distillation.py": [
        (
            "factor of one temperature",
            "by.teacher * by.student * F",
            "by.teacher * by.teacher * F",
            f"{DISTILLATION}what_learns_to_teach_follows_finite_differences",
        ),
        (
            "the student is the teacher",
            "F.kl_div(heard, told,",
            "F.kl_div(told, heard,",
            f"{DISTILLATION}of_linear_networks_both_gradients_are_closed_forms",
        ),
    ],
    "adaptation/through_step.py": [
        (
            "no virtual step",
            "params[name] - rates[name] * value",
            "params[name] - 0 * value",
            f"{DISTILLATION}what_learns_to_teach_follows_finite_differences",
        ),
    ],
    "algorithms/look_ahead.py": [
        (
            "the worst teacher",
            "{name: -value for name, value in found.items()}",
            "found",
            f"{DISTILLATION}of_linear_networks_both_gradients_are_closed_forms",
        ),
    ],
    "algorithms/distillation.py": [
        (
            "the student's labels are not all of the rest",
            "(1 - self.alpha) * problem.loss",
            "self.alpha * problem.loss",
            f"{DISTILLATION}what_learns_to_teach_follows_finite_differences",
        ),
        (
            "the teacher's training goes on",
            "phase.step < self.teacher_steps",
            "phase.step <= self.teacher_steps",
            f"{DISTILLATION}the_student_steps_with_what_was_learned",
        ),
    ],
    "adaptation/relax.py": [
        (
            "drawn again without looking",
            "torch.where(b_nK > 0, off + v_nK * (1 - off), v_nK * off)",
            "v_nK",
            f"{RELAX}what_is_drawn_again_is_the_same_choice",
        ),
        (
            "a surrogate with a mean",
            "error_n: Tensor = value_n - of_again",
            "error_n: Tensor = value_n + of_again",
            f"{RELAX}a_surrogate_does_not_change_the_mean",
        ),
        (
            "noise of another kind",
            "logits_nK.log_softmax(1) - torch.log(-u_nK.log())",
            "logits_nK.log_softmax(1) - u_nK.log()",
            f"{RELAX}a_surrogate_does_not_change_the_mean",
        ),
    ],
    "adaptation/picture_operations.py": [
        (
            "turned about a corner",
            "hats(there_n2p[:, 0] + middle[0], across)",
            "hats(there_n2p[:, 0], across)",
            f"{DADA}turning_is_about_the_middle",
        ),
        (
            "wide images are high",
            "SHIFT * width * across",
            "SHIFT * height * across",
            f"{DADA}operations_are_what_they_are_called",
        ),
    ],
    "algorithms/dada.py": [
        (
            "a policy that nobody is told of",
            "return metrics | dict(zip(OPERATION_USES, uses(outer.params).tolist(), strict=True))",
            "return metrics",
            f"{DADA}a_run_tells_how_likely_each_operation_is_and_draws_it",
        ),
        (
            "uses of second operations counted as first ones",
            "@ operations_at(place).to(weights)",
            "@ operations_at(0).to(weights)",
            f"{DADA}an_operation_is_used_as_often_as_its_pairs_and_their_switches_say",
        ),
        (
            "the worst choices",
            '-found["u"], scale',
            'found["u"], scale',
            f"{DADA}choices_are_worth_what_they_do_for_the_clean_batch",
        ),
        (
            "switches that are always off",
            "torch.where(on[:, place].view(-1, 1, 1, 1) > 0, then, x_nchw)",
            "x_nchw",
            f"{DADA}magnitudes_follow_finite_differences",
        ),
        (
            "switches that are always on",
            "torch.where(on[:, place].view(-1, 1, 1, 1) > 0, then, x_nchw)",
            "then",
            f"{DADA}operations_that_never_happen_leave_plain_training",
        ),
        (
            "both tasks draw alike",
            '[key.generator("noise").random((n, 2 * len(PAIRS) + 6)) for key in keys]',
            '[keys[0].generator("noise").random((n, 2 * len(PAIRS) + 6)) for key in keys]',
            f"{DADA}each_task_and_image_has_draws_of_its_own",
        ),
    ],
    "algorithms/l2rw.py": [
        ("harm counts", "u.detach().clamp(min=0)", "u.detach().abs()", f"{REWEIGHTING}a_step_is_the_papers"),
        (
            "up the clean loss",
            'support, -gradient["e"]',
            'support, gradient["e"]',
            f"{REWEIGHTING}a_step_is_the_papers",
        ),
        (
            "divided by nothing",
            "torch.where(weight > 0, 1 / weight, 0.0)",
            "1 / weight",
            f"{REWEIGHTING}where_no_example_helps_nothing_moves",
        ),
    ],
    "algorithms/mldg.py": [
        (
            "ahead of nothing",
            "outputs_of(ahead,",
            "outputs_of(learned.params,",
            f"{DOMAINS}the_gradient_is_the_closed_form",
        ),
        (
            "no weight",
            "of_support + self.query_weight * of_query",
            "of_support + of_query",
            f"{DOMAINS}without_the_domains_put_aside_it_is_training_on_the_others",
        ),
        (
            "always of first order",
            "first_order=self.first_order",
            "first_order=True",
            f"{DOMAINS}the_gradient_is_the_closed_form",
        ),
    ],
    "algorithms/erm.py": [
        (
            "support alone",
            "torch.cat([support.y, query.y])",
            "torch.cat([support.y, support.y])",
            f"{DOMAINS}without_a_step_it_is_erm_on_all_domains",
        ),
    ],
    "tasks/classification/noise.py": [
        (
            "any class",
            "u * (num_classes - 1)",
            "u * num_classes",
            f"{PROBLEM}wrong_labels_are_of_the_kind_that_was_asked",
        ),
    ],
    "tasks/classification/labelled.py": [
        (
            "draws of a class that move with its number",
            "{self.classes[c]}|{name}",
            "{self.classes[c]}|{name}|{len(self.classes)}",
            f"{PROBLEM}an_image_has_the_same_wrong_label_for_ever",
        ),
    ],
    "tasks/classification/parts.py": [
        (
            "the clean part is trained on",
            'yield "train", rows[(rank >= start)',
            'yield "train", rows[(rank >= 0)',
            f"{PROBLEM}parts_hold_every_image_once_and_as_many_of_each_class_as_asked",
        ),
        (
            "a domain that is held out is trained on",
            "            continue\n",
            "",
            f"{PROBLEM}the_domain_that_is_held_out_is_the_test_part_and_never_trained_on",
        ),
    ],
    "tasks/classification/task_set.py": [
        (
            "queries with given labels",
            "given if of_training else true",
            "given",
            f"{PROBLEM}support_has_given_labels_and_query_true_ones",
        ),
    ],
    "tasks/classification/batches.py": [
        (
            "another order for each task",
            "_LAST_INDEX - k.index // num_train",
            "_LAST_INDEX - k.index",
            f"{PROBLEM}pairs_of_a_step_go_through_all_domains_for_training",
        ),
    ],
    "algorithms/cnaps.py": [
        (
            "a body that learns",
            "body.requires_grad_(False)",
            "body.requires_grad_(True)",
            f"{CNAPS}a_frozen_body_is_that_of_the_run_it_starts_from",
        ),
        (
            "scales around 0",
            "return 1 + gamma_C, beta_C",
            "return gamma_C, beta_C",
            f"{CNAPS}without_modulation_the_body_is_bit_for_bit_the_same",
        ),
        ("no bias", "+ bias_W", "+ 0 * bias_W", f"{CNAPS}heads_are_written_for_each_class"),
    ],
    "adaptation/film.py": [
        (
            "shifts are not scaled",
            "own_gamma * bias + own_beta",
            "bias + own_beta",
            f"{CNAPS}film_is_a_scale_and_a_shift_of_what_a_layer_gives",
        ),
    ],
    "algorithms/hsml.py": [
        (
            "a start without modulation",
            "{name: eta * learned.params[name] for name, eta in pieces",
            "{name: learned.params[name] for name, eta in pieces",
            f"{HSML}the_start_is_the_formula",
        ),
        (
            "assignment by distance",
            "(task_E - self.centres).square().sum(1) / (2 * self.sigma)",
            "(task_E - self.centres).square().sum(1).sqrt() / (2 * self.sigma)",
            f"{HSML}the_start_is_the_formula",
        ),
        (
            "gates over leaves",
            "self.gate(leaf_CE).softmax(1)",
            "self.gate(leaf_CE).softmax(0)",
            f"{HSML}the_start_is_the_formula",
        ),
        (
            "no error of the auto-encoder",
            "penalty=self.reconstruction * error",
            "penalty=0 * error",
            f"{HSML}the_outer_loss_has_the_error_of_the_auto_encoder",
        ),
    ],
    "models/layers/gru.py": [
        (
            "update turned round",
            "(1 - update) * new + update * state",
            "update * new + (1 - update) * state",
            f"{HSML}the_recurrent_unit_is_that_of_torch",
        ),
    ],
    "tasks/sizes.py": [
        (
            "the most is never drawn",
            "(most - least + 1)",
            "(most - least)",
            f"{TABLES}sizes_are_those_of_the_step_and_a_batch_is_its_tasks",
        ),
    ],
    "tasks/tables/own_columns.py": [
        (
            "components with their deviations",
            " / deviation\n",
            "\n",
            "tests/tasks/test_own_columns.py::test_many_columns_become_the_components_of_largest_variance",
        ),
        (
            "directions without variance blown up",
            "if deviation > SMALL",
            "if True",
            "tests/tasks/test_own_columns.py::test_directions_without_variance_are_zeros",
        ),
    ],
    "algorithms/mann.py": [
        (
            "a gradient for each task",
            "at_once: ClassVar[bool] = True",
            "at_once: ClassVar[bool] = False",
            "tests/laws/test_mann.py::test_a_shard_makes_no_gradient_for_each_task",
        ),
    ],
    "tasks/tabular_prior.py": [
        (
            "classes and rows of one draw",
            "place=n)",
            "place=0)",
            f"{TABLES}classes_are_those_of_the_step_and_drawn_apart_from_rows",
        ),
        (
            "labels in the order of values",
            ", axis=1)[rng.permutation(way)]",
            ", axis=1)",
            f"{TABLES}features_tell_about_classes_and_labels_are_in_random_order",
        ),
        (
            "all features in every table",
            "x_NF[:, rng.integers(2, self.features + 1) :] = 0",
            "x_NF[:, rng.integers(2, self.features + 1) :] *= 1",
            f"{TABLES}tables_have_from_two_to_all_features_and_zeros_for_the_rest",
        ),
    ],
    "tasks/mixing.py": [
        (
            "labels of the other first",
            "torch.stack([y.double(), other.double()",
            "torch.stack([other.double(), y.double()",
            f"{MIXING}queries_are_mixed_with_the_support_and_have_both_labels",
        ),
        (
            "classes paired as they come",
            "np.take_along_axis(other, pairs[:, :, None], 1)",
            "other",
            f"{MIXING}features_are_mixed_at_the_place_that_was_drawn[0]",
        ),
        (
            "shares drawn evenly",
            "np.sort(shares, axis=1)[:, self.beta - 1]",
            "shares[:, 0]",
            f"{MIXING}what_is_drawn_follows_from_each_key",
        ),
        (
            "places of a batch by itself",
            "partner, draws), own.y)",
            "partner, draws, np.arange(len(own.y[0]))[None].repeat(len(own.y), 0)), own.y)",
            f"{MIXING}both_sides_are_mixed_where_they_pass_the_network_as_one[1]",
        ),
        (
            "channels shuffled from the first step",
            "(single[:, 2] < self.shuffle) & late",
            "single[:, 2] < self.shuffle",
            f"{MIXING}what_is_drawn_follows_from_each_key",
        ),
    ],
    "models/layers/mixing_points.py": [
        (
            "mixed at every place",
            "x[SHARE][:, place])",
            "x[SHARE].amin(1))",
            f"{MIXING}features_are_mixed_at_the_place_that_was_drawn[1]",
        ),
        (
            "partners not shuffled",
            "h = shuffled(h, place, groups, x.get(PARTNER_TWIN))",
            "pass",
            f"{MIXING}partners_are_shuffled_before_they_are_mixed",
        ),
        (
            "partners in the order of their batch",
            "other[x[PICKED]] if",
            "other[: len(h)] if",
            f"{MIXING}mixing_after_the_last_layer_mixes_outputs",
        ),
    ],
    "tasks/mixture.py": [
        (
            "phase inside of the sine",
            "amplitude * np.sin(frequency * x) + shift",
            "amplitude * np.sin(frequency * x + shift)",
            "tests/tasks/test_mixture.py::test_every_task_is_a_function_of_its_family",
        ),
    ],
    "algorithms/snail.py": [
        (
            "attention to later places",
            "places[:, None] >= places",
            "places[:, None] >= 0 * places",
            f"{SNAIL}no_place_sees_a_later_one[attention]",
        ),
        (
            "dilations from 2",
            "2**block))",
            "2 ** (block + 1)))",
            f"{SNAIL}convolutions_alone_see_the_whole_sequence[4]",
        ),
        (
            "one place too early",
            "earlier_SC[num_before]",
            "earlier_SC[num_before - 1]",
            f"{SNAIL}shared_places_are_those_of_whole_sequences",
        ),
        (
            "queries tell their label",
            "untold_QF = F.pad(z_QF, (0, way))",
            "untold_QF = F.pad(z_QF, (0, way), value=1.0)",
            f"{SNAIL}labels_of_the_support_stand_in_the_sequence_in_the_drawn_order",
        ),
    ],
    "algorithms/cnp.py": [
        (
            "queries alone are targets",
            "episode = Episode(episode.support, of_all(episode))",
            "episode = Episode(episode.support, episode.query)",
            f"{CNP}training_targets_are_support_and_query_and_scores_are_of_queries",
        ),
        (
            "one mean for all classes",
            "return means_of_classes(problem.beside(ENCODER, learned, z_SF), y, last.out_features).flatten()",
            "return means_of_classes(problem.beside(ENCODER, learned, z_SF), 0 * y, last.out_features).flatten()",
            f"{CNP}a_cnp_by_hand[classification]",
        ),
    ],
    "algorithms/neural_process.py": [
        (
            "samples that do not see the queries",
            "self.decoded(problem, learned, z_NF, whole, ",
            "self.decoded(problem, learned, z_NF, known, ",
            f"{CNP}the_bound_by_hand",
        ),
        (
            "divergence turned round",
            "divergence(whole, known)",
            "divergence(known, whole)",
            f"{CNP}the_bound_by_hand",
        ),
        (
            "samples of training at test",
            "self.samples if phase.training else self.test_samples",
            "self.samples",
            f"{CNP}a_prediction_is_a_mixture_over_samples_from_the_support",
        ),
    ],
    "models/layers/set_encoder.py": [
        (
            "a sum instead of a mean",
            "codes_SD.sum(0) / max(len(codes_SD), 1)",
            "codes_SD.sum(0)",
            f"{CNP}order_and_repetition_of_the_support_do_not_matter[algorithm1-regression]",
        ),
    ],
    "algorithms/pfn.py": [
        (
            "not the features of the support",
            "return (z_SF - mean_F) / scale_F, (z_QF - mean_F) / scale_F",
            "return (z_SF - mean_F) / scale_F, (z_QF - z_QF.mean(0)) / scale_F",
            f"{PFN}standardized_features_are_those_of_the_support",
        ),
        (
            "trained on squares",
            "loss=bars.nll, point=bars.point",
            "loss=lambda o, y: (bars.point(o) - y).square().mean(), point=bars.point",
            f"{PFN}the_loss_is_the_likelihood_of_the_queries[regression]",
        ),
        (
            "borders of one task",
            "for step in range(PRIOR_TASKS)",
            "for step in [0]",
            f"{PFN}borders_are_quantiles_of_the_prior_and_stay",
        ),
    ],
    "models/layers/in_context.py": [
        (
            "queries see each other",
            "self.key_value(normal_NE[:num_support])",
            "self.key_value(normal_NE)",
            f"{PFN}queries_do_not_see_each_other[classification]",
        ),
        (
            "labels are not read",
            "self.of_x(z_SF) + self.of_y(y_SY)",
            "self.of_x(z_SF)",
            f"{PFN}the_order_of_the_support_does_not_matter[classification]",
        ),
        (
            "attention is not scaled",
            "/ math.sqrt(query.shape[-1])",
            "* 1.0",
            f"{PFN}attention_is_that_of_torch",
        ),
    ],
    "adaptation/likelihoods.py": [
        (
            "half of a tail",
            "math.log(2) + low_n",
            "low_n",
            f"{LIKELIHOODS}bars_are_a_density_with_that_mean_and_deviation",
        ),
        (
            "widths forgotten",
            "-self.borders.diff().log()[place_n1[:, 0]]",
            "0 * self.borders.diff().log()[place_n1[:, 0]]",
            f"{LIKELIHOODS}density_within_bars_by_hand",
        ),
        (
            "a product of samples",
            "log_nL.logsumexp(1)",
            "log_nL.sum(1)",
            f"{LIKELIHOODS}a_mixture_is_the_mean_of_densities",
        ),
        (
            "deviations below the least",
            "self.least + (1 - self.least) * F.softplus(spread)",
            "F.softplus(spread)",
            f"{LIKELIHOODS}normals_by_hand",
        ),
    ],
    "tasks/gaussian_process.py": [
        (
            "noise is not squared",
            "self.noise**2 * torch.eye",
            "self.noise * torch.eye",
            f"{PROCESS}the_posterior_is_the_conditional_of_the_joint_distribution",
        ),
        (
            "noise free predictions",
            "kernel.amplitude**2 + kernel.noise**2 - (",
            "kernel.amplitude**2 - (",
            f"{PROCESS}the_posterior_is_the_conditional_of_the_joint_distribution",
        ),
        (
            "one size for all steps",
            "drawn_for_step(split, step, *self.train_shots)",
            "self.shot",
            f"{PROCESS}training_sizes_are_drawn_by_step_and_those_of_tests_are_not",
        ),
    ],
    "algorithms/meta_sgd.py": [
        (
            "rates outside of init_lr",
            "low + (high - low) * torch.rand(",
            "low + high * torch.rand(",
            "tests/laws/test_whole_runs.py::test_rates_of_meta_sgd_fill_their_range",
        ),
        (
            "one rate for a whole tensor",
            "torch.rand(p.shape, generator=generator, dtype=p.dtype)",
            "torch.rand((), generator=generator, dtype=p.dtype).expand(p.shape)",
            f"{WHOLE}[vmap-meta_sgd]",
        ),
        (
            "decay of rates",
            'return {"weight_decay": 0.0} if name.startswith(RATES) else {}',
            "return {}",
            f"{OUTER}weight_decay_spares_learned_rates[adam]",
        ),
        (
            "rates that do not learn",
            "{n.removeprefix(RATES): p for n, p in",
            "{n.removeprefix(RATES): p.detach() for n, p in",
            f"{LAWS}golden_meta_sgd",
        ),
        (
            "steps of training at test",
            "num_steps=steps_in(phase, self.inner_steps, self.test_inner_steps)",
            "num_steps=steps_in(phase, self.inner_steps, None)",
            f"{WHOLE}[vmap-meta_sgd]",
        ),
    ],
    "algorithms/joint.py": [
        (
            "no fine-tuning at test",
            "0 if phase.training else steps_in(phase, 0, self.test_inner_steps)",
            "0",
            f"{WHOLE}[vmap-joint]",
        ),
        (
            "fine-tuning in training",
            "0 if phase.training else steps_in(phase, 0, self.test_inner_steps)",
            "steps_in(phase, 1, self.test_inner_steps)",
            f"{WHOLE}[vmap-joint]",
        ),
        (
            "always as many steps at test",
            "steps_in(phase, 0, self.test_inner_steps)",
            "self.test_inner_steps",
            f"{FEWER}[joint]",
        ),
    ],
    "algorithms/maml.py": [
        (
            "step weights of recomputed steps turned round",
            "enumerate(self.step_weights, start=1)",
            "enumerate(reversed(self.step_weights), start=1)",
            "tests/laws/test_checkpointed_steps.py::test_every_method_has_equal_bits[multi-step-vmap]",
        ),
        (
            "adapt_only ignored",
            "adaptable(problem, learned, self.adapt_only)",
            "adaptable(problem, learned)",
            f"{LAWS}anil_is_maml_that_adapts_only_the_head",
        ),
    ],
    "algorithms/anil.py": [
        (
            "a head of one tensor",
            "if name.startswith(problem.head_prefix))",
            'if name == f"{problem.head_prefix}weight")',
            f"{LAWS}anil_is_maml_that_adapts_only_the_head",
        ),
        (
            "first order ignored",
            "first_order=self.first_order",
            "first_order=False",
            f"{WHOLE}[vmap-anil, first order, sum over classes]",
        ),
        (
            "reduction ignored",
            "return scale * problem.loss(classify",
            "return problem.loss(classify",
            f"{WHOLE}[vmap-anil, first order, sum over classes]",
        ),
        (
            "queries that know no support",
            "problem.features(here, x, phase, support_x=support.x)",
            "problem.features(here, x, phase)",
            f"{WHOLE}[vmap-anil, support]",
        ),
        (
            "steps of training at test",
            "num_steps=steps_in(phase, self.inner_steps, self.test_inner_steps)",
            "num_steps=steps_in(phase, self.inner_steps, None)",
            f"{WHOLE}[vmap-anil]",
        ),
        (
            "all of it adapts in place of the body",
            "learned, support, phase, body)",
            "learned, support, phase, names)",
            f"{LAWS}boil_is_maml_that_adapts_all_but_the_head",
        ),
    ],
    "algorithms/protonet.py": [
        (
            "distances not squared",
            ".square().sum(-1)",
            ".square().sum(-1).sqrt()",
            f"{LAWS}protonet_golden_probabilities",
        ),
        (
            "farthest class wins",
            "logits = -squared_distances(",
            "logits = squared_distances(",
            f"{WHOLE}[vmap-protonet]",
        ),
        ("rate does not fall", '"schedule": "step"', '"schedule": "constant"', f"{WHOLE}[vmap-protonet]"),
    ],
    "algorithms/matching.py": [
        (
            "cosines without scale",
            "(scale * F.normalize(z_QD",
            "(F.normalize(z_QD",
            "tests/laws/test_comparing.py::test_a_large_scale_is_the_nearest_neighbour_for_any_shot",
        ),
    ],
    "algorithms/siamese.py": [
        (
            "triplets the other way",
            "margin + distances_QS[:, :, None] - distances_QS[:, None, :]",
            "margin - distances_QS[:, :, None] + distances_QS[:, None, :]",
            "tests/laws/test_comparing.py::test_the_signs_of_a_triplet",
        ),
        (
            "pairs by their number",
            "(losses_QS * same).sum() / same.sum()",
            "(losses_QS * same).sum() / same.numel()",
            "tests/laws/test_comparing.py::test_koch_is_the_cross_entropy_of_same_and_different",
        ),
        (
            "the least alike example",
            "masked_fill(other_SW, -torch.inf).amax(1)",
            "masked_fill(other_SW, torch.inf).amin(1)",
            "tests/laws/test_comparing.py::test_a_class_is_as_alike_as_its_most_alike_example",
        ),
    ],
    "algorithms/logistic.py": [
        (
            "half a step",
            "target = scores_WS + (y_WS - share) / slope",
            "target = scores_WS + (y_WS - share) / (2 * slope)",
            "tests/laws/test_closed_form_heads.py::test_a_newton_step_is_that_of_the_hessian",
        ),
        (
            "no regularisation of sure ones",
            "torch.diag_embed(ridge.double() / slope)",
            "torch.diag_embed(ridge.double() * slope)",
            "tests/laws/test_closed_form_heads.py::test_newtons_method_ends_where_the_gradient_is_zero[3]",
        ),
    ],
    "algorithms/metaoptnet.py": [
        (
            "the simplex is too small",
            "(ordered.cumsum(-1) - total) / counts",
            "(ordered.cumsum(-1) - total / 2) / counts",
            "tests/laws/test_closed_form_heads.py::test_the_nearest_point_of_a_simplex",
        ),
        (
            "uphill",
            "ahead - rate * slope",
            "ahead + rate * slope",
            "tests/laws/test_closed_form_heads.py::test_the_gap_between_primal_and_dual_closes[0.1]",
        ),
    ],
    "algorithms/maml_pp.py": [
        (
            "first order not drawn",
            "if epoch < self.first_order_epochs:",
            "if False:",
            f"{MAML_PP}first_order_epochs_are_fomaml_and_end",
        ),
        (
            "rates of the first step in all steps",
            "values[RATES + n][k]",
            "values[RATES + n][0]",
            f"{MAML_PP}it_is_the_plain_loop[vmap-whole]",
        ),
        (
            "norms adapt",
            "if not name.startswith(tuple(norms)))",
            ")",
            f"{MAML_PP}without_its_changes_it_is_maml_that_leaves_norms_alone[vmap]",
        ),
        (
            "no floor of the weights",
            "epoch / (num_steps * epochs), floor)",
            "epoch / (num_steps * epochs), 0)",
            f"{MAML_PP}weights_of_the_paper",
        ),
    ],
    "algorithms/cavia.py": [
        (
            "clipping ignored",
            "part.sums[name].clamp(-largest, largest)",
            "part.sums[name]",
            "tests/laws/test_cavia.py::test_each_task_is_clipped_before_the_mean",
        ),
        (
            "nothing but the context is read",
            "queried=(*contexts, *plain.queried)",
            "queried=(*contexts,)",
            "tests/laws/test_checkpointed_steps.py::test_a_context_has_equal_bits",
        ),
    ],
    "algorithms/meta_curvature.py": [
        (
            "matrices transposed",
            "g, dims=([1], [place])",
            "g, dims=([0], [place])",
            "tests/laws/test_meta_curvature.py::test_three_matrices_are_their_kronecker_product",
        ),
        (
            "no preconditioning",
            "plain._replace(precondition=curved)",
            "plain",
            "tests/laws/test_meta_curvature.py::test_multiples_of_identities_are_rates",
        ),
    ],
    "algorithms/leo.py": [
        (
            "latents not detached",
            "latents[-1].detach()",
            "latents[-1]",
            "tests/laws/test_leo.py::test_it_is_the_plain_loop[vmap]",
        ),
        (
            "the same sample in every step",
            "noise[WEIGHTS][k] if",
            "noise[WEIGHTS][0] if",
            "tests/laws/test_leo.py::test_it_is_the_plain_loop[vmap]",
        ),
        (
            "sum over partners",
            "related_S = problem.beside(RELATION, learned, pairs).mean(1)",
            "related_S = problem.beside(RELATION, learned, pairs).sum(1)",
            "tests/laws/test_leo.py::test_it_is_the_plain_loop[vmap]",
        ),
    ],
    "algorithms/meta_lstm.py": [
        (
            "slopes differentiated",
            "with torch.no_grad(), inner_step(step):",
            "with inner_step(step):",
            "tests/laws/test_meta_lstm.py::test_it_is_the_plain_loop[vmap]",
        ),
    ],
    "models/layers/coordinate_lstm.py": [
        (
            "each gate reads the other's last value",
            "for gate in (last[:, :1], last[:, 1:])]",
            "for gate in (last[:, 1:], last[:, :1])]",
            "tests/laws/test_meta_lstm.py::test_it_is_the_plain_loop[vmap]",
        ),
        (
            "nothing forgotten",
            "forget[:, 0] * theta - write",
            "theta - write",
            "tests/laws/test_meta_lstm.py::test_it_is_the_plain_loop[vmap]",
        ),
    ],
    "models/layers/film.py": [
        (
            "no shift",
            "h * gain.view(shape) + shift.view(shape)",
            "h * gain.view(shape)",
            "tests/laws/test_cavia.py::test_film_is_the_plain_loop[vmap]",
        ),
    ],
    "models/layers/step_norm.py": [
        (
            "gain of the first step in all steps",
            "value[_slot(step, len(value))].view(shape)",
            "value[0].view(shape)",
            f"{MAML_PP}it_is_the_plain_loop[vmap-whole]",
        ),
        (
            "statistics of the first step in all steps",
            "self.statistics[_slot(step, len(self.statistics))](x)",
            "self.statistics[0](x)",
            f"{MAML_PP}every_step_keeps_statistics_of_its_own",
        ),
    ],
    "algorithms/imaml.py": [
        (
            "no proximal term",
            "+ self.proximal / 2 * dot(away, away)",
            "+ 0 * dot(away, away)",
            "tests/laws/test_imaml.py::test_closed_form_on_quadratics[vmap]",
        ),
        (
            "damping ignored",
            "+ self.cg_damping * own",
            "",
            "tests/laws/test_imaml.py::test_damping_is_added_to_the_identity",
        ),
        (
            "steepest descent in place of conjugate gradients",
            "r + share * d",
            "r",
            "tests/laws/test_imaml.py::test_as_many_steps_as_dimensions_solve_a_system_and_more_change_nothing",
        ),
        (
            "at least one conjugate-gradient step",
            "at_solution, self.cg_steps) if self.cg_steps else at_solution",
            "at_solution, max(1, self.cg_steps))",
            "tests/laws/test_imaml.py::test_without_conjugate_gradients_it_is_first_order_maml_on_the_same_way",
        ),
    ],
    "algorithms/base.py": [
        (
            "outer loss before adapting",
            "outputs = adaptation.predictors[-1](episode.query.x)",
            "outputs = adaptation.predictors[0](episode.query.x)",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "running statistics move the other way",
            "value.lerp(mean[name].to(value.dtype), momenta[name])",
            "value.lerp(mean[name].to(value.dtype), 1 - momenta[name])",
            f"{LAWS}running_statistics_move_towards_the_mean_of_batches",
        ),
        (
            "a mean over the tasks of a shard",
            "return losses.sum(), metrics",
            "return losses.mean(), metrics",
            "tests/laws/test_contract.py::test_side_by_side_equals_one_after_another[cnp-task_gradient]",
        ),
        (
            "scores on the support set",
            "outputs = [predict(query.x) for",
            "query = episode.support\n            outputs = [predict(query.x) for",
            f"{WHOLE}[vmap-maml]",
        ),
    ],
    "adaptation/outcome.py": [
        (
            "step weights ignored",
            "(losses * (weights if isinstance(weights, Tensor) else losses.new_tensor(weights))).sum()",
            "losses.mean()",
            f"{LAWS}multi_step_loss_is_the_weighted_sum_of_truncated_gradients",
        ),
        (
            "step weights one step early",
            "adaptation.predictors[1:]",
            "adaptation.predictors[:-1]",
            f"{LAWS}multi_step_loss_is_the_weighted_sum_of_truncated_gradients",
        ),
    ],
    "adaptation/descent.py": [
        (
            "first order ignored",
            "first_order=options.first_order",
            "first_order=False",
            f"{LAWS}maml_on_matrix_quadratics",
        ),
        (
            "always first order",
            "first_order=options.first_order",
            "first_order=True",
            f"{LAWS}maml_on_matrix_quadratics",
        ),
        ("ascent", "name: value - (rate if", "name: value + (rate if", f"{LAWS}maml_on_matrix_quadratics"),
        (
            "inner gradients of first order differentiated",
            "with torch.no_grad() if first_order else nullcontext():",
            "with nullcontext():",
            f"{WHOLE}[vmap-anil, first order, sum over classes]",
        ),
        (
            "inner gradients of first order differentiated forwards",
            "detach(theta) if first_order else theta",
            "theta",
            f"{LAWS}first_order_has_the_derivative_one_in_any_mode",
        ),
        (
            "steps of training at test",
            "return training if phase.training or test is None else test",
            "return training",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "steps of an evaluation ignored",
            "if phase.inner_steps is not None:",
            "if False:",
            f"{FEWER}[maml]",
        ),
        (
            "reduction ignored",
            'return phase.way if reduction == "sum_over_classes" and phase.way else 1',
            "return 1",
            f"{LAWS}sum_over_classes_is_the_way_times_the_mean",
        ),
        (
            "queries that know no support",
            "problem.predict(learned._replace(params=values), x, phase, support_x=support.x)",
            "problem.predict(learned._replace(params=values), x, phase)",
            f"{LAWS}support_policy_does_not_look_at_other_queries",
        ),
        (
            "a recomputed step counts from zero",
            "rule.direction(precondition(gradient), kept, step)",
            "rule.direction(precondition(gradient), kept, step - start)",
            f"{AGAIN}[MAML-adam-vmap]",
        ),
        (
            "state of a rule forgotten",
            "trajectory, losses, kept = params, [params], [], state or {}",
            "trajectory, losses, kept = params, [params], [], {}",
            f"{AGAIN}[MAML-momentum-vmap]",
        ),
        (
            "adapt_only ignored",
            "if n in problem.param_names}, patterns))",
            'if n in problem.param_names}, ("*",)))',
            f"{LAWS}anil_is_maml_that_adapts_only_the_head",
        ),
    ],
    "models/as_function.py": [
        (
            "tensors of several names forgotten",
            "len(set(tensors)) < len(tensors)",
            "False",
            "tests/models/test_as_function.py::test_it_is_torchs_functional_call[tied]",
        ),
        (
            "models that write taken for plain ones",
            "not self._is_shared and not any(map(may_write, module.modules()))",
            "not self._is_shared",
            "tests/models/test_as_function.py::test_it_is_torchs_functional_call[writes]",
        ),
        (
            "a module that keeps what it was given",
            "in zip(places, before, strict=True)",
            "in zip(places, values.values(), strict=True)",
            "tests/models/test_as_function.py::test_the_module_is_as_it_was",
        ),
    ],
    "adaptation/inner_rules.py": [
        (
            "gradients scaled up",
            "(largest / norm).clamp(max=1.0)",
            "(largest / norm)",
            SUMS + "small_gradients_are_not_scaled_up",
        ),
        ("no bias correction of the mean", "(m / bias1)", "m", f"{RULES}[adam-second-order-vmap]"),
        ("no bias correction of the squares", "v / bias2", "v", f"{RULES}[adam-second-order-vmap]"),
        (
            "another beta2",
            "BETA1, BETA2, EPS, EPS_ROOT = 0.9, 0.999, 1e-8, 1e-8",
            "BETA1, BETA2, EPS, EPS_ROOT = 0.9, 0.99, 1e-8, 1e-8",
            f"{RULES}[adam-second-order-vmap]",
        ),
        (
            "momentum as an average",
            '"velocity", self.momentum, 1.0)',
            '"velocity", self.momentum, 1.0 - self.momentum)',
            f"{RULES}[momentum-second-order-vmap]",
        ),
        (
            "clipping ignored",
            "if self.clip_norm is not None:",
            "if False:",
            f"{RULES}[clipped-second-order-vmap]",
        ),
    ],
    "adaptation/problem.py": [
        (
            "running statistics not used at test",
            'running_statistics() if self.batch_norm == "running" and not phase.training else nullcontext()',
            "nullcontext()",
            f"{WHOLE}[vmap-maml, running]",
        ),
        (
            "running statistics used in training",
            'running_statistics() if self.batch_norm == "running" and not phase.training else nullcontext()',
            'running_statistics() if self.batch_norm == "running" else nullcontext()',
            f"{WHOLE}[vmap-protonet, running]",
        ),
        (
            "support normalised with the queries",
            "with reference_rows(num_examples(support_x), num_examples(inputs)):",
            "with nullcontext():",
            f"{LAWS}support_policy_does_not_look_at_other_queries",
        ),
        (
            "the last outputs of a wide head",
            "outputs[:, : phase.way]",
            "outputs[:, -phase.way :]",
            SUMS + "the_first_outputs_of_a_wide_head_count",
        ),
        ("worst class wins", "outputs.argmax(1) == y", "outputs.argmin(1) == y", f"{WHOLE}[vmap-maml]"),
        (
            "sums in single precision",
            "return leaf.sum(0, dtype=_wide(leaf))",
            "return leaf.sum(0)",
            SUMS + "sums_over_tasks_are_wide[vmap]",
        ),
        (
            "columns of a sum in another order",
            "for part in parts]",
            "for part in parts[::-1]]",
            SUMS + "many_columns_are_summed_as_few",
        ),
        (
            "a single column summed by itself",
            "torch.split(leaf.flatten(1), size, 1)",
            "torch.split(leaf.flatten(1), COLUMNS, 1)",
            SUMS + "many_columns_are_summed_as_few",
        ),
        (
            "a name that a later task lacks is passed over",
            "total[name] += values[name]",
            "total[name] += values.get(name, 0)",
            SUMS + "what_a_later_task_lacks_is_told",
        ),
        (
            "sums in single precision, one by one",
            "leaf.to(_wide(leaf), copy=True)",
            "leaf.clone()",
            SUMS + "sums_over_tasks_are_wide[loop]",
        ),
        (
            "sums that write what a task gave",
            "leaf.to(_wide(leaf), copy=True)",
            "leaf.to(_wide(leaf))",
            SUMS + "what_a_task_gives_stays_as_it_is",
        ),
    ],
    "adaptation/embedding.py": [
        (
            "sums in place of means",
            "(members_SW / members_SW.sum(0).clamp(min=1)).T",
            "members_SW.T",
            f"{LAWS}protonet_ignores_order_and_repetition_of_support",
        ),
        (
            "support and queries apart",
            "problem.forward(learned, joined(support_x, x), phase).tensor_split([num_examples(support_x)])",
            "problem.forward(learned, support_x, phase), problem.forward(learned, x, phase)",
            f"{WHOLE}[vmap-protonet]",
        ),
    ],
    "adaptation/losses.py": [
        (
            "the share of the other label",
            "share = y[0, 2]",
            "share = 1 - y[0, 2]",
            f"{MIXING}a_mixture_of_losses_is_the_loss_of_mixed_labels",
        ),
        (
            "no smoothing",
            "label_smoothing=self.label_smoothing)",
            "label_smoothing=0.0)",
            "tests/laws/test_losses.py::test_weights_and_smoothing_are_those_of_cross_entropy",
        ),
        (
            "weights of the last classes",
            "self.class_weights[: outputs.shape[1]]",
            "self.class_weights[::-1][: outputs.shape[1]]",
            "tests/laws/test_losses.py::test_weights_and_smoothing_are_those_of_cross_entropy",
        ),
    ],
    "adaptation/checkpointing.py": [
        (
            "weights of the losses ignored",
            "torch.ones_like(values[QUERY_LOSS + str(k)]) * weight for",
            "torch.ones_like(values[QUERY_LOSS + str(k)]) for",
            "tests/laws/test_checkpointed_steps.py::test_every_method_has_equal_bits[multi-step-vmap]",
        ),
    ],
    "adaptation/head.py": [
        (
            "any body passes",
            "found[name].shape != value.shape or _relative(found[name], value) > tolerance",
            "found[name].shape != value.shape",
            SUMS + "a_head_that_is_not_the_end_is_refused",
        ),
    ],
    "engine/fold.py": [
        (
            "number of tasks of one half",
            "self.num_tasks + other.num_tasks",
            "max(self.num_tasks, other.num_tasks)",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "rows as they come",
            "value = value + other if index < sibling else other + value",
            "value = value + other",
            SUMS + "rows_are_in_the_order_of_tasks",
        ),
        (
            "another tree",
            "if sibling << level < self._num_leaves:",
            "if (sibling + 1) << level <= self._num_leaves:",
            f"{KEYS}fold_is_the_fixed_tree_in_any_order_of_arrival[13]",
        ),
        ("an incomplete sum", "if self._missing:", "if False:", f"{KEYS}an_incomplete_fold_has_no_total"),
        (
            "means that are sums",
            "self._named(self.vector / self.num_tasks)",
            "self._named(self.vector)",
            SUMS + "a_mean_is_the_sum_over_the_number_of_tasks",
        ),
        (
            "single precision",
            "result.vector.astype(np.float64)",
            "result.vector.astype(np.float32)",
            SUMS + "the_fold_is_in_double_precision",
        ),
    ],
    "engine/driver/outer.py": [
        (
            "linear one step early",
            "(self.final_lr - self.lr) * progress",
            "(self.final_lr - self.lr) * (step + 1) / steps",
            f"{OUTER}schedules",
        ),
        (
            "cosine of another angle",
            "(1 + math.cos(math.pi * progress)) / 2",
            "(1 + math.cos(math.pi / 2 * progress)) / 2",
            f"{STOPPED}[2-cosine-sgd]",
        ),
        (
            "drops one step early",
            "step // self.step_every",
            "(step + 1) // self.step_every",
            f"{STOPPED}[2-step-sgd]",
        ),
        (
            "a rate that is told and not used",
            "piece.step(piece.options.lr_at(*self._moment[:2]) if lr is None else lr)",
            "piece.step(piece.options.lr if lr is None else lr)",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "short gradients clipped",
            "norm > self.options.clip_norm",
            "norm < self.options.clip_norm",
            f"{OUTER}clipping",
        ),
        (
            "negative elements cut off",
            "gradient.clip(-self.options.clip_value,",
            "gradient.clip(0.0,",
            f"{OUTER}clipping_is_the_same_for_negative_elements",
        ),
        (
            "mean over one task less",
            "mean = total.vector / total.num_tasks",
            "mean = total.vector / (total.num_tasks - 1)",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "running mean over one step more",
            "1 / (step + 1) if m is None",
            "1 / (step + 2) if m is None",
            f"{WHOLE}[vmap-maml, running mean]",
        ),
        (
            "state of the optimiser not restored",
            "        for piece in self._pieces:\n            piece.load(own)",
            "        for piece in self._pieces:\n            piece.load({})",
            f"{STOPPED}[4-constant-adam]",
        ),
        (
            "parameters not restored",
            "self._flat.copy_(self._layout.flatten(learned.params))",
            "pass",
            f"{STOPPED}[4-constant-sgd]",
        ),
    ],
    "engine/driver/update_rules.py": [
        (
            "momentum dampened",
            ".mul_(momentum).add_(gradient)",
            ".mul_(momentum).add_(gradient, alpha=1 - momentum)",
            f"{OUTER}one_flat_vector_steps_like_tensors_one_by_one[sgd]",
        ),
        (
            "decay of the wrong sign",
            "gradient.add(param, alpha=weight_decay)",
            "gradient.add(param, alpha=-weight_decay)",
            f"{WHOLE}[vmap-maml, first order]",
        ),
        (
            "another beta2",
            "_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8",
            "_BETA1, _BETA2, _EPS = 0.9, 0.99, 1e-8",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "another epsilon",
            "_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8",
            "_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-5",
            f"{WHOLE}[vmap-maml]",
        ),
        ("steps counted twice", "    count += 1\n", "    count += 2\n", f"{WHOLE}[vmap-maml]"),
        (
            "decay always coupled",
            "torch._fused_adamw_ if decoupled else torch._fused_adam_",
            "torch._fused_adam_",
            f"{WHOLE}[vmap-meta_sgd]",
        ),
        (
            "decay always decoupled",
            "torch._fused_adamw_ if decoupled else torch._fused_adam_",
            "torch._fused_adamw_",
            f"{WHOLE}[vmap-joint]",
        ),
    ],
    "keys.py": [
        (
            "steps alike",
            "np.array([0, self.index, self.step, SPLITS",
            "np.array([0, self.index, 0, SPLITS",
            f"{KEYS}keys_are_golden",
        ),
        (
            "splits alike",
            "self.step, SPLITS.index(self.split)], dtype",
            "self.step, 0], dtype",
            f"{KEYS}keys_are_golden",
        ),
        ("streams alike", "[self.seed, STREAMS.index(stream)]", "[self.seed, 0]", f"{KEYS}keys_do_not_collide"),
        (
            "another place of the index",
            "(0, index, step, SPLITS.index(split)), (seed, word)",
            "(index, 0, step, SPLITS.index(split)), (seed, word)",
            f"{KEYS}uniforms_of_many_keys_are_those_of_each",
        ),
        (
            "seeds of torch alike",
            "SPLITS.index(self.split), self.step, self.index)",
            "SPLITS.index(self.split), 0, self.index)",
            SUMS + "seeds_of_torch_differ_between_tasks",
        ),
        (
            "a shard beyond the end",
            "min(start + shard_size, num_tasks)",
            "start + shard_size",
            f"{KEYS}shards_cover_every_task_once[7-3]",
        ),
        (
            "both halves alike",
            "Block(self.level - 1, 2 * self.index + 1)",
            "Block(self.level - 1, 2 * self.index)",
            f"{KEYS}blocks_folded_elsewhere_have_the_same_bits[5]",
        ),
        (
            "tasks of a shard from zero",
            "repeat(step), range(start, stop))",
            "repeat(step), range(stop - start))",
            f"{KEYS}shards_cover_every_task_once[7-3]",
        ),
    ],
    "engine/driver/step.py": [
        (
            "metrics of one task less",
            "value / total.num_tasks for",
            "value / (total.num_tasks - 1) for",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "the same tasks in every step",
            "_shards(schedule, step if of is None else of)",
            "_shards(schedule, 0 if of is None else of)",
            f"{WHOLE}[vmap-maml]",
        ),
    ],
    "engine/driver/scoring.py": [
        (
            "scores as they come",
            "sorted(self._told(), key=lambda pair: pair[0].index)",
            "list(self._told())",
            SUMS + "scores_are_in_the_order_of_episodes",
        ),
        (
            "best episode first",
            "SCORES[self.name].sign * self.main[:, -1]",
            "-SCORES[self.name].sign * self.main[:, -1]",
            SUMS + "the_worst_episode_comes_first",
        ),
        (
            "headline before adapting",
            "last = self.main[:, -1]\n        means",
            "last = self.main[:, 0]\n        means",
            f"{WHOLE}[vmap-maml]",
        ),
        (
            "other test episodes for each checkpoint",
            "split=split, step=0,",
            "split=split, step=step,",
            f"{WHOLE}[vmap-maml]",
        ),
    ],
    "system/signals.py": [
        (
            "a swallowed SIGTERM forgotten",
            "        self.came = True\n",
            "        self.came = False\n",
            "tests/engine/test_stops.py::test_a_swallowed_interrupt_is_a_stop",
        ),
    ],
    "engine/executors/ray_actors/deadlines.py": [
        (
            "compiling counted as hanging",
            "None if compiling else self.usual_s(kind)",
            "self.usual_s(kind)",
            "tests/engine/test_deadlines.py::test_a_worker_that_may_be_compiling_has_the_time_of_a_first_shard",
        ),
    ],
    "engine/executors/ray_actors/executor.py": [
        (
            "no worker compiles",
            "call.kind not in call.seat.answered",
            "call.kind in call.seat.answered",
            "tests/laws/test_compile.py::test_a_worker_that_compiles_does_not_hang",
        ),
    ],
    "engine/executors/ray_actors/pool.py": [
        (
            "a node that joins ending a run",
            "if not (self._ready and isinstance(cause, DataError | EnvironmentProblem)):",
            "if not isinstance(cause, Pool):",
            "tests/ray/test_failed_starts.py::"
            "test_a_machine_that_lacks_something_ends_a_run_that_begins_and_none_that_goes_on",
        ),
    ],
    "sweeps/file/sweep.py": [
        (
            "trials compiled by rule",
            'model_copy(update={"compile": False}) if by_rule',
            "model_copy(update={}) if by_rule",
            "tests/sweeps/test_sweep_files.py::test_trials_are_compiled_where_that_is_asked_for_only",
        ),
    ],
    "engine/worker/kernels.py": [
        (
            "instruction sets by torch's defaults",
            "pool.submit(copy_context().run, found)",
            "pool.submit(found)",
            "tests/laws/test_compile_rule.py::test_instruction_sets_are_those_of_the_options_at_hand",
        ),
        (
            "two threads within the compiler",
            "with _ONE_THREAD, _replaced():",
            "with _replaced():",
            "tests/laws/test_compile.py::test_one_thread_at_a_time_changes_the_compiler_and_puts_it_back",
        ),
        (
            "setuptools imported in another thread",
            "    import torch.utils.cpp_extension  # noqa: F401\n",
            "",
            "tests/laws/test_compile_rule.py::test_nothing_changes_the_search_for_modules_beside_what_imports_them",
        ),
    ],
    "autodiff/graphs.py": [
        (
            "changes in place not taken apart",
            'make_fx(functionalize(module, remove="mutations"), ',
            "make_fx(module, ",
            "tests/laws/test_compile.py::test_changes_in_place_stay_within_a_graph",
        ),
        (
            "replacements of operations in place not decomposed",
            'functionalize(module, remove="mutations"), decomposition_table=operations)',
            'functionalize(module, remove="mutations"))',
            "tests/laws/test_compile.py::test_changes_in_place_stay_within_a_graph",
        ),
        (
            "cast once more",
            "with mode, no_autocast():",
            "with mode:",
            "tests/laws/test_compile.py::test_what_is_kept_from_autocast_stays_so_in_a_graph",
        ),
        (
            "read twice in any case",
            "if changes := _in_place(module.graph):",
            "if (changes := _in_place(module.graph)) or True:",
            "tests/laws/test_compile.py::test_only_a_graph_with_changes_in_place_is_read_twice",
        ),
        (
            "assigned data not seen",
            "if func == _ASSIGN:",
            "if False:",
            "tests/laws/test_compile.py::test_what_a_graph_cannot_hold_is_refused_and_leaves_no_trace",
        ),
        (
            "shared memory changed",
            "if any(step == 0 and size > 1 for",
            "if False and any(step == 0 and size > 1 for",
            "tests/laws/test_compile.py::test_what_a_graph_cannot_hold_is_refused_and_leaves_no_trace",
        ),
        (
            "operations in place decomposed in the first reading",
            "select_decomp_table().items() if not _changes(o)}",
            "select_decomp_table().items()}",
            "tests/laws/test_compile.py::test_changes_in_place_stay_within_a_graph",
        ),
        (
            "tensors of others held by the graph",
            "    others = _lifted(module, places)\n",
            "    others: list[Tensor] = []\n",
            "tests/laws/test_compile.py::test_a_graph_reads_what_it_is_given_and_other_tensors_as_they_are_then",
        ),
        (
            "given tensors that are read by themselves made inputs once more",
            "if id(held) not in places:",
            "if True:",
            "tests/laws/test_compile.py::test_a_graph_reads_what_it_is_given_and_other_tensors_as_they_are_then",
        ),
        (
            "values taken as numbers of the graph",
            "ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)",
            "ShapeEnv()",
            "tests/laws/test_compile.py::test_what_cannot_be_compiled_says_what_to_do",
        ),
        (
            "values of tensors that are not given seen",
            "if func is torch.ops.aten._local_scalar_dense.default and",
            "if func is None and",
            "tests/laws/test_compile.py::test_what_a_graph_cannot_hold_is_refused_and_leaves_no_trace",
        ),
        (
            "tensors that are not given changed",
            "if not isinstance(value, FakeTensor):",
            "if False:",
            "tests/laws/test_compile.py::test_what_a_graph_cannot_hold_is_refused_and_leaves_no_trace",
        ),
        (
            "layers not told that they are read",
            "return torch.compiler.is_compiling() or _READING.get()",
            "return torch.compiler.is_compiling()",
            "tests/laws/test_compile.py::test_layers_are_written_for_a_compiler_where_they_are_read",
        ),
    ],
    "engine/worker/compiled.py": [
        (
            "graphs compiled as if to be cast",
            "with no_autocast(), tracing(",
            "with tracing(",
            "tests/laws/test_compile.py::test_what_is_kept_from_autocast_stays_so_in_a_graph",
        ),
        (
            "random numbers of the compiler's own",
            "config.patch(fallback_random=True)",
            "config.patch(fallback_random=False)",
            "tests/laws/test_compile.py::test_a_graph_draws_what_is_drawn_uncompiled",
        ),
        (
            "graphs kept with their calls",
            "return Compiled(call(tensors), call)",
            "return Compiled(call(tensors), lambda tensors: (graph, call(tensors))[1])",
            "tests/laws/test_compile.py::test_what_was_read_goes_once_it_is_compiled",
        ),
        (
            "tensors that require gradients read as they are",
            "[tensor.detach() for tensor in graph.others]",
            "graph.others",
            "tests/laws/test_compile.py::test_a_graph_may_read_a_teacher_that_could_learn",
        ),
    ],
    "engine/worker/shard_function.py": [
        (
            "tensors that are the same taken for others",
            "return () if len(places) == len(tensors) else",
            "return () if places else",
            "tests/laws/test_compile.py::test_whether_tensors_are_the_same_is_part_of_a_kind",
        ),
    ],
    "engine/worker/compile_rule.py": [
        (
            "too large graphs compiled",
            "if inner_steps > MOST_INNER_STEPS:",
            "if inner_steps > 10 * MOST_INNER_STEPS:",
            "tests/laws/test_compile_rule.py::test_each_reason_against_compiling_is_enough",
        ),
        (
            "a note of a compiler not read",
            "if note is not None and os.path.exists(note):",
            "if note is None:",
            "tests/laws/test_compile_rule.py::test_that_a_compiler_works_is_found_out_once",
        ),
        (
            "a compiler that is switched off taken for one that works",
            'os.environ.get("TORCH_COMPILE_DISABLE") == "1"',
            'os.environ.get("TORCH_COMPILE_DISABLE") == "yes"',
            "tests/laws/test_compile_rule.py::test_a_compiler_that_is_switched_off_is_none",
        ),
    ],
    "api/resume.py": [
        (
            "a rule asked again",
            'in chosen.items() if getattr(asked, name) == "auto"',
            'in chosen.items() if getattr(asked, name) == ""',
            "tests/laws/test_compile_rule.py::test_the_choice_is_recorded_and_kept",
        ),
    ],
    "bench/ours.py": [
        (
            "other first weights in float64",
            "value.float() for",
            "value for",
            "tests/commands/test_bench.py::test_a_gradient_in_float64_begins_where_the_one_in_float32_does",
        ),
    ],
    "system/kept_memory.py": [
        (
            "one that is closed ends it for all",
            "elif _holders == 0:",
            "else:",
            "tests/engine/test_kept_memory.py::test_a_block_that_a_worker_frees_is_used_again_until_the_last_worker_is_closed",
        ),
        (
            "nothing given back",
            "            library.malloc_trim(0)",
            "            pass",
            "tests/engine/test_kept_memory.py::test_a_block_that_a_worker_frees_is_used_again_until_the_last_worker_is_closed",
        ),
        (
            "a person's limits overwritten",
            "any(name in os.environ for name in SET_BY_HAND)",
            "False",
            "tests/engine/test_kept_memory.py::test_limits_that_a_person_set_are_left_alone",
        ),
    ],
    "engine/worker/worker.py": [
        (
            "freed memory given back",
            "self._settings.enter_context(kept_memory())",
            "pass",
            "tests/engine/test_kept_memory.py::test_a_block_that_a_worker_frees_is_used_again_until_the_last_worker_is_closed",
        ),
        (
            "test in training mode",
            "self.problem.set_training(training)",
            "self.problem.set_training(True)",
            SUMS + "dropout_is_off_at_test",
        ),
    ],
    "api/evaluate.py": [
        ("another seed of the test", "TEST_SEED = 0\n", "TEST_SEED = 1\n", f"{WHOLE}[vmap-maml]"),
    ],
    "trackers/scores.py": [
        ("interval of another variance", "values.std(ddof=1)", "values.std(ddof=0)", f"{WHOLE}[vmap-maml]"),
    ],
}


# Running them


def copied(folder: Path) -> None:
    """What tests need, in a folder of its own; the package is copied and everything else is linked to."""
    shutil.copytree(ROOT / "raymeta", folder / "raymeta", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if not (folder / path.name).exists() and path.name not in (".git", ".venv"):
            (folder / path.name).symlink_to(path)
    # Compiled once; a file is compiled again where its text differs, however fast it changed.
    run_python(folder, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "raymeta", "tests")
    place = run_python(folder, "-c", "import raymeta; print(raymeta.__file__)").stdout.strip()
    if Path(place).resolve().parent != (folder / "raymeta").resolve():
        raise SystemExit(f"tests would import {place} and not the copy in {folder}")


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


SERVER = """
import importlib, json, os, sys
import pytest
for name in ("torch", "torch.func", "torch._dynamo", "pydantic", "rich.live", "safetensors.torch", "tensorboardX"):
    importlib.import_module(name)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = int(pytest.main(json.loads(line)))
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs tests, each time in a new process that has imported what takes long, and nothing of the package."""


class Tests:
    """Runs tests of a copy of the package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=folder, env=environment(folder), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *tests: str) -> int:
        """The exit status of pytest: 0 passed, 1 failed, others where no test ran; `log` has what it printed."""
        options = ["-x", "-q", "-m", "", "-p", "no:cacheprovider", "-W", "ignore", f"--timeout={LIMIT_S}"]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([*options, *tests]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()

    def close(self) -> None:
        self._server.communicate()


def outcome(folder: Path, mutation: Mutation, tests: Tests) -> str:
    """What the named test makes of the mistake: `caught`, `SURVIVED`, or why that is not known."""
    path = folder / "raymeta" / mutation.file
    before = path.read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        return f"OLD TEXT FOUND {before.count(mutation.old)} TIMES"
    path.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        code = tests.run(mutation.test)
    finally:
        path.write_text(before, encoding="utf-8")
    if code not in (0, 1):
        return f"NO TEST RAN: {tests.log.splitlines()[-1:]}"
    return "caught" if code else "SURVIVED"


def outcomes(chosen: Sequence[Mutation]) -> Iterator[tuple[Mutation, str, float]]:
    """(mistake, outcome, seconds) one after another."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        tests = Tests(folder)
        try:
            if tests.run(*dict.fromkeys(mutation.test for mutation in chosen)):
                raise SystemExit(f"a test fails without any mistake:\n{tests.log[-3000:]}")
            for mutation in chosen:
                began = time.perf_counter()
                told = outcome(folder, mutation, tests)
                yield mutation, told, time.perf_counter() - began
        finally:
            tests.close()


def part_of(everything: Sequence[Mutation], part: str) -> list[Mutation]:
    """`2/4`: every fourth one, from the second on. Raises ValueError where that is no part."""
    number, _, count = part.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(f"{part} is no part: write 1/4 to 4/4")
    return list(everything[int(number) - 1 :: int(count)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", help="a mistake by name; may be given again")
    parser.add_argument("--part", metavar="N/M", default="1/1", help="every M-th mistake, from the N-th on")
    parser.add_argument("--list", action="store_true", help="show the mistakes and run nothing")
    given = parser.parse_args(arguments)
    everything = mutations()
    if unknown := set(given.only or ()) - {mutation.name for mutation in everything}:
        parser.error(f"there is no mistake called {sorted(unknown)[0]}: see --list")
    try:
        chosen = part_of([m for m in everything if not given.only or m.name in given.only], given.part)
    except ValueError as error:
        parser.error(str(error))
    if given.list:
        for mutation in chosen:
            print(f"{mutation.name}\n    {mutation.file}\n    {mutation.test}")
        return 0
    counts: dict[str, Counter[str]] = {}
    for mutation, told, seconds in outcomes(chosen):
        print(f"{told:9} {seconds:5.1f} s  {mutation.name}", flush=True)
        counts.setdefault(mutation.file, Counter())["caught" if told == "caught" else "other"] += 1
    print(f"\n{'file':32} {'mistakes':>8} {'caught':>8}")
    for file, count in counts.items():
        print(f"{file:32} {count.total():8} {count['caught']:8}")
    total = sum(counts.values(), Counter[str]())
    print(f"{'all':32} {total.total():8} {total['caught']:8}")
    return int(total["other"] > 0)


if __name__ == "__main__":
    sys.exit(main())
