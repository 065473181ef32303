"""A number to be guessed: each guess is answered with higher, lower or right, and fewer guesses are worth more."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from klimb.declarations import Fraction, LongText, Seed, configurable, require
from klimb.tasks.games.messages import call, result
from klimb.tasks.protocol import MOST_UNUSABLE, Problem, ProblemSet, chat
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, with_reward
from klimb.tasks.splits import split

if TYPE_CHECKING:  # for annotations only: klimb.experience imports torch, which a scoring process must not wait for
    from klimb.experience.samples import Message

QUESTION = (
    "I am thinking of a whole number from {lowest} to {highest}. "
    "Find it with at most {max_guesses} calls of guess, one at a time."
)


RIGHT, HIGHER, LOWER = "right", "higher", "lower"
"""What a guess is answered with; `higher` says that the number is higher than the guess."""


NARROWING_SHARE = 0.5
"""Share of the reward that is paid for narrowing down, where turns are rewarded."""


@configurable
@dataclass(frozen=True, kw_only=True)
class GuessingSettings:
    """A number between two bounds, to be found by guesses that are answered with higher, lower or right.

    Right at guess k of n is worth 1 - (k-1)/n, and a number that was not found 0. The bounds of training problems and
    held-out ones differ, and each pair of bounds comes with every number between them: that a question was seen before
    says nothing about its answer.
    """

    subject: ClassVar[str] = ""

    kind: Literal["guessing"] = "guessing"
    """A number to be found by guesses."""
    size: Annotated[int, Ge(2), Le(1_000)] = 15
    """How many numbers there are between the bounds, both included; 15 can always be found with 4 guesses."""
    highest: Annotated[int, Ge(3), Le(1_000_000)] = 100
    """The largest number; the smallest is 1."""
    max_guesses: Annotated[int, Ge(1), Le(100)] = 4
    """Guesses in a game; one that is not understood counts."""
    turn_rewards: bool = False
    """Pay by turns: half of the reward for each guess that narrows the numbers down, by the logarithm of how many are
    left, and half for the number, fewer guesses being worth more."""
    num_problems: Annotated[int, Ge(2), Le(100_000)] = 1_000
    """At most this many problems, both sides together; each pair of bounds makes as many as there are numbers."""
    held_out_fraction: Fraction = 0.2
    """Share of the bounds kept out of training."""
    seed: Seed = 0
    """Draws the bounds and the split."""
    reward: RewardOrTask = TASKS_OWN
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def __post_init__(self) -> None:
        require(self.size >= 2, "size", self.size, ">= 2")
        require(self.highest > self.size, "highest", self.highest, f"> size = {self.size}, so that bounds can differ")
        require(self.max_guesses >= 1, "max_guesses", self.max_guesses, ">= 1")
        expected = f">= {2 * self.size}: two pairs of bounds with all the numbers between them"
        require(self.num_problems >= 2 * self.size, "num_problems", self.num_problems, expected)

    def make_task(self) -> ProblemSet:
        """Return a problem for each number between each pair of bounds; no bounds are on both sides of the split."""
        generator = random.Random(self.seed)
        beginnings = range(1, self.highest - self.size + 2)
        drawn = generator.sample(beginnings, min(len(beginnings), self.num_problems // self.size))
        train, held_out = split(drawn, self.held_out_fraction)
        task = ProblemSet(
            name=f"guessing({self.size} numbers of {self.highest}, max_guesses={self.max_guesses})",
            train=self._problems(train, generator),
            held_out=self._problems(held_out, generator),
            trusted=True,
            environment=Guessing,
        )
        return with_reward(task, self.reward)

    def _problems(self, beginnings: list[int], generator: random.Random) -> tuple[Problem, ...]:
        pairs = [(lowest, lowest + place) for lowest in beginnings for place in range(self.size)]
        generator.shuffle(pairs)
        return tuple(self._as_problem(lowest, number) for lowest, number in pairs)

    def _as_problem(self, lowest: int, number: int) -> Problem:
        facts = {"lowest": lowest, "highest": lowest + self.size - 1, "max_guesses": self.max_guesses}
        return Problem(
            problem_id=f"{lowest}..{facts['highest']}:{number}",
            messages=chat(QUESTION.format(**facts), system_prompt=self.system_prompt),
            answer=str(number),
            metadata={name: str(value) for name, value in {**facts, "turn_rewards": int(self.turn_rewards)}.items()},
        )


class Guessing:
    """An environment: a number between two bounds, and a tool to guess it.

    Attributes:
        done: the number was found, or the guesses are used up.
    """

    trusted = True

    def __init__(self) -> None:
        self.reset(answer=1, lowest=1, highest=1, max_guesses=1)

    def reset(self, **row: Any) -> None:
        """Begin a game.

        Args:
            row: `answer` is the number, `lowest` and `highest` its bounds, `max_guesses` how many there are, and
                `turn_rewards` 1 if turns are paid.

        Raises:
            ValueError: one of them is missing, or the number is not within the bounds.
        """
        told = {**row.get("metadata", {}), **row}
        self._number, self._lowest, self._highest, self._max_guesses = (
            _read(told, name) for name in ("answer", "lowest", "highest", "max_guesses")
        )
        self._turn_rewards = bool(_read({"turn_rewards": 0, **told}, "turn_rewards"))
        if not self._lowest <= self._number <= self._highest or self._max_guesses < 1:
            raise ValueError(f"a game needs a number within its bounds and a guess or more, got {told}")
        self._first, self._last = self._lowest, self._highest
        self._num_guesses = 0
        self._is_found = False
        self._reward = self._paid = 0.0
        self.done = False

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: The guess.

        Returns:
            higher, lower or right: what the number is, seen from the guess.

        Raises:
            ValueError: the guess is no whole number within the bounds.
        """
        if self.done:
            return "the game is over"
        self._num_guesses += 1
        try:
            return self._compare(number)
        finally:  # what is no guess is an error of the call, and counts all the same
            self.done = self._is_found or self._num_guesses >= self._max_guesses
            self._reward = self._value()

    def _compare(self, number: object) -> str:
        """Return what the guess is answered with, and keep which numbers are left."""
        if not isinstance(number, int) or isinstance(number, bool) or not self._lowest <= number <= self._highest:
            raise ValueError(f"guess a whole number from {self._lowest} to {self._highest}")
        if number == self._number:
            self._first = self._last = number
            self._is_found = True
            return RIGHT
        if number < self._number:
            self._first = max(self._first, number + 1)
            return HIGHER
        self._last = min(self._last, number - 1)
        return LOWER

    def _value(self) -> float:
        found = 1 - (self._num_guesses - 1) / self._max_guesses if self._is_found else 0.0
        if not self._turn_rewards:
            return found
        num_all, num_left = self._highest - self._lowest + 1, self._last - self._first + 1
        narrowed = 1 - math.log(num_left) / math.log(num_all) if num_all > 1 else 1.0
        return NARROWING_SHARE * narrowed + (1 - NARROWING_SHARE) * found

    def get_turn_reward(self) -> float | None:
        """Return what the reward has grown by since this was asked last; None where turns are not paid.

        The sum over the turns is the reward: what is paid for narrowing down is a difference of potentials, so that no
        order of guesses earns it twice.

        Source: Ng, Harada and Russell 1999, Policy invariance under reward transformations.
        """
        if not self._turn_rewards:
            return None
        paid, self._paid = self._paid, self._reward
        return self._reward - paid

    def get_reward(self) -> float:
        """Return what the game was worth."""
        return self._reward


def _read(told: Mapping[str, Any], name: str) -> int:
    try:
        return int(told[name])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a game needs {name}, a whole number; got {told.get(name)!r}") from error


def demonstrate(problem: Problem) -> tuple[Message, ...]:
    """Return a game in which each guess is drawn evenly from the numbers that are still possible.

    It shows what a guess is and not how to guess best, so that there is something left to learn: it may be lost. It
    ends with the last guess.
    """
    game, generator = Guessing(), random.Random(problem.problem_id)
    game.reset(answer=problem.answer, **problem.metadata)
    first, last = int(problem.metadata["lowest"]), int(problem.metadata["highest"])
    conversation = list(problem.messages)
    while not game.done:
        number = generator.randint(first, last)
        said = game.guess(number)
        conversation += [call("guess", number=number), result("guess", said)]
        first, last = (number + 1, last) if said == HIGHER else (first, number - 1)
    return tuple(conversation[:-1])
