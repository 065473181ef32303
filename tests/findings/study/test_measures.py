import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.findings.study.made import point, run_of, study_of

from klimb.findings.study.scores import Arm, area_under_curve, best_on_the_way, largest_k, measures_of, pass_values


def score(key, run, **more):
    return measures_of(study_of([run], **more))[key].score(run)


def test_last_is_the_last_evaluation_and_best_the_highest_on_the_way():
    run = run_of([0.1, 0.3], [0.5, 0.9], [0.4, 0.6])
    assert score("last", run) == pytest.approx(0.5)
    assert score("best", run) == pytest.approx(0.7)
    assert score("drop", run) == pytest.approx(0.2)


def test_a_run_that_only_lost_has_its_best_before_training():
    run = run_of([0.5], [0.3], [0.2])
    assert best_on_the_way(run, scores=study_of([run])).tolist() == [0.5]
    assert score("drop", run) == pytest.approx(0.3)


def test_an_evaluation_that_is_not_a_number_is_not_the_best():
    run = run_of([0.5], [0.3])
    broken = replace(run.evaluations[1], mean=math.nan, problems=(math.nan,))
    run = replace(run, evaluations=(*run.evaluations, broken, point([0.4], tokens=1000)))
    assert best_on_the_way(run, scores=study_of([run])).tolist() == [0.5]


def overshooting():
    """0.2 at the start, 0.6 at three quarters of the budget, 0.9 a quarter beyond it: 0.75 when it is spent."""
    points = ((0, [0.0, 0.4]), (750, [0.5, 0.7]), (1250, [1.0, 0.8]))
    return replace(run_of([0.0]), evaluations=tuple(point(problems, tokens=at) for at, problems in points))


def test_a_run_that_goes_beyond_the_budget_is_scored_where_it_was_spent():
    run = overshooting()
    assert measures_of(study_of([run]))["last"].of_run(run) == pytest.approx([0.75, 0.75])
    assert score("best", run) == pytest.approx(0.75)
    assert score("drop", run) == pytest.approx(0.0)


def test_two_runs_with_the_same_curve_have_the_same_score_however_far_they_went():
    short = replace(run_of([0.0]), evaluations=tuple(point([at / 2000], tokens=at) for at in (0, 500, 1000)))
    long = replace(run_of([0.0]), evaluations=tuple(point([at / 2000], tokens=at) for at in (0, 500, 1500)))
    for key in ("last", "best", "auc", "drop"):
        assert score(key, long) == pytest.approx(score(key, short))


def test_a_run_that_ended_before_the_budget_keeps_its_last_score():
    run = replace(run_of([0.0]), evaluations=(point([0.2], tokens=0), point([0.7], tokens=400)))
    assert score("last", run) == pytest.approx(0.7)


def test_a_run_evaluated_only_beyond_the_budget_has_that_score():
    run = replace(run_of([0.0]), evaluations=(point([0.7], tokens=1200),))
    assert score("last", run) == pytest.approx(0.7) and score("best", run) == pytest.approx(0.7)


def test_pass_at_k_is_taken_where_the_budget_was_spent():
    # Of 4 samples: pass@4 is 1 as soon as one is right; none, then both problems: halfway it is 1/2.
    points = (point([0.0, 0.0], tokens=500), point([0.25, 1.0], tokens=1500))
    run = replace(run_of([0.0]), evaluations=points)
    assert measures_of(study_of([run]))["pass@4"].of_run(run) == pytest.approx([0.5, 0.5])


def test_time_is_a_budget_like_tokens():
    points = (point([0.0], tokens=0), point([1.0], tokens=2000))
    run = replace(run_of([0.0]), evaluations=points)
    scores = replace(study_of([run]), budget_kind="seconds", budget=points[1].seconds / 4)
    assert measures_of(scores)["last"].score(run) == pytest.approx(0.25)


def test_problems_that_could_not_be_scored_are_in_no_mean():
    assert score("last", run_of([0.5, math.nan, 0.7])) == pytest.approx(0.6)


def test_area_under_a_straight_line_is_its_middle():
    run = run_of([0.0, 0.2], [0.5, 0.4], [1.0, 0.6])
    assert area_under_curve(run, scores=study_of([run])) == pytest.approx([0.5, 0.4])


def test_area_counts_the_budget_only_and_holds_the_ends():
    run = run_of([0.0])
    early = replace(run, evaluations=(point([0.2], tokens=250), point([0.6], tokens=750)))
    # 0.2 up to a quarter, then up to 0.6 at three quarters, then 0.6: 0.05 + 0.2 + 0.15.
    assert area_under_curve(early, scores=study_of([early])) == pytest.approx([0.4])
    late = replace(run, evaluations=(point([0.0], tokens=0), point([1.0], tokens=2000)))
    assert area_under_curve(late, scores=study_of([late])) == pytest.approx([0.25])


def test_area_over_seconds_where_the_budget_is_time():
    run = replace(run_of([0.0]), evaluations=(point([0.0], tokens=0), point([1.0], tokens=1000)))
    scores = replace(study_of([run]), budget_kind="seconds", budget=100.0)
    assert area_under_curve(run, scores=scores) == pytest.approx([0.5])


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=6))
def test_area_lies_between_the_lowest_and_the_highest_score(paths):
    run = run_of(*paths)
    area, whole = area_under_curve(run, scores=study_of([run])), np.array(paths)
    assert (whole.min(axis=0) - 1e-9 <= area).all() and (area <= whole.max(axis=0) + 1e-9).all()


def test_pass_at_two_of_four_samples_is_unbiased():
    # c = 0, 1, 2, 4 of 4 right: 1 - C(4-c, 2)/6 is 0, 1/2, 5/6, 1.
    values = pass_values(point([0.0, 0.25, 0.5, 1.0], tokens=0), k=2)
    assert values.tolist() == pytest.approx([0, 0.5, 5 / 6, 1])


def test_pass_at_k_of_an_evaluation_with_errors_is_its_own():
    broken = replace(point([0.25, 0.5], tokens=0), num_errors=1, pass_at={4: 0.9})
    assert pass_values(broken, k=4).tolist() == [0.9]


def test_largest_k_is_one_that_all_scored_runs_have():
    runs = [run_of([0.5], seed=0), run_of([0.5], seed=1)]
    fewer = replace(runs[1], evaluations=(replace(runs[1].evaluations[0], pass_at={1: 0.5, 2: 0.7}),))
    failed = replace(runs[1], seed=2, status="failed", evaluations=())
    assert largest_k(study_of(runs)) == 4
    assert largest_k(study_of([runs[0], fewer, failed])) == 1
    assert "pass@4" in measures_of(study_of(runs)) and "pass@1" not in measures_of(study_of([runs[0], fewer]))


def test_rewards_without_pass_at_k_have_no_such_measure():
    run = run_of([0.5])
    run = replace(run, evaluations=(replace(run.evaluations[0], pass_at={}),))
    assert set(measures_of(study_of([run]))) == {"last", "best", "auc", "drop"}


def test_arms_are_methods_under_settings_in_the_studys_order():
    runs = [run_of([0.1], method=m, setting=s) for m in ("grpo", "ppo") for s in ("adamw", "sf")]
    assert [arm.name for arm in study_of(runs).arms] == ["grpo (adamw)", "ppo (adamw)", "grpo (sf)", "ppo (sf)"]


def test_failed_and_unscored_runs_are_not_scored():
    runs = [
        run_of([0.1], seed=2),
        run_of([0.1], seed=0),
        run_of([0.1], seed=1, status="failed"),
        run_of([math.nan], seed=3),
        run_of(seed=4),
    ]
    assert [run.seed for run in study_of(runs).scored(Arm("grpo"), task="sums")] == [0, 2]
