"""How far a machine agrees with people, on ratings made by hand."""

import pytest

from klimb.findings.rater_agreement import RatedTwice, compare_raters


def rated(values) -> list[RatedTwice]:
    """Two answers to a prompt each."""
    return [
        RatedTwice(prompt=f"p{place // 2}", by_people=people, by_machine=machine)
        for place, (people, machine) in enumerate(values)
    ]


def found(values) -> dict:
    return {each.name: each for each in compare_raters(rated(values), rater="it").findings}


def test_one_that_says_what_people_say_agrees_and_one_that_says_the_opposite_does_not():
    same, opposite = found([(1, 1), (0, 0)] * 20), found([(1, 0), (0, 1)] * 20)
    assert same["agreement of raters"].number == 1 and same["order of answers to a prompt"].status == "good"
    assert opposite["agreement of raters"].status == "bad"
    assert opposite["order of answers to a prompt"].status == "bad"


def test_another_scale_is_compared_by_order_alone():
    names = found([(1, 3.5), (0, -2.0)] * 20)
    assert names["agreement of raters"].status == "unknown"
    assert names["order of answers to a prompt"].number == pytest.approx(1)


def test_too_few_cannot_be_told():
    names = found([(1, 1), (0, 0)] * 2)
    assert {each.status for each in names.values()} == {"unknown"}
    (only,) = compare_raters([], rater="it").findings
    assert only.status == "unknown" and "no answer has a rating by people" in only.title


def test_a_tie_of_the_machine_counts_one_half():
    assert found([(1, 0.5), (0, 0.5)] * 20)["order of answers to a prompt"].number == pytest.approx(0.5)
