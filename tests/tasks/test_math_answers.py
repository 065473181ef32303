import signal

import pytest

from klimb.tasks import Response, Scorer, ScorerSettings, from_file
from klimb.tasks.math_answers import LONGEST_RESPONSE, verify_math


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so $\\frac{2}{4}$.", "1/2"),
        ("It is 0.5", "\\frac{1}{2}"),
        ("\\boxed{1+x^2}", "x^2+1"),
        ("\\boxed{2\\sqrt3}", "2\\sqrt{3}"),
        ("$(1, 2)$", "(1,2)"),
        ("I have 3 apples", "3 apples"),
        ("12 dollars", "\\$12"),
        ("1234", "1,234"),
        ("0.5", "50%"),
        ("= -5", "-5"),
    ],
)
def test_equal_expressions_are_equal_however_written(text, answer):
    assert verify_math(text, answer).correct


@pytest.mark.parametrize(
    ("text", "answer"), [("3", "2\\sqrt{3}"), ("2", "2x+1"), ("5", "-5"), ("", "7"), ("no idea", "7"), ("1", "(1,2)")]
)
def test_a_part_of_the_answer_is_not_the_answer(text, answer):
    assert not verify_math(text, answer).correct


def test_an_answer_that_is_no_mathematics_is_an_error_and_not_a_wrong_response():
    with pytest.raises(ValueError, match=r"'Paris' has no mathematical reading; .*'exact'"):
        verify_math("Paris", "Paris")


def test_only_the_end_of_a_long_response_is_read():
    assert not verify_math("7" + " " * LONGEST_RESPONSE, "7").correct
    assert verify_math("$" * 100_000 + " " * LONGEST_RESPONSE + "7", "7").correct


def test_an_alarm_of_the_caller_survives():
    signal.alarm(1000)
    verify_math("7", "7")
    assert signal.alarm(0) > 900


def test_a_hostile_expression_costs_one_response(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    task = from_file(tmp_path / "data.jsonl", held_out_fraction=0)
    texts = ["$2$", "$10^{10^{10^{10}}}$", "it is 2"]
    responses = [Response(text=text, num_tokens=1, finish_reason="stop") for text in texts]
    with Scorer(task, ScorerSettings(timeout_seconds=2)) as scorer:
        scores = scorer.score_many([task.train[0]] * 3, responses)
    assert [score.reward for score in scores] == [1.0, None, 1.0]
    assert scores[1].reason == "timed out after 2 s"
