"""Every number that a finding compares with, in one place, each with its unit and where it comes from."""

from dataclasses import dataclass

from klimb.findings.guard.thresholds import THRESHOLDS as GUARD
from klimb.findings.thresholds import OWN, check_values, limit


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Settings of the rules. docs/findings.md lists them, and says which rule reads which.

    Windows: the first and the last `window_share` of the steps, but no fewer than `min_window_steps`.
    """

    window_share: float = limit(0.2, "fraction of the steps", OWN)
    min_window_steps: float = limit(2, "steps", OWN)
    min_steps: float = limit(6, "steps", OWN + "; with fewer, the ends of a run are not told apart")
    trend_p: float = limit(0.05, "probability", "the usual level of a two-sided test (Kendall's τ)")

    alarm_p: float = limit(
        0.02,
        "probability, two-sided, of an alarm that shares a report with others",
        OWN + "; with the 2.5 % of `forgetting`, the false alarms of a report stay below 5 %",
    )
    no_trend_p: float = limit(0.2, "probability", OWN + "; below it a rise is too likely to say that there is none")
    steps_to_learn: float = limit(10, "steps", OWN + "; with fewer, nobody is told that nothing was learned")

    max_skipped: float = limit(0.1, "fraction of optimizer steps", OWN)
    max_scoring_errors: float = limit(0.05, "fraction of responses", "above it 'a smell' (prime-rl's documentation)")
    mismatch_k3: float = limit(1e-3, "nats/token", "NeMo-RL's documentation")
    mismatch_k3_bad: float = limit(0.015, "nats/token", "prime-rl's documentation accepts up to it")
    mismatch_mean_abs: float = limit(0.05, "nats/token", OWN + "; see `mismatch_mean_abs` in metrics.md")
    ess_token: float = limit(0.3, "fraction", "verl's documentation")
    max_clipped: float = limit(0.2, "fraction of units", OWN + "; 0.18 to 0.26 in the poor runs of studies.md")
    max_clipped_at_start: float = limit(0.01, "fraction of units", OWN + "; 0 where the policy itself drew the batch")
    kl: float = limit(0.1, "nats/token", "verl's documentation warns above it")
    kl_bad: float = limit(1.0, "nats/token", OWN)
    kl_share: float = limit(0.25, "fraction of the steps beyond the limit", OWN)
    kl_to_start: float = limit(1.0, "nats/token", OWN + "; short answers may move far from a fixed reference")
    entropy_left: float = limit(0.2, "of the entropy at the start", OWN)
    entropy_low: float = limit(0.1, "nats/token", OWN)
    entropy_rise: float = limit(2.0, "times the entropy at the start", OWN)
    inert_weight: float = limit(1e-3, "largest distance of w from 1", OWN + "; rounding, see `kl_mu_pi` in metrics.md")

    no_signal: float = limit(0.5, "fraction of groups or responses", OWN + "; see `groups_dropped_fraction`")
    no_signal_bad: float = limit(0.8, "fraction of groups or responses", OWN)
    solved: float = limit(0.9, "accuracy", "ScaleRL, arXiv 2510.13786, drops prompts above it")
    same_rewards: float = limit(0.1, "of the largest spread of rewards in the run", OWN)
    length_growth: float = limit(1.25, "times the length at the start", OWN)
    length_correlation: float = limit(0.7, "correlation over steps", OWN)
    length_explains: float = limit(0.8, "fraction of the gain in reward", OWN)
    max_truncated: float = limit(0.5, "fraction of responses", OWN)

    unread_calls: float = limit(0.9, "fraction of calls", OWN + "; the format is then not the model's")
    unused_tools: float = limit(0.95, "fraction of conversations", OWN)
    dialogue_reward: float = limit(0.5, "correlation of ranks", "'large' by Cohen 1988, section 3.2")
    dialogue_correct: float = limit(0.1, "correlation of ranks", "'small' by Cohen 1988, section 3.2")
    max_turn_limit: float = limit(0.5, "fraction of conversations", OWN + "; as `max_truncated`")
    max_environment_errors: float = limit(0.05, "fraction of responses", "as `max_scoring_errors`")

    progress: float = limit(0.05, "accuracy", OWN)
    max_drop: float = limit(0.05, "accuracy, or of the range of rewards", OWN)
    perplexity_ratio: float = limit(
        GUARD.max_perplexity_ratio, "times the perplexity before", "the default limit of [guard]"
    )
    perplexity_ratio_bad: float = limit(2.0, "times the perplexity before", OWN)
    general_drop: float = limit(GUARD.max_general_drop, "accuracy", "the default limit of [guard]")
    rate_change: float = limit(0.1, "fraction of responses", OWN)
    hoped_gain: float = limit(0.1, "accuracy, half width of an interval", "the audit's, see audit.md")
    memory_gap: float = limit(0.2, "accuracy", OWN)
    few_problems: float = limit(16, "problems", "the audit's `min_effective_prompts`, see audit.md")
    many_passes: float = limit(5, "passes", OWN)

    def __post_init__(self) -> None:
        check_values(self)
        if not 0 < self.window_share <= 0.5 or self.min_window_steps < 1:
            raise ValueError(
                "window_share must be in (0, 0.5] and min_window_steps >= 1, got "
                f"{self.window_share} and {self.min_window_steps}"
            )


THRESHOLDS = Thresholds()
"""The defaults."""
