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
    return paired_table(scores, ASKED, measure=measures_of(scores)["last"], task="sums").differences


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
    # The first look takes two thirds of the 5 %.
    assert smallest.p_adjusted == pytest.approx(min(1.0, 1.5 * 10 * smallest.p_value))


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


def test_sentences_say_how_many_more_seeds_would_tell_and_of_what_difference():
    differences = (0.03, -0.01, 0.025, 0.005, 0.015)
    (one,) = study_with_differences(*differences).main.comparisons
    p = 1.5 * ttest_1samp(differences, 0).pvalue
    assert one.needed.more is not None and 0 < one.needed.at_least < one.difference.value
    assert comparison_sentence(one, POINTS) == (
        f"near and grpo are not distinguishable: {POINTS.differences(one.difference)} points, p = {p:.2f} (corrected); "
        f"about {one.needed.more} more seeds would tell, if the true difference is "
        f"{100 * one.needed.at_least:.1f} points or more (80 % sure)."
    )


def test_verdicts_promise_no_number_of_seeds_where_the_sign_may_be_chance():
    found = verdicts(study_with_differences(0.01, -0.01, 0.011, -0.01))
    assert any("the difference may be chance, so that no number of seeds can be promised" in one.title for one in found)


def test_verdicts_promise_nothing_of_a_hundred_seeds_where_the_true_difference_may_be_too_small():
    found = verdicts(study_with_differences(0.03, -0.02, 0.025, 0.005, 0.01))
    assert any("100 more seeds are too few to promise that they tell" in verdict.title for verdict in found)


def test_runs_that_are_equal_but_for_rounding_are_not_distinguishable():
    runs = [run_of([0.3], seed=seed) for seed in range(5)]
    runs += [run_of([0.1 + 0.2], method="near", seed=seed) for seed in range(5)]
    (one,) = analyse(study_of(runs)).main.comparisons
    assert (one.decision, one.p_adjusted, one.needed.more) == ("open", 1.0, None)


def test_what_one_seed_cannot_test_is_not_called_equal():
    said = {found.name: f"{found.title} {found.evidence}" for found in verdicts(study_with_differences(0.2))}
    assert "istinguishable" not in said["leader"] and "Not tested against it, two seeds" in said["leader"]
    assert said["stability"].startswith("Stability: not tested")


def lopsided(*, lost, num_seeds=6):
    """Two equal methods on an easy and a hard task; `lost` names the runs that did not finish."""
    runs = []
    for method in "ab":
        for task, level in (("easy", 0.9), ("hard", 0.1)):
            for seed in range(num_seeds):
                noise = 0.02 * np.random.default_rng((ord(method), seed, len(task), int(10 * level))).normal(size=10)
                status = "failed" if (method, task, seed) in lost else "finished"
                runs.append(run_of(level + noise, method=method, task=task, seed=seed, status=status))
    return study_of(runs, baseline="a")


HARD_LOST = {("b", "hard", seed) for seed in (2, 3, 4, 5)}


def test_a_method_that_lost_its_hard_runs_is_not_better_for_it_and_has_no_rank():
    found = analyse(lopsided(lost=HARD_LOST))
    by_name = {summary.arm.name: summary for summary in found.arms}
    assert by_name["b"].scores["last"].value == pytest.approx(by_name["a"].scores["last"].value, abs=0.02)
    assert [summary.arm.name for summary in found.ranked] == ["a"]
    assert [summary.arm.name for summary in found.unranked] == ["b"]
    assert by_name["b"].not_ranked == {"": "4 of 12 runs lost", "hard": "4 of 6 runs lost"}
    assert found.leader is None
    lost = verdicts(found)[0]
    assert "Not ranked, because others finished the same task and seed: b (4 of 12 runs lost)." in lost.evidence


def test_runs_that_are_still_to_come_are_not_called_lost():
    scores = lopsided(lost=set())
    runs = [replace(run, status="missing") if (run.method, run.seed) == ("b", 5) else run for run in scores.runs]
    (unranked,) = analyse(replace(scores, runs=tuple(runs))).unranked
    assert unranked.not_ranked[""] == "2 of 12 runs not finished"


def test_runs_that_every_method_lost_leave_the_ranking_alone():
    found = analyse(lopsided(lost={("a", "hard", 5), ("b", "hard", 5)}))
    assert len(found.ranked) == 2 and found.leader is not None


def test_where_every_method_lost_runs_there_is_no_ranking():
    found = analyse(lopsided(lost={("a", "hard", 5), ("b", "hard", 4)}))
    assert not found.ranked and found.leader is None
    assert "Every method lost runs: there is no ranking and no leader." in verdicts(found)[0].evidence


def test_a_method_that_lost_runs_is_never_ahead_of_one_that_finished_them():
    def runs(method, shift, lost=()):
        noise = np.random.default_rng(len(method)).normal(0, 0.01, (5, 20))
        return [
            run_of(0.5 + shift + row, method=method, seed=seed, status="failed" if seed in lost else "finished")
            for seed, row in enumerate(noise)
        ]

    found = analyse(study_of([*runs("grpo", 0), *runs("lucky", 0.2, lost=(4,)), *runs("unlucky!", -0.2, lost=(4,))]))
    by_name = {one.question.arm.name: one for one in found.main.comparisons}
    assert by_name["lucky"].decision == "untested"
    assert by_name["lucky"].difference.reason == (
        "lucky lost 1 of 5 runs that grpo finished: those left may be its better ones"
    )
    assert not by_name["lucky"].improvement.is_known
    assert by_name["unlucky!"].decision == "lower"
    assert by_name["unlucky!"].left_out == ("1 of 5 pairs, of which unlucky! lost its run",)


def test_the_leader_is_corrected_over_all_pairs_because_the_data_chose_it():
    found = analyse(random_study({"grpo": 0.4, "a": 0.42, "b": 0.44, "c": 0.46}))
    assert found.leader is not None
    assert len(found.leader.comparisons) == 3 and found.leader.num_corrected == 6
    smallest = min(found.leader.comparisons, key=lambda one: one.p_value)
    assert smallest.p_adjusted >= min(1.0, 1.5 * 6 * smallest.p_value) - 1e-9


def test_further_looks_share_the_five_percent():
    scores = random_study({"grpo": 0.4, "ppo": 0.41}, num_seeds=5)
    (first,) = analyse(scores).main.comparisons
    third = analyse(replace(scores, earlier_looks=(2, 3)))
    (one,) = third.main.comparisons
    assert one.p_adjusted == pytest.approx(min(1.0, first.p_value * 0.05 / (0.05 * 2 / 27)))
    look = next(verdict for verdict in verdicts(third) if verdict.name == "look")
    assert look.title.startswith("Look 3 at this study, at 5 seeds after 2, 3")
    assert not any(verdict.name == "look" for verdict in verdicts(analyse(scores)))


def test_problems_that_could_not_be_scored_or_differ_are_said_with_the_comparison():
    runs = [run_of([0.5, math.nan, 0.9], method="ppo", seed=0), run_of([0.5, 0.5, 0.5], method="ppo", seed=1)]
    runs += [run_of([0.4, 0.4, 0.4], seed=0), run_of([0.4, 0.4, 0.3], seed=1)]
    (one,) = analyse(study_of(runs)).main.comparisons
    assert one.left_out == ("sums: 1 of 3 problems, which some run could not score",)
    named = [named_problems(run, "abc" if run.seed else "abd") for run in runs]
    (one,) = analyse(study_of(named)).main.comparisons
    assert one.left_out == ("sums: the problems are not the same in all runs, which are compared by their means",)


def named_problems(run, names):
    points = tuple(replace(point, problem_ids=tuple(names)) for point in run.evaluations)
    return replace(run, evaluations=points)


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


def test_verdicts_and_rewards_are_not_compared():
    made = random_study({"grpo": 0.4, "ppo": 0.8})
    runs = [
        run
        if run.method == "grpo"
        else replace(run, evaluations=tuple(replace(point, is_accuracy=False) for point in run.evaluations))
        for run in made.runs
    ]
    (comparison,) = analyse(replace(made, runs=tuple(runs))).main.comparisons
    assert comparison.decision == "untested"
    assert "no one scale" in comparison.difference.reason


def test_a_baseline_that_lost_all_its_runs_is_said_to_be_compared_with_nothing():
    made = random_study({"grpo": 0.4, "ppo": 0.8})
    runs = [replace(run, status="failed", evaluations=()) if run.method == "grpo" else run for run in made.runs]
    found = {finding.name: finding for finding in verdicts(analyse(replace(made, runs=tuple(runs))))}
    assert found["against-baseline"].status == "unknown"
    assert found["against-baseline"].title == "Nothing is compared with grpo"
