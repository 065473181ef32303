"""Checks of the user's own: what no answer, or every answer, may be. Read without torch.

never:REGEX                 is found in no answer
always:REGEX                is found in every answer
python:module.function      a reward of yours, called as rewards are; True, or 0.5 and more, is fine
model:FOLDER                a reward model; 0.5 and more is fine
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klimb.own_parts import is_own
from klimb.tasks.patterns import check_pattern
from klimb.tasks.protocol import Problem, Response, Score, ScoreFunction
from klimb.tasks.python_rewards import PythonReward
from klimb.tasks.reward_model import MODEL_PREFIX, ModelReward

NEVER, ALWAYS = "never:", "always:"


LEAST_GOOD = 0.5
"""Reward below which an answer violates a check that is a reward."""


@dataclass(frozen=True)
class PatternCheck:
    """1 where the regular expression is found as often as it should be (`.` also matches line ends)."""

    pattern: str
    is_wanted: bool

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return 1 or 0."""
        is_good = (re.search(self.pattern, response.text, re.DOTALL) is not None) == self.is_wanted
        return Score(reward=float(is_good), correct=is_good, reason="check")


def check_check(check: str) -> None:
    """Return if the text is a check.

    Raises:
        ValueError: it is none, or its regular expression is none.
    """
    kind = next((kind for kind in (NEVER, ALWAYS) if check.startswith(kind)), "")
    if kind and check != kind:
        check_pattern(f"guard.checks: {kind}", check.removeprefix(kind))
    elif not is_own(check) and not (check.startswith(MODEL_PREFIX) and check != MODEL_PREFIX):
        raise ValueError(
            f"guard.checks: {check!r} is no check; write 'never:REGEX', 'always:REGEX', 'python:module.function' or "
            f"'{MODEL_PREFIX}FOLDER'"
        )


def patterns_of(checks: Sequence[str]) -> list[str]:
    """Return the regular expressions among the checks."""
    kinds = (NEVER, ALWAYS)
    return [check.removeprefix(kind) for check in checks for kind in kinds if check.startswith(kind)]


def check_functions(checks: Sequence[str]) -> Mapping[str, ScoreFunction]:
    """Return what scores an answer by each check.

    Raises:
        ValueError: one is no check, or its folder holds no reward model.
    """
    return {check: _function_of(check) for check in checks}


def is_violated(score: Score) -> bool | None:
    """Return whether an answer with this score violates its check; None where the check could not judge it."""
    if score.correct is not None:
        return not score.correct
    return None if score.reward is None else score.reward < LEAST_GOOD


def _function_of(check: str) -> ScoreFunction:
    check_check(check)
    for kind in (NEVER, ALWAYS):
        if check.startswith(kind):
            return PatternCheck(check.removeprefix(kind), is_wanted=kind == ALWAYS)
    if check.startswith(MODEL_PREFIX):
        return ModelReward.of_folder(check.removeprefix(MODEL_PREFIX), key="guard.checks")
    return PythonReward(check)
