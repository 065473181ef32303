import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from klimb.experience import SamplingSettings
from klimb.findings.evaluations import change_between, pass_at_k, pass_intervals
from klimb.findings.statistics import mean_interval
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, Response, Score
from klimb.tasks.environment_problems import ENVIRONMENT_SEED
from klimb.training import evaluate
from klimb.training.evaluation import append_evaluation, read_evaluations, summarise_scores


def problems(count: int) -> list[Problem]:
    return [
        Problem(problem_id=f"p{number}", messages=({"role": "user", "content": str(number)},), answer="")
        for number in range(count)
    ]


def result_of(verdicts: Sequence[str]):
    """One problem a text; `+` is correct, `-` is not, `?` could not be scored."""
    marks = [mark for text in verdicts for mark in text]
    scores = [Score(reward=None, reason="no") if m == "?" else Score(reward=2.0, correct=m == "+") for m in marks]
    responses = [Response(text=mark, num_tokens=4, finish_reason="stop") for mark in marks]
    return summarise_scores(problems(len(verdicts)), responses, scores)


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_sample():
    for num_samples in range(1, 7):
        for num_correct in range(num_samples + 1):
            outcomes = [True] * num_correct + [False] * (num_samples - num_correct)
            for k in range(1, num_samples + 1):
                subsets = list(itertools.combinations(outcomes, k))
                share = sum(any(subset) for subset in subsets) / len(subsets)
                assert pass_at_k(num_samples, num_correct, k) == pytest.approx(share, abs=1e-15)


def test_pass_at_k_is_unbiased():
    # Exact expectation over c ~ Binomial(n, p) against 1 − (1 − p)^k.
    n, p = 7, 0.3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    for k in range(1, n + 1):
        expected = sum(weight * pass_at_k(n, c, k) for c, weight in enumerate(weights))
        assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-14)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 5, 1), (4, 1, 0)])
def test_pass_at_k_refuses_the_impossible(n: int, c: int, k: int):
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(n, c, k)


def test_mean_at_k_averages_problems_and_correctness_not_shaped_rewards():
    result = result_of(["+++-", "----"])
    assert result.mean == (0.75 + 0) / 2
    assert result.count == 8
    assert result.pass_at == {"1": 0.375, "2": 0.5, "4": 0.5}
    assert result.problems[0].answers == ("+", "+", "+", "-")


def test_what_could_not_be_scored_is_counted_and_in_no_mean():
    result = result_of(["+?--", "????", "++++"])
    assert result.mean == pytest.approx((1 / 3 + 1) / 2)
    assert result.num_errors == 5
    assert result.count == 7
    # Over the two problems with a scored sample; one of them has three, so that there is no k = 4.
    assert result.pass_at == pytest.approx({"1": (1 / 3 + 1) / 2, "2": (pass_at_k(3, 1, 2) + 1) / 2})
    assert result.num_problems_unscored == 1


def test_a_record_says_what_was_asked_of_whom_and_when():
    result = result_of(["+?", "--"])
    assert (result.when, result.step, result.num_problems, result.num_samples) == ("during", 0, 2, 2)
    assert result.is_accuracy
    assert [problem.question for problem in result.problems] == ["0", "1"]


def test_pass_at_1_is_the_mean_whatever_could_not_be_scored():
    result = result_of(["+?--", "-+++", "+-??", "????"])
    assert result.pass_at["1"] == pytest.approx(result.mean)
    assert list(result.pass_at) == ["1", "2"]


def test_problems_that_lost_answers_are_not_left_out_of_pass_at_k():
    """Four easy problems are scored throughout, sixteen hard ones lost an answer each: 8 of them are never solved."""
    easy, hard = ["+" * 8] * 4, ["?" + "-" * 7] * 8 + ["?" + "+" + "-" * 6] * 8
    result = result_of([*easy, *hard])
    assert list(result.pass_at) == ["1", "2", "4"]  # of eight, only the easy ones have enough
    wanted = [1.0] * 4 + [0.0] * 8 + [pass_at_k(7, 1, 4)] * 8
    assert result.pass_at["4"] == pytest.approx(sum(wanted) / 20)
    expected = mean_interval(np.array(wanted), np.arange(20), unit="problem", bounds=(0.0, 1.0))
    assert pass_intervals(result)["4"] == expected


def test_the_interval_of_pass_at_k_is_over_the_problems_that_the_mean_is_over():
    result = result_of(["+?--", "????", "++++", "----", "++--", "+---"])
    values = {1: [1 / 3, 1.0, 0.0, 1 / 2, 1 / 4], 2: [pass_at_k(3, 1, 2), 1.0, 0.0, pass_at_k(4, 2, 2), 1 / 2]}
    found = pass_intervals(result)
    assert list(found) == ["1", "2"]
    for k, each in values.items():
        assert (found[str(k)].value, found[str(k)].num_units) == (pytest.approx(sum(each) / 5), 5)
        assert found[str(k)].low < found[str(k)].value < found[str(k)].high


def test_too_few_problems_have_no_interval_and_say_so(tmp_path: Path):
    result = result_of(["+-", "++", "????"])
    assert not result.interval.is_known
    assert result.interval.reason == "2 problems, and 5 are the least for an interval"
    append_evaluation(tmp_path / "evaluations.jsonl", result)
    row = json.loads((tmp_path / "evaluations.jsonl").read_text())["interval"]
    assert (row["low"], row["high"], row["num_units"], row["unit"]) == (None, None, 2, "problem")


def test_problems_that_ask_the_same_are_one_unit_of_evidence():
    asked = problems(6)
    twice = [*asked, *(replace(problem, problem_id=f"again-{problem.problem_id}") for problem in asked)]
    scores = [Score(reward=float(number % 2), correct=bool(number % 2)) for number in range(6)] * 2
    responses = [Response(text="x", num_tokens=1, finish_reason="stop")] * 12
    once = summarise_scores(asked, responses[:6], scores[:6])
    repeated = summarise_scores(twice, responses, scores)
    assert (repeated.num_problems, repeated.interval.num_units) == (12, 6)
    assert repeated.interval.low == pytest.approx(once.interval.low, abs=1e-9)


def test_a_record_survives_the_file(tmp_path: Path):
    path = tmp_path / "evaluations.jsonl"
    first, second = result_of(["+-"]), replace(result_of(["--"]), when="after", greedy=0.5, seconds=2.0)
    append_evaluation(path, first)
    append_evaluation(path, second)
    assert read_evaluations(path) == [first, second]
    assert read_evaluations(path)[1].seconds == 2.0


def test_a_line_that_a_crash_cut_short_is_replaced_by_the_next_one(tmp_path: Path):
    path = tmp_path / "evaluations.jsonl"
    first, second = result_of(["+-"]), result_of(["--"])
    append_evaluation(path, first)
    append_evaluation(path, second)
    path.write_bytes(path.read_bytes()[:-9])
    append_evaluation(path, second)
    assert read_evaluations(path) == [first, second]


def test_nothing_scored_is_an_error_with_the_first_reason():
    with pytest.raises(ValueError, match="none of 2 responses could be scored; the first: no"):
        result_of(["??"])


def test_without_verdicts_the_reward_is_averaged_and_there_is_no_pass_at_k():
    scores = [Score(reward=0.25), Score(reward=0.75)]
    responses = [Response(text="x", num_tokens=1, finish_reason="length")] * 2
    result = summarise_scores(problems(1), responses, scores)
    assert (result.mean, result.pass_at, result.truncated_fraction) == (0.5, {}, 1.0)


def test_a_verdict_on_some_answers_only_leaves_an_evaluation_of_rewards(caplog: pytest.LogCaptureFixture):
    """Right answers earn 5, those of which nothing is said −3: the mean is of these, not of 1 and −3."""
    scores = [Score(reward=5.0, correct=True), Score(reward=-3.0), Score(reward=None, reason="no"), Score(reward=-3.0)]
    responses = [Response(text="x", num_tokens=1, finish_reason="stop")] * 4
    result = summarise_scores(problems(2), responses, scores)
    assert [problem.values for problem in result.problems] == [(5.0, -3.0), (-3.0,)]
    assert (result.mean, result.is_accuracy, result.pass_at) == (-1.0, False, {})
    assert "says right or wrong of 1 of 3 answers only" in caplog.text
    assert change_between(result, result_of(["+-", "+-"])) is None  # an accuracy and a reward have no difference


def test_an_answer_without_a_score_takes_no_verdict_away():
    assert result_of(["+?", "-?"]).is_accuracy


def test_the_interval_of_many_independent_answers_is_the_textbook_one():
    result = result_of(["+"] * 120 + ["-"] * 280)
    deviation = math.sqrt(0.3 * 0.7 / 400)
    assert result.interval.low == pytest.approx(0.3 - 1.96 * deviation, abs=0.004)
    assert result.interval.high == pytest.approx(0.3 + 1.96 * deviation, abs=0.004)


def test_all_right_on_twenty_problems_is_not_certainty():
    """The low end p solves 0.6·p^20 = 0.025."""
    interval = result_of(["+"] * 20).interval
    assert interval.low == pytest.approx((0.025 / 0.6) ** (1 / 20))
    assert interval.high == 1.0


class SaysA:
    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        assert [problem.problem_id for problem in problems] == sorted(problem.problem_id for problem in problems)
        return [Score(reward=float("a" in response.text), correct="a" in response.text) for response in responses]


def run(policy, *, temperature: float, seed: int):
    return evaluate(
        policy,
        LocalSampler(policy),
        SaysA(),
        problems(3),
        settings=SamplingSettings(temperature=temperature, max_new_tokens=5),
        num_samples=4,
        generator=torch.Generator().manual_seed(seed),
    )


def test_a_seed_repeats_an_evaluation_and_greedy_needs_none(tiny_policy):
    assert run(tiny_policy, temperature=1.0, seed=1) == run(tiny_policy, temperature=1.0, seed=1)
    assert run(tiny_policy, temperature=1.0, seed=1).problems != run(tiny_policy, temperature=1.0, seed=2).problems
    greedy = run(tiny_policy, temperature=0.0, seed=1)
    assert greedy == run(tiny_policy, temperature=0.0, seed=2)
    assert greedy.count == 3


def test_no_problems_is_an_error(tiny_policy):
    with pytest.raises(ValueError, match="no problems"):
        evaluate(
            tiny_policy,
            LocalSampler(tiny_policy),
            SaysA(),
            [],
            settings=SamplingSettings(),
            num_samples=1,
            generator=torch.Generator(),
        )


def test_problems_with_the_same_words_are_one_unit_of_evidence_unless_their_environments_differ():
    asked = [
        Problem(problem_id=name, messages=({"role": "user", "content": "Play."},), answer="", metadata=metadata)
        for name, metadata in (
            ("a", {}),
            ("b", {}),
            ("c", {ENVIRONMENT_SEED: "1"}),
            ("d", {ENVIRONMENT_SEED: "2"}),
            ("e", {ENVIRONMENT_SEED: "2"}),
        )
    ]
    responses = [Response(text="x", num_tokens=1, finish_reason="stop")] * 5
    record = summarise_scores(asked, responses, [Score(reward=1.0)] * 5)
    ids = [each.prompt_id for each in record.problems]
    assert [ids.index(each) for each in ids] == [0, 0, 2, 3, 3]


def test_what_was_asked_is_the_question_that_is_told_or_else_the_problems_own():
    responses = [Response(text="x", num_tokens=1, finish_reason="stop")] * 2
    scores = [Score(reward=1.0)] * 2
    told = summarise_scores(problems(2), responses, scores, questions=["first", "second"])
    assert [each.question for each in told.problems] == ["first", "second"]
    assert [each.question for each in summarise_scores(problems(2), responses, scores).problems] == ["0", "1"]
