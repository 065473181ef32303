"""What one step trains on: fresh rollouts, replayed ones, logs and feedback, each with its own baseline."""

import itertools
import logging
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.experience import Sample, Source
from klimb.experience.turn_rewards import group_conversations, one_of_each
from klimb.training.filtered_groups import ALONE_IN_BATCH, FilteredGroup, filter_group, is_alone, is_trained_on
from klimb.training.identity import run_key
from klimb.training.minibatches import score_samples
from klimb.training.mismatch import is_measured_in_update, measure_mismatch, mismatch_between
from klimb.training.rollouts import (
    RolloutContext,
    Rollouts,
    RolloutWorker,
    collect_rollouts,
    compute_credits,
    compute_turn_credits,
    find_verdicts,
    measure_collections,
)
from klimb.training.settings import LoopSettings
from klimb.training.sources.offline import OfflineSource
from klimb.training.sources.replay import ReplayGroup, group_samples
from klimb.training.state import RunState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What one step trains on.

    Attributes:
        drawn: every rollout drawn at this step, trained on now, later or never.
        fresh: rollouts whose turn it is, those included that a baseline alone reads.
        used: the samples that are trained on, source by source, with the `log_mu` they are trained with.
        credits: each used sample's reward less its baseline; baselines never cross a source.
        turn_credits: with credit.kind = 'turn' the same of each turn that the policy drew; else empty.
        metrics: explained in docs/metrics.md.
    """

    drawn: tuple[Sample, ...]
    fresh: tuple[Sample, ...]
    used: tuple[Sample, ...]
    credits: Float[Tensor, " batch"]
    turn_credits: tuple[tuple[float, ...], ...]
    metrics: dict[str, float]


def next_batch(state: RunState, actors: RolloutWorker, settings: LoopSettings, *, beta: float) -> StepData:
    """Take each source's share of the batch. Where too little can be replayed, fresh rollouts stand in.

    A baseline is formed over all that a share compares; what `advantages.min_reward` leaves out is left out then.

    Args:
        state: of the run.
        actors: who samples and scores.
        settings: of the run.
        beta: weight of the divergence, the temperature of soft values.
    """
    num_groups = settings.sources.num_groups(settings.sampling.num_prompts)
    version = state.optimizer.num_steps
    replayed = state.replay.draw(num_groups["replay"], policy_version=version, generator=state.generators["replay"])
    num_fresh = num_groups["rollout"] + num_groups["replay"] - len(replayed)
    drawn, fresh, metrics = _draw_rollouts(state, actors, settings, num_fresh)
    asked = {**num_groups, "rollout": num_fresh}
    shares: dict[Source, Share] = {
        "rollout": Share(compared=fresh, why_missing="in none of its groups was there anything to compare"),
        "replay": _take_replayed(state, replayed, settings),
        **{logged.source: _take_offline(logged, num_groups[logged.source], settings) for logged in state.logs},
    }
    shares = {source: share for source, share in shares.items() if settings.sources.share(source)}
    used: dict[Source, tuple[Sample, ...]] = {source: share.trained_on(settings) for source, share in shares.items()}
    if not settings.is_fresh:
        for source, samples in used.items():
            metrics |= _measure_share(source, samples, asked=asked[source], policy_version=version)
        metrics |= _measure_sources(state, settings)
        _say_what_is_missing(state, shares, settings)
    credits = [share.credits(settings, beta=beta) for share in shares.values()]
    return StepData(
        drawn=drawn,
        fresh=fresh,
        used=tuple(itertools.chain(*used.values())),
        credits=torch.cat([torch.zeros(0), *credits]),
        turn_credits=tuple(
            itertools.chain(*(share.turn_credits(settings, beta=beta) for share in shares.values()))
            if settings.credit.kind == "turn"
            else ()
        ),
        metrics={"num_tokens_sampled": 0.0, **metrics},
    )


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one source gives to a batch.

    Attributes:
        compared: the samples that a baseline is formed over.
        why_missing: why there is no more, for people; empty where all that was asked for is there.
    """

    compared: tuple[Sample, ...]
    why_missing: str = ""

    def trained_on(self, settings: LoopSettings) -> tuple[Sample, ...]:
        """Return those of the samples that are trained on."""
        return tuple(sample for sample in self.compared if is_trained_on(sample, settings.advantages))

    def credits(self, settings: LoopSettings, *, beta: float) -> Float[Tensor, " batch"]:
        """Return what each of the samples that are trained on is credited with."""
        credits = compute_credits(self.compared, settings.advantages, beta=beta, rewards=settings.rewards)
        if settings.advantages.min_reward is None:
            return credits
        is_used = [is_trained_on(sample, settings.advantages) for sample in self.compared]
        return credits[torch.tensor(is_used, dtype=torch.bool)]

    def turn_credits(self, settings: LoopSettings, *, beta: float) -> list[tuple[float, ...]]:
        """Return what each turn of those samples is credited with."""
        credits = compute_turn_credits(self.compared, settings.advantages, beta=beta, rewards=settings.rewards)
        return [
            credit
            for sample, credit in zip(self.compared, credits, strict=True)
            if is_trained_on(sample, settings.advantages)
        ]


def _draw_rollouts(
    state: RunState, actors: RolloutWorker, settings: LoopSettings, num_fresh: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], dict[str, float]]:
    """Return all that was drawn, what of it (or of an earlier collection) is compared now, and metrics."""
    if num_fresh == 0:
        return (), (), {}
    lag = settings.sampling.lag
    drawn: list[Sample] = []
    collections: list[Rollouts] = []
    gaps: list[tuple[dict[str, float], int]] = []
    compared: tuple[Sample, ...] = ()
    for _ in range(lag + 1 - len(state.queue)):
        collection = _collect(state, actors, settings, num_fresh, first_group=_count_groups(drawn))
        used, gap = _attach_log_mu(state, collection.used, settings)
        now = {sample.sample_id: sample for sample in used}
        drawn += [now.get(sample.sample_id, sample) for sample in collection.samples]
        compared = tuple(now.get(sample.sample_id, sample) for sample in collection.compared)
        collections.append(collection)
        gaps.append((gap, sum(sample.num_drawn for sample in used)))
        if lag:
            state.queue.put(group_samples(compared, step=state.step))
    if lag:
        compared = tuple(sample for group in state.queue.get() for sample in group.samples)
    metrics = measure_collections(collections) if collections else {}
    _say_where_verdicts_are_missing(state, drawn)
    return tuple(drawn), compared, metrics | _merge_gaps(gaps)


def _merge_gaps(gaps: Sequence[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Return the gap over several collections, each weighed by its tokens: means, and the largest of `…_max_…`."""
    if len(gaps) == 1:
        return gaps[0][0]
    merged: dict[str, float] = {}
    for name in dict.fromkeys(name for gap, _ in gaps for name in gap):
        found = [(gap[name], num_tokens) for gap, num_tokens in gaps if name in gap]
        if "_max_" in name:
            merged[name] = max(value for value, _ in found)
        else:
            merged[name] = sum(value * weight for value, weight in found) / sum(weight for _, weight in found)
    return merged


def _say_where_verdicts_are_missing(state: RunState, drawn: Sequence[Sample]) -> None:
    verdicts = find_verdicts(one_of_each(drawn))
    if None in verdicts and len({*verdicts}) > 1:
        state.notices.say_once(
            "verdicts",
            "step %d: the score says right or wrong of %d of %d answers only; accuracy is over all of them, and counts "
            "as right what is said to be; let the reward say `correct` of every answer",
            state.step,
            sum(verdict is not None for verdict in verdicts),
            len(verdicts),
        )


def _count_groups(samples: Sequence[Sample]) -> int:
    return len({sample.group_id for sample in samples})


def _collect(
    state: RunState, actors: RolloutWorker, settings: LoopSettings, num_prompts: int, *, first_group: int
) -> Rollouts:
    steps = state.optimizer.num_steps
    assert state.stream is not None  # only sources without a share of rollouts do without
    return collect_rollouts(
        actors,
        state.stream,
        settings=replace(settings.sampling, num_prompts=num_prompts),
        advantages=settings.advantages,
        this_round=RolloutContext(
            seed=settings.seed,
            step=state.step,
            policy_version=steps,
            record_log_ref=state.reference.is_policy(num_optimizer_steps=steps),
            first_group=first_group,
            run_key=f"{run_key(state.identity)}-",
        ),
        sampling_generator=state.generators["sampling"],
        shuffle_generator=state.generators["rewards"],
        rewards=settings.rewards,
    )


def _attach_log_mu(
    state: RunState, used: Sequence[Sample], settings: LoopSettings
) -> tuple[tuple[Sample, ...], dict[str, float]]:
    """Return fresh rollouts with the log_mu to train with, and the gap between sampler and trainer."""
    if not used:
        return (), {}
    if settings.training.log_mu == "sampler":
        is_measured = settings.training.num_mismatch_rows and not is_measured_in_update(state, settings)
        return tuple(used), measure_mismatch(state, used, settings) if is_measured else {}
    if settings.training.log_mu == "auto":
        gap = measure_mismatch(state, used, settings)
        # Not "larger": a gap that is no number is no reason to trust the sampler.
        if gap["mismatch_mean_abs"] <= settings.training.max_mismatch:
            return tuple(used), gap | {"log_mu_recomputed": 0.0}
        logger.warning(
            "step %d: the sampler's log-probabilities are %.2g nats a token from the trainer's, over "
            "max_mismatch = %g; this batch trains with the trainer's",
            state.step,
            gap["mismatch_mean_abs"],
            settings.training.max_mismatch,
        )
    scored = score_samples(state.policy, used, max_tokens=settings.training.micro_batch_tokens)
    gap = mismatch_between([sample.log_mu for sample in used], scored)
    rescored = [
        replace(
            sample,
            log_mu=values,
            log_mu_provenance="recomputed",
            log_ref=None if sample.log_ref is None else values,
        )
        for sample, values in zip(used, scored, strict=True)
    ]
    return tuple(rescored), gap | {"log_mu_recomputed": 1.0}


def _take_replayed(state: RunState, groups: Sequence[ReplayGroup], settings: LoopSettings) -> Share:
    """Return the replayed groups; nothing where their baseline would compare one sample with itself."""
    samples = tuple(sample for group in groups for sample in group.samples)
    if is_alone(samples, settings.advantages):
        return Share(compared=(), why_missing=f"one sample is there: {ALONE_IN_BATCH}")
    why = (
        "nothing is kept that could be replayed: nothing was trained on yet, or all is older than "
        f"replay.max_age = {settings.replay.max_age} optimizer steps ({state.replay.num_dropped} groups were dropped)"
    )
    return Share(compared=samples, why_missing=why)


def _take_offline(logged: OfflineSource, count: int, settings: LoopSettings) -> Share:
    """Take groups of a log that can be trained on; others are passed over, `max_refills` times at most."""
    kept: dict[str, FilteredGroup] = {}
    refusals: Counter[str] = Counter()

    def num_used() -> int:
        return sum(bool(group.used) for group in kept.values())

    for _ in range(settings.advantages.max_refills + 1):
        if num_used() < count:
            for group in logged.take(count - num_used()):
                filtered = filter_group(group, settings.advantages, settings.rewards)
                if filtered.compared:
                    kept[filtered.compared[0].group_id] = filtered
                if not filtered.used:
                    refusals[_why_refused(filtered)] += 1
    compared = tuple(sample for group in kept.values() for sample in group.compared)
    if is_alone(compared, settings.advantages):
        return Share(compared=(), why_missing=f"one sample is there: {ALONE_IN_BATCH}")
    return Share(compared=compared, why_missing="; ".join(f"{number} × {why}" for why, number in refusals.items()))


def _why_refused(group: FilteredGroup) -> str:
    reasons = dict.fromkeys(sample.metadata["used"].removeprefix("no: ") for sample in group.samples)
    return ", ".join(reasons) or "none of its samples fits the policy"


def _say_what_is_missing(state: RunState, shares: Mapping[Source, Share], settings: LoopSettings) -> None:
    """Warn once of each source whose whole share is missing; at the first step nothing can be replayed yet."""
    for source, share in shares.items():
        if share.trained_on(settings) or (source == "replay" and state.step == 1):
            continue
        state.notices.say_once(
            f"nothing of {source}",
            "step %d: the share of %s (sources.%s = %g) gave nothing to train on: %s. Such steps are counted in "
            "%s/num_groups_missing",
            state.step,
            source,
            source,
            settings.sources.share(source),
            share.why_missing,
            source,
        )


def _measure_share(source: Source, samples: Sequence[Sample], *, asked: int, policy_version: int) -> dict[str, float]:
    """Return the metrics of the samples of a source that are trained on, `asked` being the groups of its share."""
    num_groups = _count_groups(samples)
    metrics = {
        "num_samples": float(len(samples)),
        "num_groups": float(num_groups),
        "num_groups_missing": float(max(0, asked - num_groups)),
    }
    if samples:
        episodes = group_conversations(samples)
        metrics["length_mean"] = statistics.fmean(sum(each.num_drawn for each in members) for members in episodes)
    rewards = [sample.reward for sample in one_of_each(samples) if sample.reward is not None]
    if rewards:
        metrics["reward_mean"] = statistics.fmean(rewards)
    if samples and source in ("rollout", "replay"):  # versions of another run's policy say nothing about this one's
        ages = [policy_version - sample.policy_version for sample in samples]
        metrics |= {"age_mean": statistics.fmean(ages), "age_max": float(max(ages))}
    return {f"{source}/{name}": value for name, value in metrics.items()}


def _measure_sources(state: RunState, settings: LoopSettings) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if settings.sources.share("replay"):
        metrics |= {"replay/num_kept": float(len(state.replay)), "replay/num_dropped": float(state.replay.num_dropped)}
    for logged in state.logs:
        metrics[f"{logged.source}/epoch"] = float(logged.epoch)
        metrics[f"{logged.source}/num_refused"] = float(logged.num_refused)
    return metrics
