"""From a configuration to the objects that train: the only translation between the two."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

from klimb.experience import Message, SamplingSettings, open_store
from klimb.policies import LoraSettings, Policy, keep_freed_memory, load_policy
from klimb.tasks import (
    FormatReward,
    OverlongShaping,
    ProblemSet,
    Scorer,
    Shaping,
    arithmetic,
    from_file,
    reasoning_gym,
    with_reward,
    with_shaping,
)
from klimb.tasks.rows import read_rows
from klimb.training import (
    CheckpointSettings,
    CloningSettings,
    CollectSettings,
    CreditSettings,
    CriticSettings,
    EvaluationSettings,
    LoggedGroups,
    LoopSettings,
    OptimizerSettings,
    ReferenceSettings,
    ReplaySettings,
    SourceSettings,
    StepSettings,
    UpdateSettings,
)
from klimb.training.sources import SOURCES
from klimb.workbench.config import CloningSection, ConfigError, ModelSection, ReferenceSection, RunConfig, TaskSection
from klimb.workbench.config.experience import StoreSection
from klimb.workbench.config.learning import automatic_warmup
from klimb.workbench.guarding.making import make_guard_settings
from klimb.workbench.objectives import make_objective as make_objective

TASKS_OWN_REWARD = "task"


def make_policy(section: ModelSection) -> Policy:
    """The language model, on its device."""
    keep_freed_memory()
    lora = None if section.lora is None else LoraSettings(**section.lora.model_dump())
    policy = load_policy(
        section.path,
        dtype=section.dtype,
        device=section.device,
        lora=lora,
        trust_remote_code=section.trust_remote_code,
    )
    policy.activation_checkpointing = section.activation_checkpointing
    return policy


def make_task(config: RunConfig) -> ProblemSet:
    """The problems, with the reward and the shaping that the configuration asks for."""
    scoring = config.scoring
    task = _problems(config.task)
    shapings: list[Shaping] = []
    if scoring.overlong is not None:
        shapings.append(
            OverlongShaping(
                max_tokens=config.sampling.max_new_tokens,
                buffer_tokens=scoring.overlong.buffer_tokens,
                factor=scoring.overlong.factor,
            )
        )
    if scoring.format is not None:
        shapings.append(FormatReward(pattern=scoring.format.pattern, weight=scoring.format.weight))
    return with_shaping(task, shapings) if shapings else task


def _problems(section: TaskSection) -> ProblemSet:
    settings = section.model_dump(exclude={"kind", "reward"})
    if section.kind == "file":
        settings["answer"] = section.answer or None
        return from_file(settings.pop("path"), verifier=section.reward, **settings)
    if section.kind == "arithmetic":
        task = arithmetic(**settings)
    else:
        task = reasoning_gym(settings.pop("dataset"), **settings)
    return task if section.reward == TASKS_OWN_REWARD else with_reward(task, section.reward)


def make_scorer(config: RunConfig, task: ProblemSet) -> Scorer:
    """The scorer of the task, not yet entered."""
    limit = config.scoring.memory_limit_gigabytes
    return Scorer(
        task,
        timeout_seconds=config.scoring.timeout_seconds,
        num_workers=config.scoring.num_workers,
        max_error_fraction=config.scoring.max_error_fraction,
        memory_limit_gigabytes=None if limit == "none" else limit,
    )


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
        collect=CollectSettings(
            num_prompts=config.sampling.num_prompts,
            num_samples=config.sampling.num_samples,
            sampling=make_sampling(config),
            advantages=config.advantages.kind,
            advantage_offset=config.advantages.offset,
            advantage_temperature=config.objective.beta or 1.0,
            min_reward=None if config.advantages.min_reward == "none" else config.advantages.min_reward,
            group_filter=config.advantages.group_filter,
            max_refills=config.advantages.max_refills,
            shuffle_rewards=config.advantages.shuffle_rewards,
        ),
        credit=CreditSettings(**config.credit.model_dump(), critic=CriticSettings(**config.critic.model_dump())),
        sources=SourceSettings(
            shares={name: share for name in SOURCES if (share := getattr(config.sources, name))},
            replay=ReplaySettings(**config.replay.model_dump()),
            lag=config.sampling.lag,
        ),
        update=UpdateSettings(
            num_epochs=training.num_epochs,
            num_minibatches=training.num_minibatches,
            step=make_step_settings(config),
            max_skipped_steps=training.max_skipped_steps,
        ),
        optimizer=make_optimizer_settings(config),
        reference=make_reference_settings(config.reference),
        checkpoints=CheckpointSettings(**config.checkpoints.model_dump()),
        evaluation=EvaluationSettings(
            every_steps=evaluation.every_steps,
            every_tokens=evaluation.every_tokens,
            every_seconds=evaluation.every_seconds,
            num_samples=evaluation.num_samples,
            sampling=SamplingSettings(max_new_tokens=config.sampling.max_new_tokens),
            seed=evaluation.seed,
        ),
        log_mu=training.log_mu,
        num_gap_rows=training.num_gap_rows,
        max_gap=training.max_gap,
        max_seconds=_limit(training.max_seconds),
        max_generated_tokens=_limit(training.max_generated_tokens),
        max_training_seconds=_limit(training.max_training_seconds),
        save_rollouts=config.run.save_rollouts,
        guard=make_guard_settings(config.guard),
    )


def _limit(value: float | Literal["none"]) -> float:
    return math.inf if value == "none" else value


def make_logs(config: RunConfig, policy: Policy) -> tuple[LoggedGroups, ...]:
    """The sources of samples that this run does not draw.

    Raises:
        ValueError: a store has no sample that fits its condition.
    """
    sections: tuple[tuple[Literal["log", "feedback"], StoreSection | None], ...] = (
        ("log", config.log),
        ("feedback", config.feedback),
    )
    return tuple(
        LoggedGroups(open_store(Path(section.path)), policy, source=source, where=section.where, seed=config.seed)
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
    """The optimizer's own settings; the gradient norm belongs to the step."""
    return OptimizerSettings(**config.optimizer.model_dump(exclude={"max_grad_norm", "ess_scaling"}))


def make_reference_settings(section: ReferenceSection) -> ReferenceSettings:
    """The rule of the reference."""
    if section.kind == "iterative":
        return ReferenceSettings(
            kind="iterative",
            every_steps=None if section.every_steps == "never" else section.every_steps,
            kl_threshold=None if section.kl_threshold == "never" else section.kl_threshold,
            kl_decay=section.kl_decay,
        )
    if section.kind == "ema":
        return ReferenceSettings(kind="ema", ema_decay=section.decay)
    return ReferenceSettings(kind=section.kind)


def make_cloning(
    config: RunConfig, section: CloningSection
) -> tuple[list[tuple[tuple[Message, ...], str]], CloningSettings]:
    """The pairs to imitate, and how."""
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
