"""One step of the loop: gather, score under the reference, update. Blind to the algorithm."""

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from klimb.experience import Batch, Sample, collate, write_samples
from klimb.losses import Loss
from klimb.training.comments import blend_comments
from klimb.training.credit import assign_advantages
from klimb.training.filtered_groups import is_trained_on
from klimb.training.minibatches import score_samples
from klimb.training.mismatch import is_measured_in_update, mismatch_of_first_step
from klimb.training.next_batch import StepData, next_batch
from klimb.training.rollouts import RolloutWorker
from klimb.training.settings import LoopSettings
from klimb.training.sources.replay import group_samples
from klimb.training.state import CRITIC, RunState
from klimb.training.update import StepOutcome, update

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Iteration:
    """What one step drew, and what is to be said of it.

    Attributes:
        samples: drawn at this step.
        metrics: of the step.
        advantages: the reward less its baseline of what was trained on, by sample_id.
    """

    samples: tuple[Sample, ...]
    metrics: dict[str, float]
    advantages: Mapping[str, float]


def iterate(state: RunState, actors: RolloutWorker, objective: Loss, settings: LoopSettings) -> Iteration:
    """Take the run one step further.

    The parameters are at x while sampling and scoring, at y inside `update`. The reference follows before the
    sampling, so it is one and the same for the whole batch.
    """
    started = time.monotonic()
    state.step += 1
    state.reference.follow(state.policy, num_optimizer_steps=state.optimizer.num_steps)
    gathered = next_batch(state, actors, settings, beta=objective.beta)
    metrics = dict(gathered.metrics)
    with _time_into(metrics, "reference_seconds"):
        used = _attach_log_ref(state, gathered.used, objective, settings)
    with _time_into(metrics, "update_seconds"):
        metrics |= _update(state, objective, used, gathered, settings)
    _keep_for_replay(state, gathered.fresh, settings)
    metrics |= _describe_standing(state)
    metrics["num_out_of_memory"] = float(state.policy.pass_limit.num_out_of_memory)
    metrics["step_seconds"] = time.monotonic() - started
    metrics["tokens_per_second"] = metrics["num_tokens_sampled"] / metrics["step_seconds"]
    state.num_tokens_generated += int(metrics["num_tokens_sampled"])
    state.elapsed_seconds += metrics["step_seconds"]
    metrics["num_tokens_generated"] = float(state.num_tokens_generated)
    metrics["elapsed_seconds"] = state.elapsed_seconds
    now = {sample.sample_id: sample for sample in used if sample.source == "rollout"}
    samples = tuple(now.get(sample.sample_id, sample) for sample in gathered.drawn)
    advantages = {sample.sample_id: credit for sample, credit in zip(used, gathered.credits.tolist(), strict=True)}
    return Iteration(samples, {"step": float(state.step), **metrics}, advantages)


def _attach_log_ref(
    state: RunState, used: Sequence[Sample], objective: Loss, settings: LoopSettings
) -> tuple[Sample, ...]:
    """Return the samples with the log_ref to train with; those that have one were drawn by the reference itself."""
    kind = settings.reference.kind
    if kind == "behaviour":
        return tuple(_attach_behaviour_reference(sample, objective) for sample in used)
    if state.reference.is_policy(num_optimizer_steps=state.optimizer.num_steps):
        used = [_attach_own_reference(sample, state) for sample in used]
    # Without a ratio to μ nothing is compared with what could be drawn: π and ref are then over all tokens.
    on_support = objective.needs_log_mu
    is_scored = [sample.log_ref is not None and (on_support or sample.support is None) for sample in used]
    unscored = [sample for sample, has_ref in zip(used, is_scored, strict=True) if not has_ref]
    if kind == "none" or not unscored:
        return tuple(used)
    needs_log_ref = objective.needs_log_ref or settings.credit.kl_in_reward > 0
    if not (needs_log_ref or settings.is_fresh):  # a pass over old samples that nothing reads
        return tuple(replace(sample, log_ref=None) for sample in used)
    max_tokens = settings.training.micro_batch_tokens
    if state.reference.is_policy(num_optimizer_steps=state.optimizer.num_steps):
        values = score_samples(state.policy, unscored, max_tokens=max_tokens, on_support=on_support)
        scored = [replace(sample, log_ref=log_ref) for sample, log_ref in zip(unscored, values, strict=True)]
    else:
        scored = state.reference.score(state.policy, unscored, max_tokens=max_tokens, on_support=on_support)
    with_ref = iter(scored)
    return tuple(sample if has_ref else next(with_ref) for sample, has_ref in zip(used, is_scored, strict=True))


def _attach_own_reference(sample: Sample, state: RunState) -> Sample:
    """Set ref = μ for a sample that the reference drew on its recorded support, where the two are the same numbers."""
    is_own = sample.source == "rollout" and sample.policy_version == state.optimizer.num_steps
    if sample.support is None or sample.log_ref is not None or not is_own:
        return sample
    return replace(sample, log_ref=sample.log_mu) if sample.draws_at(state.policy.temperature) else sample


def _attach_behaviour_reference(sample: Sample, objective: Loss) -> Sample:
    """Set ref = μ. An objective without a ratio takes μ as it is where no log_ref is given, and knows no log_mu."""
    return replace(sample, log_ref=sample.log_mu if objective.needs_log_mu else None)


def _update(
    state: RunState,
    objective: Loss,
    used: Sequence[Sample],
    gathered: StepData,
    settings: LoopSettings,
) -> dict[str, float]:
    if not used:
        logger.warning(
            "step %d trained on nothing: in none of its groups was there anything to compare (rewards all equal, or "
            "responses all right or all wrong, no rewards, or one alone); easier or harder problems, or group_filter "
            "off, help",
            state.step,
        )
        return {"num_optimizer_steps": 0.0, "num_skipped_steps": 0.0, "num_tokens_trained": 0.0}

    version = state.optimizer.num_steps
    reads_gap = settings.training.num_mismatch_rows > 0 and is_measured_in_update(state, settings)
    gap: dict[str, float] = {}

    def observe(outcome: StepOutcome, part: Batch, name: str) -> None:
        state.guard.watch(outcome, part, name=f"step-{state.step:06d}-{name}")
        if not outcome.not_finite and "kl_pi_ref" in outcome.metrics:
            state.reference.observe(outcome.metrics["kl_pi_ref"])
        steps_before = state.optimizer.num_steps - (0 if outcome.not_finite else 1)
        if reads_gap and not gap and steps_before == version:
            gap.update(mismatch_of_first_step(outcome, part, policy_version=version))

    batch, of_the_critic = assign_advantages(
        state.policy,
        state.critic,
        collate(used, allow_absent_log_mu=not objective.needs_log_mu, on_support=objective.needs_log_mu),
        gathered.credits,
        settings.credit,
        turn_credits=gathered.turn_credits,
        max_tokens=settings.training.micro_batch_tokens,
        generator=state.generators.get(CRITIC, state.generators["minibatches"]),
        is_of_policy=not settings.why_mu_is_another,
    )
    batch, of_comments = _blend_comments(state, batch, settings)
    metrics = (
        of_the_critic
        | of_comments
        | update(
            state.policy,
            state.optimizer,
            objective,
            batch,
            settings=settings.training,
            generator=state.generators["minibatches"],
            on_outcome=observe,
        )
    )
    state.weights_watch.observe(
        metrics, has_old_samples=not settings.is_fresh, why_mu_is_another=settings.why_mu_is_another
    )
    return gap | metrics


def _blend_comments(state: RunState, batch: Batch, settings: LoopSettings) -> tuple[Batch, dict[str, float]]:
    """Return the batch with what people's comments say of its tokens; as it is where nobody is to be shown them."""
    told = settings.feedback
    if not told.comment_weight or not any(sample.source == "feedback" for sample in batch.samples):
        return batch, {}
    score_policy = partial(score_samples, state.policy, max_tokens=settings.training.micro_batch_tokens)

    def score_reference(samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        if state.reference.is_policy(num_optimizer_steps=state.optimizer.num_steps):
            return score_policy(samples)
        scored = state.reference.score(state.policy, samples, max_tokens=settings.training.micro_batch_tokens)
        return [sample.log_ref or () for sample in scored]

    score_teacher = score_policy if told.comment_teacher == "policy" else score_reference
    return blend_comments(state.policy, batch, told, score_policy=score_policy, score_teacher=score_teacher)


def _keep_for_replay(state: RunState, fresh: Sequence[Sample], settings: LoopSettings) -> None:
    """Keep the groups that were trained on, with all that their baseline was formed over."""
    if settings.sources.share("replay"):
        groups = group_samples(fresh, step=state.step)
        state.replay.add(
            [group for group in groups if any(is_trained_on(each, settings.advantages) for each in group.samples)]
        )


def _describe_standing(state: RunState) -> dict[str, float]:
    """Say where the run stands after the step."""
    standing = {
        "optimizer_steps": float(state.optimizer.num_steps),
        "reference_age": float(state.optimizer.num_steps - state.reference.synced_at),
        "num_reference_refreshes": float(state.reference.num_refreshes),
    }
    if state.reference.kl_average is not None:
        standing["kl_pi_ref_average"] = state.reference.kl_average
    return standing


@contextmanager
def _time_into(metrics: dict[str, float], name: str) -> Generator[None]:
    started = time.monotonic()
    yield
    metrics[name] = time.monotonic() - started


def keep_rollouts(folder: Path, step: int, samples: Sequence[Sample]) -> None:
    """Write what the step drew."""
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder / f"step-{step:06d}.parquet", samples)
