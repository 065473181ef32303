import pickle

import pytest

from klimb.tasks import Problem, Response, Scorer, ScorerSettings
from klimb.training.guard import general
from klimb.training.guard.general import EASY, everyday, format_problem, general_problems
from klimb.training.guard.settings import NUM_EVERYDAY


def said(text: str) -> Response:
    return Response(text=text, num_tokens=3, finish_reason="stop")


def asked(question: str) -> Problem:
    return next(problem for problem in everyday().held_out if problem.messages[-1]["content"] == question)


@pytest.mark.parametrize(
    ("question", "answer", "is_right"),
    [
        ("What is the capital of France?", "The capital of France is Paris.", True),
        ("What is the capital of France?", "PARIS", True),
        ("What is the capital of France?", "Parishes are many.", False),
        ("How many legs does a spider have?", "It has eight legs.", True),
        ("How many legs does a spider have?", "18", False),
        ("How many letters are there in the English alphabet?", "Twenty-six.", True),
        ("What is frozen water called?", "It would be nice.", False),
        ("What is frozen water called?", "", False),
    ],
)
def test_an_accepted_word_anywhere_in_the_answer_is_right(question: str, answer: str, is_right: bool):
    assert everyday().score(asked(question), said(answer)).correct is is_right


def test_no_everyday_question_gives_its_answer_away():
    given_away = [
        problem.messages[-1]["content"]
        for problem in everyday().held_out
        if everyday().score(problem, said(problem.messages[-1]["content"])).correct
    ]
    assert given_away == []
    assert len(everyday().held_out) == 40


def test_sets_stand_together_each_with_its_own_scoring():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    general = general_problems(("everyday", "chain_sum"), num_problems=3, pattern="")
    assert [problem.metadata["set"] for problem in general.held_out] == ["everyday"] * 3 + ["chain_sum"] * 3
    assert not general.trusted
    for problem in general.held_out:
        right = problem.answer.split("|")[0]
        assert general.score(problem, said(right)).reward == 1
        assert general.score(problem, said("nonsense")).reward in (0, 0.01)
    again = general_problems(("everyday", "chain_sum"), num_problems=3, pattern="")
    assert again.held_out == general.held_out


def test_a_question_of_two_sets_is_asked_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(general, "_gym", lambda name, num_problems: everyday())
    problems = general_problems(["everyday", "other"], num_problems=30, pattern="").held_out
    assert [problem.metadata["set"] for problem in problems] == ["everyday"] * 30


def test_the_shipped_set_holds_as_many_questions_as_the_settings_say():
    questions = [problem.messages[-1]["content"] for problem in everyday().held_out]
    assert len(questions) == len({*questions}) == NUM_EVERYDAY


@pytest.mark.parametrize("name", EASY)
def test_an_easy_set_of_the_package_takes_the_number_out_of_a_sentence(name: str):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    general = general_problems((name,), num_problems=4, pattern="")
    for problem in general.held_out:
        assert general.score(problem, said(f"Of 77 it is {problem.answer}.")).correct
        assert general.score(problem, said("It is 98765.")).correct is False


def test_a_pattern_that_hangs_costs_seconds_and_no_run():
    general = general_problems((), num_problems=1, pattern=r"^(a+)+$")
    assert not general.trusted
    assert pickle.loads(pickle.dumps(general.score)).functions.keys() == {"format"}
    problem = format_problem()
    with Scorer(general, ScorerSettings(timeout_seconds=2, max_error_fraction=1.0)) as scorer:
        scores = scorer.score_many([problem] * 3, [said("aaa"), said("a" * 60 + "b"), said("b")])
    assert [score.reward for score in scores] == [1, None, 0]


def test_an_unknown_set_names_the_nearest_one():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    with pytest.raises(ValueError, match=r"no .chain_sums.*chain_sum"):
        general_problems(("chain_sums",), num_problems=3, pattern="")
