"""What a run will do in numbers, said before it begins."""

import math
from dataclasses import dataclass

from klimb.workbench.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """The counts of a whole run that no limit ends, no failure thins out, and no dropped group refills.

    Attributes:
        num_steps: batches that are trained on.
        num_answers: drawn in training.
        num_optimizer_steps: taken after the warm-up by cloning.
        num_evaluations: on held-out problems, of those whose number is known beforehand.
        is_most: a limit of the run may end it earlier.
        has_refills: answers for dropped groups come on top.
        has_stand_ins: answers in the place of groups that could not be replayed yet come on top.
        has_more_evaluations: some are made as tokens or seconds go by.
    """

    num_steps: int
    num_answers: int
    num_optimizer_steps: int
    num_evaluations: int
    is_most: bool
    has_refills: bool
    has_stand_ins: bool
    has_more_evaluations: bool

    def in_words(self) -> str:
        """Return all of it as one line."""
        steps = f"{'at most ' if self.is_most else ''}{self.num_steps} steps"
        reasons = {"dropped groups": self.has_refills, "groups that cannot be replayed yet": self.has_stand_ins}
        more_answers = "".join(f" and those for {reason}" for reason, holds in reasons.items() if holds)
        more = " and those by tokens or seconds" if self.has_more_evaluations else ""
        return (
            f"{steps}, {self.num_answers} answers drawn{more_answers}, {self.num_optimizer_steps} optimiser steps, "
            f"{self.num_evaluations} evaluations{more}"
        )


def announce(config: RunConfig, *, has_held_out: bool) -> Announcement:
    """Return what the run will do; without held-out problems it evaluates nothing."""
    training, sampling, asked = config.training, config.sampling, config.evaluation
    num_drawn = config.sources.num_groups(sampling.num_prompts)["rollout"] * sampling.num_samples
    at_ends = 2 if asked.at_ends else 0
    during = training.num_steps // asked.every_steps if asked.every_steps else 0
    limits = (training.max_seconds, training.max_generated_tokens, training.max_training_seconds)
    return Announcement(
        num_steps=training.num_steps,
        num_answers=(training.num_steps + sampling.lag) * num_drawn,
        num_optimizer_steps=training.num_optimizer_steps,
        num_evaluations=at_ends + during if has_held_out else 0,
        is_most=any(map(math.isfinite, limits)) or (config.guard is not None and config.guard.action != "warn"),
        has_refills=config.advantages.group_filter and config.advantages.max_refills > 0 and num_drawn > 0,
        has_stand_ins=config.sources.replay > 0,
        has_more_evaluations=has_held_out and bool(asked.every_tokens or asked.every_seconds),
    )
