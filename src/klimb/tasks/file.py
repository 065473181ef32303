"""Problems from a data file of your own.

Rows are read by the reader of imports, and one that cannot be read is an error.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen

from klimb.declarations import Fraction, LongText, Matching, PathText, Seed, ShortText, configurable
from klimb.experience.reading.records import CutOff, Record, Reject
from klimb.experience.reading.sources import find_source, read_records
from klimb.own_parts import LOCATION, PREFIX
from klimb.tasks.answers import TRUSTED_VERIFIERS, VERIFIERS, VerifierScore, as_integer
from klimb.tasks.conversations import (
    as_example,
    conversation_key,
    find_cell,
    find_messages,
    names_of,
    put_examples_first,
    put_system_first,
)
from klimb.tasks.protocol import (
    MOST_UNUSABLE,
    QUESTION_SLOT,
    Problem,
    ProblemSet,
    QuestionTemplate,
    ScoreFunction,
    chat,
    did_you_mean,
    without_score,
)
from klimb.tasks.python_rewards import PythonReward, as_written
from klimb.tasks.splits import split
from klimb.tasks.truncation import WrongIfCut

if TYPE_CHECKING:  # for annotations only, as in protocol
    from klimb.experience.samples import Message

LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Row:
    """One record and where it is: `place` is `data.jsonl:17` for people."""

    place: str
    values: Mapping[str, object]

    def has(self, column: str) -> bool:
        """Return whether there is such a column, or part of one."""
        try:
            self.cell(column)
        except KeyError:
            return False
        return True

    def cell(self, column: str) -> object:
        """Return what a column holds; a dot leads into an object: `reward_model.ground_truth`."""
        return find_cell(self.values, column)


def read_rows(path: str | Path) -> list[Row]:
    """Return all rows of a data file, of the files of a folder, or of those that a glob fits.

    Raises:
        ValueError: naming file and line, if there is no such file, none with rows, one of another kind, or a row cannot
            be read.
    """
    try:
        source = find_source(path)
        rows = [_as_row(record) for record in read_records(source)]
    except FileNotFoundError as error:
        raise ValueError(f"data file {error}") from error
    if source.passed_over:
        warnings.warn(f"{path}: passed over {', '.join(source.passed_over)}: they are no data files", stacklevel=6)
    if not rows:
        raise ValueError(f"data file {path} has no rows")
    return rows


def _as_row(record: Record) -> Row:
    """Return the row; raises ValueError for what is none: a problem less would be another task."""
    if isinstance(record, CutOff):
        raise ValueError(f"{record.place}: not whole JSON, and no line feed behind it: the file was cut short")
    if isinstance(record, Reject):
        shown = f"; got {record.text[:LONGEST_SHOWN]!r}" if record.text else ""
        raise ValueError(f"{record.place}: {record.reason}{': ' if record.detail else ''}{record.detail}{shown}")
    # An empty cell is an empty text to a reward, where every cell is text.
    values = {name: "" if cell is None else cell for name, cell in record.values.items()}
    return Row(record.place, values if record.is_text else record.values)


USUAL_ANSWER = "answer"
"""The name of the answer column where none is given."""


NO_REWARD = "none"
"""The reward of a file that has none of its own: it takes one from elsewhere."""


FileReward = Annotated[
    str,
    MaxLen(200),
    Matching(
        rf"^({'|'.join(VERIFIERS)}|{NO_REWARD})$|{LOCATION.pattern}",
        f"{', '.join(repr(name) for name in VERIFIERS)}, 'python:module.function' or {NO_REWARD!r}",
    ),
]


@configurable
@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Your own questions, or conversations, from data files: .jsonl, .json, .csv, .tsv, .parquet or .arrow."""

    subject: ClassVar[str] = "path"

    kind: Literal["file"] = "file"
    """A data file."""
    path: PathText
    """The data file, relative to the working directory; or a folder of such files, or a glob as `parts/*.jsonl.gz`."""
    question: ShortText = "question"
    """Column with the question: a text, or chat messages that end with the user's. A dot leads into an object, as in
    `extra_info.question`."""
    answer: Annotated[str, MaxLen(200)] = USUAL_ANSWER
    """Column with the reference answer, as in `reward_model.ground_truth`; a reward of your own may do without. Empty
    if there is none."""
    answer_after: Annotated[str, MaxLen(200)] = ""
    """Keep of the answer only what follows this mark (`####` for GSM8K); empty keeps all."""
    reward: FileReward = "math-verify"
    """How a response is compared with the answer, `python:module.function` for a reward of your own, or `none` for no
    reward of its own. So it is by itself where [rewards] has others and none of them is `task`."""
    template: QuestionTemplate = QUESTION_SLOT
    """The user's message; {question} stands for the question. Messages are asked as they are, without a template."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides. Messages with one of their own keep that."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""
    held_out_path: PathText | None = None
    """A second file with the held-out problems; without it a share of the first is held out."""
    held_out_fraction: Fraction = 0.1
    """Share of the questions held out when there is no second file."""
    few_shot: Annotated[int, Ge(0), Le(100)] = 0
    """Examples that stand before each question, as earlier turns of user and assistant; the same for all. The assistant
    says the whole answer column."""
    few_shot_path: PathText | None = None
    """A file of the same columns with the examples; without it they are taken out of the training problems."""
    seed: Seed = 0
    """Draws the split and the examples."""

    def __post_init__(self) -> None:
        if not 0 <= self.few_shot <= 100:
            raise ValueError(f"few_shot must be in [0, 100], got {self.few_shot}")
        if self.few_shot_path is not None and not self.few_shot:
            raise ValueError(
                f"few_shot_path = {self.few_shot_path!r} is given and few_shot is 0: say how many examples"
            )
        if self.few_shot and not self.answer:
            raise ValueError(f"few_shot = {self.few_shot} needs an answer column: it is what the assistant says")
        score_function(self.reward)
        if not self.answer and self.needs_answer:
            raise ValueError(
                f"the reward {self.reward!r} needs an answer column; only a reward of your own can do without, or "
                f"reward = {NO_REWARD!r} where an environment or [rewards] give one"
            )

    @property
    def needs_answer(self) -> bool:
        """True unless the reward is one's own, or there is none."""
        return self.reward in VERIFIERS

    def make_task(self) -> ProblemSet:
        """Return the problems of the file. The columns not named here become metadata.

        A question, with all messages before it, is never on both sides. Rows that repeat an earlier question and its
        answer are left out with a warning. A reward of one's own gets an empty text where an answer's cell is empty,
        and everywhere if no row has the column `answer`.

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
            return self._with_examples(*split(problems, self.held_out_fraction))
        held_out = read_problems(Path(self.held_out_path), self)
        check_disjoint(problems, held_out)
        return self._with_examples(problems, held_out)

    def _with_examples(self, train: list[Problem], held_out: list[Problem]) -> tuple[list[Problem], list[Problem]]:
        """Return both sides asked after the examples, which are no problem of either."""
        if not self.few_shot:
            return train, held_out
        path = Path(self.few_shot_path or self.path)
        given = train if self.few_shot_path is None else read_problems(path, self)
        asked = {question_of(problem) for problem in held_out}
        if self.few_shot_path is not None:
            asked |= {question_of(problem) for problem in train}
        candidates = [problem for problem in given if question_of(problem) not in asked]
        if len(candidates) < self.few_shot:
            raise ValueError(
                f"{path}: few_shot = {self.few_shot} examples are wanted, and there are {len(candidates)} that are no "
                "problem of the run; ask for fewer, or name another file in few_shot_path"
            )
        chosen = random.Random(f"few shot {self.seed}").sample(candidates, self.few_shot)
        answers = read_answers(path, self)
        turns = tuple(turn for example in chosen for turn in as_example(example, answers[example.problem_id]))
        taken = {question_of(example) for example in chosen}
        left = [problem for problem in train if question_of(problem) not in taken]
        if not left and train:
            raise ValueError(f"{path}: few_shot = {self.few_shot} takes every training problem; ask for fewer")
        return [put_examples_first(each, turns) for each in left], [
            put_examples_first(each, turns) for each in held_out
        ]


def from_file(path: str | Path, **settings: Any) -> ProblemSet:
    """Return the problems of a data file, of a folder or of a glob; the other settings are those of `FileSettings`.

    Paths may be given as such, and a reward of one's own as the function itself.
    """
    return FileSettings(**as_written(path=path, **settings)).make_task()


def read_problems(path: Path, settings: FileSettings) -> list[Problem]:
    """Return the problems of one file, each question once."""
    rows = read_rows(path)
    column = answer_column(rows, path, settings)
    check_columns(rows, path, [settings.question] if column is None else [settings.question, column])
    problems = [as_problem(row, column, settings) for row in rows]
    check_system_messages(problems, path, settings)
    if settings.reward == "integer":
        check_integers(problems)
    return without_repetitions(problems, path)


def read_answers(path: Path, settings: FileSettings) -> dict[str, str]:
    """Return place -> the whole answer of its row, with what stands before the mark of `answer_after`."""
    answer = settings.answer
    return {row.place: as_text(row.cell(answer), answer, row.place) for row in read_rows(path) if row.has(answer)}


def check_system_messages(problems: Sequence[Problem], path: Path, settings: FileSettings) -> None:
    """Say where a conversation has a system message of its own; raise ValueError if the given one is never used."""
    if settings.system_prompt is None:
        return
    own = [each for each in problems if each.messages[0]["content"] != settings.system_prompt]
    if len(own) == len(problems):
        raise ValueError(
            f"{path}: every conversation has a system message of its own, so system_prompt would do nothing; leave it "
            "out, or take the messages out of the file"
        )
    if own:
        warnings.warn(
            f"{path}: {len(own)} of {len(problems)} conversations have a system message of their own, which they keep; "
            f"system_prompt is put before the others (the first of its own is {own[0].problem_id})",
            stacklevel=7,
        )


def score_function(reward: str) -> ScoreFunction:
    """Return the score function that a reward's name stands for."""
    if reward == NO_REWARD:
        return without_score
    if reward.startswith(PREFIX):
        return PythonReward(reward)
    if reward not in VERIFIERS:
        raise ValueError(
            f"reward must be one of {', '.join(VERIFIERS)}, python:module.function or {NO_REWARD}, got {reward!r}"
            f"{did_you_mean(reward, VERIFIERS)}"
        )
    return WrongIfCut(VerifierScore(reward))


def check_columns(rows: list[Row], path: Path, wanted: Sequence[str]) -> list[Row]:
    """Return the rows if each has the wanted columns; else raises, naming the columns there are."""
    for row in rows:
        for column in wanted:
            if not row.has(column):
                present = names_of(row.values)
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
    if settings.needs_answer or answer != USUAL_ANSWER or any(row.has(answer) for row in rows):
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
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in row.values.items()
        if name not in (settings.question, answer)
    }
    reference = reference_answer(row, answer, settings)
    columns = dict(row.values)
    if settings.answer_after and answer in columns:
        columns[answer] = reference
    return Problem(
        problem_id=row.place,
        messages=as_messages(row, settings),
        answer=reference,
        metadata=metadata,
        columns=columns,
    )


def as_messages(row: Row, settings: FileSettings) -> tuple[Message, ...]:
    """Return what one row asks: its question in the template, or its own messages."""
    column, cell = settings.question, row.cell(settings.question)
    own = find_messages(cell, column, row.place)
    if own is None:
        expected = "text, a number, or chat messages ({role, content})"
        text = as_text(cell, column, row.place, expected=expected)
        return chat(text, system_prompt=settings.system_prompt, template=settings.template)
    if settings.template != QUESTION_SLOT:
        raise ValueError(
            f"{row.place}: column {column!r} holds chat messages, which are asked as they are: the template "
            f"{settings.template[:60]!r} has no place there; leave it out"
        )
    return put_system_first(own, settings.system_prompt)


def reference_answer(row: Row, answer: str | None, settings: FileSettings) -> str:
    """Return the answer of one row; empty where there is none and the reward needs none."""
    if answer is None or (not settings.needs_answer and is_empty(row.cell(answer))):
        return ""
    reference, mark = as_text(row.cell(answer), answer, row.place), settings.answer_after
    if not mark:
        return reference
    if mark not in reference:
        raise ValueError(f"{row.place}: the answer has no {mark!r} (answer_after); it is {reference[-60:]!r}")
    return reference.rpartition(mark)[2].strip()


def is_empty(cell: object) -> bool:
    """Return True for a cell without text: null, NaN, or white space."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell).strip() == ""


def as_text(cell: object, column: str, place: str, *, expected: str = "text or a number") -> str:
    """Return a question or answer cell as text; raises ValueError unless it is text or a number, and not empty."""
    if is_empty(cell):
        raise ValueError(f"{place}: column {column!r} is empty")
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        parts = ", ".join(f"{column}.{name}" for name in cell) if isinstance(cell, Mapping) else ""
        advice = f"; name a part of it: {parts}" if parts else ""
        raise ValueError(f"{place}: column {column!r} must be {expected}, got {type(cell).__name__}: {cell!r}{advice}")
    return str(cell)


def check_integers(problems: Sequence[Problem]) -> None:
    """Raise ValueError unless every reference answer is an integer."""
    for problem in problems:
        if as_integer(problem.answer) is None:
            raise ValueError(
                f"{problem.problem_id}: the verifier 'integer' needs integer answers, got {problem.answer!r}; "
                "use 'math-verify' or 'exact'"
            )


def question_of(problem: Problem) -> tuple[tuple[str, str], ...]:
    """Return what makes two problems the same: all messages, white space aside."""
    return conversation_key(problem.messages)


def without_repetitions(problems: Sequence[Problem], path: Path) -> list[Problem]:
    """Return the problems with every question once; raises ValueError if one has two answers."""
    first: dict[tuple[tuple[str, str], ...], Problem] = {}
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
