"""Rollouts: figure 1 of the paper up to the update.

Prompts are sampled and scored, groups being scored while others are still sampled. Groups are filtered, and others are
sampled in the place of those that teach nothing. Each response that stays gets its credit: its reward less a baseline.
"""

import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.declarations import narrow
from klimb.experience import Sample, SamplingSettings, compute_advantages
from klimb.experience.turn_rewards import group_conversations, number_conversations, one_of_each, turn_advantages
from klimb.findings.conversation_metrics import measure_conversations
from klimb.policies import Policy
from klimb.samplers import Completion, Sampler, StreamingSampler
from klimb.tasks import Problem, Response, Score
from klimb.tasks.environment_problems import seed_for
from klimb.training.completions import attach_draws, check_support
from klimb.training.dialogues import Talks, score_conversations
from klimb.training.filtered_groups import (
    ALONE_IN_BATCH,
    ALONE_IN_GROUP,
    FilteredGroup,
    filter_group,
    leave_out_the_lonely,
)
from klimb.training.prompts import PromptStream
from klimb.training.response_scorer import ResponseScorer
from klimb.training.settings import AdvantageSettings, RolloutSettings
from klimb.training.several_rewards import (
    NO_REWARDS,
    Rewards,
    as_metadata,
    measure_values,
    rewards_to_compare,
)


@dataclass(frozen=True, kw_only=True)
class RolloutWorker:
    """Who samples and who scores, on which problems.

    Attributes:
        policy: the model that is trained.
        sampler: draws from that policy.
        scorer: scores responses.
        problems: what is asked.
        dialogues: where each response is a conversation with an environment; None where it is one turn.
    """

    policy: Policy
    sampler: Sampler
    scorer: ResponseScorer
    problems: Sequence[Problem]
    dialogues: Talks | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutContext:
    """Names and dates what one step draws.

    Attributes:
        seed: of the run.
        step: of the loop, from 1.
        policy_version: optimiser steps that the sampling weights have seen.
        record_log_ref: take the sampler's log-probabilities under the policy itself as `log_ref`, because the
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


@dataclass(frozen=True)
class ScoredGroups:
    """Groups in the order of their problems.

    Attributes:
        groups: with rewards.
        sample_seconds: from the first token to the last.
        score_seconds: from then to the last score; what was scored meanwhile cost nothing.
    """

    groups: list[list[Sample]]
    sample_seconds: float
    score_seconds: float


def sample_and_score(
    actors: RolloutWorker,
    problems: Sequence[Problem],
    this_round: RolloutContext,
    *,
    num_samples: int,
    sampling: SamplingSettings,
    generator: torch.Generator,
    shuffle: torch.Generator | None = None,
) -> ScoredGroups:
    """Draw and score one group of `num_samples` responses for each problem.

    A sampler that hands over groups as they end has them scored in a thread meanwhile; which tokens are drawn and
    which scores they get does not depend on that.

    Args:
        actors: who samples and scores.
        problems: what is asked.
        this_round: names and dates; its first group is that of the first problem.
        num_samples: responses a group.
        sampling: how tokens are drawn.
        generator: of the tokens.
        shuffle: if given, the scores are exchanged at random between all responses.
    """
    if actors.dialogues is not None:
        return _converse_and_score(
            actors,
            actors.dialogues,
            problems,
            this_round,
            num_samples=num_samples,
            sampling=sampling,
            generator=generator,
            shuffle=shuffle,
        )
    started = time.monotonic()
    prompts = [actors.policy.render(problem.messages) for problem in problems]
    groups: dict[int, list[Sample]] = {}
    with _Scoring(actors.scorer) as scoring:
        for place, answers in _sample_prompts(
            actors.sampler, prompts, num_samples=num_samples, settings=sampling, generator=generator
        ):
            for number, completions in zip(place, answers, strict=True):
                template = _make_template(
                    actors, problems[number], prompts[number], sampling, this_round, offset=number
                )
                groups[number] = [
                    _complete(template, index, answer, actors, this_round) for index, answer in enumerate(completions)
                ]
            scoring.add({number: (problems[number], groups[number]) for number in place})
        sampled = time.monotonic()
        scores = scoring.wait_for_scores()
    ordered = [groups[number] for number in range(len(problems))]
    flat = [score for number in range(len(problems)) for score in scores[number]]
    if shuffle is not None:
        flat = _exchange_scores(flat, shuffle)
    left = iter(flat)
    scored = [[_attach_score(sample, next(left), shuffle) for sample in group] for group in ordered]
    return ScoredGroups(scored, sampled - started, time.monotonic() - sampled)


def _converse_and_score(
    actors: RolloutWorker,
    dialogues: Talks,
    problems: Sequence[Problem],
    this_round: RolloutContext,
    *,
    num_samples: int,
    sampling: SamplingSettings,
    generator: torch.Generator,
    shuffle: torch.Generator | None,
) -> ScoredGroups:
    """Hold and score conversations; arguments are those of `sample_and_score`.

    The environments of a group have one seed: their conversations are compared, and differ by what the policy says.
    It is the problem's own where that is what the problem consists of, and else another one in each group.
    """
    started = time.monotonic()
    templates = [
        _make_template(actors, problem, (), sampling, this_round, offset=number)
        for number, problem in enumerate(problems)
    ]
    asked = [problem for problem in problems for _ in range(num_samples)]
    seeds = [
        seed_for(problem, template.group_id)
        for problem, template in zip(problems, templates, strict=True)
        for _ in range(num_samples)
    ]
    held = dialogues.hold(asked, seeds=seeds, settings=sampling, generator=generator)
    sampled = time.monotonic()
    scores = score_conversations(actors.scorer, asked, held)
    if shuffle is not None:
        scores = _exchange_scores(scores, shuffle)
    left = iter(zip(held, scores, strict=True))
    groups: list[list[Sample]] = []
    for template in templates:
        group: list[Sample] = []
        for index in range(num_samples):
            conversation, score = next(left)
            named = replace(template, sample_id=f"{template.group_id}-{index:04d}")
            group += [
                _attach_score(sample, score, shuffle)
                for sample in conversation.samples(named, with_log_model=this_round.record_log_ref)
            ]
        groups.append(group)
    return ScoredGroups(groups, sampled - started, time.monotonic() - sampled)


def _sample_prompts(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    settings: SamplingSettings,
    generator: torch.Generator,
) -> Iterator[tuple[Sequence[int], Sequence[list[Completion]]]]:
    """Yield numbers of prompts with their completions: each prompt by itself as it ends, or all at the end."""
    if isinstance(sampler, StreamingSampler):
        for number, completions in sampler.stream(
            prompts, num_samples=num_samples, settings=settings, generator=generator
        ):
            yield [number], [completions]
    else:
        answers = sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
        yield range(len(prompts)), answers


class _Scoring:
    """Scores groups in one thread, all that wait at once; a context manager."""

    def __init__(self, scorer: ResponseScorer) -> None:
        self._scorer = scorer
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Problem, list[Sample]]] = {}
        self._scores: dict[int, list[Score]] = {}
        self._runs: list[Future[None]] = []

    def __enter__(self) -> "_Scoring":
        return self

    def __exit__(self, *_: object) -> None:
        # After an error nothing more is scored, and the thread is waited for: the scorer is not used by two.
        self._pool.shutdown(cancel_futures=True)

    def add(self, groups: dict[int, tuple[Problem, list[Sample]]]) -> None:
        """Give groups to be scored; an error of the scorer so far is raised here."""
        for run in self._runs:
            if run.done():
                run.result()
        with self._lock:
            self._waiting |= groups
        self._runs.append(self._pool.submit(self._score_waiting))

    def wait_for_scores(self) -> dict[int, list[Score]]:
        """Wait for the rest."""
        for run in self._runs:
            run.result()
        return self._scores

    def _score_waiting(self) -> None:
        with self._lock:
            groups, self._waiting = self._waiting, {}
        if not groups:
            return
        problems = [problem for problem, group in groups.values() for _ in group]
        responses = [
            Response(text=sample.response, num_tokens=len(sample.response_ids), finish_reason=sample.finish_reason)
            for _, group in groups.values()
            for sample in group
        ]
        scores = iter(self._scorer.score_many(problems, responses))
        for number, (_, group) in groups.items():
            self._scores[number] = [next(scores) for _ in group]


def _make_template(
    actors: RolloutWorker,
    problem: Problem,
    prompt_ids: Sequence[int],
    sampling: SamplingSettings,
    this_round: RolloutContext,
    *,
    offset: int,
) -> Sample:
    """Return what the samples of a group share."""
    number = this_round.first_group + offset
    return Sample(
        sample_id="",
        group_id=f"{this_round.run_key}s{this_round.seed}-t{this_round.step:06d}-g{number:05d}",
        prompt=tuple(problem.messages),
        prompt_ids=tuple(prompt_ids),
        response="",
        response_ids=(),
        finish_reason="length",
        sampling=sampling,
        model=actors.policy.name,
        tokenizer=actors.policy.fingerprint,
        policy_version=this_round.policy_version,
        created_at=time.time(),
        metadata={"problem_id": problem.problem_id},
    )


def _complete(
    template: Sample, index: int, answer: Completion, actors: RolloutWorker, this_round: RolloutContext
) -> Sample:
    said = replace(
        template,
        sample_id=f"{template.group_id}-{index:04d}",
        response=actors.policy.decode(answer.response_ids),
        response_ids=tuple(answer.response_ids),
        finish_reason=answer.finish_reason,
    )
    return attach_draws(said, [answer], with_log_model=this_round.record_log_ref)


def _exchange_scores(scores: Sequence[Score], generator: torch.Generator) -> list[Score]:
    """Return the scores in random order, those without a reward staying where they are."""
    exchanged = list(scores)
    places = [index for index, score in enumerate(scores) if score.reward is not None]
    for place, source in zip(places, torch.randperm(len(places), generator=generator).tolist(), strict=True):
        exchanged[place] = scores[places[source]]
    return exchanged


def _attach_score(sample: Sample, score: Score, shuffle: torch.Generator | None) -> Sample:
    marks = {} if shuffle is None else {"rewards": "shuffled"}
    if score.correct is not None:
        marks["correct"] = "yes" if score.correct else "no"
    # With another's reward a turn's own would be of another conversation.
    turns = sample.turns if shuffle is None else tuple(replace(turn, reward=None) for turn in sample.turns)
    return replace(
        sample,
        turns=turns,
        reward=score.reward,
        reward_parts=dict(score.parts),
        reward_reason=score.reason,
        metadata={**sample.metadata, **marks, **as_metadata(score.values)},
    )


def measure_rollouts(groups: Sequence[FilteredGroup]) -> dict[str, float]:
    """Means over all responses drawn, those that are not trained on included.

    A conversation whose turns are samples of their own is one response: the last of them says how it came out.
    """
    drawn = [sample for group in groups for sample in group.samples]
    episodes = group_conversations(drawn)
    samples = [members[-1] for members in episodes]
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    lengths = [sum(sample.num_drawn for sample in members) for members in episodes]
    num_used = sum(bool(group.used) for group in groups)
    alone = {f"no: {why}" for why in (ALONE_IN_GROUP, ALONE_IN_BATCH)}
    uncompared = [each for each in samples if each.reward is not None and each.metadata.get("used") in alone]
    metrics = {
        "num_samples": float(len(samples)),
        "num_errors": float(len(samples) - len(rewards)),
        "num_uncompared": float(len(uncompared)),
        "num_groups": float(len(groups)),
        "num_groups_used": float(num_used),
        "groups_dropped_fraction": 1 - num_used / len(groups),
        "num_tokens_sampled": float(sum(lengths)),
        "length_mean": statistics.fmean(lengths),
        "length_max": float(max(lengths)),
        "truncated_fraction": statistics.fmean(members[-1].finish_reason == "length" for members in episodes),
    }
    if rewards:
        metrics |= {"reward_mean": statistics.fmean(rewards), "reward_std": statistics.pstdev(rewards)}
    verdicts = find_verdicts(samples)
    if set(verdicts) - {None}:
        metrics["accuracy"] = statistics.fmean(verdict == "yes" for verdict in verdicts)
    return metrics | _part_means(samples) | measure_values(samples) | measure_conversations(drawn)


def find_verdicts(samples: Iterable[Sample]) -> list[str | None]:
    """Return `yes`, `no`, or None where the score does not say what is correct, of each response with a reward."""
    return [sample.metadata.get("correct") for sample in samples if sample.reward is not None]


def _part_means(samples: Iterable[Sample]) -> dict[str, float]:
    """Return the mean of each part over all responses with a reward, so that the means add up to that of the reward."""
    scored = [sample.reward_parts for sample in samples if sample.reward is not None]
    names = dict.fromkeys(name for parts in scored for name in parts)
    return {f"reward_part_{name}": statistics.fmean(parts.get(name, 0.0) for parts in scored) for name in names}


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """All that was drawn at one step, and which of it is trained on.

    Attributes:
        samples: every response drawn. `metadata` holds `problem_id`, `used` (`yes`, or why it is not trained on),
            `correct` (`yes` or `no`, when the task says) and `rewards` (`shuffled`, in the control experiment).
        groups: the same by prompt.
        compared: those that a baseline is formed over.
        used: those of them to train on.
        metrics: explained in docs/metrics.md.
    """

    samples: tuple[Sample, ...]
    groups: tuple[FilteredGroup, ...]
    compared: tuple[Sample, ...]
    used: tuple[Sample, ...]
    metrics: Mapping[str, float]


def measure_collections(collections: Sequence[Rollouts]) -> dict[str, float]:
    """Return the metrics of all that one step drew: with a lag its first step draws more than once."""
    metrics = measure_rollouts([group for collection in collections for group in collection.groups])
    for name in ("num_rounds", "sample_seconds", "score_seconds"):
        metrics[name] = sum(collection.metrics[name] for collection in collections)
    return metrics | {"epoch": collections[-1].metrics["epoch"]}


def collect_rollouts(
    actors: RolloutWorker,
    stream: PromptStream,
    *,
    settings: RolloutSettings,
    advantages: AdvantageSettings,
    this_round: RolloutContext,
    sampling_generator: torch.Generator,
    shuffle_generator: torch.Generator,
    rewards: Rewards = NO_REWARDS,
) -> Rollouts:
    """Draw, score and filter until `num_prompts` groups are there or the refills are used up."""
    groups: list[FilteredGroup] = []
    kept = num_rounds = 0
    seconds = {"sample_seconds": 0.0, "score_seconds": 0.0}
    while kept < settings.num_prompts and num_rounds <= advantages.max_refills:
        numbers = stream.take(settings.num_prompts - kept)
        drawn = sample_and_score(
            actors,
            [actors.problems[number] for number in numbers],
            replace(this_round, first_group=this_round.first_group + len(groups)),
            num_samples=settings.num_samples,
            sampling=narrow(settings, SamplingSettings),
            generator=sampling_generator,
            shuffle=shuffle_generator if advantages.shuffle_rewards else None,
        )
        if settings.records_support:
            check_support([sample for group in drawn.groups for sample in group])
        seconds["sample_seconds"] += drawn.sample_seconds
        seconds["score_seconds"] += drawn.score_seconds
        new_groups = [filter_group(group, advantages, rewards) for group in drawn.groups]
        groups += new_groups
        kept += sum(bool(group.used) for group in new_groups)
        num_rounds += 1
        if not advantages.group_filter:
            break
    groups = leave_out_the_lonely(groups, advantages)
    return Rollouts(
        samples=tuple(sample for group in groups for sample in group.samples),
        groups=tuple(groups),
        compared=tuple(sample for group in groups for sample in group.compared),
        used=tuple(sample for group in groups for sample in group.used),
        metrics=measure_rollouts(groups) | {"num_rounds": float(num_rounds), "epoch": float(stream.epoch)} | seconds,
    )


def compute_credits(
    used: Sequence[Sample], settings: AdvantageSettings, *, beta: float, rewards: Rewards = NO_REWARDS
) -> Float[Tensor, " batch"]:
    """Return what each response is credited with: its reward less its baseline, which reads these samples alone.

    `beta` is the temperature of soft values, in units of the reward. Of several `rewards` some may be scaled first.
    """
    if not used:
        return torch.zeros(0)
    conversations = one_of_each(used)
    credits = _compare(conversations, rewards_to_compare(conversations, rewards), settings, beta=beta)
    return credits.float()[torch.tensor(number_conversations(used))]


def compute_turn_credits(
    used: Sequence[Sample], settings: AdvantageSettings, *, beta: float, rewards: Rewards = NO_REWARDS
) -> list[tuple[float, ...]]:
    """Return what each turn of each response is credited with: its return less that of the others' turns.

    Arguments are those of `compute_credits`.
    """
    conversations = one_of_each(used)
    values = rewards_to_compare(conversations, rewards)[torch.tensor(number_conversations(used), dtype=torch.int64)]

    def compare(returns: Sequence[float]) -> Sequence[float]:
        return _compare(conversations, torch.tensor(returns, dtype=torch.float64), settings, beta=beta).tolist()

    return turn_advantages(used, values.tolist(), compare)


def _compare(
    samples: Sequence[Sample], values: Float[Tensor, " batch"], settings: AdvantageSettings, *, beta: float
) -> Float[Tensor, " batch"]:
    return compute_advantages(
        values,
        [sample.group_id for sample in samples],
        kind=settings.kind,
        offset=settings.offset,
        temperature=beta,
    )
