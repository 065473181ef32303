"""How a run came out: its accuracy or reward, whether the task is solved, whether something was lost."""

from klimb.workbench.findings.evidence import Change, Curve, change_between, curve_of, is_rising, trend_of
from klimb.workbench.findings.thresholds import Thresholds
from klimb.workbench.report.record import RunRecord


def outcome_curve(record: RunRecord, limits: Thresholds) -> tuple[str, Curve | None]:
    """The training accuracy where the task says what is correct, else the mean reward: its name in words, and it."""
    accuracy = curve_of(record, "accuracy", limits)
    if accuracy is not None:
        return "Accuracy in training", accuracy
    return "Mean reward in training", curve_of(record, "reward_mean", limits)


def held_out_change(record: RunRecord) -> Change | None:
    """From the untrained policy to the newest evaluation; None if one of them is missing."""
    before, last = record.before, record.last
    return None if before is None or last is None else change_between(before, last)


def is_cloning(record: RunRecord) -> bool:
    """Whether the run imitates its data: advantages are 0 by design, and the divergence from the data teaches."""
    return record.setting("advantages.kind", "") == "zero"


def is_solved(record: RunRecord, limits: Thresholds) -> bool:
    """Whether nearly all answers are right at the end; without verdicts: rewards that rose until all were equal."""
    accuracy = curve_of(record, "accuracy", limits)
    if accuracy is not None:
        return accuracy.last.mean >= limits.solved
    return are_rewards_even(record, limits)


def are_rewards_even(record: RunRecord, limits: Thresholds) -> bool:
    """Whether rewards rose and then stopped differing: their spread is a small share of what it has been."""
    reward, spread = curve_of(record, "reward_mean", limits), curve_of(record, "reward_std", limits)
    if reward is None or spread is None or not is_rising(reward.values, limits):
        return False
    return spread.last.mean < limits.same_rewards * max(window.mean for window in spread.windows())


def has_lost_reward(record: RunRecord, limits: Thresholds) -> bool:
    """Whether held-out results fell by more than chance; without evaluations, those in training."""
    change = held_out_change(record)
    if change is not None:
        return change.high < 0
    _, curve = outcome_curve(record, limits)
    if curve is None:
        return False
    trend = trend_of(curve.values)
    return trend.tau < 0 and trend.p < limits.trend_p
