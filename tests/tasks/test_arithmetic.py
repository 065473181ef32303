import random
import re

import pytest

from klimb.tasks import Response, arithmetic
from klimb.tasks.arithmetic import commutation_classes


def reply(text):
    return Response(text=text, num_tokens=1, finish_reason="stop")


def order_free(expression):
    """A second way to the class of an expression: sorted signed products, each with sorted factors."""
    products = re.findall(r"(?:^|[+-])[0-9*]+", expression)
    return tuple(sorted((p[0] if p[0] == "-" else "+", tuple(sorted(p.lstrip("+-").split("*")))) for p in products))


def classes(problems):
    return {order_free(problem.problem_id) for problem in problems}


@pytest.mark.parametrize(
    ("operators", "digits", "num_terms", "num_problems"),
    [("+", 1, 2, 1000), ("*", 1, 2, 1000), ("+-*", 1, 3, 9000), ("+*", 2, 2, 500), ("+-*", 3, 4, 300), ("-", 1, 2, 99)],
)
def test_no_problem_is_on_both_sides_in_any_order(operators, digits, num_terms, num_problems):
    task = arithmetic(operators=operators, digits=digits, num_terms=num_terms, num_problems=num_problems)
    assert task.train
    assert task.held_out
    assert not classes(task.train) & classes(task.held_out)
    assert len(task.train) + len(task.held_out) <= num_problems


def test_one_digit_addition_has_100_problems_in_55_classes_of_which_a_fifth_is_held_out():
    task = arithmetic()
    assert len({problem.problem_id for problem in (*task.train, *task.held_out)}) == 100
    assert len(classes(task.train)) == 44
    assert len(classes(task.held_out)) == 11


def test_a_difference_and_its_reverse_are_different_problems():
    assert order_free("5-3") != order_free("3-5")
    task = arithmetic(operators="-", held_out_fraction=0.5)
    sides = {problem.problem_id: "train" for problem in task.train}
    sides |= {problem.problem_id: "held out" for problem in task.held_out}
    assert len(sides) == 100
    assert any(sides[f"{a}-{b}"] != sides[f"{b}-{a}"] for a in range(10) for b in range(a))


def test_answers_are_what_python_computes():
    task = arithmetic(operators="+-*", digits=2, num_terms=4, num_problems=300)
    for problem in (*task.train, *task.held_out):
        assert problem.answer == str(eval(problem.problem_id))


def test_a_large_space_gives_as_many_different_problems_as_asked_for():
    task = arithmetic(operators="+-", digits=4, num_problems=700)
    assert len({problem.problem_id for problem in (*task.train, *task.held_out)}) == 700


def test_digits_are_counted_without_leading_zeros():
    task = arithmetic(digits=2, num_problems=10_000)
    assert len(task.train) + len(task.held_out) == 90 * 90
    assert all(re.fullmatch(r"[1-9]\d\+[1-9]\d", problem.problem_id) for problem in task.train)


def test_the_seed_decides_the_problems():
    assert arithmetic(seed=1) == arithmetic(seed=1)
    assert classes(arithmetic(seed=1).held_out) != classes(arithmetic(seed=2).held_out)


@pytest.mark.parametrize(("fraction", "num_train", "num_held_out"), [(0, 100, 0), (1, 0, 100)])
def test_a_fraction_of_0_or_1_puts_all_on_one_side(fraction, num_train, num_held_out):
    task = arithmetic(held_out_fraction=fraction)
    assert (len(task.train), len(task.held_out)) == (num_train, num_held_out)


def test_the_wording_and_the_system_prompt_make_the_messages():
    task = arithmetic(wording="Compute {expression} {now}", system_prompt="Be brief.")
    problem = task.train[0]
    assert problem.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Compute {problem.problem_id} {{now}}"},
    )
    (user,) = arithmetic().train[0].messages
    assert re.fullmatch(r"What is \d\+\d\?", user["content"])


def test_the_reward_is_1_for_the_last_number_and_0_for_another_with_a_reason():
    task = arithmetic()
    problem = next(problem for problem in (*task.train, *task.held_out) if problem.problem_id == "3+4")
    right, wrong = task.score(problem, reply("3 + 4 = 7")), task.score(problem, reply("3 + 4 = 8"))
    assert (right.reward, right.correct, right.parts) == (1.0, True, {"correct": 1.0})
    assert (wrong.reward, wrong.correct, wrong.reason) == (0.0, False, "the last number is 8, expected 7")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"operators": "/"}, "operators must be some of"),
        ({"operators": ""}, "operators must be some of"),
        ({"operators": "++"}, "each once"),
        ({"digits": 0}, r"digits must be in \[1, 9\], got 0"),
        ({"num_terms": 1}, r"num_terms must be in \[2, 8\], got 1"),
        ({"num_problems": 1}, "num_problems must be >= 2"),
        ({"held_out_fraction": 1.5}, r"held_out_fraction must be in \[0, 1\], got 1.5"),
        ({"wording": "What is it?"}, "wording must contain {expression}"),
    ],
)
def test_a_bad_parameter_is_named_with_its_range(parameters, message):
    with pytest.raises(ValueError, match=message):
        arithmetic(**parameters)


def test_more_problems_than_a_large_space_has_are_refused():
    with pytest.raises(ValueError, match="the 200 there are; ask for fewer"):
        commutation_classes("+-", 1, 2, 201, random.Random(0), most_enumerated=100)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("The number 0 + 7 is a fact of arithmetic.", 0),
        ("0+7 is a sum", 0),
        ("0 + 7 = 7", 1),
        ("10 + 7", 1),  # another sum, so not an echo: the last number is 7
        ("7", 1),
        ("0 + 7 = 8", 0),
    ],
)
def test_repeating_the_question_is_no_answer(text, reward):
    task = arithmetic()
    problem = next(p for p in (*task.train, *task.held_out) if p.problem_id == "0+7")
    assert task.score(problem, Response(text=text, num_tokens=1, finish_reason="stop")).reward == reward
