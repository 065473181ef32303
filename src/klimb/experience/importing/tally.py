"""What an import counts, and what it reports when it is over."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from klimb.experience.importing.guessing import Guess


@dataclass(kw_only=True)
class RewardRange:
    """The rewards that came, by their ends.

    Attributes:
        low: the smallest.
        high: the largest.
        are_whole: each is a whole number.
    """

    low: float = math.inf
    high: float = -math.inf
    are_whole: bool = True

    def add(self, reward: float) -> None:
        """Take in one reward."""
        self.low, self.high = min(self.low, reward), max(self.high, reward)
        self.are_whole = self.are_whole and reward == math.floor(reward)

    @property
    def look_like_points(self) -> bool:
        """Whole numbers from 0 that go beyond 1, as stars and points do."""
        return self.are_whole and self.low >= 0 and 1 < self.high < math.inf


@dataclass(kw_only=True)
class Tally:
    """Counts while an import goes on.

    Each row that was read ends in one of four counts, which is what `is_balanced` says at the end:

        num_rows = num_rows_in + num_rows_there + num_rows_refused + num_skipped

    Attributes:
        num_rows: records read, the rejected ones among them; a last line that is cut off is counted beside them.
        num_rows_in: rows that gave the store something: a sample, a rating, or a later rating.
        num_rows_there: rows all of which was there already, from the store or from earlier in the file.
        num_rows_refused: rows that are among the rejects. A row comes in whole or not at all.
        held_nothing: rows that hold no response or rating by design, by what they are.
        num_cut_off: a last line that is still being written.
        unread: rows by the columns that hold something in them and of which nothing was taken.
        num_samples: samples of the rows that came in or were there.
        num_rated: of these with a reward.
        rewards: between what they lie.
        num_added: samples that the store did not have.
        num_duplicates: samples that it had.
        num_written_otherwise: of these, whose row differs from the first in nothing that is read.
        num_conflicts: rows refused because the store has one of their ids with other content.
        num_user_ids: user ids that were replaced by a hash.
        num_prose_users: cells under the name of a user that are no ids but words; they were hashed and not read.
        num_redacted: rows in which personal data was replaced.
        num_ratings: ratings made.
        num_ratings_added: ratings that the store did not have.
        num_later_ratings: ratings of what was there already under the same id, with another rating; they came in.
        num_joined: answers of a program in front of `klimb serve`, by how the served ones were found; empty where the
            store has none.
        provenances: samples by the provenance of their log-probabilities.
        remarks: rows that came in by what was remarked of them, such as a date that could not be read.
        remark_examples: for each remark, place and detail of the first row.
        notes: samples by what was noted of their log-probabilities.
        assumed: samples by the sampler settings that nobody stated and that were taken as off.
        models_of_ids: samples whose token strings got ids of the user's model, by the model that their rows name.
    """

    num_rows: int = 0
    num_rows_in: int = 0
    num_rows_there: int = 0
    num_rows_refused: int = 0
    held_nothing: Counter[str] = field(default_factory=Counter[str])
    num_cut_off: int = 0
    unread: Counter[str] = field(default_factory=Counter[str])
    num_samples: int = 0
    num_rated: int = 0
    rewards: RewardRange = field(default_factory=RewardRange)
    num_added: int = 0
    num_duplicates: int = 0
    num_written_otherwise: int = 0
    num_conflicts: int = 0
    num_user_ids: int = 0
    num_prose_users: int = 0
    num_redacted: int = 0
    num_ratings: int = 0
    num_ratings_added: int = 0
    num_later_ratings: int = 0
    num_joined: Counter[str] = field(default_factory=Counter[str])
    provenances: Counter[str] = field(default_factory=Counter[str])
    remarks: Counter[str] = field(default_factory=Counter[str])
    remark_examples: dict[str, str] = field(default_factory=dict[str, str])
    notes: Counter[str] = field(default_factory=Counter[str])
    assumed: Counter[str] = field(default_factory=Counter[str])
    models_of_ids: Counter[str] = field(default_factory=Counter[str])

    def add_remarks(self, remarks: Mapping[str, str], place: str) -> None:
        """Count what was remarked of one row."""
        for remark, detail in remarks.items():
            self.remarks[remark] += 1
            self.remark_examples.setdefault(remark, f"{place}: {detail}")

    @property
    def num_skipped(self) -> int:
        """Rows that hold nothing by design."""
        return sum(self.held_nothing.values())

    @property
    def is_balanced(self) -> bool:
        """Whether each row is in one count, and in one alone."""
        others = self.num_rows_there + self.num_rows_refused + self.num_skipped
        return self.num_rows == self.num_rows_in + others


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        kind: of the rows.
        summary: what rows of this kind are, for people.
        why_kind: why, if it was guessed; empty if it was given.
        tally: the counts.
        rejected: rejects by reason, the most frequent first.
        examples: for each reason, place and detail of the first row.
        reject_file: where they are; None without any.
        num_waiting: ratings in the store whose sample has not come yet; None if no ratings were imported.
        passed_over: files of a folder that are not data.
        guess: which columns were guessed to be what.
        date_order: of dates of three numbers, as stated or as the whole column shows it; empty where none needed it.
    """

    kind: str
    summary: str
    why_kind: str
    tally: Tally
    rejected: Mapping[str, int]
    examples: Mapping[str, str]
    reject_file: Path | None
    num_waiting: int | None
    passed_over: Sequence[str] = ()
    guess: Guess = field(default_factory=Guess)
    date_order: str = ""

    @property
    def num_rejected(self) -> int:
        """Rejects of all reasons."""
        return sum(self.rejected.values())
