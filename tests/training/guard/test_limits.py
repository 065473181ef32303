"""Limits and chance: the decisions of the guard without a model."""

import json
import math
from dataclasses import asdict, replace

import pytest

from klimb.findings.statistics import sign_test
from klimb.training.guard.base_metrics import BaseMetrics, Flags, base_metrics_from, metrics_of
from klimb.training.guard.limits import find_breaches
from klimb.training.guard.settings import LIMITS, GuardSettings

NO_LIMITS = GuardSettings(**dict.fromkeys(LIMITS))


def general(*scores: float | None) -> BaseMetrics:
    return BaseMetrics(general={"sums": scores})


def drawn(num_empty: int, of: int) -> BaseMetrics:
    """Rollouts that each answer a prompt of their own."""
    empty = (True,) * num_empty + (False,) * (of - num_empty)
    return BaseMetrics(rollouts=Flags(empty=empty, prompts=tuple(map(str, range(of)))))


def valid(num: int, of: int) -> BaseMetrics:
    """Rollouts of which so many have the form asked for."""
    flags = (True,) * num + (False,) * (of - num)
    return BaseMetrics(rollouts=Flags(format_valid=flags, prompts=tuple(map(str, range(of)))))


def broken(before: BaseMetrics, now: BaseMetrics, **limits: float) -> list[str]:
    return [breach.name for breach in find_breaches(before, now, replace(NO_LIMITS, **limits))]


def test_nine_problems_lost_are_more_than_chance_in_a_run_of_twenty_checks_and_eight_are_not():
    # 0.05 / 21 = 0.0024 lies between (1/2)^9 = 0.0020 and (1/2)^8 = 0.0039
    before = general(*[1.0] * 10)
    assert broken(before, general(*[0.0] * 8, 1.0, 1.0), max_general_drop=0.1) == []
    assert broken(before, general(*[0.0] * 9, 1.0), max_general_drop=0.1) == ["guard/general_mean"]


def test_the_level_of_a_check_may_be_given():
    before, now = general(*[1.0] * 6), general(*[0.0] * 5, 1.0)
    settings = replace(NO_LIMITS, max_general_drop=0.1)
    assert len(find_breaches(before, now, settings, level=0.04)) == 1  # (1/2)^5 = 0.031
    assert find_breaches(before, now, settings, level=0.03) == ()


def test_a_sure_fall_within_the_limit_is_no_breach():
    before, now = general(*[1.0] * 100), general(*[0.0] * 10, *[1.0] * 90)
    assert sign_test(num_worse=10, num_better=0) < 0.001
    assert broken(before, now, max_general_drop=0.1) == []
    assert broken(before, now, max_general_drop=0.09) == ["guard/general_mean"]


def test_problems_that_swap_are_noise_however_far_the_mean_falls():
    before = general(*[1.0] * 12, *[0.0] * 8)
    now = general(*[0.0] * 12, *[1.0] * 8)
    assert metrics_of(before)["guard/general_mean"] - metrics_of(now)["guard/general_mean"] == pytest.approx(0.2)
    assert broken(before, now, max_general_drop=0.1) == []


def test_a_problem_without_a_score_is_in_no_mean_and_no_pair():
    before, now = general(1.0, None, 1.0), general(None, 0.0, 1.0)
    assert metrics_of(before)["guard/general_mean"] == 1.0
    assert metrics_of(now)["guard/general_mean"] == 0.5
    assert broken(before, now, max_general_drop=0.1) == []


def test_perplexity_is_compared_with_the_one_before_in_its_own_unit():
    breaches = find_breaches(
        BaseMetrics(perplexity=20.0), BaseMetrics(perplexity=31.0), replace(NO_LIMITS, max_perplexity_ratio=1.5)
    )
    assert [(breach.name, breach.number, breach.limit) for breach in breaches] == [("guard/perplexity", 31.0, 30.0)]
    assert broken(BaseMetrics(perplexity=20.0), BaseMetrics(perplexity=30.0), max_perplexity_ratio=1.5) == []


@pytest.mark.parametrize(
    ("before", "now", "limits", "expected"),
    [
        (
            BaseMetrics(perplexity=20.0),
            BaseMetrics(perplexity=31.0),
            {"max_perplexity_ratio": 1.5},
            "at most 1.5 times the perplexity before training",
        ),
        (general(*[1.0] * 9), general(*[0.0] * 9), {"max_general_drop": 0.25}, "at most 0.25 below the mean score "),
        (drawn(0, 50), drawn(50, 50), {"max_empty_fraction": 0.1}, "at most 0.1 of the responses"),
        (
            valid(9, 9),
            valid(0, 9),
            {"min_format_fraction": 0.9},
            "at least 0.9 of the rollouts",
        ),
    ],
)
def test_a_broken_limit_says_what_is_allowed_and_which_key_allows_it(
    before: BaseMetrics, now: BaseMetrics, limits: dict[str, float], expected: str
):
    (breach,) = find_breaches(before, now, replace(NO_LIMITS, **limits))
    assert breach.threshold.startswith(expected)
    assert (breach.status, breach.source) == ("warning", f"guard.{next(iter(limits))}")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_perplexity_that_is_not_finite_breaks_the_limit(value: float):
    assert broken(BaseMetrics(perplexity=20.0), BaseMetrics(perplexity=value), max_perplexity_ratio=2.0) == [
        "guard/perplexity"
    ]


def test_answers_are_compared_problem_by_problem():
    before = BaseMetrics(answers=Flags(refusal=(False,) * 18))
    eight = BaseMetrics(answers=Flags(refusal=(True,) * 8 + (False,) * 10))
    nine = BaseMetrics(answers=Flags(refusal=(True,) * 9 + (False,) * 9))
    assert broken(before, eight, max_refusal_fraction=0.3) == []
    assert broken(before, nine, max_refusal_fraction=0.3) == ["guard/refusal_fraction"]


def test_a_model_beyond_a_limit_from_the_start_is_not_stopped_for_it():
    assert broken(drawn(60, 100), drawn(62, 100), max_empty_fraction=0.2) == []
    assert broken(drawn(60, 100), drawn(90, 100), max_empty_fraction=0.2) == ["guard/rollout_empty_fraction"]


def test_rollouts_at_the_limit_do_not_break_it():
    assert broken(drawn(0, 100), drawn(20, 100), max_empty_fraction=0.2) == []
    assert broken(drawn(0, 100), drawn(21, 100), max_empty_fraction=0.2) == ["guard/rollout_empty_fraction"]


def test_a_format_that_is_lost_is_a_breach_and_one_never_had_is_none():
    assert broken(valid(30, 32), valid(12, 32), min_format_fraction=0.8) == ["guard/format_valid_fraction"]
    assert broken(valid(0, 32), valid(2, 32), min_format_fraction=0.8) == []
    assert broken(valid(0, 32), valid(30, 32), min_format_fraction=0.8) == []


def test_what_was_measured_only_once_is_not_judged():
    full = BaseMetrics(
        perplexity=900.0,
        general={"sums": (0.0,) * 9},
        answers=Flags(empty=(True,) * 9),
        rollouts=Flags(empty=(True,) * 9, prompts=tuple("abcdefghi")),
    )
    assert find_breaches(BaseMetrics(), full, GuardSettings()) == ()
    assert find_breaches(full, BaseMetrics(), GuardSettings()) == ()


def test_the_general_mean_weighs_sets_alike_and_names_each():
    logged = metrics_of(BaseMetrics(general={"sums": (1.0, 1.0, 1.0, 0.0), "legs": (0.0,)}))
    assert logged == {"guard/general/sums": 0.75, "guard/general/legs": 0.0, "guard/general_mean": 0.375}


def test_a_measurement_comes_back_from_json_as_it_was():
    measured = BaseMetrics(
        perplexity=21.123456789012345,
        general={"sums": (1.0, None, 0.25)},
        answers=Flags(refusal=(True, False)),
        rollouts=Flags(empty=(False,), format_valid=(True,), prompts=("2 + 2",)),
    )
    assert base_metrics_from(json.loads(json.dumps(asdict(measured)))) == measured
    assert base_metrics_from(json.loads(json.dumps(asdict(BaseMetrics())))) == BaseMetrics()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GuardSettings(max_perplexity_ratio=0.9), "max_perplexity_ratio must be finite and >= 1"),
        (lambda: GuardSettings(max_empty_fraction=math.nan), "max_empty_fraction must be finite and >= 0"),
        (lambda: GuardSettings(false_alarm_rate=0.0), r"false_alarm_rate must be in \(0, 1\), got 0"),
        (lambda: GuardSettings(every_steps=0), "every_steps must be >= 1, got 0"),
        (
            lambda: GuardSettings(rollback_learning_rate_factor=0.0),
            r"rollback_learning_rate_factor must be in \(0, 1\]",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(make, words: str):
    with pytest.raises(ValueError, match=words):
        make()
