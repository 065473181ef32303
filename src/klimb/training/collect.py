"""Figure 1 of the paper up to the update: sample, score, filter groups and refill, advantages, batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from klimb.experience import ADVANTAGES, NEEDS_GROUPS, Batch, Sample, SamplingSettings, collate, compute_advantages
from klimb.training.drawing import Actors, Round, draw_and_score
from klimb.training.groups import collection_metrics, is_used, judged
from klimb.training.prompts import PromptStream

REWARDLESS = ("zero", "ones")
"""Advantages that do not read the reward."""


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """How a batch comes about.

    Attributes:
        num_prompts: groups a batch.
        num_samples: responses a group.
        advantages: a name in `klimb.experience.ADVANTAGES`.
        advantage_offset: added to the baseline; below 0 every response looks that much better (AsymRE).
        advantage_temperature: of the soft values, in units of the reward; the loss's β.
        min_reward: responses below it are not trained on (filtered cloning); None trains on all.
        group_filter: drop groups from which nothing can be learnt (all rewards equal, all right or all wrong) and
            draw other prompts in their place.
        max_refills: rounds of drawing after the first one at most; what there is then is the batch.
        shuffle_rewards: the control experiment: scores are exchanged at random between all responses drawn together,
            before anything else sees them. Nothing can be learnt from such a batch but noise.
    """

    num_prompts: int = 16
    num_samples: int = 8
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    advantages: str = "group-mean"
    advantage_offset: float = 0.0
    advantage_temperature: float = 1.0
    min_reward: float | None = None
    group_filter: bool = False
    max_refills: int = 2
    shuffle_rewards: bool = False

    def __post_init__(self) -> None:
        if self.num_prompts < 1 or self.num_samples < 1 or self.max_refills < 0:
            raise ValueError(
                f"num_prompts and num_samples must be >= 1 and max_refills >= 0, got {self.num_prompts}, "
                f"{self.num_samples} and {self.max_refills}"
            )
        if self.advantages not in ADVANTAGES:
            raise ValueError(f"unknown advantages {self.advantages!r}; there are {', '.join(ADVANTAGES)}")
        if self.num_samples == 1 and self.advantages in NEEDS_GROUPS:
            raise ValueError(
                f"advantages {self.advantages!r} compare the responses to one prompt, and num_samples is 1; "
                "draw at least 2, or use batch-z-score"
            )
        if self.sampling.temperature == 0:
            raise ValueError("temperature is 0: a policy that always answers the same cannot learn from itself; use 1")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """All that was drawn at one step, and which of it is trained on.

    Attributes:
        samples: every response drawn. `metadata` holds `problem_id`, `used` (`yes`, or why it is not trained on),
            `correct` (`yes` or `no`, when the task says) and `rewards` (`shuffled`, in the control experiment).
        used: those to train on, in the order of `advantages`.
        advantages: one number a used sample.
        metrics: explained in docs/metrics.md.
    """

    samples: tuple[Sample, ...]
    used: tuple[Sample, ...]
    advantages: torch.Tensor
    metrics: Mapping[str, float]

    def batch(self) -> Batch | None:
        """The used samples as a batch; None when there are none."""
        return collate(self.used, self.advantages) if self.used else None


def collect(
    actors: Actors,
    stream: PromptStream,
    *,
    settings: CollectSettings,
    this_round: Round,
    sampling_generator: torch.Generator,
    shuffle_generator: torch.Generator,
) -> Collection:
    """Draws, scores and filters until `num_prompts` groups are there or the refills are used up."""
    groups: list[list[Sample]] = []
    kept = num_rounds = 0
    seconds = {"sample_seconds": 0.0, "score_seconds": 0.0}
    while kept < settings.num_prompts and num_rounds <= settings.max_refills:
        numbers = stream.take(settings.num_prompts - kept)
        drawn = draw_and_score(
            actors,
            [actors.problems[number] for number in numbers],
            replace(this_round, first_group=this_round.first_group + len(groups)),
            num_samples=settings.num_samples,
            sampling=settings.sampling,
            generator=sampling_generator,
            shuffle=shuffle_generator if settings.shuffle_rewards else None,
        )
        seconds["sample_seconds"] += drawn.sample_seconds
        seconds["score_seconds"] += drawn.score_seconds
        new_groups = [judge(group, settings) for group in drawn.groups]
        groups += new_groups
        kept += sum(is_used(group) for group in new_groups)
        num_rounds += 1
        if not settings.group_filter:
            break
    samples = tuple(sample for group in groups for sample in group)
    used = tuple(sample for sample in samples if sample.metadata["used"] == "yes")
    metrics = collection_metrics(groups) | {"num_rounds": float(num_rounds), "epoch": float(stream.epoch)} | seconds
    return Collection(samples=samples, used=used, advantages=advantages_of(used, settings), metrics=metrics)


def judge(group: Sequence[Sample], settings: CollectSettings) -> list[Sample]:
    """The group with `metadata["used"]`: `yes`, or why the response is not trained on."""
    return judged(
        group,
        compare=settings.advantages in NEEDS_GROUPS,
        drop_even=settings.group_filter,
        needs_reward=settings.advantages not in REWARDLESS or settings.min_reward is not None,
        min_reward=settings.min_reward,
    )


def advantages_of(used: Sequence[Sample], settings: CollectSettings) -> torch.Tensor:
    """One number a sample, from the rewards of these samples alone."""
    if not used:
        return torch.zeros(0)
    # Where no reward is needed, 0 stands for a missing one and is not read.
    rewards = torch.tensor([0.0 if sample.reward is None else sample.reward for sample in used], dtype=torch.float64)
    return compute_advantages(
        rewards,
        [sample.group_id for sample in used],
        kind=settings.advantages,
        offset=settings.advantage_offset,
        temperature=settings.advantage_temperature,
    ).float()
