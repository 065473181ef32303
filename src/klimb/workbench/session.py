"""Assemble a run from its configuration: policy, task, loss and settings. The only translation between the two."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from klimb.errors import ConfigError
from klimb.experience import Message, open_store
from klimb.losses import Corrected, Loss, NoCorrection, Objective, build_loss, slope_at_reference
from klimb.own_parts import is_own, load_function, sources_of
from klimb.policies import ModelSettings, Policy, keep_freed_memory, load_model
from klimb.samplers import LocalSampler, Sampler
from klimb.tasks import Problem, ProblemSet, Scorer, with_shaping
from klimb.tasks.file import read_rows
from klimb.training import (
    LoopSettings,
    OfflineSource,
    OptimizerSettings,
)
from klimb.training.run_folder import flat_settings
from klimb.training.settings import SOURCES, IterativeReference
from klimb.training.sources.offline import check_logs
from klimb.training.streams import derive_seed
from klimb.ui.terminal.run import guard_facts
from klimb.workbench.config import CloningConfig, RunConfig, SamplingConfig, StoreSection
from klimb.workbench.config.reading import resolved_tables


def make_objective(config: RunConfig) -> Loss:
    """Return the loss, with the parts of the user's own that the configuration names, and its correction."""
    loss = build_loss(config.objective, max_new_tokens=config.sampling.max_new_tokens)
    if not isinstance(loss, Objective):
        return loss
    if is_own(str(getattr(config.objective, "divergence", ""))):
        assert not isinstance(loss.divergence, str)
        try:
            config.check_objective(slope_at_reference(loss.divergence))
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return loss if config.correction == NoCorrection() else Corrected(objective=loss, correction=config.correction)


def own_parts(config: RunConfig) -> dict[str, str]:
    """Return every part of the user's own that the run is made of, with the hash of its source."""
    return sources_of(*(value for value in flat_settings(resolved_tables(config)).values() if isinstance(value, str)))


def make_policy(settings: ModelSettings) -> Policy:
    """Return the language model, on its device."""
    keep_freed_memory()
    return load_model(settings)


def make_sampler(policy: Policy, section: SamplingConfig) -> Sampler:
    """Return who draws: klimb's own sampler, or the user's.

    Raises:
        ConfigError: there is no such module or name, or what it returns cannot draw.
    """
    if not is_own(section.sampler):
        return LocalSampler(policy, max_batch=section.max_batch)
    expected = "a function of (policy, max_batch) that returns a klimb.samplers.Sampler"
    made = load_function(section.sampler, setting="sampling.sampler", expected=expected)(policy, section.max_batch)
    if not isinstance(made, Sampler):
        found = type(made).__name__
        raise ConfigError(f"sampling.sampler = {section.sampler!r}: expected {expected}; it returned {found}")
    return made


def make_task(config: RunConfig) -> ProblemSet:
    """Return the problems, with the reward and the shaping that the configuration asks for."""
    shapings = config.scoring.shapings(max_tokens=config.sampling.max_new_tokens)
    task = config.task.make_task()
    return with_shaping(task, shapings) if shapings else task


def make_scorer(config: RunConfig, task: ProblemSet) -> Scorer:
    """Return the scorer of the task, not yet entered."""
    return Scorer(task, config.scoring)


def make_loop_settings(config: RunConfig) -> LoopSettings:
    """Everything that the training loop is told, the source of the user's own parts included."""
    return replace(config.loop_settings(), own_parts=own_parts(config))


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


def read_pairs(section: CloningConfig) -> list[tuple[tuple[Message, ...], str]]:
    """Return the pairs to imitate.

    Raises:
        ConfigError: a row has no text in one of the two columns.
    """
    pairs = []
    for row in read_rows(Path(section.path)):
        missing = [
            column for column in (section.prompt, section.response) if not isinstance(row.values.get(column), str)
        ]
        if missing:
            raise ConfigError(f"{row.place}: column {missing[0]!r} must hold a text; see cloning.prompt and .response")
        message: Message = {"role": "user", "content": str(row.values[section.prompt])}
        pairs.append(((message,), str(row.values[section.response])))
    return pairs


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
    sampler: Sampler
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
    torch.manual_seed(derive_seed(config.seed, "adapter"))
    objective = make_objective(config)
    task = make_task(config)
    policy = make_policy(config.model)
    logs = make_logs(config, policy)
    settings = make_loop_settings(config)
    check_logs(
        logs,
        settings.sources,
        needs_log_mu=objective.needs_log_mu,
        advantages=settings.advantages.kind,
        num_prompts=settings.sampling.num_prompts,
    )
    sampler = make_sampler(policy, config.sampling)
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
        ("model", f"{session.policy.describe()}; {_sampler_in_words(session)}"),
        *_task_in_words(session),
        ("objective", f"{_objective_in_words(config)} · reference {config.reference.kind}"),
        *([("experience", _sources_in_words(session))] if config.sources.share("rollout") < 1 else []),
        (
            "steps",
            f"{training.num_steps} of {_batch_in_words(config)} · {config.optimizer.kind}, learning rate "
            f"{config.optimizer.learning_rate:g} {_warmup_in_words(config.optimizer)}",
        ),
        *guard_facts(config.guard),
        *([("note", INERT)] if is_inert(config) else []),
        *([("note", INERT_ON_LOGS)] if is_inert_on_logs(config) else []),
    ]


def _sampler_in_words(session: Session) -> str:
    sampler = session.sampler
    own = session.config.sampling.sampler
    return f"drawn by {own}" if is_own(own) or not isinstance(sampler, LocalSampler) else sampler.describe()


def _task_in_words(session: Session) -> list[tuple[str, str]]:
    config, task = session.config, session.task
    if config.sources.share("rollout") > 0:
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
        f"{objective.level}{ratio} · clip {getattr(objective.clip, 'kind', objective.clip)}"
    )


def _batch_in_words(config: RunConfig) -> str:
    sampling = config.sampling
    if config.sources.rollout == 0:
        return f"{sampling.num_prompts} groups"
    drawn = (
        f"{sampling.num_prompts} prompts × {sampling.num_samples} answers of at most {sampling.max_new_tokens} tokens"
    )
    return f"{drawn}, others for those that teach nothing" if config.advantages.group_filter else drawn


def _warmup_in_words(section: OptimizerSettings) -> str:
    # The first of so many steps has that share of the learning rate, so 1 is none.
    if section.warmup_steps in (0, 1):
        return "from the first step on"
    return f"after a warm-up of {section.warmup_steps} optimiser steps"


def _sources_in_words(session: Session) -> str:
    sources = session.config.sources
    groups = {logged.source: f" ({logged.num_groups} groups)" for logged in session.logs}
    return " · ".join(f"{share:.0%} {name}{groups.get(name, '')}" for name in SOURCES if (share := sources.share(name)))


def is_inert(config: RunConfig) -> bool:
    """Return True if every step is taken at the policy that sampled and that is its own reference: w = 1 and x = 0."""
    return config.loop_settings().is_fresh and _stays_at_reference(config) and config.sampling.is_plain


def is_inert_on_logs(config: RunConfig) -> bool:
    """Return True if no ratio is formed to the logs, and every step is taken at the reference: x = 0."""
    is_ratio_free = config.objective.loss == "policy-gradient" and config.objective.ratio == "none"
    return config.sources.rollout == 0 and is_ratio_free and _stays_at_reference(config)


def _stays_at_reference(config: RunConfig) -> bool:
    one_step = config.training.num_epochs * config.training.num_minibatches == 1
    reference = config.reference
    follows = isinstance(reference, IterativeReference) and reference.every_steps in (0, 1)
    return one_step and follows and config.objective.beta > 0
