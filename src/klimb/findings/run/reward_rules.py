"""Rules about the reward: too hard, too easy, gamed by length, cut off, not computable."""

from klimb.findings.finding import Finding
from klimb.findings.run.evidence import (
    Curve,
    are_rewards_even,
    at,
    correlation,
    counts_of,
    curve_of,
    in_words,
    is_cloning,
    is_rising,
    is_solved,
    length_effect,
    may_be_rising,
    outcome_curve,
    runs_of_steps,
)
from klimb.findings.run.record import RunRecord
from klimb.findings.run.thresholds import Thresholds


def scoring_errors(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Responses have no reward because scoring failed; those whose environment died have a finding of their own."""
    dead, drawn = counts_of(record, "num_environment_errors"), sum(counts_of(record, "num_samples").values())
    counts = {step: max(0.0, count - dead.get(step, 0.0)) for step, count in counts_of(record, "num_errors").items()}
    errors = sum(counts.values())
    if not drawn or errors / drawn <= limits.max_scoring_errors:
        return None
    where = [step for step, count in counts.items() if count]
    return Finding(
        status="warning",
        title="Many answers could not be scored",
        evidence=(
            f"{errors:.0f} of {drawn:.0f} ({errors / drawn:.1%}, limit {limits.max_scoring_errors:.0%}), at "
            f"{runs_of_steps(where)}. They are in no average."
        ),
        advice="Read reward_reason in rollouts/; a slow reward needs a larger scoring.timeout_seconds.",
        steps=(where[0], where[-1]),
    )


def length_hacking(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the reward grows, and nothing but the length of the answers grows with it."""
    reward, length = curve_of(record, "reward_mean", limits), curve_of(record, "length_mean", limits)
    if reward is None or length is None or not is_rising(reward.values, limits):
        return None
    if length.last.mean < limits.length_growth * length.first.mean:
        return None
    together = correlation(*_paired(reward, length))
    if together < limits.length_correlation:
        return None
    cause = _nothing_else_grew(record, limits)
    if not cause:
        return None
    return Finding(
        status="bad",
        title="The reward grows only with the length of the answers",
        evidence=(
            f"Reward {reward.first.mean:.3g} → {reward.last.mean:.3g} while answers grew from "
            f"{length.first.mean:.1f} to {length.last.mean:.1f} tokens ({at(reward.first)} and {at(reward.last)}; "
            f"correlation {together:.2f}). {cause}"
        ),
        advice=(
            "Take length out of the reward, or punish it near the limit ([scoring.overlong]); with several parts of a "
            'reward, look at reward_part_*. If the loss favours length, use objective.reduce = "token-mean".'
        ),
        steps=length.span,
    )


def _nothing_else_grew(record: RunRecord, limits: Thresholds) -> str:
    """Why length is all there is to the gain; empty if it is not, or if that cannot be told."""
    accuracy = curve_of(record, "accuracy", limits)
    if accuracy is not None:
        gain = accuracy.last.mean - accuracy.first.mean
        if gain >= limits.progress:
            return ""
        return f"Accuracy did not rise with it: {accuracy.first.mean:.1%} → {accuracy.last.mean:.1%}."
    if record.before is None or record.last is None:
        return ""
    effect = length_effect(record.before, record.last)
    if effect is None or effect.correlation < limits.length_correlation or effect.share < limits.length_explains:
        return ""
    return (
        f"Before training an answer's length alone told its value (correlation {effect.correlation:.2f}), and answers "
        f"of the new length would then have brought {effect.share:.0%} of the gain."
    )


def zero_variance_waste(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Most groups have equal rewards: nothing to compare, nothing to learn; cloning compares nothing."""
    if is_cloning(record):
        return None
    is_filtered = bool(record.setting("advantages.group_filter", False))
    name = "groups_dropped_fraction" if is_filtered else "zero_advantage_fraction"
    share = curve_of(record, name, limits)
    if share is None or share.mean <= limits.no_signal:
        return None
    accuracy = curve_of(record, "accuracy", limits)
    kind, advice = _cause_of_even_groups(accuracy)
    what = "groups were dropped after they had been paid for" if is_filtered else "responses had the advantage 0"
    return Finding(
        status="bad" if share.mean > limits.no_signal_bad else "warning",
        title=f"Most of what was drawn taught nothing: {kind}",
        evidence=(
            f"On average {share.mean:.0%} of the {what} (limit {limits.no_signal:.0%}), steps {in_words(share.span)}."
            + ("" if accuracy is None else f" Mean accuracy {accuracy.mean:.1%}.")
        ),
        advice=advice,
        steps=share.span,
    )


def _cause_of_even_groups(accuracy: Curve | None) -> tuple[str, str]:
    if accuracy is None:
        return (
            "groups have equal rewards",
            "A finer reward, more sampling.num_samples, or problems of other difficulty.",
        )
    if accuracy.mean < 0.5:
        return "nearly all answers are wrong", (
            "Easier problems first, more sampling.num_samples, a reward with partial credit, or some cloned answers "
            "([cloning])."
        )
    return (
        "nearly all answers are right",
        "Harder problems; advantages.group_filter = true spends the time on the others.",
    )


def reward_saturation(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the reward has reached its ceiling."""
    accuracy = curve_of(record, "accuracy", limits)
    if accuracy is None:
        return _even_rewards(record, limits)
    if accuracy.last.mean < limits.solved:
        return None
    first, last = accuracy.first, accuracy.last
    from_start = first.mean >= limits.solved
    since = next(window for window in accuracy.windows() if window.mean >= limits.solved)
    return Finding(
        status="warning" if from_start else "note",
        title="The reward was at its ceiling from the start" if from_start else "Nearly all answers are right by now",
        evidence=(
            f"Accuracy in training {first.mean:.1%} ({at(first)}) → {last.mean:.1%} ({at(last)}); limit "
            f"{limits.solved:.0%}, first reached at {at(since)}."
        ),
        advice=(
            "Check that the reward is strict enough, then take harder problems: there was little to learn."
            if from_start
            else "More steps bring little: stop here, or go on with harder problems."
        ),
        steps=(since.steps[0], last.steps[1]),
    )


def _even_rewards(record: RunRecord, limits: Thresholds) -> Finding | None:
    spread, reward = curve_of(record, "reward_std", limits), curve_of(record, "reward_mean", limits)
    if spread is None or reward is None or not are_rewards_even(record, limits):
        return None
    return Finding(
        status="note",
        title="The rewards hardly differ any more",
        evidence=(
            f"Their standard deviation fell to {spread.last.mean:.2g} ({at(spread.last)}) from up to "
            f"{max(spread.values):.2g}, at a mean reward of {reward.last.mean:.3g}."
        ),
        advice="More steps bring little: stop here, make the reward finer, or take harder problems.",
        steps=spread.last.steps,
    )


def truncated_answers(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Most answers are cut off before their end."""
    cut = curve_of(record, "truncated_fraction", limits)
    if cut is None or cut.last.mean <= limits.max_truncated:
        return None
    longest = record.setting("sampling.max_new_tokens", "not known")
    _, outcome = outcome_curve(record, limits)
    hurts = outcome is not None and not may_be_rising(outcome.values, limits) and not is_solved(record, limits)
    return Finding(
        status="warning" if hurts else "note",
        title="Most answers are cut off",
        evidence=(
            f"{cut.last.mean:.0%} of the answers ({at(cut.last)}; {cut.first.mean:.0%} at the start, limit "
            f"{limits.max_truncated:.0%}) reach sampling.max_new_tokens = {longest}"
            + (f"; {_cut_counts_as(record)}." if hurts else ", and the reward does without their ends.")
        ),
        advice="Raise sampling.max_new_tokens, or ask for short answers in the prompt.",
        steps=cut.last.steps,
    )


def _cut_counts_as(record: RunRecord) -> str:
    """Say what an answer that was cut off counts as in this run."""
    if record.setting("scoring.truncated", "wrong") == "as-written":
        return "what is there of them is scored as if it were whole (scoring.truncated)"
    return "they count as wrong wherever the reward says right or wrong (scoring.truncated)"


def _paired(first: Curve, second: Curve) -> tuple[list[float], list[float]]:
    """Return the values of both at the steps that have both."""
    other = dict(zip(second.steps, second.values, strict=True))
    both = [(value, other[step]) for step, value in zip(first.steps, first.values, strict=True) if step in other]
    return [value for value, _ in both], [value for _, value in both]
