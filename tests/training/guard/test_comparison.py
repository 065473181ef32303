"""What is one unit of a test, and how the tests of a check share its level."""

from dataclasses import replace

import pytest

from klimb.training.guard.base_metrics import BaseMetrics, Flags, newest_of
from klimb.training.guard.comparison import FORMAT, GENERAL, LIMIT_OF, compare, split_level
from klimb.training.guard.limits import find_breaches
from klimb.training.guard.settings import GuardSettings

SETTINGS = GuardSettings()


def rollouts(empty: list[bool], prompts: str) -> BaseMetrics:
    return BaseMetrics(rollouts=Flags(empty=tuple(empty), prompts=tuple(prompts)))


def compared(before: BaseMetrics, now: BaseMetrics):
    (found,) = compare(before, now, SETTINGS, level=0.05)
    return found


def test_all_answers_to_one_prompt_are_one_unit():
    # 16 of 16 answers empty after none, but of 4 prompts: one of C(8, 4) = 70 deals
    found = compared(rollouts([False] * 16, "aaaabbbbccccdddd"), rollouts([True] * 16, "eeeeffffgggghhhh"))
    assert (found.unit, found.num_units) == ("prompt", 8)
    assert found.p == pytest.approx(1 / 70)


def test_a_prompt_that_is_drawn_twice_in_a_step_is_one_unit():
    before = rollouts([False] * 4, "abcd")
    once, twice = rollouts([True] * 4, "efgh"), rollouts([True] * 8, "efghefgh")
    assert compared(before, once).p == compared(before, twice).p


def test_a_question_that_is_asked_twice_counts_once():
    prompts = ("q",) * 20 + ("r",)
    before = BaseMetrics(answers=Flags(empty=(False,) * 21, prompts=prompts))
    now = BaseMetrics(answers=Flags(empty=(True,) * 20 + (False,), prompts=prompts))
    found = compared(before, now)
    assert (found.num_units, found.num_worse, found.p) == (2, 1, 0.5)


def test_rollouts_without_prompts_are_refused_with_what_is_expected():
    without = BaseMetrics(rollouts=Flags(empty=(False,) * 8))
    with pytest.raises(ValueError, match=r"name no prompts.*Flags\(prompts=\.\.\.\), one for each response"):
        find_breaches(without, without, SETTINGS)


def test_prompts_of_another_number_than_the_responses_are_refused():
    with pytest.raises(ValueError, match="is of 3 responses and prompts of 2"):
        Flags(empty=(False,) * 3, prompts=("a", "b"))


def test_the_tests_of_a_check_share_its_level_and_the_general_score_has_half():
    names = [name for name in LIMIT_OF if name != FORMAT]
    levels = split_level(0.02, names, SETTINGS)
    assert sum(levels.values()) == pytest.approx(0.02)
    assert levels[GENERAL] == pytest.approx(0.01)
    assert split_level(0.02, [GENERAL], SETTINGS) == {GENERAL: 0.02}


def test_what_has_no_limit_takes_nothing_from_what_has_one():
    names = ["guard/empty_fraction", "guard/refusal_fraction", FORMAT]
    levels = split_level(0.02, names, replace(SETTINGS, min_format_fraction=None))
    assert levels == pytest.approx(dict.fromkeys(names, 0.01))


def test_the_newest_steps_are_looked_at_until_there_are_prompts_enough_each_with_its_newest_answers():
    steps = [
        Flags(empty=(True, True), prompts=("a", "b")),
        Flags(empty=(False, True), prompts=("a", "c")),
        Flags(empty=(False, False), prompts=("d", "d")),
    ]
    assert newest_of(steps, num_prompts=1) == steps[-1]
    assert newest_of(steps, num_prompts=3) == Flags(empty=(False, True, False, False), prompts=("a", "c", "d", "d"))
    assert newest_of(steps, num_prompts=9).prompts == ("b", "a", "c", "d", "d")


def test_both_means_of_the_general_score_are_of_the_problems_that_were_scored_both_times():
    # 12 of 20 lost; the other 20, none of which was right, could not be scored now
    before = BaseMetrics(general={"everyday": (1,) * 20 + (0,) * 20})
    now = BaseMetrics(general={"everyday": (0,) * 12 + (1,) * 8 + (None,) * 20})
    found = compared(before, now)
    assert (found.before, found.now, found.num_units) == (1.0, 0.4, 20)
    assert [breach.name for breach in find_breaches(before, now, SETTINGS)] == [GENERAL]


def test_answers_that_could_not_be_scored_are_no_fall_of_the_general_score():
    # 13 of 300 lost, 4 points; 100 others that were right could not be scored now
    before = BaseMetrics(general={"everyday": (1,) * 300 + (0,) * 100})
    now = BaseMetrics(general={"everyday": (0,) * 13 + (1,) * 187 + (None,) * 100 + (0,) * 100})
    assert compared(before, now).is_worse and not find_breaches(before, now, SETTINGS)
