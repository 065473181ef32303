"""Does a trained policy do better on rows of the log that it never saw? What they can tell, and what they cannot."""

import math
from collections.abc import Sequence
from statistics import fmean

from klimb.findings.held_out_log import HeldOutComparison, HeldOutRow, Verdict
from klimb.findings.statistics import Interval, difference_of_groups, mean_interval

LIMITS = "How people would rate what the policy itself answers is not in a log."


def compare_held_out(rows: Sequence[HeldOutRow], *, unit: str) -> HeldOutComparison:
    """Return what the rows say.

        change of a row = (log π_after − log π_before)/tokens
        preference      = mean change of the better-rated − mean change of the worse-rated

    Better-rated is above the mean reward of the rows. With two sides the policy is better if the interval of the
    preference lies above 0: it tells the good from the bad better than before. With one side, or none, it can only be
    seen whether it fits such answers better than before.

    Args:
        rows: at least one.
        unit: the noun for a unit.

    Raises:
        ValueError: there are no rows, or a log-probability is not finite.
    """
    if not rows:
        raise ValueError("no held-out row could be scored, so there is nothing to compare")
    for row in rows:
        if not math.isfinite(row.change):
            raise ValueError(f"held-out sample {row.sample_id}: its log-probability is not finite")
    rated = [row for row in rows if row.reward is not None]
    good, bad = _sides(rated)
    likelihood = _likelihood(good or rows, unit)
    if not bad:
        verdict, sentence = _of_likelihood(likelihood, has_ratings=bool(rated))
        preference = None
    else:
        preference = difference_of_groups(
            [row.change for row in bad],
            _numbered(bad, rows),
            [row.change for row in good],
            _numbered(good, rows),
            unit=unit,
        ).interval
        verdict, sentence = _of_preference(preference, num_good=len(good), num_bad=len(bad))
    return HeldOutComparison(
        verdict=verdict,
        sentence=f"{sentence} {LIMITS}",
        likelihood=likelihood,
        preference=preference,
        num_rows=len(rows),
        num_rated=len(rated),
    )


def _sides(rated: Sequence[HeldOutRow]) -> tuple[list[HeldOutRow], list[HeldOutRow]]:
    """Return those above and those at or below the mean reward; neither where all rewards are the same."""
    rewards = [row.reward for row in rated if row.reward is not None]
    if not rewards or min(rewards) == max(rewards):
        return [], []
    middle = fmean(rewards)
    good = [row for row in rated if row.reward is not None and row.reward > middle]
    return good, [row for row in rated if row.reward is not None and row.reward <= middle]


def _likelihood(rows: Sequence[HeldOutRow], unit: str) -> Interval:
    return mean_interval([row.change for row in rows], _numbered(rows, rows), unit=unit)


def _numbered(rows: Sequence[HeldOutRow], among: Sequence[HeldOutRow]) -> list[int]:
    """Return the number of each row's unit."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(row.unit for row in among))}
    return [numbers[row.unit] for row in rows]


def _of_preference(found: Interval, *, num_good: int, num_bad: int) -> tuple[Verdict, str]:
    what = (
        f"{num_good:,} better-rated held-out answers against {num_bad:,} worse-rated ones: the first gained "
        f"{_written(found)} nats per token more"
    )
    if found.is_positive:
        return "better", f"Better than before: {what}."
    if found.is_negative:
        return "worse", f"Worse than before: {what}."
    if not found.is_known:
        return "unknown", f"Better or worse cannot be told: {what}, without an interval ({found.reason})."
    return "unknown", f"Better or worse cannot be told: {what}, and the interval holds 0."


def _of_likelihood(found: Interval, *, has_ratings: bool) -> tuple[Verdict, str]:
    why = "all held-out ratings are the same" if has_ratings else "no held-out answer is rated"
    what = f"a token of a held-out answer gained {_written(found)} nats"
    only = f"Since {why}, nothing says which answers are good."
    if found.is_positive:
        return "better", f"Closer to answers like yours than before: {what}. {only}"
    if found.is_negative:
        return "worse", f"Further from answers like yours than before: {what}. {only}"
    reason = f"without an interval ({found.reason})" if not found.is_known else "and the interval holds 0"
    return "unknown", f"Better or worse cannot be told: {what}, {reason}. {only}"


def _written(found: Interval) -> str:
    ends = f" [{found.low:+.3g}, {found.high:+.3g}]" if found.is_known else ""
    return f"{found.value:+.3g}{ends}"
