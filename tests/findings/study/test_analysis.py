import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from tests.findings.study.made import random_study, run_of, study_of

from klimb.findings.study.analysis import analyse, pooled_sd
from klimb.findings.study.comparing import (
    Question,
    paired_table,
    questions_against_baseline,
    questions_between_settings,
)
from klimb.findings.study.scores import Arm, measures_of
from klimb.findings.study.verdicts import Units, comparison_sentence, verdicts

POINTS = Units(is_percent=True)
ASKED = Question(Arm("ppo"), Arm("grpo"))


def table_of(runs):
    scores = study_of(runs)
    return paired_table(scores, ASKED, measure=measures_of(scores)["last"], task="sums")


def test_pairs_have_the_same_seed_and_the_same_problem():
    table = table_of(
        [
            run_of([0.5, 0.7], method="ppo", seed=1),
            run_of([0.1, 0.1], method="ppo", seed=2),
            run_of([0.4, 0.2], seed=1),
            run_of([0.3, 0.3], seed=3),
        ]
    )
    assert table == pytest.approx(np.array([[0.1, 0.5]]))


def test_a_failed_run_has_no_pair():
    runs = [run_of([0.5], method="ppo", seed=0, status="failed"), run_of([0.4], seed=0)]
    assert table_of(runs).shape == (0, 1)


def test_problems_that_one_run_could_not_score_are_left_out_of_all_pairs():
    runs = [
        run_of([0.5, math.nan, 0.9], method="ppo", seed=0),
        run_of([0.5, 0.5, 0.5], method="ppo", seed=1),
        run_of([0.4, 0.4, 0.4], seed=0),
        run_of([0.4, 0.4, 0.4], seed=1),
    ]
    assert table_of(runs) == pytest.approx(np.array([[0.1, 0.5], [0.1, 0.1]]))


def test_runs_with_other_problems_are_compared_by_their_means():
    runs = [run_of([0.5, 0.7], method="ppo", seed=0), run_of([0.1, 0.2, 0.3], seed=0)]
    assert table_of(runs) == pytest.approx(np.array([[0.4]]))


def test_methods_are_asked_against_the_baseline_of_their_setting():
    scores = random_study({"grpo": 0.5, "ppo": 0.5}, settings=("adamw", "sf"), num_seeds=2)
    assert questions_against_baseline(scores) == (
        Question(Arm("ppo", "adamw"), Arm("grpo", "adamw")),
        Question(Arm("ppo", "sf"), Arm("grpo", "sf")),
    )
    assert questions_between_settings(scores) == (
        Question(Arm("grpo", "sf"), Arm("grpo", "adamw")),
        Question(Arm("ppo", "sf"), Arm("ppo", "adamw")),
    )


def test_a_large_difference_is_found_and_none_is_left_open():
    found = analyse(random_study({"grpo": 0.4, "good": 0.6, "same": 0.4, "bad": 0.25}, num_problems=60))
    assert {one.question.arm.name: one.decision for one in found.main.comparisons} == {
        "good": "higher",
        "same": "open",
        "bad": "lower",
    }
    assert found.leader is not None
    assert {one.question.arm.name for one in found.leader.comparisons} == {"good"}
    assert found.ranked[0].arm.name == "good"


def test_main_corrects_over_all_its_comparisons():
    found = analyse(random_study({"grpo": 0.4, "a": 0.45, "b": 0.4, "c": 0.4}, settings=("adamw", "sf")))
    assert len(found.main.comparisons) == 6 + 4
    smallest = min(found.main.comparisons, key=lambda one: one.p_value)
    assert smallest.p_adjusted == pytest.approx(min(1.0, 10 * smallest.p_value))


def test_an_arm_without_a_run_on_some_task_has_no_score_over_all_tasks():
    scores = random_study({"grpo": 0.4, "ppo": 0.5}, tasks=("sums", "chains"), num_seeds=3)
    runs = [replace(r, status="failed") if (r.method, r.task) == ("ppo", "chains") else r for r in scores.runs]
    found = analyse(replace(scores, runs=tuple(runs)))
    ppo = next(summary for summary in found.arms if summary.arm.method == "ppo")
    assert math.isnan(ppo.scores["last"].value) and math.isfinite(ppo.by_task["sums"]["last"].value)
    assert ppo.num_runs == 3 and ppo.num_lost == 3
    assert not found.main.comparisons
    assert [one.decision for one in found.by_task["sums"].comparisons] != []


def test_a_study_of_one_seed_is_shown_without_intervals_or_tests():
    found = analyse(random_study({"grpo": 0.4, "ppo": 0.6}, num_seeds=1))
    assert [one.decision for one in found.main.comparisons] == ["untested"]
    assert not found.arms[0].scores["last"].is_known
    assert math.isnan(found.arms[0].seed_sd)


def test_a_study_of_one_method_has_scores_and_no_comparisons():
    found = analyse(random_study({"grpo": 0.4}, num_seeds=2))
    assert found.leader is None and not found.main.comparisons and found.arms[0].num_runs == 2


def test_curves_of_runs_evaluated_at_other_times_are_read_off_between():
    runs = [run_of([0.0], [1.0], seed=0), run_of([0.0], [0.5], [1.0], seed=1)]
    (curve,) = analyse(study_of(runs)).curves
    assert np.interp(500, curve.spent, curve.value) == pytest.approx(0.5)
    assert (curve.spent[0], curve.spent[-1]) == (0, 1000)


def test_spread_over_seeds_is_pooled_within_tasks():
    # Variances 0.02 (1 degree of freedom) and 0.01 (2): sqrt((0.02 + 0.02) / 3).
    assert pooled_sd([np.array([0.1, 0.3]), np.array([0.4, 0.5, 0.6])]) == pytest.approx(math.sqrt(0.04 / 3))


def test_a_study_without_a_finished_run_or_baseline_says_so():
    with pytest.raises(ValueError, match="none of the 1 runs"):
        analyse(study_of([run_of([0.1], status="failed")]))
    with pytest.raises(ValueError, match="baseline 'grpo' is none of the methods ppo"):
        analyse(study_of([run_of([0.1], method="ppo")]))


def test_sentences_say_who_is_ahead_by_how_much():
    found = analyse(random_study({"grpo": 0.4, "good": 0.6}, num_problems=60))
    (one,) = found.main.comparisons
    sentence = comparison_sentence(one, POINTS)
    assert sentence.startswith(f"good is ahead of grpo: +{100 * one.difference.value:.1f} [+")
    assert "points, p " in sentence and sentence.endswith("(corrected).")


def study_with_differences(*differences):
    """Two methods whose runs of one seed differ by these."""
    runs = [run_of([0.5 + 0.01 * seed], seed=seed) for seed in range(len(differences))]
    runs += [run_of([0.5 + 0.01 * seed + size], method="near", seed=seed) for seed, size in enumerate(differences)]
    return analyse(study_of(runs))


def test_sentences_say_how_many_more_seeds_would_tell():
    differences = (0.03, -0.02, 0.025, 0.005, 0.01)
    (one,) = study_with_differences(*differences).main.comparisons
    p = ttest_1samp(differences, 0).pvalue
    assert one.needed.more is not None
    assert comparison_sentence(one, POINTS) == (
        f"near and grpo are not distinguishable: {POINTS.differences(one.difference)} points, p = {p:.2f} (corrected); "
        f"about {one.needed.more} more seeds would tell."
    )


def test_verdicts_say_that_very_many_seeds_would_be_needed():
    found = verdicts(study_with_differences(0.01, -0.01, 0.01, -0.01))
    assert any("more than 100 more seeds would be needed to tell" in verdict.title for verdict in found)


def test_verdicts_begin_with_the_runs_that_were_lost():
    scores = random_study({"grpo": 0.4, "ppo": 0.6}, num_seeds=3)
    runs = (replace(scores.runs[0], status="failed"), *scores.runs[1:])
    first = verdicts(analyse(replace(scores, runs=runs)))[0]
    assert first.status == "warning" and first.title == "1 run of 6 did not finish and is in no number"
    assert first.evidence.splitlines()[0] == "By method: grpo (1)."


def test_a_steadier_method_is_named():
    def falling(method, drop, seed):
        noise = np.random.default_rng((seed, len(method))).normal(0, 0.01, 20)
        return run_of(0.3 + noise, 0.6 + noise, 0.6 - drop + 0.01 * seed + noise, method=method, seed=seed)

    runs = [falling(name, drop, seed) for name, drop in (("grpo", 0.2), ("calm", 0.05)) for seed in range(5)]
    runs += [falling("wild", 0.4 + 0.003 * seed, seed) for seed in range(5)]
    stability = verdicts(analyse(study_of(runs)))[-1]
    assert "lost more than grpo: wild" in stability.evidence
