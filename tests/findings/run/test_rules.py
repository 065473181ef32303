import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.findings.run.synthetic import CONFIG, evaluation, flat, keys, only, ramp, record

from klimb.findings.run.record import RunRecord
from klimb.findings.statistics import share_ends

EPSILON = 1e-6

WEIGHTS = {"w_max": flat(1.2), "w_p01": flat(0.9)}


def with_settings(**tables: Mapping[str, Any]) -> dict[str, Any]:
    return {**CONFIG, **{name: {**CONFIG.get(name, {}), **table} for name, table in tables.items()}}


@pytest.mark.parametrize(
    ("key", "at_the_limit", "beyond"),
    [
        (
            "sampler-gap",
            {"mismatch_k3": flat(1e-3), "mismatch_mean_abs": flat(0.05)},
            {"mismatch_k3": flat(1e-3 + EPSILON)},
        ),
        (
            "sampler-gap",
            {"mismatch_k3": flat(0.0), "mismatch_mean_abs": flat(0.05)},
            {"mismatch_mean_abs": flat(0.05 + EPSILON)},
        ),
        ("kl-blow-up", {"kl_pi_ref": flat(0.1)}, {"kl_pi_ref": flat(0.1 + EPSILON)}),
        ("kl-blow-up", {"kl_mu_pi": flat(0.1)}, {"kl_mu_pi": flat(0.1 + EPSILON)}),
        ("entropy-blow-up", {"entropy": [1.0] * 10 + [2.0] * 10}, {"entropy": [1.0] * 10 + [2.0 + EPSILON] * 10}),
        ("stale-data", {"ess_token": flat(0.3)}, {"ess_token": flat(0.3 - EPSILON)}),
        ("stale-data", {"replay/ess_token": flat(0.3)}, {"replay/ess_token": flat(0.3 - EPSILON)}),
        (
            "stale-data",
            {"clip_low_fraction": flat(0.125), "clip_high_fraction": flat(0.075)},
            {"clip_low_fraction": flat(0.125 + EPSILON)},
        ),
        (
            "zero-variance-waste",
            {"zero_advantage_fraction": flat(0.5)},
            {"zero_advantage_fraction": flat(0.5 + EPSILON)},
        ),
        ("reward-saturation", {"accuracy": flat(0.9 - EPSILON)}, {"accuracy": flat(0.9)}),
        ("truncated-answers", {"truncated_fraction": flat(0.5)}, {"truncated_fraction": flat(0.5 + EPSILON)}),
        (
            "scoring-errors",
            {"num_errors": flat(5.0), "num_samples": flat(100.0)},
            {"num_errors": flat(5.0 + EPSILON)},
        ),
        ("non-finite-steps", {"num_skipped_steps": flat(0.0)}, {"num_skipped_steps": [*flat(0.0)[1:], 1.0]}),
    ],
)
def test_a_rule_is_silent_at_its_limit_and_speaks_beyond_it(
    key: str, at_the_limit: dict[str, list[float]], beyond: dict[str, list[float]]
):
    assert key not in keys(record(at_the_limit))
    assert key in keys(record({**at_the_limit, **beyond}))


@pytest.mark.parametrize(
    ("key", "curves", "heavy"),
    [
        ("sampler-gap", {"mismatch_k3": flat(0.01), "mismatch_mean_abs": flat(0.0)}, {"mismatch_k3": flat(0.016)}),
        ("kl-blow-up", {"kl_pi_ref": flat(0.9)}, {"kl_pi_ref": flat(1.1)}),
        ("zero-variance-waste", {"zero_advantage_fraction": flat(0.7)}, {"zero_advantage_fraction": flat(0.9)}),
        (
            "non-finite-steps",
            {"num_skipped_steps": flat(0.1), "num_optimizer_steps": flat(1.0)},
            {"num_skipped_steps": flat(0.2)},
        ),
    ],
)
def test_what_is_far_beyond_a_limit_is_bad_and_not_only_a_warning(
    key: str, curves: dict[str, list[float]], heavy: dict[str, list[float]]
):
    assert only(record(curves), key).status == "warning"
    assert only(record({**curves, **heavy}), key).status == "bad"


def test_one_wild_step_is_no_blow_up():
    assert keys(record({"kl_pi_ref": [50.0, *flat(0.01)]})) == []


def test_a_fixed_reference_may_be_left_farther_behind_than_one_that_follows():
    curves = {"kl_pi_ref": ramp(0.0, 0.9)}
    assert "kl-blow-up" in keys(record(curves))
    assert "kl-blow-up" not in keys(record(curves, config=with_settings(reference={"kind": "fixed"})))


def test_a_blow_up_names_the_steps_and_the_largest_value():
    finding = only(record({"kl_pi_ref": [*flat(0.01, num_steps=10), *flat(0.3, num_steps=9), 0.45]}), "kl-blow-up")
    assert finding.steps == (11, 20)
    assert "0.45" in finding.evidence and "steps 11 to 20" in finding.evidence


def test_entropy_that_falls_while_the_task_is_solved_is_no_collapse():
    falling = [*flat(2.0, num_steps=10), *flat(0.05, num_steps=10)]
    assert "entropy-collapse" in keys(record({"entropy": falling, "accuracy": ramp(0.1, 0.4)}))
    assert "entropy-collapse" not in keys(record({"entropy": falling, "accuracy": ramp(0.1, 1.0)}))


@pytest.mark.parametrize("end", [0.15, 0.5])
def test_entropy_must_fall_both_far_and_low_to_have_collapsed(end: float):
    assert "entropy-collapse" not in keys(record({"entropy": [2.0] * 10 + [end] * 10, "accuracy": flat(0.2)}))
    assert "entropy-collapse" not in keys(record({"entropy": flat(0.05), "accuracy": flat(0.2)}))


def test_rewards_that_rose_until_all_were_equal_are_a_solved_task_without_verdicts():
    solved = {"entropy": [2.0] * 10 + [0.05] * 10, "reward_mean": ramp(0.0, 1.0), "reward_std": [0.4] * 15 + [0.0] * 5}
    assert "entropy-collapse" not in keys(record(solved))
    assert "reward-saturation" in keys(record(solved))
    stuck = {**solved, "reward_mean": flat(0.3)}
    assert "entropy-collapse" in keys(record(stuck))


def test_weights_of_one_are_inert_by_design_with_one_step_a_batch_and_a_fault_with_several():
    ones = {"w_max": flat(1.0 + 1e-5), "w_p01": flat(1.0 - 1e-5)}
    by_design = only(record(ones, config=with_settings(training={"num_minibatches": 1})), "inert-clip")
    assert "training.num_minibatches" in by_design.advice
    assert "optimizer.learning_rate" in only(record(ones), "inert-clip").advice


def test_a_clip_that_never_acts_is_a_note_and_one_that_acts_once_is_none():
    never = {**WEIGHTS, "clip_low_fraction": flat(0.0), "clip_high_fraction": flat(0.0)}
    assert only(record(never), "inert-clip").status == "note"
    assert "inert-clip" not in keys(record({**never, "clip_high_fraction": [*flat(0.0)[1:], 0.01]}))


@pytest.mark.parametrize(
    "objective", [{"clip": {"kind": "none"}}, {"ratio": "none"}, {"loss": "kto"}], ids=lambda table: next(iter(table))
)
def test_an_objective_without_a_trust_region_cannot_have_an_inert_one(objective: dict[str, Any]):
    ones = {"w_max": flat(1.0), "w_p01": flat(1.0)}
    assert keys(record(ones, config=with_settings(objective=objective))) == []


GROWING = {"reward_mean": ramp(0.2, 0.9), "length_mean": ramp(10.0, 30.0)}


def test_reward_that_grows_with_length_and_without_accuracy_is_hacking():
    assert "length-hacking" in keys(record({**GROWING, "accuracy": flat(0.2)}))
    assert "length-hacking" not in keys(record({**GROWING, "accuracy": ramp(0.2, 0.3)}))


def test_reward_that_grows_at_a_steady_length_is_no_hacking():
    curves = {"reward_mean": ramp(0.2, 0.9), "length_mean": ramp(10.0, 12.0), "accuracy": flat(0.2)}
    assert "length-hacking" not in keys(record(curves))


def of_lengths(*lengths: int, worth: float, extra: float = 0.0) -> tuple[list[list[float]], list[list[str]]]:
    """Values worth so much a character and something on top, and answers of these lengths."""
    return [[worth * length + extra] for length in lengths], [["x" * length] for length in lengths]


def test_without_verdicts_the_untrained_answers_tell_what_length_alone_is_worth():
    old_values, old_texts = of_lengths(5, 10, 15, 20, worth=0.01)
    before = evaluation("before", old_values, answers=old_texts, is_accuracy=False)
    values, texts = of_lengths(30, 35, 40, 45, worth=0.01)
    longer = evaluation("after", values, answers=texts, is_accuracy=False)
    finding = only(record(GROWING, evaluations=[before, longer]), "length-hacking")
    assert "100% of the gain" in finding.evidence
    values, texts = of_lengths(30, 35, 40, 45, worth=0.01, extra=0.5)
    better = evaluation("after", values, answers=texts, is_accuracy=False)
    assert "length-hacking" not in keys(record(GROWING, evaluations=[before, better]))


@pytest.mark.parametrize(("accuracy", "word"), [(0.02, "Easier"), (0.85, "Harder")])
def test_even_groups_ask_for_easier_or_harder_problems_as_the_accuracy_says(accuracy: float, word: str):
    run = record({"zero_advantage_fraction": flat(0.9), "accuracy": flat(accuracy)})
    assert only(run, "zero-variance-waste").advice.startswith(word)


def test_with_the_filter_on_dropped_groups_are_the_waste():
    config = with_settings(advantages={"group_filter": True})
    curves = {"groups_dropped_fraction": flat(0.7), "zero_advantage_fraction": flat(0.0)}
    assert "zero-variance-waste" in keys(record(curves, config=config))
    assert "zero-variance-waste" not in keys(record(curves))


def test_saturation_from_the_start_is_a_warning_and_in_the_end_a_note():
    assert only(record({"accuracy": flat(0.97)}), "reward-saturation").status == "warning"
    assert only(record({"accuracy": ramp(0.1, 1.0)}), "reward-saturation").status == "note"


def test_cut_answers_are_only_a_note_while_the_reward_rises():
    cut = {"truncated_fraction": flat(0.9)}
    assert only(record({**cut, "accuracy": ramp(0.1, 0.6)}), "truncated-answers").status == "note"
    assert only(record({**cut, "accuracy": flat(0.1)}), "truncated-answers").status == "warning"


RIGHT, WRONG, HALF = [1.0] * 4, [0.0] * 4, [1.0, 1.0, 0.0, 0.0]


def test_a_change_on_the_same_problems_is_judged_in_pairs():
    before = evaluation("before", [WRONG, WRONG, HALF, HALF] * 3)
    after = evaluation("after", [HALF, HALF, RIGHT, RIGHT] * 3, step=20)
    finding = only(record(evaluations=[before, after]), "learned")
    # Twelve problems of four answers that each gained a half: worth 12·4^(12/13.5), with a doubt of 1.5 problems.
    # None lost anything, of which at most 1 − (0.025/0.6)^(1/12) might.
    lowest, highest = share_ends(0.5, 12 * 4 ** (12 / 13.5))
    low, high = f"{0.5 - math.hypot(0.5 - lowest, 1 - (0.025 / 0.6) ** (1 / 12)):+.1%}", f"{highest:+.1%}"
    assert f"25.0% → 75.0% (+50.0%, 95 % interval {low} to {high} over 12 problems)" in finding.evidence
    unchanged = evaluation("after", [WRONG, HALF, WRONG, RIGHT] * 3, step=20)
    assert "learned" not in keys(record(evaluations=[before, unchanged]))


def test_worse_on_held_out_problems_is_forgetting_and_not_learning():
    before, after = evaluation("before", [HALF] * 12), evaluation("after", [WRONG] * 12, step=20)
    run = record({"accuracy": flat(0.15)}, evaluations=[before, after])
    assert keys(run) == ["forgetting"]
    assert only(run, "forgetting").status == "bad"


@pytest.mark.parametrize(
    ("name", "before", "held", "lost"),
    [
        ("guard/perplexity", 10.0, 12.0, 12.1),
        ("guard/general_mean", 0.5, 0.4 + EPSILON, 0.39),
        ("guard/format_valid_fraction", 0.9, 0.8 + EPSILON, 0.79),
        ("guard/refusal_fraction", 0.0, 0.1, 0.11),
        ("guard/rollout_repetition_fraction", 0.0, 0.1, 0.11),
    ],
)
def test_a_guarded_metric_is_lost_beyond_its_limit(name: str, before: float, held: float, lost: float):
    assert keys(record(guard={"before": {name: before}, "after": {name: held}})) == []
    assert keys(record(guard={"before": {name: before}, "after": {name: lost}})) == ["forgetting"]


def guarded(name: str, before: float, after: float, **test: Any) -> RunRecord:
    row = {"name": name, "before": before, "now": after, "unit": "problem", "num_units": 40, **test}
    return record(guard={"before": {name: before}, "after": {name: after}, "tests": [row] if test else []})


@pytest.mark.parametrize("name", ["guard/general_mean", "guard/format_valid_fraction", "guard/rollout_empty_fraction"])
def test_a_guarded_number_is_lost_only_if_its_test_says_more_than_chance(name: str):
    before, after = (0.0, 0.9) if "empty" in name else (0.9, 0.1)
    assert keys(guarded(name, before, after, p=0.02, level=0.001)) == []
    evidence = only(guarded(name, before, after, p=0.0004, level=0.001), "forgetting").evidence
    assert "40 problems, p = 0.0004)" in evidence


def test_a_loss_that_was_never_tested_is_said_to_be_so_and_is_not_bad():
    untested = only(guarded("guard/general_mean", 0.9, 0.1), "forgetting")
    assert untested.status == "warning"
    assert "not tested, so it may be chance" in untested.evidence
    assert only(guarded("guard/general_mean", 0.9, 0.1, p=0.0, level=0.001), "forgetting").status == "bad"


@pytest.mark.parametrize("rows", ["text", [3], [{"name": "guard/general_mean", "p": "0", "level": 1, "num_units": 4}]])
def test_a_file_whose_tests_cannot_be_read_has_none(rows: object):
    values = {"before": {"guard/general_mean": 0.9}, "after": {"guard/general_mean": 0.1}, "tests": rows}
    assert "not tested" in only(record(guard=values), "forgetting").evidence


def test_before_the_end_the_newest_guarded_row_counts():
    curves = {"guard/perplexity": [*flat(10.0)[1:], 30.0]}
    assert keys(record(curves, guard={"before": {"guard/perplexity": 10.0}})) == ["forgetting"]


def test_what_the_guard_did_is_told():
    event = {"step": 7, "action": "stop", "name": "guard/perplexity", "title": "perplexity doubled"}
    finding = only(record(guard={"events": [event]}), "forgetting")
    assert finding.status == "bad"
    assert "step 7 was stop: perplexity doubled" in finding.evidence


def test_a_stop_by_a_rule_that_took_answers_as_independent_is_told_and_not_bad():
    event = {"step": 7, "action": "stop", "name": "guard/rollout_empty_fraction", "title": "many are empty"}
    assert only(record(guard={"events": [event]}), "forgetting").status == "warning"
    assert only(record(guard={"events": [event], "tests": []}), "forgetting").status == "bad"


def test_a_warning_of_the_guard_is_told_only_where_its_cause_is_not():
    warned = {"step": 7, "action": "warn", "name": "guard/perplexity", "title": "perplexity doubled"}
    alone = only(record(guard={"events": [warned]}), "forgetting")
    assert "perplexity doubled" in alone.evidence
    values = {"before": {"guard/perplexity": 10.0}, "after": {"guard/perplexity": 20.0}}
    told = only(record(guard={**values, "events": [warned]}), "forgetting").evidence
    assert "10 → 20" in told and "perplexity doubled" not in told


def test_a_best_evaluation_far_above_the_last_is_unstable():
    before, best = evaluation("before", [WRONG] * 12), evaluation("during", [RIGHT] * 12, step=10)
    last = evaluation("after", [HALF] * 12, step=20)
    assert "unstable" in keys(record(evaluations=[before, best, last]))
    assert "unstable" not in keys(record(evaluations=[before, last, best]))


def test_right_in_training_and_wrong_on_held_out_problems_is_learned_by_heart():
    before, after = evaluation("before", [WRONG] * 12), evaluation("after", [HALF] * 12, step=20)
    by_heart = record({"accuracy": ramp(0.1, 0.9)}, evaluations=[before, after])
    assert "by heart" in only(by_heart, "too-little-data").evidence
    assert "too-little-data" not in keys(record({"accuracy": ramp(0.1, 0.6)}, evaluations=[before, after]))
    hot = with_settings(sampling={"temperature": 0.5})
    assert "too-little-data" not in keys(record({"accuracy": ramp(0.1, 0.9)}, config=hot, evaluations=[before, after]))


def test_few_problems_gone_through_often_are_too_little_data():
    few = {"epoch": ramp(0.0, 10.0), "num_groups": flat(4.0)}
    assert "About 8 training problems were gone through 10 times" in only(record(few), "too-little-data").evidence
    assert "too-little-data" not in keys(record({**few, "num_groups": flat(40.0)}))
    assert "too-little-data" not in keys(record({**few, "epoch": ramp(0.0, 4.0)}))


def test_an_interval_too_wide_to_tell_asks_for_more_problems():
    before, after = evaluation("before", [RIGHT, WRONG, WRONG]), evaluation("after", [WRONG, RIGHT, WRONG], step=20)
    finding = only(record(evaluations=[before, after]), "too-little-data")
    assert "cannot be told: 3 problems, and 5 are the least for an interval" in finding.evidence
    before, after = evaluation("before", [RIGHT, WRONG] * 3), evaluation("after", [WRONG, RIGHT] * 3, step=20)
    assert "With 6 problems the change" in only(record(evaluations=[before, after]), "too-little-data").evidence
    assert "evaluation.num_problems" in finding.advice


def test_a_flat_reward_and_an_unchanged_evaluation_are_not_learning():
    same = [evaluation(when, [HALF] * 60, step=step) for when, step in (("before", 0), ("after", 20))]
    wobbling = [0.3, 0.32] * 10
    assert keys(record({"accuracy": wobbling}, evaluations=same)) == ["not-learning"]
    assert keys(record({"accuracy": ramp(0.3, 0.4)}, evaluations=same)) == []


def test_after_a_few_steps_or_with_a_hint_of_a_rise_nobody_is_told_that_nothing_was_learned():
    wobbling = [0.3, 0.32] * 10
    assert "not-learning" in keys(record({"accuracy": wobbling[:10]}))
    assert "not-learning" not in keys(record({"accuracy": wobbling[:9]}))
    hint = [0.05 * rank for rank in (5, 4, 3, 2, 1, 10, 6, 7, 8, 9)]  # 14 inversions: τ = 17/45, p = 0.16
    assert "not-learning" not in keys(record({"accuracy": hint}))
    assert "learned" not in keys(record({"accuracy": hint}))


def test_what_a_wrong_log_mu_adds_to_the_divergence_is_no_blow_up():
    gap = {"mismatch_k3": flat(0.2), "mismatch_mean_abs": flat(0.5)}
    assert keys(record({**gap, "kl_mu_pi": flat(0.29)})) == ["sampler-gap"]
    assert keys(record({**gap, "kl_mu_pi": flat(0.31)})) == ["sampler-gap", "kl-blow-up"]


def test_what_explains_a_finding_silences_it():
    flat_and_even = {"accuracy": flat(0.02), "zero_advantage_fraction": flat(0.9)}
    assert keys(record(flat_and_even)) == ["zero-variance-waste"]
    assert "not-learning" in keys(record({**flat_and_even, "zero_advantage_fraction": flat(0.1)}))


def test_with_fewer_steps_than_can_be_judged_nothing_is_claimed():
    assert keys(record({"kl_pi_ref": flat(9.0, num_steps=5), "accuracy": flat(0.0, num_steps=5)})) == []
    assert "kl-blow-up" in keys(record({"kl_pi_ref": flat(9.0, num_steps=6)}))


CLONING = with_settings(advantages={"kind": "zero", "group_filter": False}, objective={"ratio": "none"})
NOISE = [(-1) ** step * 0.1 for step in range(20)]


@pytest.mark.parametrize(
    ("log_pi_mean", "severity", "title"),
    [
        (ramp(-4.0, -1.0), "good", "The data was learnt"),
        ([-4.0 + noise for noise in NOISE], "warning", "Cloning changed nothing"),
        (flat(-4.0), "warning", "Cloning changed nothing"),
        (ramp(-1.0, -4.0), "bad", "The data is being unlearnt"),
    ],
)
def test_cloning_is_judged_by_the_likelihood_of_its_data(log_pi_mean, severity, title):
    run = record(
        {"log_pi_mean": log_pi_mean, "zero_advantage_fraction": flat(1.0), "entropy": ramp(2.0, 0.01)}, config=CLONING
    )
    assert keys(run) == ["cloning"]
    finding = only(run, "cloning")
    assert finding.status == severity
    assert finding.title.startswith(title)


def test_of_a_few_steps_of_cloning_nobody_is_told_that_nothing_was_learnt():
    assert keys(record({"log_pi_mean": NOISE[:9]}, config=CLONING)) == []


def test_the_likelihood_of_the_data_is_no_finding_where_rewards_teach():
    assert keys(record({"log_pi_mean": ramp(-1.0, -4.0)}, config=with_settings(objective={"ratio": "none"}))) == []


@pytest.mark.parametrize(
    ("tables", "cause"),
    [
        (
            {"sampling": {"temperature": 0.7}, "model": {"temperature": 1.0}},
            "at temperature 0.7, the policy has 1",
        ),
        ({"sampling": {"top_p": 0.9}}, "sampling.top_p = 0.9"),
        ({"sampling": {"sampler": "python:mine.draw"}}, "python:mine.draw draws the answers"),
        ({"sources": {"rollout": 0.0, "log": 1.0}}, "100% of the answers are those of other policies ([log])"),
    ],
)
def test_a_clip_that_acts_before_the_first_step_is_found_with_its_cause(tables, cause: str):
    touched = {**WEIGHTS, "clip_at_start_fraction": flat(0.24), "clip_low_fraction": flat(0.24)}
    found = only(record(touched, config=with_settings(**tables)), "clip-at-start")
    assert "24.0% of the units" in found.evidence and cause in found.evidence
    assert "stale-data" not in keys(record(touched, config=with_settings(**tables)))
    at_the_limit = {**touched, "clip_at_start_fraction": flat(0.01)}
    assert "clip-at-start" not in keys(record(at_the_limit, config=with_settings(**tables)))


def test_a_clip_that_but_bounds_weights_is_a_note_on_a_log():
    touched = {**WEIGHTS, "clip_at_start_fraction": flat(0.24)}
    config = with_settings(sources={"rollout": 0.0, "log": 1.0}, objective={"clip": {"kind": "taper"}})
    found = only(record(touched, config=config), "clip-at-start")
    assert found.status == "note" and "bias for variance" in found.advice


def test_a_clip_that_stale_answers_of_the_policy_itself_meet_is_called_stale_data():
    stale = {**WEIGHTS, "clip_at_start_fraction": flat(0.24), "clip_low_fraction": flat(0.24)}
    config = with_settings(sampling={"temperature": 0.7}, model={"temperature": "auto"}, sources={"replay": 0.5})
    assert "clip-at-start" not in keys(record(stale, config=config))
    assert "stale-data" in keys(record(stale, config=config))


def test_problems_that_could_not_be_asked_are_a_note_with_each_sentence():
    kept = record({"accuracy": flat(0.5)})
    told = replace(
        kept, left_out=("2 of 8 problems cannot be used: a.jsonl:3: too long", "1 of 3 pairs of the warm-up")
    )
    assert "problems-left-out" not in keys(kept)
    finding = only(told, "problems-left-out")
    assert finding.status == "note"
    assert finding.evidence.splitlines() == [
        "2 of 8 problems cannot be used: a.jsonl:3: too long.",
        "1 of 3 pairs of the warm-up.",
    ]
