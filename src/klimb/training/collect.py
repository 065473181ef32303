"""Figure 1 of the paper up to the update: sample, score, filter groups and refill, advantages, batch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch

from klimb.experience import ADVANTAGES, NEEDS_GROUPS, Batch, Sample, SamplingSettings, collate, compute_advantages
from klimb.policies import Policy
from klimb.samplers import Completion, Sampler
from klimb.tasks import Problem, Response, Score
from klimb.training.groups import collection_metrics, is_used, judged
from klimb.training.prompts import PromptStream

REWARDLESS = ("zero", "ones")
"""Advantages that do not read the reward."""


@runtime_checkable
class ScoresResponses(Protocol):
    """What the loop needs of `klimb.tasks.Scorer`."""

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """One score a response; a reward of None where none could be computed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Who samples and who scores, on which problems.

    Attributes:
        policy: the model that is trained.
        sampler: draws from that policy.
        scorer: scores responses.
        problems: what is asked.
    """

    policy: Policy
    sampler: Sampler
    scorer: ScoresResponses
    problems: Sequence[Problem]


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
class Round:
    """Names and dates what one step draws.

    Attributes:
        seed: of the run.
        step: of the loop, from 1.
        policy_version: optimiser steps that the sampling weights have seen.
        record_log_ref: take the sampler's log-probabilities under the unaltered model as `log_ref`, because the
            reference has the same weights.
        first_group: number of the first group, if others were drawn at the same step before.
        run_key: begins every id, so that two runs' rollouts can be kept in one store.
    """

    seed: int
    step: int
    policy_version: int
    record_log_ref: bool
    first_group: int = 0
    run_key: str = ""


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
        started = time.monotonic()
        drawn = _draw(
            actors,
            numbers,
            settings,
            this_round,
            first_group=this_round.first_group + len(groups),
            generator=sampling_generator,
        )
        seconds["sample_seconds"] += time.monotonic() - started
        started = time.monotonic()
        scored = _score(actors, numbers, drawn, shuffle_generator if settings.shuffle_rewards else None)
        seconds["score_seconds"] += time.monotonic() - started
        new_groups = [judge(group, settings) for group in scored]
        groups += new_groups
        kept += sum(is_used(group) for group in new_groups)
        num_rounds += 1
        if not settings.group_filter:
            break
    samples = tuple(sample for group in groups for sample in group)
    used = tuple(sample for sample in samples if sample.metadata["used"] == "yes")
    metrics = collection_metrics(groups) | {"num_rounds": float(num_rounds), "epoch": float(stream.epoch)} | seconds
    return Collection(samples=samples, used=used, advantages=advantages_of(used, settings), metrics=metrics)


def _draw(
    actors: Actors,
    numbers: Sequence[int],
    settings: CollectSettings,
    this_round: Round,
    *,
    first_group: int,
    generator: torch.Generator,
) -> list[list[Sample]]:
    problems = [actors.problems[number] for number in numbers]
    prompts = [actors.policy.render(problem.messages) for problem in problems]
    completions = actors.sampler.sample(
        prompts, num_samples=settings.num_samples, settings=settings.sampling, generator=generator
    )
    groups: list[list[Sample]] = []
    for offset, (problem, prompt_ids, answers) in enumerate(zip(problems, prompts, completions, strict=True)):
        group_id = f"{this_round.run_key}s{this_round.seed}-t{this_round.step:06d}-g{first_group + offset:05d}"
        template = Sample(
            sample_id="",
            group_id=group_id,
            prompt=tuple(problem.messages),
            prompt_ids=tuple(prompt_ids),
            response="",
            response_ids=(),
            finish_reason="length",
            sampling=settings.sampling,
            model=actors.policy.name,
            tokenizer=actors.policy.fingerprint,
            policy_version=this_round.policy_version,
            created_at=time.time(),
            metadata={"problem_id": problem.problem_id},
        )
        groups.append([_completed(template, index, answer, actors, this_round) for index, answer in enumerate(answers)])
    return groups


def _completed(template: Sample, index: int, answer: Completion, actors: Actors, this_round: Round) -> Sample:
    return replace(
        template,
        sample_id=f"{template.group_id}-{index:04d}",
        response=actors.policy.decode(answer.response_ids),
        response_ids=tuple(answer.response_ids),
        finish_reason=answer.finish_reason,
        log_mu=tuple(answer.log_mu),
        log_mu_provenance="sampler",
        log_ref=tuple(answer.log_model) if this_round.record_log_ref else None,
    )


def _score(
    actors: Actors, numbers: Sequence[int], groups: list[list[Sample]], shuffle: torch.Generator | None
) -> list[list[Sample]]:
    flat = [sample for group in groups for sample in group]
    problems = [actors.problems[number] for number, group in zip(numbers, groups, strict=True) for _ in group]
    responses = [
        Response(text=sample.response, num_tokens=len(sample.response_ids), finish_reason=sample.finish_reason)
        for sample in flat
    ]
    scores = actors.scorer.score_many(problems, responses)
    if shuffle is not None:
        scores = _exchanged(scores, shuffle)
    scored = iter([_with_score(sample, score, shuffle) for sample, score in zip(flat, scores, strict=True)])
    return [[next(scored) for _ in group] for group in groups]


def _exchanged(scores: Sequence[Score], generator: torch.Generator) -> list[Score]:
    """The scores in random order, those without a reward staying where they are."""
    exchanged = list(scores)
    places = [index for index, score in enumerate(scores) if score.reward is not None]
    for place, source in zip(places, torch.randperm(len(places), generator=generator).tolist(), strict=True):
        exchanged[place] = scores[places[source]]
    return exchanged


def _with_score(sample: Sample, score: Score, shuffle: torch.Generator | None) -> Sample:
    marks = {} if shuffle is None else {"rewards": "shuffled"}
    if score.correct is not None:
        marks["correct"] = "yes" if score.correct else "no"
    return replace(
        sample,
        reward=score.reward,
        reward_parts=dict(score.parts),
        reward_reason=score.reason,
        metadata={**sample.metadata, **marks},
    )


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
