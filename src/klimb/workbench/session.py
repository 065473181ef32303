"""Everything a run is made of, assembled from its configuration."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from klimb.losses import Loss
from klimb.policies import Policy
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, ProblemSet, Scorer
from klimb.training import LoggedGroups
from klimb.training.logged import check_logs
from klimb.workbench.assemble import (
    make_logs,
    make_loop_settings,
    make_objective,
    make_policy,
    make_sampling,
    make_scorer,
    make_task,
)
from klimb.workbench.config import RunConfig
from klimb.workbench.config.learning import OptimizerSection
from klimb.workbench.guarding.terminal import guard_facts

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
    logs: tuple[LoggedGroups, ...]
    task: ProblemSet
    scorer: Scorer
    load_seconds: float

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems of the evaluations."""
        return self.task.held_out[: self.config.evaluation.num_problems]


def make_session(config: RunConfig) -> Session:
    """Loads the model and makes the task; the scorer is not yet entered.

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


def described(session: Session) -> list[tuple[str, str]]:
    """The run in a few labelled lines, for people."""
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
    """True if every step is taken at the policy that sampled and that is its own reference: w = 1 and x = 0."""
    is_fresh = config.sources.rollout == 1 and config.sampling.lag == 0
    return is_fresh and _stays_at_reference(config) and make_sampling(config).is_plain


def is_inert_on_logs(config: RunConfig) -> bool:
    """True if no ratio is formed to the logs, and every step is taken at the reference: x = 0."""
    is_ratio_free = config.objective.loss == "policy-gradient" and config.objective.ratio == "none"
    return config.sources.rollout == 0 and is_ratio_free and _stays_at_reference(config)


def _stays_at_reference(config: RunConfig) -> bool:
    one_step = config.training.num_epochs * config.training.num_minibatches == 1
    reference = config.reference
    follows = reference.kind == "iterative" and reference.every_steps in (0, 1)
    return one_step and follows and config.objective.beta > 0
