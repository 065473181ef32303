"""What a person said of a sample: a rating, a comment, a preference, a better answer."""

import math
from dataclasses import dataclass

MACHINE_NAMES = ("model:", "judge:")
"""What the name of a rating begins with that no person gave: a reward model's, or a judge's. Such ratings stand beside
people's and never count as theirs: a sample's reward is not changed by them."""


def is_by_machine(name: str) -> bool:
    """Return whether ratings of this name are a reward model's or a judge's, and no person's."""
    return name.startswith(MACHINE_NAMES)


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What one person said of one sample, possibly long after the sample was stored, or before it arrives.

    Attributes:
        feedback_id: unique within a store.
        sample_id: the sample it speaks of; it may not be there yet.
        value: the reward it stands for; None for what is no rating (a comment, a preference, a correction alone), which
            never counts as one.
        name: what was asked, e.g. `rating`. One that begins with `model:` or `judge:` is no person's rating.
        comment: the person's words.
        user: who rated, hashed; all ratings with an empty one count as one person's.
        created_at: seconds since the epoch; of two ratings by one user the later counts.
        raw: the row that an importer made this from, as JSON.
        over: the sample to which this one was preferred; empty where it is no preference.
        correction: the answer that the person would have wanted; empty for none.

    Raises:
        ValueError: an id is missing, a number is not finite, or a sample is preferred to itself.
    """

    feedback_id: str
    sample_id: str
    value: float | None
    name: str = "rating"
    comment: str = ""
    user: str = ""
    created_at: float = 0.0
    raw: str = ""
    over: str = ""
    correction: str = ""

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
        if self.over == self.sample_id:
            raise ValueError(f"feedback {self.feedback_id}: sample {self.sample_id} is preferred to itself; name two")
