"""The evaluator against Python's own fractions, and what it refuses."""

import time
from fractions import Fraction
from inspect import unwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klimb.tasks.games.expressions import LONGEST, evaluate, show

Written = tuple[str, str]
"""An expression as the calculator reads it, and as Python computes it with fractions."""


def numbers() -> st.SearchStrategy[Written]:
    return st.integers(0, 10**6).map(lambda value: (str(value), f"Fraction({value})"))


def larger(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
    pairs = st.tuples(inner, st.sampled_from("+-*/"), inner, st.sampled_from(["", " "]))
    return st.one_of(
        pairs.map(lambda p: (f"{p[0][0]}{p[3]}{p[1]}{p[3]}{p[2][0]}", f"{p[0][1]}{p[1]}{p[2][1]}")),
        inner.map(lambda each: (f"({each[0]})", f"({each[1]})")),
        st.tuples(st.sampled_from("+-"), inner).map(lambda p: (f"{p[0]}({p[1][0]})", f"{p[0]}({p[1][1]})")),
    )


@given(st.recursive(numbers(), larger, max_leaves=8))
def test_expressions_have_the_value_that_python_computes_with_fractions(written: Written):
    expression, in_python = written
    if len(expression) > LONGEST:
        return
    try:
        expected = eval(in_python, {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="division by zero"):
            evaluate(expression)
        return
    assert evaluate(expression) == expected


@given(st.text(max_size=40))
def test_any_text_has_a_value_or_is_refused_with_a_reason(text: str):
    try:
        assert isinstance(evaluate(text), Fraction)
    except ValueError as error:
        assert str(error)


@given(st.text(alphabet="0123456789+-*/() ", max_size=30))
def test_what_is_taken_is_an_expression_of_python_too(text: str):
    try:
        value = evaluate(text)
    except ValueError:
        return
    zeros_cut = "".join(f"Fraction('{part}')" if part.isdigit() else part for part in _parts(text))
    assert eval(zeros_cut.strip(), {"Fraction": Fraction}) == value


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for character in text:
        if parts and character.isdigit() and parts[-1].isdigit():
            parts[-1] += character
        else:
            parts.append(character)
    return parts


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("347*281", "97507"),
        ("2+3*4", "14"),
        ("(2+3)*4", "20"),
        ("100-10-1", "89"),  # from the left
        ("64/4/2", "8"),
        ("-2*-3", "6"),
        ("7/2", "3.5"),
        ("1/3", "0.333333"),
        ("-2/3", "-0.666667"),
        ("1/3*3", "1"),  # exact, not 0.999999
        ("1/3000000", "0"),
        ("-1/30000000", "0"),
        ("1/1000000", "0.000001"),
        ("10*10", "100"),  # zeros at the end of a whole number stay
    ],
)
def test_values_are_shown_as_people_write_them(expression: str, shown: str):
    assert show(evaluate(expression)) == shown


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "ends too early"),
        ("2+", "ends too early"),
        ("2**3", "a number is missing"),
        ("1e9", "'e' is not taken"),
        ("1.5", "'.' is not taken"),
        ("__import__('os').getcwd()", "is not taken"),
        ("٣+٤", "is not taken"),  # digits to Python, not to the calculator
        ("1 2", "without an operator"),
        ("(1", "not closed"),
        ("1)", "not expected"),
        ("5/(2-2)", "division by zero"),
        ("(" * 60 + "1" + ")" * 60, "nested"),
        ("-" * 60 + "1", "nested"),
        ("9" * 201, "201 characters"),
    ],
)
def test_what_is_no_expression_is_refused_by_reason(expression: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        evaluate(expression)


@pytest.mark.parametrize("given_value", [None, 5, 1.5, True, [], {"a": 1}, b"1+1"])
def test_what_is_no_text_is_refused(given_value: object):
    with pytest.raises(ValueError, match="must be a text"):
        unwrap(evaluate)(given_value)  # past the types that tests check


@pytest.mark.parametrize("expression", ["9*" * 99 + "9", "9/7/" * 49 + "1", "9" * 200, "1/7+" * 49 + "1"])
def test_the_longest_expressions_take_no_time_and_have_short_results(expression: str):
    begin = time.perf_counter()
    assert len(show(evaluate(expression))) <= LONGEST + 8
    assert time.perf_counter() - begin < 0.5
