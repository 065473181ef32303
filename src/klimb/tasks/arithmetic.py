"""Arithmetic problems, such as `What is 3+4?`. The answer is the last number of the response.

A repetition of the question does not count: "The number 0+7 is ..." has not answered 7.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen

from klimb.declarations import Fraction, LongText, Matching, Seed, configurable, require
from klimb.tasks.answers import verify_integer
from klimb.tasks.protocol import (
    MOST_UNUSABLE,
    QUESTION_SLOT,
    Problem,
    ProblemSet,
    Response,
    Score,
    chat,
    right_or_wrong,
)
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, as_written, with_reward
from klimb.tasks.splits import split
from klimb.tasks.truncation import WrongIfCut

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


@configurable
@dataclass(frozen=True, kw_only=True)
class ArithmeticSettings:
    """Problems such as `What is 3+4?`, generated; 3+4 and 4+3 are on the same side of the split."""

    subject: ClassVar[str] = ""

    kind: Literal["arithmetic"] = "arithmetic"
    """Generated arithmetic."""
    operators: Annotated[str, Matching(r"^[-+*]{1,3}$", "some of + - *, e.g. '+-'")] = "+"
    """Some of + - *."""
    digits: Annotated[int, Ge(1), Le(MOST_DIGITS)] = 1
    """Digits of every term."""
    num_terms: Annotated[int, Ge(2), Le(MOST_TERMS)] = 2
    """Terms per problem."""
    num_problems: Annotated[int, Ge(2), Le(100_000)] = 1_000
    """At most this many problems, both sides together; a small space has fewer."""
    held_out_fraction: Fraction = 0.2
    """Share of the problems kept out of training."""
    seed: Seed = 0
    """Draws the problems and the split."""
    wording: Annotated[str, MaxLen(20_000), Matching(r"\{expression\}", "a text with {expression} in it")] = (
        "What is {expression}?"
    )
    """The user's message; {expression} stands for 3+4."""
    reward: RewardOrTask = TASKS_OWN
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def __post_init__(self) -> None:
        if not set(self.operators) <= set(OPERATORS) or not 0 < len(self.operators) == len(set(self.operators)):
            raise ValueError(f"operators must be some of '{OPERATORS}', each once, got {self.operators!r}")
        require(1 <= self.digits <= MOST_DIGITS, "digits", self.digits, f"in [1, {MOST_DIGITS}]")
        require(2 <= self.num_terms <= MOST_TERMS, "num_terms", self.num_terms, f"in [2, {MOST_TERMS}]")
        require(self.num_problems >= 2, "num_problems", self.num_problems, ">= 2 (one to learn from, one to hold out)")
        if EXPRESSION_SLOT not in self.wording:
            raise ValueError(f"wording must contain {EXPRESSION_SLOT}, got {self.wording!r}")

    @property
    def question_template(self) -> str:
        """The wording with the slot that other tasks' templates have."""
        return self.wording.replace(EXPRESSION_SLOT, QUESTION_SLOT)

    def make_task(self) -> ProblemSet:
        """Return the problems with integer answers, split so that 3+5 and 5+3 are on the same side.

        One-digit addition has 100 problems in 55 classes; the fraction counts classes, and 1 keeps all from training.
        """
        generator = random.Random(self.seed)
        found = commutation_classes(self.operators, self.digits, self.num_terms, self.num_problems, generator)
        classes = list(found.values())
        generator.shuffle(classes)
        train, held_out = split(list(within(classes, self.num_problems)), self.held_out_fraction)
        task = ProblemSet(
            name=f"arithmetic({self.operators}, digits={self.digits}, num_terms={self.num_terms})",
            train=self._problems(train, generator),
            held_out=self._problems(held_out, generator),
            score=WrongIfCut(ArithmeticScore()),
            trusted=True,
        )
        return with_reward(task, self.reward)

    def _problems(self, side: list[list[Expression]], generator: random.Random) -> tuple[Problem, ...]:
        flat = [expression for members in side for expression in members]
        generator.shuffle(flat)
        return tuple(as_problem(expression, self.wording, self.system_prompt) for expression in flat)


def arithmetic(**settings: Any) -> ProblemSet:
    """Return arithmetic problems as `ArithmeticSettings` with these settings describes them."""
    return ArithmeticSettings(**as_written(**settings)).make_task()


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
