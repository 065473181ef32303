"""Findings about conversations: each at its limit, beyond it, and where it must not appear."""

import pytest
from tests.findings.run.synthetic import flat, keys, only, ramp, record

EPSILON = 1e-6


@pytest.mark.parametrize(
    ("key", "at_the_limit", "beyond"),
    [
        (
            "environment-dies",
            {"num_environment_errors": flat(5.0), "num_samples": flat(100.0)},
            {"num_environment_errors": flat(5.0 + EPSILON)},
        ),
        ("calls-not-read", {"unread_calls_fraction": flat(0.9)}, {"unread_calls_fraction": flat(0.9 + EPSILON)}),
        ("tools-not-used", {"tools_unused_fraction": flat(0.95)}, {"tools_unused_fraction": flat(0.95 + EPSILON)}),
        ("turn-limit", {"turn_limit_fraction": flat(0.5)}, {"turn_limit_fraction": flat(0.5 + EPSILON)}),
        (
            "talk-is-paid",
            {"reward_turns_correlation": flat(0.5), "correct_turns_correlation": flat(0.0)},
            {"reward_turns_correlation": flat(0.5 + EPSILON)},
        ),
        (
            "talk-is-paid",
            {"reward_drawn_correlation": flat(0.5), "correct_drawn_correlation": flat(-0.3)},
            {"reward_drawn_correlation": flat(0.8)},
        ),
    ],
)
def test_a_rule_is_silent_at_its_limit_and_speaks_beyond_it(key, at_the_limit, beyond):
    assert key not in keys(record(at_the_limit))
    assert key in keys(record({**at_the_limit, **beyond}))


def test_a_reward_that_goes_with_length_where_being_correct_does_too_is_not_paid_for_talk():
    curves = {"reward_turns_correlation": flat(0.9), "correct_turns_correlation": flat(0.1)}
    assert "talk-is-paid" not in keys(record(curves))
    assert "talk-is-paid" in keys(record({**curves, "correct_turns_correlation": flat(0.1 - EPSILON)}))


def test_without_verdicts_nobody_says_that_talk_is_paid():
    assert "talk-is-paid" not in keys(record({"reward_turns_correlation": flat(1.0)}))


def test_a_reward_for_short_dialogues_is_not_paid_for_talk():
    curves = {"reward_turns_correlation": flat(-0.9), "correct_turns_correlation": flat(0.0)}
    assert "talk-is-paid" not in keys(record(curves))


def test_calls_that_are_learnt_are_no_finding():
    assert "calls-not-read" not in keys(record({"unread_calls_fraction": ramp(1.0, 0.0)}))
    assert "tools-not-used" not in keys(record({"tools_unused_fraction": ramp(1.0, 0.0)}))
    assert "turn-limit" not in keys(record({"turn_limit_fraction": ramp(1.0, 0.0)}))


def test_a_few_steps_are_not_enough_to_tell():
    few = {"unread_calls_fraction": [1.0] * 5, "tools_unused_fraction": [1.0] * 5, "turn_limit_fraction": [1.0] * 5}
    assert keys(record(few)) == []


def test_a_limit_that_is_reached_because_no_call_is_read_is_told_once():
    curves = {"unread_calls_fraction": flat(1.0), "turn_limit_fraction": flat(1.0), "num_turns_mean": flat(8.0)}
    assert "calls-not-read" in keys(record(curves)) and "turn-limit" not in keys(record(curves))


def test_environments_that_died_are_no_errors_of_scoring_and_others_are():
    dead = {"num_errors": flat(9.0), "num_environment_errors": flat(9.0), "num_samples": flat(100.0)}
    assert "scoring-errors" not in keys(record(dead)) and "environment-dies" in keys(record(dead))
    both = {**dead, "num_errors": flat(20.0)}
    assert {"scoring-errors", "environment-dies"} <= set(keys(record(both)))
    assert "220 of 2000" in only(record(both), "scoring-errors").evidence


def test_a_run_of_single_answers_has_none_of_these_findings():
    run = record({"truncated_fraction": flat(1.0), "num_errors": flat(0.0), "num_samples": flat(8.0)})
    known = {"environment-dies", "calls-not-read", "tools-not-used", "talk-is-paid", "turn-limit"}
    assert not known & set(keys(run))


def test_a_finding_says_where_and_what_to_do():
    found = only(record({"turn_limit_fraction": flat(0.75), "num_turns_mean": flat(6.0)}), "turn-limit")
    assert "75%" in found.evidence and "after 6.0 turns" in found.evidence and "steps 17 to 20" in found.evidence
    assert "environment.max_turns" in found.advice and found.anchor == "metrics.md#conversations"
