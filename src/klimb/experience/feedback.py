"""A person's rating of a sample."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One rating of one sample, possibly given long after the sample was stored, or before it arrives.

    Attributes:
        feedback_id: unique within a store.
        sample_id: the sample it speaks of; it may not be there yet.
        value: the reward it stands for; None for a comment without a rating, which never counts as one.
        name: what was asked, e.g. `rating`.
        comment: the person's words.
        user: who rated, hashed; all ratings with an empty one count as one person's.
        created_at: seconds since the epoch; of two ratings by one user the later counts.
        raw: the row that an importer made this from, as JSON.
    """

    feedback_id: str
    sample_id: str
    value: float | None
    name: str = "rating"
    comment: str = ""
    user: str = ""
    created_at: float = 0.0
    raw: str = ""

    def __post_init__(self) -> None:
        if not self.feedback_id or not self.sample_id:
            raise ValueError(
                f"feedback {self.feedback_id!r} of sample {self.sample_id!r}: both ids must be given; "
                "where a source has no id for a rating, make one of its content"
            )
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                f"feedback {self.feedback_id}: value is {self.value}; give a finite number, or None for no rating"
            )
        if not math.isfinite(self.created_at):
            raise ValueError(f"feedback {self.feedback_id}: created_at is {self.created_at}; give seconds, or 0")
