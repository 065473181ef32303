"""What came of an import."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
        """Takes in one reward."""
        self.low, self.high = min(self.low, reward), max(self.high, reward)
        self.are_whole = self.are_whole and reward == math.floor(reward)

    @property
    def look_like_points(self) -> bool:
        """Whole numbers from 0 that go beyond 1, as stars and points do."""
        return self.are_whole and self.low >= 0 and 1 < self.high < math.inf


@dataclass(kw_only=True)
class Tally:
    """Counts while an import goes on.

    Attributes:
        num_rows: records read, the rejected ones among them.
        num_skipped: rows that hold no response by design (spans of a trace, scores of another name).
        num_cut_off: a last line that is still being written.
        num_samples: samples made, those that were there already among them.
        num_rated: of these with a reward.
        rewards: between what they lie.
        num_added: samples that the store did not have.
        num_duplicates: samples that it had.
        num_conflicts: samples whose id it had with other content; they are among the rejects.
        num_user_ids: user ids that were replaced by a hash.
        num_ratings: ratings made.
        num_ratings_added: ratings that the store did not have.
        provenances: samples by the provenance of their log-probabilities.
        notes: samples by what was noted of their log-probabilities.
        assumed: samples by the sampler settings that nobody stated and that were taken as off.
        models_of_ids: samples whose token strings got ids of the user's model, by the model that their rows name.
    """

    num_rows: int = 0
    num_skipped: int = 0
    num_cut_off: int = 0
    num_samples: int = 0
    num_rated: int = 0
    rewards: RewardRange = field(default_factory=RewardRange)
    num_added: int = 0
    num_duplicates: int = 0
    num_conflicts: int = 0
    num_user_ids: int = 0
    num_ratings: int = 0
    num_ratings_added: int = 0
    provenances: Counter[str] = field(default_factory=Counter[str])
    notes: Counter[str] = field(default_factory=Counter[str])
    assumed: Counter[str] = field(default_factory=Counter[str])
    models_of_ids: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        kind: of the rows.
        why_kind: why, if it was guessed; empty if it was given.
        tally: the counts.
        rejected: rejects by reason, the most frequent first.
        examples: for each reason, place and detail of the first row.
        reject_file: where they are; None without any.
        num_waiting: ratings in the store whose sample has not come yet; None if no ratings were imported.
    """

    kind: str
    why_kind: str
    tally: Tally
    rejected: Mapping[str, int]
    examples: Mapping[str, str]
    reject_file: Path | None
    num_waiting: int | None

    @property
    def num_rejected(self) -> int:
        """Rejects of all reasons."""
        return sum(self.rejected.values())
