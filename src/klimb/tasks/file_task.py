"""Problems from a data file of your own."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from klimb.tasks.answers import as_integer
from klimb.tasks.protocol import QUESTION_SLOT, Problem, ProblemSet, ScoreFunction, chat
from klimb.tasks.python_rewards import PREFIX, PythonReward, location_of
from klimb.tasks.rows import Row, read_rows
from klimb.tasks.splits import split
from klimb.tasks.suggestions import did_you_mean
from klimb.tasks.verifiers import TRUSTED_VERIFIERS, VERIFIERS, VerifierScore

USUAL_ANSWER = "answer"
"""The name of the answer column where none is given."""


def from_file(
    path: str | Path,
    *,
    question: str = "question",
    answer: str | None = "answer",
    answer_after: str = "",
    verifier: str | Callable[..., object] = "math-verify",
    template: str = QUESTION_SLOT,
    system_prompt: str | None = None,
    held_out_path: str | Path | None = None,
    held_out_fraction: float = 0.1,
    seed: int = 0,
) -> ProblemSet:
    """Returns the problems of a JSONL, CSV or Parquet file. The columns not named here become metadata.

    A question is never on both sides. Rows that repeat an earlier question and its answer are left out with a warning.

    Args:
        path: ends in `.jsonl`, `.csv` or `.parquet`.
        question: the column with the question.
        answer: the column with the reference answer; None if a reward of your own needs none. Such a reward gets an
            empty text where a cell is empty, and everywhere if no row has the column `answer`.
        answer_after: keep of the answer only what follows the last occurrence of this mark (`####` for GSM8K).
        verifier: `math-verify`, `exact` (the whole response), `integer` (the last number of the response), or a reward
            of your own: `python:module.function` or the function itself.
        template: the user's message; `{question}` stands for the question.
        system_prompt: None leaves the system message to the model's chat template.
        held_out_path: a second file with the held-out problems; the whole first file is then for training.
        held_out_fraction: share of the questions held out when there is no second file; 1 keeps all (evaluation only).
        seed: draws the split.

    Raises:
        ValueError: naming the file, the line or the column, for anything that cannot be read.
    """
    path = Path(path)
    score = score_function(verifier)
    if answer is None and not isinstance(score, PythonReward):
        raise ValueError(f"the verifier {verifier!r} needs an answer column; only a reward of your own can do without")

    needs_answer = not isinstance(score, PythonReward)

    def read(file: Path) -> list[Problem]:
        rows = read_rows(file)
        column = answer if needs_answer else column_if_there(rows, answer, file)
        check_columns(rows, file, [question] if column is None else [question, column])
        problems = [
            as_problem(row, question, column, answer_after, template, system_prompt, needs_answer=needs_answer)
            for row in rows
        ]
        if verifier == "integer":
            check_integers(problems)
        return without_repetitions(problems, file)

    problems = read(path)
    if held_out_path is None:
        random.Random(seed).shuffle(problems)
        train, held_out = split(problems, held_out_fraction)
    else:
        train, held_out = problems, read(Path(held_out_path))
        check_disjoint(train, held_out)
    return ProblemSet(
        name=f"file:{path.name}",
        train=tuple(train),
        held_out=tuple(held_out),
        score=score,
        trusted=isinstance(score, VerifierScore) and score.verifier in TRUSTED_VERIFIERS,
    )


def score_function(verifier: str | Callable[..., object]) -> ScoreFunction:
    """Returns the score function a verifier's name (or a reward function) stands for."""
    if not isinstance(verifier, str):
        return PythonReward(location_of(verifier))
    if verifier.startswith(PREFIX):
        return PythonReward(verifier)
    if verifier not in VERIFIERS:
        raise ValueError(
            f"verifier must be one of {', '.join(VERIFIERS)} or python:module.function, got {verifier!r}"
            f"{did_you_mean(verifier, VERIFIERS)}"
        )
    return VerifierScore(verifier)


def check_columns(rows: list[Row], path: Path, wanted: Sequence[str]) -> list[Row]:
    """Returns the rows if each has the wanted columns; else raises, naming the columns there are."""
    for row in rows:
        for column in wanted:
            if column not in row.values:
                present = [name for name in row.values if name is not None]
                raise ValueError(
                    f"{path} has no column {column!r} (row {row.place}); its columns are {', '.join(present)}"
                    f"{did_you_mean(column, present)}"
                )
    return rows


def column_if_there(rows: Sequence[Row], answer: str | None, path: Path) -> str | None:
    """Return the answer column for a reward of one's own; None, with a warning, if no row has the usual one.

    Another name was given on purpose, and one that is nearly there is a slip: those are left to `check_columns`.
    """
    if answer != USUAL_ANSWER or any(answer in row.values for row in rows):
        return answer
    if any(did_you_mean(answer, [name for name in row.values if name is not None]) for row in rows):
        return answer
    warnings.warn(
        f"{path} has no column {answer!r}: your reward gets an empty answer (task.answer names another column, and "
        '"" says that there is none)',
        stacklevel=4,
    )
    return None


def as_problem(
    row: Row,
    question: str,
    answer: str | None,
    answer_after: str,
    template: str,
    system_prompt: str | None,
    *,
    needs_answer: bool = True,
) -> Problem:
    """Returns the problem of one row."""
    if answer is None or (not needs_answer and is_empty(row.values[answer])):
        reference = ""
    else:
        reference = as_text(row.values[answer], answer, row.place)
    if answer_after and answer_after in reference:
        reference = reference.rpartition(answer_after)[2].strip()
    elif answer_after and (needs_answer or reference):
        raise ValueError(f"{row.place}: the answer has no {answer_after!r} (answer_after); it is {reference[-60:]!r}")
    text = as_text(row.values[question], question, row.place)
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in row.values.items()
        if name not in (question, answer)
    }
    messages = chat(text, system_prompt=system_prompt, template=template)
    return Problem(problem_id=row.place, messages=messages, answer=reference, metadata=metadata)


def is_empty(cell: object) -> bool:
    """True for a cell without text: null, NaN, or white space."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell).strip() == ""


def as_text(cell: object, column: str, place: str) -> str:
    """Returns a question or answer cell as text; raises ValueError unless it is text or a number, and not empty."""
    if is_empty(cell):
        raise ValueError(f"{place}: column {column!r} is empty")
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise ValueError(f"{place}: column {column!r} must be text or a number, got {type(cell).__name__}: {cell!r}")
    return str(cell)


def check_integers(problems: Sequence[Problem]) -> None:
    """Raises ValueError unless every reference answer is an integer."""
    for problem in problems:
        if as_integer(problem.answer) is None:
            raise ValueError(
                f"{problem.problem_id}: the verifier 'integer' needs integer answers, got {problem.answer!r}; "
                "use 'math-verify' or 'exact'"
            )


def question_of(problem: Problem) -> str:
    """Returns what makes two problems the same: the user's message, white space aside."""
    return " ".join(problem.messages[-1]["content"].split())


def without_repetitions(problems: Sequence[Problem], path: Path) -> list[Problem]:
    """Returns the problems with every question once; raises ValueError if one has two answers."""
    first: dict[str, Problem] = {}
    for problem in problems:
        known = first.setdefault(question_of(problem), problem)
        if known.answer != problem.answer:
            raise ValueError(
                f"{known.problem_id} and {problem.problem_id} ask the same question but give the answers "
                f"{known.answer!r} and {problem.answer!r}; keep one of them"
            )
    num_repeated = len(problems) - len(first)
    if num_repeated:
        warnings.warn(f"{path}: {num_repeated} rows repeat an earlier question and were left out", stacklevel=4)
    return list(first.values())


def check_disjoint(train: Sequence[Problem], held_out: Sequence[Problem]) -> None:
    """Raises ValueError if a held-out question is also trained on."""
    trained = {question_of(problem): problem for problem in train}
    shared = [(trained[question_of(problem)], problem) for problem in held_out if question_of(problem) in trained]
    if shared:
        raise ValueError(
            f"{len(shared)} held-out questions are training questions as well, the first at {shared[0][0].problem_id} "
            f"and {shared[0][1].problem_id}; remove them from one file, or evaluation would reward remembering"
        )
