"""What people say of answers: joined to them by their ids, never changed, confirmed once it is on the disk."""

import logging
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from klimb.experience.compaction import merge_small_segments, remove_merged
from klimb.experience.feedback import Feedback
from klimb.experience.importing.parsed_row import hash_of
from klimb.experience.importing.users import user_hash, user_salt
from klimb.experience.quarantine import read_quarantine
from klimb.experience.samples import Sample
from klimb.experience.store import Store
from klimb.web.serve.feedback_index import FeedbackIndex, Known, question_of
from klimb.web.serve.feedback_rows import GivenFeedback, read_given
from klimb.web.serve.group_commit import GroupCommit
from klimb.web.serve.openai_errors import RequestRefused

logger = logging.getLogger(__name__)


MAX_SCORE = 100.0


MERGE_AT = 64
"""Small segments at which they become one."""


GRACE_SECONDS = 60.0
"""How long small segments stay beside the one that they became, for those who are reading them."""


FUTURE_SLACK = 60.0
"""Seconds that the clock of a program may be ahead of ours."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of a row of feedback.

    Attributes:
        feedback: as it is in the store.
        status: `added`, or `known` where the same was there already.
    """

    feedback: Feedback
    status: Literal["added", "known"]


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A row whose answer was found; its id is still to be made, unless the program named one."""

    feedback: Feedback
    named: str
    is_dated: bool


class FeedbackIntake:
    """Takes feedback into a store.

    Args:
        store: where the answers are, and the feedback goes.
        find: a sample of the store by its id, where somebody knows it faster than the store (`Recorder.find`).
        max_score: a score of larger magnitude is refused.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        *,
        find: Callable[[str], Sample | None] | None = None,
        max_score: float = MAX_SCORE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._max_score, self._now = store, max_score, now
        self._find_sample = find or self._find_in_store
        self._lock = threading.RLock()
        self._index = FeedbackIndex(store.folder)
        self._num_small = MERGE_AT
        self._commit: GroupCommit[Sequence[_Ready], list[Taken]] = GroupCommit(self._write)

    def take(self, rows: Sequence[object]) -> list[Taken]:
        """Return what came of the rows, once they are on the disk: all of them, or none.

        Raises:
            RequestRefused: one of them cannot be taken; it is named.
        """
        return self.submit(rows).result()

    def submit(self, rows: Sequence[object]) -> "Future[list[Taken]]":
        """Return at once what `take` returns later; what is wrong with the rows themselves is raised here."""
        ready: list[_Ready] = []
        for number, row in enumerate(rows):
            try:
                ready.append(self._prepare(read_given(row, max_score=self._max_score)))
            except RequestRefused as refused:
                raise _of_row(refused, number, len(rows)) from None
        return self._commit.add(ready)

    def history(self, completion_id: str) -> list[Feedback]:
        """Return all that was ever said of a completion, in the order of its choices and of time.

        Raises:
            RequestRefused: there is no such completion.
        """
        samples = self._samples_of(completion_id)
        if not samples:
            raise _unknown(completion_id, "completion_id")
        with self._lock:
            return self._store.feedback_of([sample.sample_id for sample in samples])

    def quarantined(self) -> Collection[str]:
        """Return the hashes of raters whose word does not count."""
        return read_quarantine(self._store.folder)

    def hash_rater(self, rater: str) -> str:
        """Return how a rater is called in the store; empty for nobody."""
        return user_hash(rater, self._salt) if rater else ""

    def close(self) -> None:
        """Return once all that was given is on the disk."""
        self._commit.close()

    @cached_property
    def _salt(self) -> bytes:
        with self._lock:
            return user_salt(self._store.folder)

    def _prepare(self, given: GivenFeedback) -> _Ready:
        sample = self._resolve(given.completion_id, given.choice_index, "completion_id", "choice_index")
        over = ""
        if given.over:
            other = self._resolve(given.over, given.over_choice_index, "over", "over_choice_index")
            _check_comparable(sample, other)
            over = other.sample_id
        now = self._now()
        if given.created_at is not None and given.created_at > now + FUTURE_SLACK:
            raise RequestRefused("created_at is in the future", code="invalid_feedback", param="created_at")
        feedback = Feedback(
            feedback_id=given.feedback_id or "to be made",
            sample_id=sample.sample_id,
            value=given.value,
            name=given.name,
            comment=given.comment,
            user=self.hash_rater(given.rater),
            created_at=now if given.created_at is None else given.created_at,
            raw=given.raw,
            over=over,
            correction=given.correction,
        )
        return _Ready(feedback=feedback, named=given.feedback_id, is_dated=given.created_at is not None)

    def _resolve(self, completion_id: str, index: int | None, id_name: str, index_name: str) -> Sample:
        """Return the one sample that a completion's id and a choice name."""
        if index is not None:
            found = self._find_sample(f"{completion_id}-{index}")
            found = self._find_sample(completion_id) if found is None and index == 0 else found
            if found is None:
                raise _unknown(f"{completion_id} choice {index}", index_name)
            return found
        samples = self._samples_of(completion_id)
        if not samples:
            raise _unknown(completion_id, id_name)
        if len(samples) > 1:
            raise RequestRefused(
                f"completion {completion_id} has several choices: say which with {index_name}",
                code="choice_needed",
                param=index_name,
            )
        return samples[0]

    def _samples_of(self, completion_id: str) -> list[Sample]:
        whole = self._find_sample(completion_id)
        if whole is not None:
            return [whole]
        found: list[Sample] = []
        while (choice := self._find_sample(f"{completion_id}-{len(found)}")) is not None:
            found.append(choice)
        return found

    def _find_in_store(self, sample_id: str) -> Sample | None:
        with self._lock:
            return next(iter(self._store.stored_samples([sample_id])), None)

    def _write(self, groups: Sequence[Sequence[_Ready]]) -> list[list[Taken] | Exception]:
        """Write the rows of several requests as one file; one that contradicts what is there is left out whole."""
        with self._lock:
            known = self._index.look()
            answers: list[list[Taken] | Exception] = []
            for group in groups:
                try:
                    answers.append(_assign_ids(group, known))
                except RequestRefused as refused:
                    answers.append(refused)
            self._append([taken for answer in answers if not isinstance(answer, Exception) for taken in answer])
        return answers

    def _append(self, rows: Sequence[Taken]) -> None:
        added = [taken.feedback for taken in rows if taken.status == "added"]
        if not added:
            return
        try:
            self._store.append_feedback(added, known=())
        except BaseException:
            # What is not on the disk is not known either.
            self._index = FeedbackIndex(self._store.folder)
            raise
        self._num_small += 1
        if self._num_small >= MERGE_AT:
            self._merge()

    def _merge(self) -> None:
        """Make one segment of the small ones. Those that were replaced the last time, which nobody reads now, go."""
        self._num_small = 0
        try:
            remove_merged(self._store.folder, kind="feedback", grace_seconds=GRACE_SECONDS)
            merge_small_segments(self._store.folder, at_least=MERGE_AT // 2, kind="feedback")
        except (OSError, ValueError) as error:
            logger.warning("%s: its small segments of feedback stay as they are: %s", self._store.folder, error)


def _assign_ids(group: Sequence[_Ready], known: Known) -> list[Taken]:
    """Return each row with its id, and whether it was known; what is added is known from now on, or nothing is.

    A row without a time of its own that says what its rater said last is the same row, sent again. Else its id is made
    of what it says and of the row before, so that up, down, up are three rows.

    Raises:
        RequestRefused: an id that is there with other content.
    """
    by_id, latest = ChainMap({}, known.by_id), ChainMap({}, known.latest)
    taken: list[Taken] = []
    for number, ready in enumerate(group):
        row, question = ready.feedback, question_of(ready.feedback)
        before = latest.get(question)
        if not ready.named and not ready.is_dated and before is not None and _said(before) == _said(row):
            taken.append(Taken(feedback=before, status="known"))
            continue
        when = repr(row.created_at) if ready.is_dated else f"after {before.feedback_id if before else 'nothing'}"
        row = replace(row, feedback_id=ready.named or hash_of("feedback", *question, *_said(row), when))
        there = by_id.get(row.feedback_id)
        if there is not None:
            if (question_of(there), _said(there)) != (question, _said(row)):
                raise _of_row(_contradicts(row), number, len(group))
            taken.append(Taken(feedback=there, status="known"))
            continue
        by_id[row.feedback_id] = row
        if before is None or before.created_at <= row.created_at:
            latest[question] = row
        taken.append(Taken(feedback=row, status="added"))
    known.by_id.update(by_id.maps[0])
    known.latest.update(latest.maps[0])
    return taken


def _said(row: Feedback) -> tuple[str, str, str]:
    return repr(row.value), row.comment, row.correction


def _check_comparable(sample: Sample, other: Sample) -> None:
    are_two = sample.sample_id != other.sample_id
    if are_two and (sample.group_id == other.group_id or sample.prompt == other.prompt):
        return
    raise RequestRefused(
        f"{sample.sample_id} and {other.sample_id} are no two answers to one prompt: a preference is between such",
        code="not_comparable",
        param="over",
    )


def _unknown(what: str, param: str) -> RequestRefused:
    return RequestRefused(f"no completion {what[:100]!r} here", status=404, code="completion_not_found", param=param)


def _contradicts(row: Feedback) -> RequestRefused:
    return RequestRefused(
        f"feedback {row.feedback_id[:100]!r} is here already and says something else: give it an id of its own",
        status=409,
        code="feedback_exists",
        param="feedback_id",
    )


def _of_row(refused: RequestRefused, number: int, num_rows: int) -> RequestRefused:
    """Return the refusal with the row's place, where there are several; nothing of them is taken."""
    if num_rows == 1:
        return refused
    return RequestRefused(
        f"row {number}: {refused}; none of the {num_rows} rows was taken",
        status=refused.status,
        kind=refused.kind,
        code=refused.code,
        param=f"[{number}].{refused.param}" if refused.param else f"[{number}]",
    )
