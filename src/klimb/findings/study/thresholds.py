"""Every number that decides a comparison of a study, in one place, each with its unit and where it comes from."""

from dataclasses import dataclass

from klimb.findings.statistics.interval import ALPHA
from klimb.findings.statistics.pairing import MOST_SEEDS, POWER, SURE
from klimb.findings.thresholds import OWN, check_values, limit


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a study says that two methods differ, and when it says how many more seeds would tell. docs/studies.md."""

    alpha: float = limit(
        ALPHA, "probability, two-sided, of all comparisons of a table at all looks", "the usual level of a test"
    )
    power: float = limit(
        POWER, "probability to find the difference, which the seeds that are said to tell must reach", "Cohen 1988"
    )
    sure: float = limit(
        SURE, "how sure it is that the difference is at least as large as the one for which seeds are said", OWN
    )
    most_seeds: int = limit(MOST_SEEDS, "more seeds, beyond which no number is promised", OWN)

    def __post_init__(self) -> None:
        check_values(self)


THRESHOLDS = Thresholds()
"""The defaults."""
