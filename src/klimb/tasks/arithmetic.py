"""Arithmetic problems, such as `What is 3+4?`. The answer is the last number of the response.

A repetition of the question does not count: "The number 0+7 is ..." has not answered 7.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from klimb.tasks.answers import verify_integer
from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, chat, right_or_wrong
from klimb.tasks.splits import split

EXPRESSION_SLOT = "{expression}"


OPERATORS = "+-*"


MOST_DIGITS = 9


MOST_TERMS = 8


MOST_ENUMERATED = 100_000


DRAWS_PER_PROBLEM = 50
"""Random draws allowed per problem asked for; duplicates use them up when the space is nearly exhausted."""


Expression = tuple[tuple[int, ...], tuple[str, ...]]
"""Terms, and the operators between them."""


CommutationClass = tuple[tuple[str, tuple[int, ...]], ...]
"""Sorted (sign, sorted factors): equal for expressions that differ only in the order of sums and products."""


def arithmetic(
    *,
    operators: str = "+",
    digits: int = 1,
    num_terms: int = 2,
    num_problems: int = 1000,
    held_out_fraction: float = 0.2,
    seed: int = 0,
    wording: str = "What is {expression}?",
    system_prompt: str | None = None,
) -> ProblemSet:
    """Return arithmetic problems with integer answers, split so that 3+5 and 5+3 are on the same side.

    One-digit addition has 100 problems in 55 classes; the fraction counts classes.

    Args:
        operators: some of `+`, `-`, `*`; `*` binds tighter, as usual.
        digits: of every term, without leading zeros: 1 means 0 to 9, 2 means 10 to 99.
        num_terms: terms per problem.
        num_problems: at most this many problems, both sides together; a small space has fewer.
        held_out_fraction: share of the classes that is kept from training; 1 keeps all (evaluation only).
        seed: draws the problems and the split.
        wording: the user's message; `{expression}` stands for `3+4`.
        system_prompt: None leaves the system message to the model's chat template.
    """
    check_arithmetic(operators, digits, num_terms, num_problems, wording)
    generator = random.Random(seed)
    classes = list(commutation_classes(operators, digits, num_terms, num_problems, generator).values())
    generator.shuffle(classes)
    train, held_out = split(list(within(classes, num_problems)), held_out_fraction)

    def problems(side: list[list[Expression]]) -> tuple[Problem, ...]:
        flat = [expression for members in side for expression in members]
        generator.shuffle(flat)
        return tuple(as_problem(expression, wording, system_prompt) for expression in flat)

    return ProblemSet(
        name=f"arithmetic({operators}, digits={digits}, num_terms={num_terms})",
        train=problems(train),
        held_out=problems(held_out),
        score=ArithmeticScore(),
        trusted=True,
    )


@dataclass(frozen=True)
class ArithmeticScore:
    """Scores 1 when the last number of the response, repetitions of the question left out, is the answer."""

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score of a response."""
        verdict = verify_integer(without_echo(response.text, problem.problem_id), problem.answer)
        return right_or_wrong(verdict.correct, verdict.reason)


def without_echo(text: str, expression: str) -> str:
    """Return the text without the expression, however it is spaced: `0 + 7 = 7` becomes ` = 7`."""
    parts = re.split(r"([-+*])", expression)
    spaced = r"\s*".join(r"[*x\u00d7]" if part == "*" else re.escape(part) for part in parts)
    return re.sub(rf"(?<![0-9]){spaced}(?![0-9])", "", text)


def check_arithmetic(operators: str, digits: int, num_terms: int, num_problems: int, wording: str) -> None:
    """Raise ValueError for a parameter out of its range."""
    if not operators or not set(operators) <= set(OPERATORS) or len(set(operators)) < len(operators):
        raise ValueError(f"operators must be some of '{OPERATORS}', each once, got {operators!r}")
    for name, value, most in (("digits", digits, MOST_DIGITS), ("num_terms", num_terms, MOST_TERMS)):
        least = 2 if name == "num_terms" else 1
        if not least <= value <= most:
            raise ValueError(f"{name} must be in [{least}, {most}], got {value}")
    if num_problems < 2:
        raise ValueError(f"num_problems must be >= 2 (one to learn from, one to hold out), got {num_problems}")
    if EXPRESSION_SLOT not in wording:
        raise ValueError(f"wording must contain {EXPRESSION_SLOT}, got {wording!r}")


def as_problem(expression: Expression, wording: str, system_prompt: str | None) -> Problem:
    """Return the problem that asks for the value of an expression."""
    text = written(expression)
    question = wording.replace(EXPRESSION_SLOT, text)
    return Problem(problem_id=text, messages=chat(question, system_prompt=system_prompt), answer=str(value(expression)))


def commutation_classes(
    operators: str,
    digits: int,
    num_terms: int,
    num_problems: int,
    generator: random.Random,
    *,
    most_enumerated: int = MOST_ENUMERATED,
) -> dict[CommutationClass, list[Expression]]:
    """Return different expressions by class: all there are, or at least `num_problems` drawn from a large space."""
    terms = range(0 if digits == 1 else 10 ** (digits - 1), 10**digits)
    num_expressions = len(terms) ** num_terms * len(operators) ** (num_terms - 1)
    classes: dict[CommutationClass, list[Expression]] = {}
    if num_expressions <= most_enumerated:
        for expression in all_expressions(terms, operators, num_terms):
            classes.setdefault(commutation_class(expression), []).append(expression)
        return classes
    seen: set[Expression] = set()
    for _ in range(DRAWS_PER_PROBLEM * num_problems):
        expression = (
            tuple(generator.choices(terms, k=num_terms)),
            tuple(generator.choices(operators, k=num_terms - 1)),
        )
        if expression not in seen:
            seen.add(expression)
            classes.setdefault(commutation_class(expression), []).append(expression)
        if len(seen) == num_problems:
            return classes
    raise ValueError(f"num_problems={num_problems} is too close to the {num_expressions} there are; ask for fewer")


def all_expressions(terms: range, operators: str, num_terms: int) -> Iterator[Expression]:
    """Yield every expression with the given terms and operators."""
    for chosen in itertools.product(terms, repeat=num_terms):
        for between in itertools.product(operators, repeat=num_terms - 1):
            yield chosen, between


def within(classes: Iterable[list[Expression]], num_problems: int) -> Iterator[list[Expression]]:
    """Yield classes until they hold `num_problems` problems; the last one is cut to fit."""
    room = num_problems
    for members in classes:
        if room <= 0:
            return
        yield members[:room]
        room -= len(members)


def commutation_class(expression: Expression) -> CommutationClass:
    """Return what 3+5*2 and 2*5+3 have in common: the sorted signed products of sorted factors."""
    return tuple(sorted((sign, tuple(sorted(factors))) for sign, factors in signed_products(expression)))


def value(expression: Expression) -> int:
    """Return the value of an expression, `*` before `+` and `-`."""
    total = 0
    for sign, factors in signed_products(expression):
        product = 1
        for factor in factors:
            product *= factor
        total += product if sign == "+" else -product
    return total


def signed_products(expression: Expression) -> list[tuple[str, list[int]]]:
    """Return the sum an expression is: a sign and the factors of each product."""
    terms, operators = expression
    products: list[tuple[str, list[int]]] = [("+", [terms[0]])]
    for operator, term in zip(operators, terms[1:], strict=True):
        if operator == "*":
            products[-1][1].append(term)
        else:
            products.append((operator, [term]))
    return products


def written(expression: Expression) -> str:
    """Return the expression without spaces, such as `3+5*2`."""
    terms, operators = expression
    rest = "".join(f"{operator}{term}" for operator, term in zip(operators, terms[1:], strict=True))
    return f"{terms[0]}{rest}"
