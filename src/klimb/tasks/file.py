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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MaxLen

from klimb.declarations import Fraction, LongText, Matching, PathText, Seed, ShortText, configurable
from klimb.own_parts import LOCATION, PREFIX
from klimb.tasks.answers import TRUSTED_VERIFIERS, VERIFIERS, VerifierScore, as_integer
from klimb.tasks.protocol import (
    MOST_UNUSABLE,
    QUESTION_SLOT,
    Problem,
    ProblemSet,
    QuestionTemplate,
    ScoreFunction,
    chat,
    did_you_mean,
)
from klimb.tasks.python_rewards import PythonReward, as_written
from klimb.tasks.splits import split
from klimb.tasks.truncation import WrongIfCut

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


FileReward = Annotated[
    str,
    MaxLen(200),
    Matching(
        rf"^({'|'.join(VERIFIERS)})$|{LOCATION.pattern}",
        f"{', '.join(repr(name) for name in VERIFIERS)} or 'python:module.function'",
    ),
]


@configurable
@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Your own questions from a .jsonl, .csv or .parquet file."""

    subject: ClassVar[str] = "path"

    kind: Literal["file"] = "file"
    """A data file."""
    path: PathText
    """The data file, relative to the working directory."""
    question: ShortText = "question"
    """Column with the question."""
    answer: Annotated[str, MaxLen(200)] = USUAL_ANSWER
    """Column with the reference answer; a reward of your own may do without. Empty if there is none."""
    answer_after: Annotated[str, MaxLen(200)] = ""
    """Keep of the answer only what follows this mark (`####` for GSM8K); empty keeps all."""
    reward: FileReward = "math-verify"
    """How a response is compared with the answer, or `python:module.function` for a reward of your own."""
    template: QuestionTemplate = QUESTION_SLOT
    """The user's message; {question} stands for the question."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""
    held_out_path: PathText | None = None
    """A second file with the held-out problems; without it a share of the first is held out."""
    held_out_fraction: Fraction = 0.1
    """Share of the questions held out when there is no second file."""
    seed: Seed = 0
    """Draws the split."""

    def __post_init__(self) -> None:
        score_function(self.reward)
        if not self.answer and self.needs_answer:
            raise ValueError(
                f"the reward {self.reward!r} needs an answer column; only a reward of your own can do without"
            )

    @property
    def needs_answer(self) -> bool:
        """True unless the reward is one's own."""
        return not self.reward.startswith(PREFIX)

    def make_task(self) -> ProblemSet:
        """Return the problems of the file. The columns not named here become metadata.

        A question is never on both sides. Rows that repeat an earlier question and its answer are left out with a
        warning. A reward of one's own gets an empty text where an answer's cell is empty, and everywhere if no row has
        the column `answer`.

        Raises:
            ValueError: naming the file, the line or the column, for anything that cannot be read.
        """
        train, held_out = self._sides()
        return ProblemSet(
            name=f"file:{Path(self.path).name}",
            train=tuple(train),
            held_out=tuple(held_out),
            score=score_function(self.reward),
            trusted=self.reward in TRUSTED_VERIFIERS,
        )

    def _sides(self) -> tuple[list[Problem], list[Problem]]:
        problems = read_problems(Path(self.path), self)
        if self.held_out_path is None:
            random.Random(self.seed).shuffle(problems)
            return split(problems, self.held_out_fraction)
        held_out = read_problems(Path(self.held_out_path), self)
        check_disjoint(problems, held_out)
        return problems, held_out


def from_file(path: str | Path, **settings: Any) -> ProblemSet:
    """Return the problems of a JSONL, CSV or Parquet file; the other settings are those of `FileSettings`.

    Paths may be given as such, and a reward of one's own as the function itself.
    """
    return FileSettings(**as_written(path=path, **settings)).make_task()


def read_problems(path: Path, settings: FileSettings) -> list[Problem]:
    """Return the problems of one file, each question once."""
    rows = read_rows(path)
    column = answer_column(rows, path, settings)
    check_columns(rows, path, [settings.question] if column is None else [settings.question, column])
    problems = [as_problem(row, column, settings) for row in rows]
    if settings.reward == "integer":
        check_integers(problems)
    return without_repetitions(problems, path)


def score_function(reward: str) -> ScoreFunction:
    """Return the score function that a reward's name stands for."""
    if reward.startswith(PREFIX):
        return PythonReward(reward)
    if reward not in VERIFIERS:
        raise ValueError(
            f"reward must be one of {', '.join(VERIFIERS)} or python:module.function, got {reward!r}"
            f"{did_you_mean(reward, VERIFIERS)}"
        )
    return WrongIfCut(VerifierScore(reward))


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


def answer_column(rows: Sequence[Row], path: Path, settings: FileSettings) -> str | None:
    """Return the answer column, or None where there is none; for a reward of one's own it may be missing.

    Without the usual name in any row, there is a warning. Another name was given on purpose, and one that is nearly
    there is a slip: those are left to `check_columns`.
    """
    answer = settings.answer
    if settings.needs_answer or answer != USUAL_ANSWER or any(answer in row.values for row in rows):
        return answer or None
    if any(did_you_mean(answer, [name for name in row.values if name is not None]) for row in rows):
        return answer
    warnings.warn(
        f"{path} has no column {answer!r}: your reward gets an empty answer (task.answer names another column, and "
        '"" says that there is none)',
        stacklevel=6,
    )
    return None


def as_problem(row: Row, answer: str | None, settings: FileSettings) -> Problem:
    """Return the problem of one row, with the answer of this column."""
    text = as_text(row.values[settings.question], settings.question, row.place)
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in row.values.items()
        if name not in (settings.question, answer)
    }
    return Problem(
        problem_id=row.place,
        messages=chat(text, system_prompt=settings.system_prompt, template=settings.template),
        answer=reference_answer(row, answer, settings),
        metadata=metadata,
    )


def reference_answer(row: Row, answer: str | None, settings: FileSettings) -> str:
    """Return the answer of one row; empty where there is none and the reward needs none."""
    if answer is None or (not settings.needs_answer and is_empty(row.values[answer])):
        return ""
    reference, mark = as_text(row.values[answer], answer, row.place), settings.answer_after
    if not mark:
        return reference
    if mark not in reference:
        raise ValueError(f"{row.place}: the answer has no {mark!r} (answer_after); it is {reference[-60:]!r}")
    return reference.rpartition(mark)[2].strip()


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
        warnings.warn(f"{path}: {num_repeated} rows repeat an earlier question and were left out", stacklevel=6)
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
