"""Arithmetic that is too large for a small model's head, with a calculator at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen

from klimb.declarations import Fraction, LongText, Matching, Seed, configurable
from klimb.tasks.arithmetic import MOST_DIGITS, MOST_TERMS, ArithmeticScore, ArithmeticSettings
from klimb.tasks.games.expressions import evaluate, show
from klimb.tasks.games.messages import call, result, say
from klimb.tasks.protocol import MOST_UNUSABLE, Problem, ProblemSet, Response, Score, right_or_wrong
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, with_reward
from klimb.tasks.truncation import WrongIfCut

if TYPE_CHECKING:  # for annotations only: klimb.experience imports torch, which a scoring process must not wait for
    from klimb.experience.samples import Message


@configurable
@dataclass(frozen=True, kw_only=True)
class CalculatorSettings:
    """Problems such as `What is 347*281?`, with a calculator as a tool; both orders are on the same side of the split.

    The reward is 1 where the last number of the last turn is the answer, and 0 otherwise.
    """

    subject: ClassVar[str] = ""

    kind: Literal["calculator"] = "calculator"
    """Generated arithmetic with a calculator as a tool."""
    operators: Annotated[str, Matching(r"^[-+*]{1,3}$", "some of + - *, e.g. '+-'")] = "*"
    """Some of + - *."""
    digits: Annotated[int, Ge(1), Le(MOST_DIGITS)] = 3
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
    """The user's message; {expression} stands for 347*281."""
    reward: RewardOrTask = TASKS_OWN
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def __post_init__(self) -> None:
        self._as_arithmetic()

    def _as_arithmetic(self) -> ArithmeticSettings:
        """Return the same problems without a calculator; what is wrong with a setting is said there."""
        return ArithmeticSettings(
            operators=self.operators,
            digits=self.digits,
            num_terms=self.num_terms,
            num_problems=self.num_problems,
            held_out_fraction=self.held_out_fraction,
            seed=self.seed,
            wording=self.wording,
            system_prompt=self.system_prompt,
        )

    def make_task(self) -> ProblemSet:
        """Return the problems, split so that 347*281 and 281*347 are on the same side, with their environment."""
        task = replace(
            self._as_arithmetic().make_task(),
            name=f"calculator({self.operators}, digits={self.digits}, num_terms={self.num_terms})",
            score=WrongIfCut(CalculatorScore()),
            environment=Calculator,
        )
        return with_reward(task, self.reward)


class Calculator:
    """An environment with one tool and no state; what the conversation was worth, its last turn says."""

    trusted = True

    def reset(self, **row: object) -> None:
        """Begin a conversation; every one is the same."""

    def calculate(self, expression: str) -> str:
        """Calculate the value of an expression.

        Args:
            expression: Numbers, + - * / and parentheses.

        Returns:
            The value.
        """
        return show(evaluate(expression))


@dataclass(frozen=True)
class CalculatorScore:
    """Scores 1 when the last number of the last turn is the answer, and 0 where that turn still calls a tool.

    The answer may have been worked out without the calculator.
    """

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score of a response."""
        if response.messages and response.messages[-1].get("tool_calls"):
            return right_or_wrong(False, "it ended with a call instead of an answer")
        return ArithmeticScore()(problem, response)


def demonstrate(problem: Problem) -> tuple[Message, ...]:
    """Return a conversation in which the calculator is asked, and what it answered is the answer."""
    value = Calculator().calculate(problem.problem_id)
    asked = call("calculate", expression=problem.problem_id)
    return (*problem.messages, asked, result("calculate", value), say(value))
