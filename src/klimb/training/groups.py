"""Which responses of a group are trained on, and what all that were drawn look like on average."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from klimb.experience import Sample

USED = "yes"


def judged(
    group: Sequence[Sample],
    *,
    compare: bool,
    drop_even: bool,
    needs_reward: bool = True,
    min_reward: float | None = None,
) -> list[Sample]:
    """The group with `metadata["used"]`: `yes`, or why the response is not trained on.

    Args:
        group: scored responses to one prompt.
        compare: the baseline compares them, so that at least two need a reward.
        drop_even: leave out a group from which nothing can be learnt.
        needs_reward: leave out a response without a reward.
        min_reward: leave out a response whose reward is below it.
    """
    scored = [sample for sample in group if sample.reward is not None]
    verdict = USED
    if compare and len(scored) < 2:
        verdict = "no: fewer than 2 responses of its group have a reward"
    elif drop_even and is_even(scored):
        verdict = "no: its group is even"

    def of_one(sample: Sample) -> str:
        if sample.reward is None:
            return "no: it has no reward" if needs_reward else verdict
        return verdict if min_reward is None or sample.reward >= min_reward else "no: its reward is below min_reward"

    return [_marked(sample, of_one(sample)) for sample in group]


def is_even(scored: Sequence[Sample]) -> bool:
    """True if all rewards are equal, or all responses are right, or all are wrong.

    Source: dynamic sampling of DAPO, arXiv 2503.14476 section 3.2.
    """
    rewards = {sample.reward for sample in scored}
    verdicts = {sample.metadata.get("correct") for sample in scored}
    return len(rewards) <= 1 or verdicts in ({"yes"}, {"no"})


def is_used(group: Iterable[Sample]) -> bool:
    """Whether any response of the group is trained on."""
    return any(sample.metadata["used"] == USED for sample in group)


def collection_metrics(groups: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """Means over all responses drawn, those that are not trained on included."""
    samples = [sample for group in groups for sample in group]
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    lengths = [len(sample.response_ids) for sample in samples]
    num_used = sum(is_used(group) for group in groups)
    metrics = {
        "num_samples": float(len(samples)),
        "num_errors": float(len(samples) - len(rewards)),
        "num_groups": float(len(groups)),
        "num_groups_used": float(num_used),
        "groups_dropped_fraction": 1 - num_used / len(groups),
        "num_tokens_sampled": float(sum(lengths)),
        "length_mean": statistics.fmean(lengths),
        "length_max": float(max(lengths)),
        "truncated_fraction": statistics.fmean(sample.finish_reason == "length" for sample in samples),
    }
    if rewards:
        metrics |= {"reward_mean": statistics.fmean(rewards), "reward_std": statistics.pstdev(rewards)}
    verdicts = [sample.metadata["correct"] == "yes" for sample in samples if "correct" in sample.metadata]
    if verdicts:
        metrics["accuracy"] = statistics.fmean(verdicts)
    return metrics | _part_means(samples)


def _part_means(samples: Iterable[Sample]) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.reward_parts.items() if sample.reward is not None else ():
            parts.setdefault(name, []).append(value)
    return {f"reward_part_{name}": statistics.fmean(values) for name, values in parts.items()}


def _marked(sample: Sample, verdict: str) -> Sample:
    return replace(sample, metadata={**sample.metadata, "used": verdict})
