"""The vocabulary of tasks: what is asked, what came back, what it is worth.

The nearest right name, for error messages.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from annotated_types import MaxLen

from klimb.declarations import Matching
from klimb.experience.samples import MOST_REWARD

if TYPE_CHECKING:  # for annotations only: klimb.experience imports torch, which a scoring process must not wait for
    from klimb.experience.samples import FinishReason, Message


QUESTION_SLOT = "{question}"


MOST_UNUSABLE = 0.1
"""Share of a task's problems that a model may be unable to be asked, where no other is given."""


QuestionTemplate = Annotated[str, MaxLen(20_000), Matching(r"\{question\}", f"a text with {QUESTION_SLOT} in it")]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to ask.

    Attributes:
        problem_id: unique within its task.
        messages: the chat so far, ending with the user's question.
        answer: the reference answer; empty when the reward needs none.
        metadata: whatever else the reward may want to know.
        columns: of a problem from a data file the row as the file has it: numbers as numbers, lists as lists.
    """

    problem_id: str
    messages: tuple[Message, ...]
    answer: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)


@runtime_checkable
class Sealed(Protocol):
    """A copy of an environment that is opened where it is looked at, and not before."""

    def unseal(self) -> object:
        """Return the environment as a reward function sees it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Response:
    """One answer of a model.

    Attributes:
        text: without special tokens; of a conversation what the model said last.
        num_tokens: its length; of a conversation that of what the model said in it.
        finish_reason: how it ended.
        messages: of a conversation all that came after the prompt: the model's turns, results of tools, a user's
            turns. Empty where the answer is one turn without an environment.
        environment: as the conversation left it, where there was one. A score function sees a copy of it, or, where it
            cannot be sent whole, those attributes that can.
        environment_reward: that the environment gave itself, those of turns included; None where it gave none.
    """

    text: str
    num_tokens: int
    finish_reason: FinishReason
    messages: tuple[Message, ...] = ()
    environment: object = None
    environment_reward: float | None = None

    def unsealed(self) -> Response:
        """Return the response with its environment as score functions see it."""
        return replace(self, environment=self.environment.unseal()) if isinstance(self.environment, Sealed) else self


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a response is worth.

    Attributes:
        reward: None when no reward could be computed: an error, not a zero.
        correct: None when the reward does not say.
        parts: named shares of the reward; they sum to it.
        reason: one line for people.
        values: of several rewards each, by its name and before its weight.
        applies: False where a reward function says itself that it judges no such response, which is no error if
            another one does.

    Raises:
        ValueError: if the reward or a part is not finite, or beyond ±1e15: sums and squares of such are numbers still.
    """

    reward: float | None
    correct: bool | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    applies: bool = True

    def __post_init__(self) -> None:
        if self.reward is not None:
            _check_number("reward", self.reward, "finite, or None when there is none")
        for name, value in (*self.parts.items(), *self.values.items()):
            _check_number(f"part {name!r} of the reward", value, "finite")


def _check_number(name: str, value: float, expected: str) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be {expected}; got {value}")
    if abs(value) > MOST_REWARD:
        raise ValueError(
            f"{name} must be within ±{MOST_REWARD:g}, so that its sums and squares are numbers; got {value:g}"
        )


ScoreFunction = Callable[[Problem, Response], Score]


@runtime_checkable
class Task(Protocol):
    """Problems and their scoring. `train` and `held_out` share no problem.

    `score` may have a method `prepare()` (slow imports): a worker process calls it once, before any clock starts.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def train(self) -> Sequence[Problem]:
        """Problems to learn from."""
        ...

    @property
    def held_out(self) -> Sequence[Problem]:
        """Problems to evaluate on; none of them is in `train`."""
        ...

    @property
    def trusted(self) -> bool:
        """True only if `score` can neither hang nor raise: it then runs inside the training process."""
        ...

    @property
    def score(self) -> ScoreFunction:
        """Returns what a response is worth; called as `score(problem, response)`."""
        ...


def without_score(problem: Problem, response: Response) -> Score:
    """Say that there is no reward: of problems alone, which take a reward from elsewhere."""
    raise ValueError("the task has no score of its own: give a reward, as task.reward or reward=...")


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """The plain Task: two tuples of problems and a function. All built-in tasks are one.

    Without a score it takes a reward from elsewhere, as `task.reward` or `klimb.train(reward=...)` give it.

    Attributes:
        environment: makes what the policy talks to, in the contract of TRL's `environment_factory`; None where an
            answer is one turn.
    """

    name: str
    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    score: ScoreFunction = without_score
    trusted: bool = False
    environment: Callable[[], object] | None = None


def environment_of(task: Task) -> Callable[[], object] | None:
    """Return what makes a task's environments; None for a task that has none, or knows of none."""
    return getattr(task, "environment", None)


def chat(question: str, *, system_prompt: str | None = None, template: str = QUESTION_SLOT) -> tuple[Message, ...]:
    r"""Return the messages that ask `question`.

    Args:
        question: the text that replaces `{question}` in the template.
        system_prompt: a first message; None leaves it to the model's chat template, "" states an empty one.
        template: the user's message. Other braces stay as they are, so `\boxed{}` may appear.

    Raises:
        ValueError: if the template has no `{question}`.
    """
    if QUESTION_SLOT not in template:
        raise ValueError(f"the prompt template must contain {QUESTION_SLOT}, got {template!r}")
    user: Message = {"role": "user", "content": template.replace(QUESTION_SLOT, question)}
    if system_prompt is None:
        return (user,)
    system: Message = {"role": "system", "content": system_prompt}
    return system, user


def right_or_wrong(correct: bool, reason: str) -> Score:
    """Return reward 1 for a correct answer and 0 for a wrong one."""
    return Score(reward=float(correct), correct=correct, parts={"correct": float(correct)}, reason=reason)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` to end a message with, or nothing when no known name is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""
