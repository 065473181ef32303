"""Which answers of a store people have judged, and no machine: an index in memory that grows with the store's files.

A new file of a store makes DuckDB look at all ids again, which takes a second for 100,000 samples. A page that many
people keep open asks after every answer, so each file's narrow columns are read once and kept. Texts are read when they
are shown.
"""

# pyarrow ships no type information:
# pyright: basic

import math
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from klimb.experience.feedback import is_by_machine
from klimb.experience.quarantine import read_quarantine
from klimb.experience.samples import Message
from klimb.experience.segments import open_segment
from klimb.experience.store_files import Segment, SegmentFiles, SegmentFolder

_ANSWER_COLUMNS = ("sample_id", "created_at", "model", "policy_version", "reward")


_JUDGEMENT_COLUMNS = (
    "feedback_id",
    "sample_id",
    "value",
    "name",
    "user",
    "created_at",
    "comment",
    "over",
    "correction",
)


_TEXT_COLUMNS = ("prompt", "response", "finish_reason", "episode", "metadata")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer without its texts.

    Attributes:
        sample_id: its sample's.
        created_at: seconds since the epoch.
        model: the policy that gave it.
        policy_version: of that policy.
        reward: that it was stored with, before anybody rated it.
        path: the file that it is in.
        row: its number there.
    """

    sample_id: str
    created_at: float
    model: str
    policy_version: int
    reward: float | None
    path: Path
    row: int


@dataclass(frozen=True, kw_only=True)
class AnswerText:
    """What was asked and answered.

    Attributes:
        answer: whose texts these are.
        prompt: all messages before it.
        response: the answer.
        finish_reason: why it ended.
        episode: the conversation that it belongs to; empty for none.
        metadata: of its sample.
    """

    answer: Answer
    prompt: tuple[Message, ...]
    response: str
    finish_reason: str
    episode: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Judgement:
    """A row of feedback without its texts."""

    feedback_id: str
    sample_id: str
    value: float | None
    name: str
    user: str
    created_at: float
    has_comment: bool
    over: str
    has_correction: bool


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers:
    """An index at one moment.

    Attributes:
        answers: all there are, by their ids, the oldest first.
        ratings: of each rated sample, by user: the mean of that user's latest rating under each name.
        judged_by: of each sample, the users who rated, preferred, or corrected it. A sample that another was preferred
            to was judged too.
        num_preferences: of one answer over another.
        num_corrections: answers that people wrote.
        num_comments: in people's words.
        raters: all users who said anything.
    """

    answers: dict[str, Answer]
    ratings: Mapping[str, Mapping[str, float]]
    judged_by: Mapping[str, AbstractSet[str]]
    num_preferences: int
    num_corrections: int
    num_comments: int
    raters: frozenset[str]

    def is_judged(self, answer: Answer) -> bool:
        """Return True for what somebody judged, or what was stored with a reward."""
        return answer.reward is not None or answer.sample_id in self.judged_by

    def waiting(self, *, before: str = "", limit: int, user: str | None = None) -> list[Answer]:
        """Return answers to be judged, the newest first.

        Args:
            before: only those that stand before the answer of this id; empty for all. An id that is not there any more
                gives none.
            limit: at most this many.
            user: None for what nobody judged; else what others judged and this user did not.
        """
        found: list[Answer] = []
        is_after = not before
        for sample_id in reversed(self.answers):
            if is_after and self._waits(self.answers[sample_id], user):
                found.append(self.answers[sample_id])
                if len(found) == limit:
                    break
            is_after = is_after or sample_id == before
        return found

    def _waits(self, answer: Answer, user: str | None) -> bool:
        if user is None:
            return not self.is_judged(answer)
        return answer.sample_id in self.judged_by and user not in self.judged_by[answer.sample_id]

    def rating(self, answer: Answer) -> float | None:
        """Return the mean of people's ratings, or what the answer was stored with; None for neither."""
        given = self.ratings.get(answer.sample_id)
        return answer.reward if given is None else sum(given.values()) / len(given)


class AnswerIndex:
    """The index over a store's folder; safe to be used from several threads.

    Args:
        folder: of the store; need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._segments = SegmentFolder(folder)
        self._files = SegmentFiles(samples=(), feedback=())
        self._answers: dict[str, Answer] = {}
        self._judgements: dict[Segment, Sequence[_Judgement]] = {}
        self._quarantined: frozenset[str] = frozenset()
        self._found = _judged({}, (), ())
        self._lock = threading.Lock()

    def look(self) -> JudgedAnswers:
        """Return the index as the store's files are now.

        Raises:
            SegmentError: a Parquet file there is damaged or not of klimb.
            ValueError: its file of raters in quarantine is.
        """
        with self._lock:
            files, quarantined = self._segments.look(), frozenset(read_quarantine(self._segments.folder))
            known = self._files.samples, self._files.feedback, self._quarantined
            if (files.samples, files.feedback, quarantined) != known:
                answers = self._answers_of(files.samples)
                judgements = {part: self._judgements.get(part) or _read_judgements(part) for part in files.feedback}
                self._found = _judged(answers, judgements.values(), quarantined)
                self._answers, self._judgements, self._files = answers, judgements, files
                self._quarantined = quarantined
            return self._found

    def _answers_of(self, segments: Sequence[Segment]) -> dict[str, Answer]:
        """Return all answers by id, the oldest first; only new files are read where none is gone."""
        known = set(self._files.samples)
        if not known <= set(segments):
            known = set[Segment]()
        found = dict(self._answers) if known else {}
        latest = next(reversed(found.values())).created_at if found else -math.inf
        read = [answer for part in segments if part not in known for answer in _read_answers(part)]
        for answer in sorted(read, key=_by_time):
            found.setdefault(answer.sample_id, answer)
        if any(answer.created_at < latest for answer in read):
            found = {answer.sample_id: answer for answer in sorted(found.values(), key=_by_time)}
        return found


def read_texts(answers: Iterable[Answer]) -> list[AnswerText]:
    """Return what was asked and answered, in the order of the answers; of each file only the row groups they are in.

    Raises:
        FileNotFoundError: a file is gone: samples were put together in another one meanwhile.
        SegmentError: a file is damaged.
    """
    asked = list(answers)
    rows: dict[Path, list[int]] = {}
    for answer in asked:
        rows.setdefault(answer.path, []).append(answer.row)
    texts = {(path, row): text for path, numbers in rows.items() for row, text in _texts_of(path, sorted(numbers))}
    return [_with_texts(answer, texts[answer.path, answer.row]) for answer in asked]


def _with_texts(answer: Answer, text: Mapping[str, Any]) -> AnswerText:
    return AnswerText(
        answer=answer,
        prompt=tuple(Message(role=message["role"], content=message["content"]) for message in text["prompt"]),
        response=text["response"],
        finish_reason=text["finish_reason"],
        episode=text["episode"],
        metadata=dict(text["metadata"]),
    )


def _texts_of(path: Path, rows: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open_segment(path) as file:
        first = 0
        for number in range(file.num_row_groups):
            last = first + file.metadata.row_group(number).num_rows
            wanted = [row for row in rows if first <= row < last]
            if wanted:
                table = file.read_row_group(number, columns=list(_TEXT_COLUMNS))
                yield from zip(wanted, table.take([row - first for row in wanted]).to_pylist(), strict=True)
            first = last


def _read_answers(segment: Segment) -> list[Answer]:
    with open_segment(segment.path) as file:
        columns = file.read(columns=list(_ANSWER_COLUMNS)).to_pydict()
    rows = zip(*(columns[name] for name in _ANSWER_COLUMNS), strict=True)
    return [Answer(*values, path=segment.path, row=number) for number, values in enumerate(rows)]


def _read_judgements(segment: Segment) -> list[_Judgement]:
    """Return what people said; what a reward model or a judge gave is none of it."""
    with open_segment(segment.path) as file:
        columns = [name for name in _JUDGEMENT_COLUMNS if name in file.schema_arrow.names]
        rows = file.read(columns=columns).to_pylist()
    return [
        _Judgement(
            feedback_id=row["feedback_id"],
            sample_id=row["sample_id"],
            value=row["value"],
            name=row["name"],
            user=row["user"],
            created_at=row["created_at"],
            over=row.get("over") or "",
            has_comment=bool(row["comment"]),
            has_correction=bool(row.get("correction")),
        )
        for row in rows
        if not is_by_machine(row["name"])
    ]


def _by_time(answer: Answer) -> tuple[float, str]:
    return answer.created_at, answer.sample_id


def _judged(
    answers: dict[str, Answer], files: Iterable[Sequence[_Judgement]], quarantined: Collection[str]
) -> JudgedAnswers:
    """Return the index; what raters in quarantine said is as if they had not."""
    rows: dict[str, _Judgement] = {}
    for row in chain.from_iterable(files):
        if row.user not in quarantined:
            rows.setdefault(row.feedback_id, row)
    judged_by: dict[str, set[str]] = {}
    for row in rows.values():
        if row.value is not None or row.over or row.has_correction:
            for sample_id in (row.sample_id, row.over) if row.over else (row.sample_id,):
                judged_by.setdefault(sample_id, set()).add(row.user)
    return JudgedAnswers(
        answers=answers,
        ratings=_ratings(rows.values()),
        judged_by=judged_by,
        num_preferences=sum(bool(row.over) for row in rows.values()),
        num_corrections=sum(row.has_correction for row in rows.values()),
        num_comments=sum(row.has_comment for row in rows.values()),
        raters=frozenset(row.user for row in rows.values()),
    )


def _ratings(rows: Iterable[_Judgement]) -> dict[str, dict[str, float]]:
    """Each user's latest rating under each name, and their mean; of two of one moment the later row counts."""
    latest: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for row in rows:
        if row.value is not None:
            names = latest.setdefault(row.sample_id, {}).setdefault(row.user, {})
            if row.name not in names or names[row.name][0] <= row.created_at:
                names[row.name] = row.created_at, row.value
    return {
        sample_id: {user: sum(value for _, value in names.values()) / len(names) for user, names in users.items()}
        for sample_id, users in latest.items()
    }
