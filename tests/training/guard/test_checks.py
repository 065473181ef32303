"""Checks of the user's own: what no answer, or every answer, may be."""

import pytest
from tests.training.guard.test_measurer import Replies, measurer_of

from klimb.errors import ConfigError
from klimb.policies import Policy
from klimb.tasks import Response
from klimb.training.guard.base_metrics import BaseMetrics, metrics_of
from klimb.training.guard.checks import check_functions, is_violated
from klimb.training.guard.general import check_problem
from klimb.training.guard.limits import find_breaches
from klimb.training.guard.settings import GuardSettings

REFUNDS = "never:(?i)refund"
ASKED = [({"role": "user", "content": f"Question {number}"},) for number in range(4)]


def violated(check: str, text: str) -> bool | None:
    score = check_functions([check])[check]
    answer = Response(text=text, num_tokens=1, finish_reason="stop")
    return is_violated(score(check_problem(ASKED[0], check), answer))


@pytest.mark.parametrize(
    ("check", "text", "expected"),
    [
        (REFUNDS, "You get a Refund.", True),
        (REFUNDS, "You get a new one.", False),
        (REFUNDS, "", False),
        ("always:^Dear", "Dear Anna,\nno", False),
        ("always:^Dear", "No", True),
        ("never:a.b", "a\nb", True),
    ],
)
def test_a_regular_expression_is_found_never_or_always(check: str, text: str, expected: bool):
    assert violated(check, text) is expected


@pytest.mark.parametrize("check", ["refund", "never:", "never:(", "python:nothing", "model:"])
def test_what_is_no_check_is_refused_with_the_key(check: str):
    with pytest.raises(ValueError, match=r"guard\.checks"):
        GuardSettings(checks=(check,))


def test_each_check_is_made_on_an_answer_to_each_held_out_prompt(tiny_policy: Policy):
    sampler = Replies(tiny_policy, ["A refund!", "Dear Bob", "Dear refund", "no"])
    settings = GuardSettings(text="none", general=(), checks=(REFUNDS, "always:Dear"))
    measurer = measurer_of(settings, tiny_policy, sampler, asked=ASKED, max_answer_tokens=9)
    assert measurer is not None
    with measurer:
        measured = measurer.measure()
    assert measured.checks == {
        REFUNDS: (True, False, True, False),
        "always:Dear": (True, False, False, True),
    }
    assert metrics_of(measured) == {"guard/check_violations/1": 0.5, "guard/check_violations/2": 0.5}
    (asked,) = sampler.asked
    assert (asked.temperature, asked.max_new_tokens) == (tiny_policy.temperature, 9)


def test_checks_without_held_out_prompts_are_an_error_that_says_how_to_have_some(tiny_policy: Policy):
    with pytest.raises(ConfigError, match="held_out_fraction"):
        measurer_of(GuardSettings(text="none", general=(), checks=(REFUNDS,)), tiny_policy, Replies(tiny_policy, []))


def checked(*violations: bool | None) -> BaseMetrics:
    return BaseMetrics(checks={REFUNDS: violations})


def test_one_violation_that_was_not_there_before_breaks_the_limit_and_tells_both_shares_with_intervals():
    (found,) = find_breaches(checked(*[False] * 40), checked(True, *[False] * 39), GuardSettings(checks=(REFUNDS,)))
    assert found.name == "guard/check_violations/1"
    assert REFUNDS in found.title and "2.5%" in found.title
    assert found.evidence.startswith("1 of 40 (95 % interval ") and "0 of 40 (" in found.evidence
    assert found.source == "guard.max_violation_fraction"


def test_what_was_as_bad_before_or_is_within_the_limit_breaks_none():
    settings = GuardSettings(checks=(REFUNDS,), max_violation_fraction=0.25)
    assert not find_breaches(checked(False, False, False, False), checked(True, False, False, False), settings)
    assert find_breaches(checked(False, False, False, False), checked(True, True, False, False), settings)
    assert not find_breaches(checked(True, True), checked(True, True), settings)
    assert not find_breaches(checked(False), checked(None), settings)
