"""Which of the responses to a prompt are compared, and which are trained on: groups that teach nothing are left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from klimb.experience import NEEDS_BATCH, NEEDS_GROUPS, Sample
from klimb.experience.advantages import are_equal
from klimb.experience.turn_rewards import one_of_each
from klimb.training.settings import AdvantageSettings
from klimb.training.several_rewards import NO_REWARDS, Rewards, has_equal_parts, is_scaled

REWARDLESS = ("zero", "ones")
"""Advantages that do not read the reward."""


@dataclass(frozen=True)
class FilteredGroup:
    """Responses to one prompt, and which of them are compared and trained on.

    Attributes:
        samples: all of them. `metadata["used"]` tells who reads the stored rollouts what became of each: `yes`, or why
            it is not trained on. Training itself never reads it.
        compared: those that a baseline is formed over, in their order.
        used: those of them that are trained on; `min_reward` leaves the others out after the baseline was formed.
    """

    samples: tuple[Sample, ...]
    compared: tuple[Sample, ...]
    used: tuple[Sample, ...]


ALONE_IN_GROUP = "fewer than 2 responses of its group have a reward"
"""Why a response with a reward is not trained on: its group's baseline would be that reward."""


ALONE_IN_BATCH = "no other response of its batch has a reward"
"""The same of a baseline over the batch."""


def filter_group(group: Sequence[Sample], settings: AdvantageSettings, rewards: Rewards = NO_REWARDS) -> FilteredGroup:
    """Decide which of the scored responses to one prompt are compared, and which of those are trained on."""
    # One response alone, as people rate them, is even with nothing: a baseline over the batch can teach by it.
    is_alone_rated = len(one_of_each([sample for sample in group if sample.reward is not None])) == 1
    refusals = _find_refusals(
        group,
        compare=settings.kind in NEEDS_GROUPS,
        is_even=settings.group_filter and not is_alone_rated and has_zero_variance(group, rewards),
        needs_reward=settings.kind not in REWARDLESS or settings.min_reward is not None,
    )
    below = ["" if is_trained_on(sample, settings) else "its reward is below min_reward" for sample in group]
    samples = tuple(
        replace(sample, metadata={**sample.metadata, "used": f"no: {why}" if why else "yes"})
        for sample, why in zip(group, (first or then for first, then in zip(refusals, below, strict=True)), strict=True)
    )
    compared = tuple(sample for sample, refusal in zip(samples, refusals, strict=True) if not refusal)
    return FilteredGroup(samples, compared, tuple(sample for sample in compared if is_trained_on(sample, settings)))


def is_trained_on(sample: Sample, settings: AdvantageSettings) -> bool:
    """Return whether a response that was compared is trained on: whether `min_reward` leaves it."""
    least = settings.min_reward
    return least is None or sample.reward is None or sample.reward >= least


def _find_refusals(group: Sequence[Sample], *, compare: bool, is_even: bool, needs_reward: bool) -> list[str]:
    """Say for each response why no baseline is formed over it; the empty text if one is.

    Args:
        group: scored responses to one prompt.
        compare: the baseline compares them, so that at least two need a reward.
        is_even: leave out the group, from which nothing can be learnt.
        needs_reward: leave out a response without a reward.
    """
    scored = [sample for sample in one_of_each(group) if sample.reward is not None]
    of_group = ""
    if compare and len(scored) < 2:
        of_group = ALONE_IN_GROUP
    elif is_even:
        of_group = "its group is even"

    def refusal_of(sample: Sample) -> str:
        if not (sample.num_drawn or sample.response):
            return "nothing of it was drawn"
        return "it has no reward" if sample.reward is None and needs_reward else of_group

    return [refusal_of(sample) for sample in group]


def is_alone(compared: Sequence[Sample], settings: AdvantageSettings) -> bool:
    """Return whether a baseline over these would be the reward of the only one: there is nothing to compare."""
    return settings.kind in NEEDS_BATCH and len(one_of_each(compared)) == 1


def leave_out_the_lonely(groups: Sequence[FilteredGroup], settings: AdvantageSettings) -> list[FilteredGroup]:
    """Return the groups of a batch, without its only response where the baseline is over the batch."""
    if not is_alone([sample for group in groups for sample in group.compared], settings):
        return list(groups)
    return [
        FilteredGroup(
            samples=tuple(
                replace(sample, metadata={**sample.metadata, "used": f"no: {ALONE_IN_BATCH}"})
                if sample in group.compared
                else sample
                for sample in group.samples
            ),
            compared=(),
            used=(),
        )
        for group in groups
    ]


def has_zero_variance(group: Sequence[Sample], rewards: Rewards = NO_REWARDS) -> bool:
    """Return True if all rewards are equal, or all responses are right, or all are wrong.

    Of several rewards (`[rewards]`) being right is one: there the sum decides alone, and where one of them is scaled
    only equal parts are even, since two sums that are equal may be told apart by their scales.

    Source: dynamic sampling of DAPO, arXiv 2503.14476 section 3.2.
    """
    scored = [sample for sample in group if sample.reward is not None]
    if is_scaled(rewards):
        return has_equal_parts(scored)
    verdicts = {sample.metadata.get("correct") for sample in scored}
    is_one_verdict = not rewards and verdicts in ({"yes"}, {"no"})
    return are_equal([sample.reward for sample in scored if sample.reward is not None]) or is_one_verdict
