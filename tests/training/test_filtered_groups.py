from dataclasses import replace

import pytest

from klimb.experience import Sample
from klimb.training.filtered_groups import ALONE_IN_GROUP, filter_group
from klimb.training.settings import AdvantageSettings

ANSWER = Sample(
    sample_id="a",
    group_id="g",
    prompt=({"role": "user", "content": "Hello?"},),
    prompt_ids=(1, 2),
    response="Hi.",
    response_ids=(3, 4),
    finish_reason="stop",
    reward=1.0,
)


@pytest.mark.parametrize("kind", ["batch-z-score", "no-baseline", "binary-feedback"])
def test_one_rated_answer_alone_is_not_even_where_its_group_is_no_baseline(kind: str):
    """People rate one answer to a prompt: dropped as even groups, all of them were."""
    found = filter_group([ANSWER], AdvantageSettings(kind=kind, group_filter=True))
    assert [sample.metadata["used"] for sample in found.samples] == ["yes"]
    assert len(found.used) == 1


def test_one_rated_answer_alone_teaches_nothing_where_its_group_is_the_baseline():
    found = filter_group([ANSWER], AdvantageSettings(kind="group-mean", group_filter=True))
    assert [sample.metadata["used"] for sample in found.samples] == [f"no: {ALONE_IN_GROUP}"]


def test_two_equal_answers_are_even_whatever_the_baseline():
    pair = [ANSWER, replace(ANSWER, sample_id="b")]
    for kind in ("group-mean", "batch-z-score"):
        found = filter_group(pair, AdvantageSettings(kind=kind, group_filter=True))
        assert found.used == ()
