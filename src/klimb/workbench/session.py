"""Assemble a run from its configuration: policy, task, loss and settings. The only translation between the two."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from klimb.divergences import Divergence
from klimb.divergences.names import SlopeAtReference
from klimb.errors import ConfigError
from klimb.experience import Message, SamplingSettings, open_store
from klimb.losses import (
    Clip,
    Corrected,
    KtoObjective,
    Loss,
    Mask,
    NoClip,
    Objective,
    SquaredResidual,
    Truncate,
    is_forward_kl,
    slope_at_reference,
)
from klimb.own_parts import is_own, load_part, sources_of
from klimb.policies import ModelSettings, Policy, keep_freed_memory, load_model
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, ProblemSet, Scorer, with_shaping
from klimb.tasks.file import read_rows
from klimb.training import (
    CloningSettings,
    EvaluationSettings,
    LoopSettings,
    OfflineSource,
    OptimizerSettings,
    RolloutSettings,
    SourceSettings,
    StepSettings,
    UpdateSettings,
)
from klimb.training.sources.offline import check_logs
from klimb.training.sources.shares import SOURCES
from klimb.ui.terminal.run import guard_facts
from klimb.workbench.config import CloningSection, RunConfig
from klimb.workbench.config.correction import CorrectionSection
from klimb.workbench.config.experience import StoreSection
from klimb.workbench.config.learning import ClipSettings, OptimizerSection, OwnClip, automatic_warmup
from klimb.workbench.guard import make_guard_settings


def make_objective(config: RunConfig) -> Loss:
    """Return the objective, with a divergence of the user's own if the configuration names one, and its correction."""
    section = config.objective
    reduce = config.sampling.max_new_tokens if section.reduce == "max-new-tokens" else section.reduce
    if section.loss == "squared-residual":
        assert section.level in ("sequence", "sequence-mean")
        return SquaredResidual(
            beta=section.beta, anchor=section.anchor, value=section.value, level=section.level, reduce=reduce
        )
    if section.loss == "kto":
        return KtoObjective(
            beta=section.beta,
            desirable_weight=section.desirable_weight,
            undesirable_weight=section.undesirable_weight,
            reduce=reduce,
        )
    divergence = load_divergence(section.divergence)
    if not isinstance(divergence, str):
        _check_own_divergence(config, divergence)
    objective = Objective(
        divergence=divergence,
        beta=section.beta,
        estimator=section.estimator,
        level=section.level,
        clip=load_clip(section.clip),
        reduce=reduce,
        ratio=section.ratio,
    )
    return _correct(objective, config.correction)


def _check_own_divergence(config: RunConfig, divergence: Divergence) -> None:
    try:
        config.check_divergence(
            SlopeAtReference(constant=slope_at_reference(divergence), is_forward_kl=is_forward_kl(divergence))
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _correct(objective: Objective, section: CorrectionSection) -> Loss:
    """Return the objective under the correction, or as it is where there is none."""
    mask = None if section.off_policy_mask == "none" else section.off_policy_mask
    if section.kind == "none":
        return objective if mask is None else Corrected(objective=objective, rule=None, off_policy_mask=mask)
    if section.kind == "decoupled":
        rule = NoClip()
    elif section.kind == "mask":
        rule = Mask(section.low, section.high)
    else:
        rule = Truncate(low=1.0, high=section.high - 1)
    return Corrected(
        objective=objective,
        rule=rule,
        level=section.level,
        normalised=section.kind == "normalised",
        off_policy_mask=mask,
    )


def load_divergence(name: str) -> str | Divergence:
    """Return the name itself, or the `Divergence` that `python:module.name` names, found from the working directory.

    Raises:
        ConfigError: there is no such module or name, or it isn't a Divergence.
    """
    if not is_own(name):
        return name
    found = load_part(name, setting="objective.divergence")
    if not isinstance(found, Divergence):
        raise ConfigError(
            f"objective.divergence = {name!r}: expected a klimb.divergences.Divergence of that name, "
            f"got {type(found).__name__}"
        )
    return found


def load_clip(settings: ClipSettings) -> Clip:
    """Return the clip itself, or the user's own that `python:module.name` names: an object, or a class of them.

    Raises:
        ConfigError: there is no such module or name, or it isn't a clip.
    """
    if not isinstance(settings, OwnClip):
        return settings
    found = load_part(settings.kind, setting="objective.clip")
    clip = found() if isinstance(found, type) else found
    if not isinstance(clip, Clip):
        raise ConfigError(
            f"objective.clip = {settings.kind!r}: expected a function of (w, is_good, log_pi) that returns a "
            f"klimb.losses.Clipped, got {type(clip).__name__}"
        )
    return clip


def own_parts(config: RunConfig) -> dict[str, str]:
    """Return every part of the user's own that the run is made of, with the hash of its source."""
    objective, task = config.objective, config.task
    named = (objective.divergence, objective.clip.kind, config.advantages.kind, task.kind, task.reward)
    return sources_of(*named)


def make_policy(settings: ModelSettings) -> Policy:
    """Return the language model, on its device."""
    keep_freed_memory()
    return load_model(settings)


def make_task(config: RunConfig) -> ProblemSet:
    """Return the problems, with the reward and the shaping that the configuration asks for."""
    shapings = config.scoring.shapings(max_tokens=config.sampling.max_new_tokens)
    task = config.task.make_task()
    return with_shaping(task, shapings) if shapings else task


def make_scorer(config: RunConfig, task: ProblemSet) -> Scorer:
    """Return the scorer of the task, not yet entered."""
    return Scorer(task, config.scoring)


def make_sampling(config: RunConfig) -> SamplingSettings:
    """How training answers are drawn."""
    section = config.sampling
    return SamplingSettings(
        temperature=section.temperature,
        top_p=section.top_p,
        top_k=section.top_k,
        min_p=section.min_p,
        max_new_tokens=section.max_new_tokens,
    )


def make_loop_settings(config: RunConfig) -> LoopSettings:
    """Everything that the training loop is told."""
    training, evaluation = config.training, config.evaluation
    return LoopSettings(
        num_steps=training.num_steps,
        seed=config.seed,
        collect=RolloutSettings(
            num_prompts=config.sampling.num_prompts,
            num_samples=config.sampling.num_samples,
            sampling=make_sampling(config),
            advantages=config.advantages.kind,
            advantage_offset=config.advantages.offset,
            advantage_temperature=soft_value_temperature(config),
            min_reward=None if config.advantages.min_reward == "none" else config.advantages.min_reward,
            group_filter=config.advantages.group_filter,
            max_refills=config.advantages.max_refills,
            shuffle_rewards=config.advantages.shuffle_rewards,
        ),
        credit=config.credit,
        critic=config.critic,
        sources=SourceSettings(
            shares={name: share for name in SOURCES if (share := getattr(config.sources, name))},
            replay=config.replay,
            lag=config.sampling.lag,
        ),
        update=UpdateSettings(
            num_epochs=training.num_epochs,
            num_minibatches=training.num_minibatches,
            step=make_step_settings(config),
            max_skipped_steps=training.max_skipped_steps,
        ),
        optimizer=make_optimizer_settings(config),
        reference=config.reference,
        checkpoints=config.checkpoints,
        evaluation=EvaluationSettings(
            every_steps=evaluation.every_steps,
            every_tokens=evaluation.every_tokens,
            every_seconds=evaluation.every_seconds,
            num_samples=evaluation.num_samples,
            sampling=SamplingSettings(max_new_tokens=config.sampling.max_new_tokens),
            seed=evaluation.seed,
        ),
        log_mu=training.log_mu,
        num_mismatch_rows=training.num_mismatch_rows,
        max_mismatch=training.max_mismatch,
        max_seconds=_limit(training.max_seconds),
        max_generated_tokens=_limit(training.max_generated_tokens),
        max_training_seconds=_limit(training.max_training_seconds),
        save_rollouts=config.run.save_rollouts,
        guard=make_guard_settings(config.guard),
        own_parts=own_parts(config),
    )


def soft_value_temperature(config: RunConfig) -> float:
    """Return beta; where it is 0, which no soft value takes, the default that the other advantages do not read."""
    beta = config.objective.beta
    return beta if beta > 0 else RolloutSettings.advantage_temperature


def _limit(value: float | Literal["none"]) -> float:
    return math.inf if value == "none" else value


def make_logs(config: RunConfig, policy: Policy) -> tuple[OfflineSource, ...]:
    """Return the sources of samples that this run does not draw.

    Raises:
        ValueError: a store has no sample that fits its condition.
    """
    sections: tuple[tuple[Literal["log", "feedback"], StoreSection | None], ...] = (
        ("log", config.log),
        ("feedback", config.feedback),
    )
    return tuple(
        OfflineSource(open_store(Path(section.path)), policy, source=source, where=section.where, seed=config.seed)
        for source, section in sections
        if section is not None
    )


def make_step_settings(config: RunConfig) -> StepSettings:
    """How a minibatch becomes one step."""
    return StepSettings(
        micro_batch_tokens=config.training.micro_batch_tokens,
        max_grad_norm=config.optimizer.max_grad_norm,
        ess_scaling=config.optimizer.ess_scaling,
    )


def make_optimizer_settings(config: RunConfig) -> OptimizerSettings:
    """Return the optimizer's own settings; the gradient norm belongs to the step."""
    return OptimizerSettings(**config.optimizer.model_dump(exclude={"max_grad_norm", "ess_scaling"}))


def make_cloning(
    config: RunConfig, section: CloningSection
) -> tuple[list[tuple[tuple[Message, ...], str]], CloningSettings]:
    """Return the pairs to imitate, and how."""
    pairs = []
    for row in read_rows(Path(section.path)):
        missing = [
            column for column in (section.prompt, section.response) if not isinstance(row.values.get(column), str)
        ]
        if missing:
            raise ConfigError(f"{row.place}: column {missing[0]!r} must hold a text; see cloning.prompt and .response")
        message: Message = {"role": "user", "content": str(row.values[section.prompt])}
        pairs.append(((message,), str(row.values[section.response])))
    warmup_steps = section.warmup_steps
    if warmup_steps == "auto":
        warmup_steps = automatic_warmup(section.num_epochs * math.ceil(len(pairs) / section.batch_size))
    optimizer = replace(make_optimizer_settings(config), learning_rate=section.learning_rate, warmup_steps=warmup_steps)
    settings = CloningSettings(
        num_epochs=section.num_epochs,
        batch_size=section.batch_size,
        optimizer=optimizer,
        step=make_step_settings(config),
        seed=config.seed,
    )
    return pairs, settings


INERT = (
    "one optimiser step per batch, at the policy that sampled it: w = 1 and x = 0, so the clip and a divergence with "
    "f\u2032(1) = 0 do nothing; training.num_minibatches or training.num_epochs above 1 let them act"
)

INERT_ON_LOGS = (
    "one optimiser step per batch, no ratio, and a reference that is the policy before it: x = 0, so the divergence "
    "does nothing; training.num_minibatches or training.num_epochs above 1, or reference.kind = 'fixed', let it act"
)


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything a run is made of."""

    config: RunConfig
    objective: Loss
    policy: Policy
    sampler: LocalSampler
    logs: tuple[OfflineSource, ...]
    task: ProblemSet
    scorer: Scorer
    load_seconds: float

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems of the evaluations."""
        return self.task.held_out[: self.config.evaluation.num_problems]


def make_session(config: RunConfig) -> Session:
    """Load the model and makes the task; the scorer is not yet entered.

    The model comes last: what is wrong with the rest is known in no time.
    """
    started = time.monotonic()
    if config.training.num_threads:
        torch.set_num_threads(config.training.num_threads)
    # A fresh adapter is drawn from the global random state; everything else has a generator of its own.
    torch.manual_seed(config.seed)
    objective = make_objective(config)
    task = make_task(config)
    policy = make_policy(config.model)
    logs = make_logs(config, policy)
    check_logs(logs, make_loop_settings(config).sources, needs_log_mu=objective.needs_log_mu)
    sampler = LocalSampler(policy, max_batch=config.sampling.max_batch)
    return Session(
        config=config,
        objective=objective,
        policy=policy,
        sampler=sampler,
        logs=logs,
        task=task,
        scorer=make_scorer(config, task),
        load_seconds=time.monotonic() - started,
    )


def describe(session: Session) -> list[tuple[str, str]]:
    """Return the run in a few labelled lines, for people."""
    config, training = session.config, session.config.training
    return [
        ("model", f"{session.policy.describe()}; {session.sampler.describe()}"),
        *_task_in_words(session),
        ("objective", f"{_objective_in_words(config)} · reference {config.reference.kind}"),
        *([("experience", _sources_in_words(session))] if config.sources.rollout < 1 else []),
        (
            "steps",
            f"{training.num_steps} of {_batch_in_words(config)} · {config.optimizer.kind}, learning rate "
            f"{config.optimizer.learning_rate:g} {_warmup_in_words(config.optimizer)}",
        ),
        *guard_facts(config.guard),
        *([("note", INERT)] if is_inert(config) else []),
        *([("note", INERT_ON_LOGS)] if is_inert_on_logs(config) else []),
    ]


def _task_in_words(session: Session) -> list[tuple[str, str]]:
    config, task = session.config, session.task
    if config.sources.rollout > 0:
        return [("task", f"{task.name} · {len(task.train)} training problems, {len(session.held_out)} held out")]
    if config.evaluation.at_ends or make_loop_settings(config).evaluation.is_on:
        return [("evaluated on", f"{task.name} · {len(session.held_out)} held-out problems")]
    return [("evaluated on", "nothing: name a [task], and set evaluation.at_ends = true, to see what was learnt")]


def _objective_in_words(config: RunConfig) -> str:
    objective = config.objective
    if objective.loss == "squared-residual":
        return (
            f"{objective.recipe} · squared residual to {objective.anchor}, β = {objective.beta:g} · {objective.level}"
        )
    if objective.loss == "kto":
        return f"{objective.recipe} · β = {objective.beta:g}"
    ratio = "" if objective.ratio == "recorded" else ", no ratio"
    return (
        f"{objective.recipe} · {objective.divergence}, β = {objective.beta:g} · {objective.estimator}, "
        f"{objective.level}{ratio} · clip {objective.clip.kind}"
    )


def _batch_in_words(config: RunConfig) -> str:
    sampling = config.sampling
    if config.sources.rollout == 0:
        return f"{sampling.num_prompts} groups"
    drawn = (
        f"{sampling.num_prompts} prompts × {sampling.num_samples} answers of at most {sampling.max_new_tokens} tokens"
    )
    return f"{drawn}, others for those that teach nothing" if config.advantages.group_filter else drawn


def _warmup_in_words(section: OptimizerSection) -> str:
    # The first of so many steps has that share of the learning rate, so 1 is none.
    if section.warmup_steps in (0, 1):
        return "from the first step on"
    return f"after a warm-up of {section.warmup_steps} optimiser steps"


def _sources_in_words(session: Session) -> str:
    shares = session.config.sources.model_dump()
    groups = {logged.source: f" ({logged.num_groups} groups)" for logged in session.logs}
    return " · ".join(f"{share:.0%} {name}{groups.get(name, '')}" for name, share in shares.items() if share)


def is_inert(config: RunConfig) -> bool:
    """Return True if every step is taken at the policy that sampled and that is its own reference: w = 1 and x = 0."""
    is_fresh = config.sources.rollout == 1 and config.sampling.lag == 0
    return is_fresh and _stays_at_reference(config) and make_sampling(config).is_plain


def is_inert_on_logs(config: RunConfig) -> bool:
    """Return True if no ratio is formed to the logs, and every step is taken at the reference: x = 0."""
    is_ratio_free = config.objective.loss == "policy-gradient" and config.objective.ratio == "none"
    return config.sources.rollout == 0 and is_ratio_free and _stays_at_reference(config)


def _stays_at_reference(config: RunConfig) -> bool:
    one_step = config.training.num_epochs * config.training.num_minibatches == 1
    reference = config.reference
    follows = reference.kind == "iterative" and reference.every_steps in (0, 1)
    return one_step and follows and config.objective.beta > 0
