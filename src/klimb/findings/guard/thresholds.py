"""The limits that a guard sets by default, and how often it may be wrong, each with its unit and source."""

from dataclasses import dataclass

from klimb.findings.thresholds import OWN, check_values, limit


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Defaults of the limits in `[guard]`, by the name of their key, and its false alarms. docs/guard.md."""

    max_perplexity_ratio: float = limit(1.2, "times the perplexity before training", OWN)
    max_general_drop: float = limit(0.1, "below the mean score before training", OWN)
    max_empty_fraction: float = limit(0.2, "of the responses", OWN)
    max_refusal_fraction: float = limit(0.2, "of the responses", OWN)
    max_repetition_fraction: float = limit(0.3, "of the responses", OWN)
    false_alarm_rate: float = limit(
        0.05, "of the runs in which nothing changed, over all checks and limits", "the usual level of a test"
    )

    def __post_init__(self) -> None:
        check_values(self)


THRESHOLDS = Thresholds()
"""The defaults."""
