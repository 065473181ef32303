"""What held-out rows of a log say of a trained policy; reading it loads nothing that computes."""

from dataclasses import dataclass
from typing import Literal

from klimb.findings.statistics.interval import Interval

Verdict = Literal["better", "worse", "unknown"]


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """One held-out response under both policies.

    Attributes:
        sample_id: of the sample.
        unit: what was held out whole with it.
        reward: None where it is unrated.
        before: mean log-probability in nats per token before training.
        after: the same after it.
    """

    sample_id: str
    unit: str
    reward: float | None
    before: float
    after: float

    @property
    def change(self) -> float:
        """By how much the response became likelier, in nats per token."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class HeldOutComparison:
    """What the held-out rows say of the trained policy against the one before training.

    Attributes:
        verdict: `better`, `worse`, or `unknown`: it cannot be told.
        sentence: the verdict with its numbers, or why there is none.
        likelihood: how much likelier the responses became, in nats per token: those rated well, or all if none can be
            told from another.
        preference: how much more the better-rated gained than the worse-rated, in nats per token; None without two
            sides.
        num_rows: rows that could be scored.
        num_rated: of these with a reward.
    """

    verdict: Verdict
    sentence: str
    likelihood: Interval
    preference: Interval | None
    num_rows: int
    num_rated: int
