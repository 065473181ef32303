"""A run in a few labelled lines, for people: what it is made of, and what in it does nothing."""

import math

from klimb.own_parts import is_own
from klimb.samplers import LocalSampler
from klimb.training import (
    OptimizerSettings,
)
from klimb.training.guard.detection import detections
from klimb.training.guard.settings import EVERYDAY, NUM_EVERYDAY
from klimb.training.guard_steps import plan_of
from klimb.training.settings import SOURCES, IterativeReference, why_centred
from klimb.training.unusable import SLOW_SECONDS
from klimb.ui.terminal.run import guard_facts
from klimb.workbench.config import RunConfig
from klimb.workbench.environments import (
    describe_environment,
)
from klimb.workbench.session import Session, make_loop_settings

INERT = (
    "one optimiser step per batch, at the policy that sampled it: w = 1 and x = 0, so the clip and a divergence with "
    "f\u2032(1) = 0 do nothing; training.num_minibatches or training.num_epochs above 1 let them act"
)

INERT_ON_LOGS = (
    "one optimiser step per batch, no ratio, and a reference that is the policy before it: x = 0, so the divergence "
    "does nothing; training.num_minibatches or training.num_epochs above 1, or reference.kind = 'fixed', let it act"
)


def describe(session: Session) -> list[tuple[str, str]]:
    """Return the run in a few labelled lines, for people."""
    config, training = session.config, session.config.training
    return [
        ("model", f"{session.policy.describe()}; {_sampler_in_words(session)}"),
        *_task_in_words(session),
        *_environment_in_words(session),
        *unusable_in_words(session),
        *([("rewards", words)] if (words := _rewards_in_words(config)) else []),
        ("objective", f"{_objective_in_words(config)} · reference {config.reference.kind}"),
        *([("policy", words)] if (words := _temperature_in_words(session)) else []),
        *([("clip", words)] if (words := clip_in_words(config)) else []),
        *([("experience", _sources_in_words(session))] if config.sources.share("rollout") < 1 else []),
        *(("feedback", log.in_words) for log in session.logs if log.in_words),
        (
            "steps",
            f"{training.num_steps} of {_batch_in_words(config)} · {config.optimizer.kind}, learning rate "
            f"{config.optimizer.learning_rate:g} {_warmup_in_words(config.optimizer)}",
        ),
        *_warm_up_in_words(session),
        *guard_facts(config.guard, _seen_by_guard(session)),
        *(("prompts differ", difference) for difference in session.prompt_differences),
        *([("note", INERT)] if is_inert(config) else []),
        *([("note", INERT_ON_LOGS)] if is_inert_on_logs(config) else []),
    ]


def _environment_in_words(session: Session) -> list[tuple[str, str]]:
    config, offer = session.config, session.offer
    if offer is None:
        return []
    longest = config.sampling.max_new_tokens
    words = describe_environment(config.environment, session.task, offer, max_new_tokens=longest)
    return [("environment", words)]


def unusable_in_words(session: Session) -> list[tuple[str, str]]:
    """Return what was left out because the model cannot be asked it, and how long a long look took."""
    facts = [("left out", words) for found in session.unusable if (words := found.in_words())]
    slow = [found for found in session.unusable if found.seconds > SLOW_SECONDS]
    return facts + [("looked at", f"{found.num_looked_at:,} {found.what} in {found.seconds:.1f} s") for found in slow]


def _seen_by_guard(session: Session) -> list[str]:
    """Return what the guard can see, a sentence each; none without `[guard]`."""
    settings = session.config.loop_settings()
    guard = settings.guard
    if guard is None:
        return []
    schedule, prompts = plan_of(settings, num_problems=len(session.task.train))
    asked = sum(min(guard.num_problems, NUM_EVERYDAY if name == EVERYDAY else math.inf) for name in guard.general)
    return [found.sentence for found in detections(guard, schedule, prompts, num_problems=int(asked))]


def _warm_up_in_words(session: Session) -> list[tuple[str, str]]:
    section, pairs = session.config.cloning, session.pairs
    if section is None or pairs is None:
        return []
    num_steps = section.num_epochs * math.ceil(len(pairs) / section.batch_size)
    return [("warm-up", f"{len(pairs)} answers from {section.path} cloned in {num_steps} optimiser steps")]


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
    if any(section.held_out_fraction for section in (config.log, config.feedback) if section is not None):
        return [("evaluated on", "the held-out rows of the log, before and after")]
    return [("evaluated on", "nothing: name a [task], and set evaluation.at_ends = true, to see what was learnt")]


def _rewards_in_words(config: RunConfig) -> str:
    """Return the sum of several rewards; empty where there is one."""
    scales = {"none": "", "group": " (scaled in its group)", "batch": " (scaled over the batch)"}
    return " + ".join(
        f"{settings.weight:g} × {name} = {settings.reward}{scales[settings.scale]}"
        for name, settings in config.rewards.items()
    )


def _objective_in_words(config: RunConfig) -> str:
    objective = config.objective
    if objective.loss == "squared-residual":
        return (
            f"{objective.recipe} · squared residual to {objective.anchor}, β = {objective.beta:g} · {objective.level}"
        )
    if objective.loss == "kto":
        return f"{objective.recipe} · β = {objective.beta:g}"
    if objective.loss == "pairwise":
        return (
            f"{objective.recipe} · pairs to {objective.anchor}, {objective.divergence}, β = {objective.beta:g} · "
            f"{objective.level}"
        )
    ratio = "" if objective.ratio == "recorded" else ", no ratio"
    bonus = f" · entropy bonus {objective.entropy_bonus:g}" if objective.entropy_bonus else ""
    return (
        f"{objective.recipe} · {objective.divergence}, β = {objective.beta:g} · {objective.estimator}, "
        f"{objective.level}{ratio} · clip {getattr(objective.clip, 'kind', objective.clip)}{bonus}"
    )


def _temperature_in_words(session: Session) -> str:
    """Say which temperature the policy has, unless it is 1 and so is what is drawn."""
    settings, temperature = make_loop_settings(session.config), session.policy.temperature
    draws = settings.sources.share("rollout") > 0
    if temperature == 1 and (not draws or settings.draws_from_policy):
        return ""
    other = f"; explored otherwise: {settings.why_drawn_otherwise}" if draws and not settings.draws_from_policy else ""
    return f"softmax(logits / {temperature:g}): trained, evaluated and saved at that temperature{other}"


def clip_in_words(config: RunConfig) -> str:
    """Say where the clip is centred if the policy is not μ from the start; empty where it is, or nothing is clipped."""
    why = why_centred(config.loop_settings(), config.objective)
    if not why:
        return ""
    if config.chosen_correction().rule is None:
        return f"of π/μ, and π is not μ before the first step ({why}): it acts without anything learnt"
    return f"centred on the policy before each batch, since that is not μ ({why}); prox/μ stays a weight"


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
    warm = "from the first step on"
    if section.warmup_steps not in (0, 1):
        warm = f"after a warm-up of {section.warmup_steps} optimiser steps"
    if section.schedule == "constant":
        return warm
    floor = section.min_learning_rate_fraction * section.learning_rate
    return f"{warm}, then {section.schedule} down to {floor:g} at optimiser step {section.schedule_steps}"


def _sources_in_words(session: Session) -> str:
    sources = session.config.sources
    groups = {logged.source: f" ({logged.num_groups} groups)" for logged in session.logs}
    return " · ".join(f"{share:.0%} {name}{groups.get(name, '')}" for name in SOURCES if (share := sources.share(name)))


def is_inert(config: RunConfig) -> bool:
    """Return True if every step is taken at the policy that sampled and that is its own reference: w = 1 and x = 0."""
    settings = config.loop_settings()
    return settings.is_fresh and _stays_at_reference(config) and settings.draws_from_policy


def is_inert_on_logs(config: RunConfig) -> bool:
    """Return True if no ratio is formed to the logs, and every step is taken at the reference: x = 0."""
    is_ratio_free = config.objective.loss == "policy-gradient" and config.objective.ratio == "none"
    return config.sources.rollout == 0 and is_ratio_free and _stays_at_reference(config)


def _stays_at_reference(config: RunConfig) -> bool:
    one_step = config.training.num_epochs * config.training.num_minibatches == 1
    reference = config.reference
    follows = isinstance(reference, IterativeReference) and reference.every_steps in (0, 1)
    return one_step and follows and config.objective.beta > 0
