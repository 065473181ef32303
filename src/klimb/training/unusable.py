"""Problems that a policy cannot be asked: found before the first step, all of them, and never first when drawn.

A prompt without room for an answer, one that the chat template refuses or makes nothing of, and one with a token that
the model does not know. What is left out depends on the problems, the policy and `max_new_tokens` alone, so a resumed
run leaves out the same.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from klimb.errors import ConfigError
from klimb.policies import Policy, why_no_room
from klimb.tasks import Problem, ProblemSet

NUM_NAMED = 3
"""Problems that a sentence names."""


MOST_LISTED = 1_000
"""Problems that the run's folder lists."""


SLOW_SECONDS = 2.0
"""A look at all prompts that takes longer is said with its time."""


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """What cannot be asked.

    Attributes:
        what: they are, in the plural.
        reasons: problem_id, or place in a file, and why it cannot be asked.
        num_looked_at: the others included.
        seconds: that it took.
    """

    what: str = "problems"
    reasons: tuple[tuple[str, str], ...]
    num_looked_at: int
    seconds: float

    def in_words(self) -> str:
        """Return how many, which and why, in one line; empty where all can be asked."""
        if not self.reasons:
            return ""
        (first, reason), *others = self.reasons
        named = ", ".join(name for name, _ in others[: NUM_NAMED - 1])
        more = len(others) - len(others[: NUM_NAMED - 1])
        rest = f"; also {named}" * bool(named) + f" and {more:,} more" * bool(more)
        return f"{len(self.reasons):,} of {self.num_looked_at:,} {self.what} cannot be used: {first}: {reason}{rest}"

    def as_table(self) -> dict[str, Any]:
        """Return what `prompts.json` keeps."""
        return {
            "what": self.what,
            "sentence": self.in_words(),
            "num_looked_at": self.num_looked_at,
            "num_left_out": len(self.reasons),
            "reasons": [{"id": name, "reason": reason} for name, reason in self.reasons[:MOST_LISTED]],
        }


def find_unusable(
    policy: Policy, problems: Sequence[Problem], *, max_new_tokens: int, tools: Sequence[Mapping[str, Any]] = ()
) -> dict[str, str]:
    """Return problem_id -> why the policy cannot be asked it, in the order of the problems.

    `tools` are schemas of those that the prompt tells of. What an environment opens with is not known yet: a
    conversation that has no room left for it ends where it begins.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    found = (
        (each.problem_id, why_no_room(policy, each.messages, max_new_tokens=max_new_tokens, tools=tools))
        for each in problems
    )
    return {name: reason for name, reason in found if reason}


def check_usable(policy: Policy, problems: Sequence[Problem], *, max_new_tokens: int) -> None:
    """Return if the policy can be asked every problem.

    Raises:
        ValueError: naming how many it cannot, which and why.
    """
    started = time.monotonic()
    reasons = tuple(find_unusable(policy, problems, max_new_tokens=max_new_tokens).items())
    found = Unusable(reasons=reasons, num_looked_at=len(problems), seconds=time.monotonic() - started)
    if reasons:
        raise ValueError(f"{found.in_words()}. Shorten them, leave them out, or lower max_new_tokens")


def leave_out_unusable(
    policy: Policy,
    task: ProblemSet,
    *,
    max_new_tokens: int,
    max_fraction: float,
    is_trained: bool,
    is_evaluated: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[ProblemSet, Unusable]:
    """Return the task without what cannot be asked, and what that is.

    Training problems that are not asked stay as they are. Held-out ones are looked at in each case, since a run that
    goes on may begin to evaluate.

    Args:
        policy: that is asked.
        task: with all its problems.
        max_new_tokens: that an answer may have.
        max_fraction: the largest share of the problems that are asked which may be left out.
        is_trained: the training problems are asked.
        is_evaluated: the held-out problems are asked.
        tools: schemas of those that prompts tell of.

    Raises:
        ConfigError: more than that share cannot be asked, or all of a side that is asked.
    """
    started = time.monotonic()
    train = find_unusable(policy, task.train, max_new_tokens=max_new_tokens, tools=tools) if is_trained else {}
    # A model that can be asked nothing at all may still learn from a log.
    can_look = is_evaluated or bool(policy.tokenizer.chat_template)
    held_out = find_unusable(policy, task.held_out, max_new_tokens=max_new_tokens, tools=tools) if can_look else {}
    found = Unusable(
        reasons=(*train.items(), *held_out.items()),
        num_looked_at=len(task.train) * is_trained + len(task.held_out),
        seconds=time.monotonic() - started,
    )
    refuse_too_many(
        found,
        num_used=len(task.train) * is_trained + len(task.held_out) * is_evaluated,
        num_unusable=len(train) + len(held_out) * is_evaluated,
        max_fraction=max_fraction,
    )
    left = replace(task, train=_without(task.train, train), held_out=_without(task.held_out, held_out))
    for side, before, after, is_asked in (
        ("training", task.train, left.train, is_trained),
        ("held-out", task.held_out, left.held_out, is_evaluated),
    ):
        if is_asked and before and not after:
            raise ConfigError(
                f"task {task.name}: none of the {len(before):,} {side} problems is left. {found.in_words()}"
            )
    return left, found


def refuse_too_many(found: Unusable, *, num_used: int, num_unusable: int, max_fraction: float) -> None:
    """Return if few enough of what the run uses is left out.

    Raises:
        ConfigError: more than that share.
    """
    if num_unusable > max_fraction * num_used:
        raise ConfigError(
            f"{found.in_words()}. That is more than task.max_unusable_fraction = {max_fraction:g} allows: shorten "
            "them, lower sampling.max_new_tokens, take another model or chat template, or raise the fraction to leave "
            "them out"
        )


def _without(problems: Sequence[Problem], reasons: dict[str, str]) -> tuple[Problem, ...]:
    return tuple(problem for problem in problems if problem.problem_id not in reasons)
