"""What is known of the feedback in a store, kept beside it: so that one more rating need not read them all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from klimb.experience.feedback import Feedback
from klimb.experience.store_feedback import read_feedback
from klimb.experience.store_files import Segment, SegmentFolder

Question = tuple[str, str, str, str]


def question_of(row: Feedback) -> Question:
    """Return whose word on what it is: of two rows with the same, the later counts."""
    return row.sample_id, row.user, row.name, row.over


@dataclass(frozen=True)
class Known:
    """Rows by their ids, and the latest of each question."""

    by_id: dict[str, Feedback]
    latest: dict[Question, Feedback]

    def add(self, row: Feedback) -> None:
        """Count a row that came after all others, unless its id is there."""
        if self.by_id.setdefault(row.feedback_id, row) is not row:
            return
        before = self.latest.get(question_of(row))
        if before is None or before.created_at <= row.created_at:
            self.latest[question_of(row)] = row


class FeedbackIndex:
    """The feedback of a store as it is now; only new files are read, and all of them after one changed or went.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._segments = SegmentFolder(folder)
        self._read: dict[Path, Segment] = {}
        self._known = Known({}, {})

    def look(self) -> Known:
        """Return what is known now. What is added to it is there until the files say otherwise."""
        there: Mapping[Path, Segment] = {segment.path: segment for segment in self._segments.look().feedback}
        if any(there.get(path) != segment for path, segment in self._read.items()):
            self._read, self._known = {}, Known({}, {})
        for path, segment in there.items():
            if path not in self._read:
                self._add_file(path)
                self._read[path] = segment
        return self._known

    def _add_file(self, path: Path) -> None:
        for row in read_feedback(path):
            self._known.add(row)
