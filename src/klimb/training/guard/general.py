"""General problems: what the model should still be able to do when it has learned its task."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from klimb.experience import Message
from klimb.tasks import Problem, ProblemSet, Response, Score, ScoreFunction, apply_truncation, chat, reasoning_gym
from klimb.training.guard.checks import check_functions
from klimb.training.guard.settings import EVERYDAY

SET, FORMAT = "set", "format"


GYM_SEED = 990_017
"""Of the reasoning-gym problems, which are the same in every run."""


LONGEST_REASON = 80


@dataclass(frozen=True)
class Easy:
    """Parameters of a reasoning-gym dataset at which a small model does some of it, and where its answer stands."""

    parameters: Mapping[str, int]
    extract: str = "last-number"


EASY = {
    "chain_sum": Easy({"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}),
    "products": Easy({"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}),
    "gcd": Easy({"min_value": 2, "max_value": 12}),
    "letter_counting": Easy({"min_words": 1, "max_words": 2}),
}
"""Every other dataset has its own default parameters, and the whole response is the answer. A set that a model cannot
do at all says nothing: it cannot fall."""


@dataclass(frozen=True)
class EverydayScore:
    """Right when one of the accepted words stands in the response, whatever stands around it."""

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return 1 or 0."""
        accepted = "|".join(re.escape(answer) for answer in problem.answer.split("|"))
        is_right = re.search(rf"\b(?:{accepted})\b", response.text, re.IGNORECASE) is not None
        return Score(reward=float(is_right), correct=is_right, reason=f"accepted: {problem.answer[:LONGEST_REASON]}")


@dataclass(frozen=True)
class FormatScore:
    """1 when the regular expression is found in the response (`.` also matches line ends)."""

    pattern: str

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return 1 or 0."""
        is_valid = re.search(self.pattern, response.text, re.DOTALL) is not None
        return Score(reward=float(is_valid), correct=is_valid, reason="format")


@dataclass(frozen=True)
class ScoreBySet:
    """Hands each problem to the score function of its set, so that one scorer serves them all."""

    functions: Mapping[str, ScoreFunction]

    def prepare(self) -> None:
        """Prepare those that want it."""
        for function in self.functions.values():
            prepare = getattr(function, "prepare", None)
            if prepare is not None:
                prepare()

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score of the set's own function."""
        return self.functions[problem.metadata[SET]](problem, response)


def general_problems(
    names: Sequence[str], *, num_problems: int, pattern: str, checks: Sequence[str] = ()
) -> ProblemSet:
    """Return the problems of all sets as the held-out part of one task, each with its set's name in its metadata.

    Args:
        names: `everyday`, or datasets of reasoning-gym, easy where `EASY` says so, else with default parameters.
        num_problems: of each set, at most; a question of several sets is asked once, for the first of them.
        pattern: what `format_problem` is scored with; empty leaves that out.
        checks: of the user's own, that `check_problem` is scored with.

    Raises:
        ValueError: reasoning-gym has no dataset of that name, or a check is none.
        ImportError: reasoning-gym is needed and not installed.
    """
    functions: dict[str, ScoreFunction] = {FORMAT: FormatScore(pattern)} if pattern else {}
    functions |= check_functions(checks)
    problems: list[Problem] = []
    for name in names:
        task = everyday() if name == EVERYDAY else _gym(name, num_problems)
        # As written: a model that rambles past the limit is compared with itself, and must show what it forgets.
        functions[name] = apply_truncation(task.score, "as-written")
        problems += [replace(problem, metadata={SET: name}) for problem in task.held_out[:num_problems]]
    # Asked twice, a question would count as two that change alike.
    problems = list({repr(problem.messages): problem for problem in reversed(problems)}.values())[::-1]
    # With sets of reasoning-gym or a pattern of somebody's, a response could keep the score function busy for ever.
    trusted = not pattern and not checks and {*names} <= {EVERYDAY}
    return ProblemSet(name="general", train=(), held_out=tuple(problems), score=ScoreBySet(functions), trusted=trusted)


def everyday() -> ProblemSet:
    """Return the shipped questions."""
    text = (files("klimb.training.guard") / "questions.csv").read_text(encoding="utf-8")
    problems = tuple(
        Problem(problem_id=f"{EVERYDAY}:{number}", messages=chat(row["question"]), answer=row["answers"])
        for number, row in enumerate(csv.DictReader(text.splitlines()))
    )
    return ProblemSet(name=EVERYDAY, train=(), held_out=problems, score=EverydayScore(), trusted=True)


def format_problem() -> Problem:
    """Return what a rollout is said to answer when only its format is looked at."""
    return Problem(problem_id=FORMAT, messages=chat(FORMAT), answer="", metadata={SET: FORMAT})


def check_problem(messages: Sequence[Message], check: str) -> Problem:
    """Return what an answer to this prompt is said to be when only one check is looked at."""
    return Problem(problem_id=check, messages=tuple(messages), answer="", metadata={SET: check})


def _gym(name: str, num_problems: int) -> ProblemSet:
    easy = EASY.get(name, Easy({}, extract="text"))
    return reasoning_gym(
        name,
        parameters=easy.parameters,
        num_train=0,
        num_held_out=num_problems,
        seed=GYM_SEED,
        extract=easy.extract,
    )
