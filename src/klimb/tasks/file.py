"""Problems from a data file of your own.

Rows of a data file, each with the line it stands on. The extension says the format.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from klimb.tasks.answers import TRUSTED_VERIFIERS, VERIFIERS, VerifierScore, as_integer
from klimb.tasks.protocol import QUESTION_SLOT, Problem, ProblemSet, ScoreFunction, chat, did_you_mean
from klimb.tasks.python_rewards import PREFIX, PythonReward, location_of
from klimb.tasks.splits import split

UTF8_BOM = b"\xef\xbb\xbf"


LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Row:
    """One record and where it is: `place` is `data.jsonl:17` for people."""

    place: str
    values: Mapping[str, object]


def read_rows(path: Path) -> list[Row]:
    """Return all rows of a `.jsonl`, `.csv` or `.parquet` file.

    Raises:
        ValueError: naming file and line, if the file is missing, empty, of another kind, or a line cannot be read.
    """
    readers = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        hint = "; write one object per line and call it .jsonl" if path.suffix.lower() == ".json" else ""
        raise ValueError(f"{path}: a data file must end in {', '.join(readers)}, got {path.suffix!r}{hint}")
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else f"does not exist (looked in {path.absolute().parent})"
        raise ValueError(f"data file {path} {what}")
    rows = list(reader(path))
    if not rows:
        raise ValueError(f"data file {path} has no rows")
    return rows


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yield one row per line that is not blank.

    Lines end at line feeds alone: text mode's `splitlines` would also cut at U+2028, which JSON strings may contain.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(UTF8_BOM) if number == 1 else line
            if line.strip():
                yield Row(f"{path.name}:{number}", parse_object(line, f"{path}, line {number}"))


def parse_object(line: bytes, place: str) -> dict[str, object]:
    """Return the JSON object on a line, or raises ValueError with the place."""
    try:
        parsed = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON: {error.msg} at column {error.colno}; got {short(line)}") from error
    except (RecursionError, ValueError) as error:  # nested or digits without end
        raise ValueError(f"{place}: JSON that cannot be read: {error}; got {short(line)}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{place}: expected an object {{...}}, one per line, got {short(line)}")
    if b"\\ud" in line.lower() and not is_encodable(parsed):
        raise ValueError(f"{place}: half a character (an unpaired \\ud... escape); got {short(line)}")
    return parsed


def is_encodable(parsed: object) -> bool:
    """Return False for text with lone surrogates: JSON can write them, no file can store them."""
    try:
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def short(line: bytes) -> str:
    """Return the beginning of a line for an error message."""
    return repr(line[:LONGEST_SHOWN].decode("utf-8", "replace").rstrip())


def read_csv(path: Path) -> Iterator[Row]:
    """Yield one row per record; the first line names the columns."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for values in reader:
            if None in values or None in values.values():
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or ())} cells as in the first "
                    "line; put text that contains commas between double quotes"
                )
            yield Row(f"{path.name}:{reader.line_num}", values)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def read_parquet(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file; a row's place is its number, from 1."""
    values = import_module("klimb.tasks.parquet_rows").read_parquet_values(path)
    return (Row(f"{path.name}:{number}", row) for number, row in enumerate(values, start=1))


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
    """Return the problems of a JSONL, CSV or Parquet file. The columns not named here become metadata.

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
    """Return the score function a verifier's name (or a reward function) stands for."""
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
    """Return the rows if each has the wanted columns; else raises, naming the columns there are."""
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
    """Return the problem of one row."""
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
    """Return True for a cell without text: null, NaN, or white space."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell).strip() == ""


def as_text(cell: object, column: str, place: str) -> str:
    """Return a question or answer cell as text; raises ValueError unless it is text or a number, and not empty."""
    if is_empty(cell):
        raise ValueError(f"{place}: column {column!r} is empty")
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise ValueError(f"{place}: column {column!r} must be text or a number, got {type(cell).__name__}: {cell!r}")
    return str(cell)


def check_integers(problems: Sequence[Problem]) -> None:
    """Raise ValueError unless every reference answer is an integer."""
    for problem in problems:
        if as_integer(problem.answer) is None:
            raise ValueError(
                f"{problem.problem_id}: the verifier 'integer' needs integer answers, got {problem.answer!r}; "
                "use 'math-verify' or 'exact'"
            )


def question_of(problem: Problem) -> str:
    """Return what makes two problems the same: the user's message, white space aside."""
    return " ".join(problem.messages[-1]["content"].split())


def without_repetitions(problems: Sequence[Problem], path: Path) -> list[Problem]:
    """Return the problems with every question once; raises ValueError if one has two answers."""
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
    """Raise ValueError if a held-out question is also trained on."""
    trained = {question_of(problem): problem for problem in train}
    shared = [(trained[question_of(problem)], problem) for problem in held_out if question_of(problem) in trained]
    if shared:
        raise ValueError(
            f"{len(shared)} held-out questions are training questions as well, the first at {shared[0][0].problem_id} "
            f"and {shared[0][1].problem_id}; remove them from one file, or evaluation would reward remembering"
        )
