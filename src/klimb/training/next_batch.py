"""What one step trains on: fresh rollouts, replayed ones, logs and feedback, each with its own baseline."""

import itertools
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.experience import Sample, Source
from klimb.training.identity import run_key
from klimb.training.minibatches import score_samples
from klimb.training.mismatch import is_measured_in_update, measure_mismatch, mismatch_between
from klimb.training.rollouts import (
    RolloutContext,
    Rollouts,
    RolloutWorker,
    collect_rollouts,
    compute_credits,
    filter_group,
)
from klimb.training.settings import LoopSettings
from klimb.training.sources.offline import OfflineSource
from klimb.training.sources.replay import group_samples
from klimb.training.state import RunState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What one step trains on.

    Attributes:
        drawn: every rollout drawn at this step, trained on now, later or never.
        used: those that are trained on, source by source, with the `log_mu` they are trained with.
        credits: each used sample's reward less its baseline; baselines never cross a source.
        metrics: explained in docs/metrics.md.
    """

    drawn: tuple[Sample, ...]
    used: tuple[Sample, ...]
    credits: Float[Tensor, " batch"]
    metrics: dict[str, float]


def next_batch(state: RunState, actors: RolloutWorker, settings: LoopSettings, *, beta: float) -> StepData:
    """Take each source's share of the batch. Where too little can be replayed, fresh rollouts stand in.

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
    shares: dict[Source, tuple[Sample, ...]] = {
        "rollout": fresh,
        "replay": tuple(sample for group in replayed for sample in group.samples),
        **{logged.source: _take_offline(logged, num_groups[logged.source], settings) for logged in state.logs},
    }
    shares = {source: samples for source, samples in shares.items() if samples}
    if not settings.is_fresh:
        for source, samples in shares.items():
            metrics |= _measure_share(source, samples, policy_version=version)
        metrics |= _measure_sources(state, settings)
    credits = [compute_credits(share, settings.advantages, beta=beta) for share in shares.values()]
    return StepData(
        drawn=drawn,
        used=tuple(itertools.chain(*shares.values())),
        credits=torch.cat([torch.zeros(0), *credits]),
        metrics={"num_tokens_sampled": 0.0, **metrics},
    )


def _draw_rollouts(
    state: RunState, actors: RolloutWorker, settings: LoopSettings, num_fresh: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], dict[str, float]]:
    """Return all that was drawn, what of it (or of an earlier collection) is trained on now, and metrics."""
    if num_fresh == 0:
        return (), (), {}
    lag = settings.sampling.lag
    drawn: list[Sample] = []
    metrics: dict[str, float] = {}
    used: tuple[Sample, ...] = ()
    for _ in range(lag + 1 - len(state.queue)):
        collection = _collect(state, actors, settings, num_fresh, first_group=_count_groups(drawn))
        used, gap = _attach_log_mu(state, collection.used, settings)
        now = {sample.sample_id: sample for sample in used}
        drawn += [now.get(sample.sample_id, sample) for sample in collection.samples]
        metrics = _add_up(metrics, dict(collection.metrics)) | gap
        if lag:
            state.queue.put(group_samples(used, step=state.step))
    if lag:
        used = tuple(sample for group in state.queue.get() for sample in group.samples)
    return tuple(drawn), used, metrics


def _count_groups(samples: Sequence[Sample]) -> int:
    return len({sample.group_id for sample in samples})


def _add_up(before: dict[str, float], metrics: dict[str, float]) -> dict[str, float]:
    """Return the later metrics, with counts and seconds added up."""
    return metrics | {
        name: before[name] + value
        for name, value in metrics.items()
        if name in before and (name.startswith("num_") or name.endswith("_seconds"))
    }


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


def _take_offline(logged: OfflineSource, count: int, settings: LoopSettings) -> tuple[Sample, ...]:
    """Take groups of a log that can be trained on; others are passed over, `max_refills` times at most."""
    kept: dict[str, tuple[Sample, ...]] = {}
    for _ in range(settings.advantages.max_refills + 1):
        if len(kept) < count:
            filtered = [filter_group(group, settings.advantages) for group in logged.take(count - len(kept)) if group]
            kept |= {group.used[0].group_id: group.used for group in filtered if group.used}
    return tuple(itertools.chain(*kept.values()))


def _measure_share(source: Source, samples: Sequence[Sample], *, policy_version: int) -> dict[str, float]:
    metrics = {
        "num_samples": float(len(samples)),
        "num_groups": float(_count_groups(samples)),
        "length_mean": statistics.fmean(len(sample.response_ids) for sample in samples),
    }
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    if rewards:
        metrics["reward_mean"] = statistics.fmean(rewards)
    if source in ("rollout", "replay"):  # the versions of another run's policy say nothing about this one's
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
