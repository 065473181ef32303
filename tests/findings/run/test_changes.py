from dataclasses import replace
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ui.pages.folders import AFTER, BEFORE, evaluation, problem

from klimb.findings.evaluations import ProblemRecord, change_between, means_that_changed, pass_intervals
from klimb.findings.run.changes import KINDS, Kind, counted, expected_by_luck, kind_of, prompt_changes
from klimb.findings.statistics.means import WELCH


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0.0, 0.5, "learned"),
        (0.5, 0.0, "lost"),
        (0.0, 0.0, "never"),
        (0.1, 0.1, "never"),
        (0.0, 0.25, "between"),
        (0.9, 0.9, "always"),
        (1.0, 0.75, "between"),
        (0.3, 0.8, "learned"),
    ],
)
def test_a_problem_is_named_after_its_two_means(low: float, high: float, kind: Kind):
    assert kind_of(low, high) == kind


def test_learned_and_lost_problems_are_told_apart():
    changes = prompt_changes(BEFORE, AFTER)
    assert [change.kind for change in changes] == ["learned", "lost", *["learned"] * 4]
    assert counted(changes) == {"learned": 5, "lost": 1, "never": 0, "between": 0, "always": 0}


def test_rewards_are_measured_against_the_range_that_was_seen():
    first = evaluation("before", 0, [problem("a", [-2.0]), problem("b", [2.0])], is_accuracy=False)
    second = evaluation("after", 1, [problem("a", [0.0]), problem("b", [2.0])], is_accuracy=False)
    a, b = prompt_changes(first, second)
    assert (a.low, a.high, a.kind) == (0.0, 0.5, "learned")
    assert (b.low, b.high, b.kind) == (1.0, 1.0, "always")


def test_problems_are_paired_by_name_and_those_never_scored_are_left_out():
    first = evaluation("before", 0, [problem("a", [1]), problem("b", [0]), problem("c", [0])])
    unscored = ProblemRecord(problem_id="c", question="?", values=(), answers=("x",))
    second = evaluation("after", 1, [unscored, problem("b", [1]), problem("a", [1]), problem("d", [1])])
    assert [(change.before.problem_id, change.kind) for change in prompt_changes(first, second)] == [
        ("a", "always"),
        ("b", "learned"),
    ]


def test_the_mean_change_is_over_problems_and_paired():
    change = change_between(BEFORE, AFTER)
    assert change is not None
    # +1, −1 and four times +½, over six problems.
    assert (change.value, change.num_units) == (pytest.approx(2 / 6), 6)
    assert change.low < 2 / 6 < change.high


def test_a_change_that_is_the_same_for_every_problem_has_no_interval_and_says_why():
    first = evaluation("before", 0, [problem(str(n), [n / 20]) for n in range(12)], is_accuracy=False)
    second = evaluation("after", 1, [problem(str(n), [n / 20 + 0.25]) for n in range(12)], is_accuracy=False)
    change = change_between(first, second)
    assert change is not None and change.value == pytest.approx(0.25) and not change.is_known
    assert "have the same mean" in change.reason


def test_evaluations_of_other_problems_are_compared_unpaired():
    first = evaluation("before", 0, [problem(f"a{n}", [n % 2]) for n in range(20)])
    second = evaluation("after", 1, [problem(f"b{n}", [1]) for n in range(20)])
    change = change_between(first, second)
    assert change is not None and change.method == WELCH and change.value == pytest.approx(0.5)
    assert change.low > 0


def test_luck_is_what_exchanging_the_answers_of_a_problem_gives():
    """Of k right among 2·4 answers, j of the 4 after: C(4, j)·C(4, k − j)/C(8, k), the hypergeometric distribution."""
    changes = prompt_changes(
        evaluation("before", 0, [problem(str(n), [1, 0, 0, 0]) for n in range(60)]),
        evaluation("after", 1, [problem(str(n), [1, 1, 1, 0]) for n in range(60)]),
    )
    luck = expected_by_luck(changes, is_accuracy=True)
    learned = sum(comb(4, j) * comb(4, 4 - j) for j in (3, 4)) / comb(8, 4)
    assert luck["learned"] == pytest.approx(60 * learned, abs=1.0)
    assert luck["lost"] == pytest.approx(60 * learned, abs=1.0)
    assert luck["between"] == pytest.approx(60 * (1 - 2 * learned), abs=1.5)
    assert counted(changes)["learned"] == 60


def test_luck_cannot_change_a_problem_whose_answers_are_all_alike():
    same = [problem("a", [1, 1]), problem("b", [0, 0])]
    changes = prompt_changes(evaluation("before", 0, same), evaluation("after", 1, same))
    assert expected_by_luck(changes, is_accuracy=True) == {
        "learned": 0,
        "lost": 0,
        "never": 1,
        "between": 0,
        "always": 1,
    }


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=4)] * 2), max_size=8))
def test_every_problem_is_of_one_kind_and_luck_moves_no_problem_out_of_the_count(values: list[tuple[list[float], ...]]):
    if not values:
        return
    first = evaluation("before", 0, [problem(str(n), pair[0]) for n, pair in enumerate(values)])
    second = evaluation("after", 1, [problem(str(n), pair[1]) for n, pair in enumerate(values)])
    changes = prompt_changes(first, second)
    assert sum(counted(changes).values()) == len(values)
    luck = expected_by_luck(changes, is_accuracy=True)
    assert set(luck) == set(KINDS)
    assert sum(luck.values()) == pytest.approx(len(values))


def test_rewards_that_are_all_one_are_not_known_to_have_no_more():
    alike = [problem(str(n), [1.0]) for n in range(12)]
    verdicts, rewards = (evaluation("after", 1, alike, is_accuracy=is_accuracy) for is_accuracy in (True, False))
    assert verdicts.interval.is_known and verdicts.interval.high == 1.0
    assert not rewards.interval.is_known and "all rewards are the same" in rewards.interval.reason


def test_a_change_between_other_problems_keeps_the_level_that_is_asked():
    first = evaluation("before", 0, [problem(str(n), [float(n < 6)]) for n in range(20)])
    second = evaluation("after", 1, [problem(f"new {n}", [float(n < 14)]) for n in range(20)])
    usual, strict = change_between(first, second), change_between(first, second, alpha=0.001)
    assert usual is not None and strict is not None and strict.low < usual.low and strict.high > usual.high


def test_pass_at_one_has_the_interval_of_the_mean():
    measured = evaluation("after", 1, [problem(str(n), [1.0, float(n % 3 == 0)]) for n in range(12)])
    measured = replace(measured, pass_at={"1": measured.mean, "2": 1.0})
    assert pass_intervals(measured)["1"] == measured.interval


def test_the_means_beside_a_change_are_of_the_problems_that_both_scored():
    # the ten that were never right could not be scored the second time
    first = evaluation("before", 0, [problem(str(n), [float(n < 15)]) for n in range(30)])
    second = evaluation("after", 1, [problem(str(n), [float(n < 15)] if n < 20 else []) for n in range(30)])
    change = change_between(first, second)
    assert change is not None and change.value == 0 and change.num_units == 20
    assert means_that_changed(first, second) == (0.75, 0.75)
