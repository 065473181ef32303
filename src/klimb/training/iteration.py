"""One step of the loop: collect, score under the reference, update. Blind to the algorithm."""

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from klimb.experience import Batch, Sample, collate
from klimb.samplers import sampler_trainer_gap
from klimb.training.collect import Actors, Collection, Round, collect
from klimb.training.scoring import score_samples
from klimb.training.settings import LoopSettings
from klimb.training.state import RunState
from klimb.training.step import ObjectiveFunction, StepOutcome
from klimb.training.update import update

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Iteration:
    """What one step drew, and what is to be said of it."""

    samples: tuple[Sample, ...]
    metrics: dict[str, float]


def iterate(state: RunState, actors: Actors, objective: ObjectiveFunction, settings: LoopSettings) -> Iteration:
    """Takes the run one step further.

    The parameters are at x while sampling and scoring, at y inside `update`. The reference follows before the
    sampling, so it is one and the same for the whole batch.
    """
    started = time.monotonic()
    state.step += 1
    state.reference.follow(state.policy, num_optimizer_steps=state.optimizer.num_steps)
    collection = _collect(state, actors, settings)
    metrics = dict(collection.metrics)
    with _timed(metrics, "reference_seconds"):
        used = _with_log_probs(state, collection.used, settings, metrics)
    with _timed(metrics, "update_seconds"):
        metrics |= _update(state, objective, used, collection, settings)
    metrics |= _standing(state)
    metrics["step_seconds"] = time.monotonic() - started
    metrics["tokens_per_second"] = metrics["num_tokens_sampled"] / metrics["step_seconds"]
    now = {sample.sample_id: sample for sample in used}
    samples = tuple(now.get(sample.sample_id, sample) for sample in collection.samples)
    return Iteration(samples, {"step": float(state.step), **metrics})


def _collect(state: RunState, actors: Actors, settings: LoopSettings) -> Collection:
    steps = state.optimizer.num_steps
    this_round = Round(
        seed=settings.seed,
        step=state.step,
        policy_version=steps,
        record_log_ref=state.reference.is_policy(num_optimizer_steps=steps),
    )
    return collect(
        actors,
        state.stream,
        settings=settings.collect,
        this_round=this_round,
        sampling_generator=state.generators["sampling"],
        shuffle_generator=state.generators["rewards"],
    )


def _with_log_probs(
    state: RunState, used: Sequence[Sample], settings: LoopSettings, metrics: dict[str, float]
) -> tuple[Sample, ...]:
    """The samples with the log_mu and log_ref to train with; adds the gap between sampler and trainer to `metrics`."""
    if not used:
        return ()
    max_tokens = settings.update.step.micro_batch_tokens
    reference_is_policy = state.reference.is_policy(num_optimizer_steps=state.optimizer.num_steps)
    if settings.log_mu == "recomputed":
        scored = score_samples(state.policy, used, max_tokens=max_tokens)
        metrics |= _gap([sample.log_mu for sample in used], scored)
        used = [
            replace(
                sample,
                log_mu=values,
                log_mu_provenance="recomputed",
                log_ref=values if reference_is_policy else None,
            )
            for sample, values in zip(used, scored, strict=True)
        ]
    elif settings.num_gap_rows:
        metrics |= _measured_gap(state, used, settings)
    if not reference_is_policy:
        used = state.reference.score(state.policy, used, max_tokens=max_tokens)
    return tuple(used)


def _measured_gap(state: RunState, used: Sequence[Sample], settings: LoopSettings) -> dict[str, float]:
    """The gap on a few rows, spread evenly.

    Only the sampler's log-probabilities of the unaltered model can be compared: `log_mu` if the sampling is plain,
    else `log_ref` where the sampler recorded it there.
    """
    stride = -(-len(used) // settings.num_gap_rows)
    rows = used[::stride]
    recorded = [sample.log_mu if settings.collect.sampling.is_plain else sample.log_ref for sample in rows]
    if None in recorded:
        return {}
    return _gap(recorded, score_samples(state.policy, rows, max_tokens=settings.update.step.micro_batch_tokens))


def _gap(recorded: Sequence[Sequence[float] | None], scored: Sequence[Sequence[float]]) -> dict[str, float]:
    log_model = torch.tensor([[value for values in recorded for value in values or ()]], dtype=torch.float64)
    log_pi = torch.tensor([[value for values in scored for value in values]], dtype=torch.float64)
    return sampler_trainer_gap(log_model, log_pi, torch.ones_like(log_pi, dtype=torch.bool))


def _update(
    state: RunState,
    objective: ObjectiveFunction,
    used: Sequence[Sample],
    collection: Collection,
    settings: LoopSettings,
) -> dict[str, float]:
    if not used:
        logger.warning(
            "step %d trained on nothing: in none of its %d groups was there anything to compare (rewards all equal, or "
            "responses all right or all wrong, or no rewards); easier or harder problems, or group_filter off, help",
            state.step,
            int(collection.metrics["num_groups"]),
        )
        return {"num_optimizer_steps": 0.0, "num_skipped_steps": 0.0, "num_tokens_trained": 0.0}

    def observe(outcome: StepOutcome, part: Batch, name: str) -> None:
        state.guard.watch(outcome, part, name=f"step-{state.step:06d}-{name}")
        if not outcome.not_finite and "kl_pi_ref" in outcome.metrics:
            state.reference.observe(outcome.metrics["kl_pi_ref"])

    return update(
        state.policy,
        state.optimizer,
        objective,
        collate(used, collection.advantages),
        settings=settings.update,
        generator=state.generators["minibatches"],
        on_outcome=observe,
    )


def _standing(state: RunState) -> dict[str, float]:
    """Where the run stands after the step."""
    standing = {
        "optimizer_steps": float(state.optimizer.num_steps),
        "reference_age": float(state.optimizer.num_steps - state.reference.synced_at),
        "num_reference_refreshes": float(state.reference.num_refreshes),
    }
    if state.reference.kl_average is not None:
        standing["kl_pi_ref_average"] = state.reference.kl_average
    return standing


@contextmanager
def _timed(metrics: dict[str, float], name: str) -> Generator[None]:
    started = time.monotonic()
    yield
    metrics[name] = time.monotonic() - started
