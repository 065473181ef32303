"""Assemble a run from its configuration: policy, task, loss and settings. The only translation between the two."""

import inspect
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from klimb.errors import ConfigError
from klimb.experience import Sample, open_store
from klimb.experience.samples_in_memory import store_in_memory
from klimb.losses import Corrected, Loss, NoCorrection, Objective, build_loss, slope_at_reference
from klimb.losses.settings import KtoSettings, PairwiseSettings
from klimb.own_parts import global_values_of, is_object, is_own, load_function, load_part, sources_of
from klimb.policies import ModelSettings, Policy, keep_freed_memory, load_model
from klimb.samplers import LocalSampler, Sampler
from klimb.tasks import (
    EnvironmentReward,
    Problem,
    ProblemSet,
    Scorer,
    with_environment_reward,
    with_rewards,
    with_shaping,
)
from klimb.tasks.environment_reward import ENVIRONMENTS_OWN
from klimb.tasks.environments import Environments
from klimb.tasks.protocol import without_score
from klimb.training import (
    GroupStore,
    LoopSettings,
    OfflineSource,
)
from klimb.training.agents import Agents
from klimb.training.callbacks import load_callback
from klimb.training.cloning import Pair, prompt_of, why_not_cloned
from klimb.training.dialogues import Dialogues
from klimb.training.run_folder import RunFolder, flat_settings
from klimb.training.settings.loop import check_minibatches
from klimb.training.sources.feedback import FeedbackStore
from klimb.training.sources.offline import check_logs
from klimb.training.streams import derive_seed
from klimb.training.temperature import find_temperature
from klimb.training.unusable import Unusable, leave_out_unusable, refuse_too_many
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.asking import NUM_LOOKED_AT, Prompt, find_differences, read_placed_pairs, template_of
from klimb.workbench.config import FeedbackSection, RunConfig, SamplingConfig, StoreSection
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.environments import (
    Offer,
    OpenEndpoint,
    check_environment,
    files_of,
    find_offer,
    has_environment,
    make_environments,
    make_talks,
)


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
    correction = config.chosen_correction()
    return loss if correction == NoCorrection() else Corrected(objective=loss, correction=correction)


def own_parts(config: RunConfig) -> dict[str, str]:
    """Return every part of the user's own that the run is made of, with the hash of its source."""
    command = "" if config.environment is None else config.environment.command
    return {**sources_of(*_named_in(config)), **files_of(command)}


def own_globals(config: RunConfig) -> dict[str, Mapping[str, str]]:
    """Return the globals that objects of this program read, by the location of the object."""
    return global_values_of(*_named_in(config))


def _named_in(config: RunConfig) -> list[str]:
    """Return every text of the configuration, among them the names of parts."""
    texts = [value for value in flat_settings(resolved_tables(config)).values() if isinstance(value, str)]
    tools = () if config.environment is None else config.environment.tools
    return [*texts, *config.run.callbacks, *tools]


def command_to_go_on(config: RunConfig, folder: RunFolder) -> str:
    """Return what goes on with the run of this folder: the command, or the call that hands its objects over again."""
    path = relative_to_working_directory(folder.path)
    has_objects = any(is_object(location) for location in own_parts(config))
    return f"klimb.train(..., folder={path!r}, resume=True)" if has_objects else f"klimb train --resume {path}"


def make_policy(settings: ModelSettings) -> Policy:
    """Return the language model, on its device; the policy itself where one was handed over.

    Raises:
        ConfigError: what was handed over is no policy.
    """
    keep_freed_memory()
    if not is_object(settings.path):
        return load_model(settings)
    policy = load_part(settings.path, setting="model.path")
    if not isinstance(policy, Policy):
        raise ConfigError(f"model: expected a path or a klimb.policies.Policy, got {type(policy).__name__}")
    return policy


def make_sampler(policy: Policy, section: SamplingConfig) -> Sampler:
    """Return who draws: klimb's own sampler, or the user's.

    Raises:
        ConfigError: there is no such module or name, or what it returns cannot draw.
    """
    if not is_own(section.sampler):
        return LocalSampler(policy, max_batch=section.max_batch, record_support=section.records_support)
    expected = "a function of (policy, max_batch) that returns a klimb.samplers.Sampler"
    found = load_part(section.sampler, setting="sampling.sampler")
    if isinstance(found, Sampler) and not isinstance(found, type):
        return found
    made = load_function(section.sampler, setting="sampling.sampler", expected=expected)(policy, section.max_batch)
    if not isinstance(made, Sampler):
        found = type(made).__name__
        raise ConfigError(f"sampling.sampler = {section.sampler!r}: expected {expected}; it returned {found}")
    return made


def make_task(config: RunConfig) -> ProblemSet:
    """Return the problems, with the reward and the shaping that the configuration asks for.

    Raises:
        ConfigError: there is no reward, or no environment that could give it.
    """
    return _shape(config, _make_unshaped_task(config))


def _make_unshaped_task(config: RunConfig) -> ProblemSet:
    task = config.task.make_task()
    check_environment(config.environment, task)
    key = environments_reward(config)
    if key and not has_environment(config.environment, task):
        raise ConfigError(
            f"{key} = {ENVIRONMENTS_OWN!r}, and there is no environment: set environment.factory, or take a task that "
            "has one (calculator, guessing, sql)"
        )
    if config.rewards:
        return with_rewards(task, config.rewards)
    if has_environment(config.environment, task):
        return with_environment_reward(task)
    if task.score is without_score:
        raise ConfigError(
            f"task.kind = {config.task.kind!r}: the task has no score of its own; give a reward, task.reward, or an "
            "environment that has one, environment.factory"
        )
    return task


def environments_reward(config: RunConfig) -> str:
    """Return the key that asks for the environment's own reward; empty if none does."""
    if not config.rewards:
        return "task.reward" * (config.task.reward == ENVIRONMENTS_OWN)
    names = (name for name, settings in config.rewards.items() if settings.reward == ENVIRONMENTS_OWN)
    return next((f"rewards.{name}.reward" for name in names), "")


def _shape(config: RunConfig, task: ProblemSet) -> ProblemSet:
    shapings = config.scoring.shapings(max_tokens=config.sampling.max_new_tokens)
    return with_shaping(task, shapings) if shapings else task


def _check_offer(config: RunConfig, offer: Offer | None, task: ProblemSet) -> None:
    """Return if environments give what only they can; `task` is not shaped yet.

    Raises:
        ConfigError: they give no reward, and the run needs one of theirs; or there are no turns to be credited.
    """
    if offer is None:
        if config.credit.kind == "turn" and config.sources.share("rollout") == 1:
            raise ConfigError(
                "credit.kind = 'turn' credits the turns of conversations, and each answer is one turn: set "
                "environment.factory, take a task that has one (calculator, guessing, sql), or credit.kind = 'response'"
            )
        return
    key = environments_reward(config) or "task.reward" * isinstance(task.score, EnvironmentReward)
    if key and not offer.has_reward:
        raise ConfigError(
            f"{key} is the environment's own reward, and the environment has neither get_reward nor get_turn_reward: "
            "give it one, or name a reward, task.reward = 'python:module.function'"
        )


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
        OfflineSource(
            _open(source, section, policy, config.seed),
            policy,
            source=source,
            where=section.where,
            held_out_fraction=section.held_out_fraction,
            seed=config.seed,
        )
        for source, section in sections
        if section is not None
    )


def _open(name: str, section: StoreSection, policy: Policy, seed: int) -> GroupStore:
    """Return the store of the section: one on disk, with what people said in it, or the user's own samples."""
    if not is_own(section.path):
        if isinstance(section, FeedbackSection):
            return FeedbackStore(open_store(Path(section.path), max_rater_fraction=section.max_rater_fraction), section)
        return open_store(Path(section.path))
    setting = f"{name}.path"
    found = load_part(section.path, setting=setting)
    if callable(found):
        also = {"policy": policy} if "policy" in inspect.signature(found).parameters else {}
        found = found(seed=seed, **also)
    if isinstance(found, GroupStore):
        return found
    samples = list(found) if isinstance(found, Iterable) else []
    if not samples or not all(isinstance(sample, Sample) for sample in samples):
        raise ConfigError(
            f"{setting} = {section.path!r}: expected klimb.experience.Samples, one at least, or a function of (seed) "
            f"that returns them, got {type(found).__name__}"
        )
    return store_in_memory(samples)


def make_pairs(
    config: RunConfig, policy: Policy, task: ProblemSet, logs: Sequence[OfflineSource]
) -> tuple[list[Pair] | None, Unusable | None]:
    """Return the pairs of the warm-up that the policy can imitate, and the others; None where there is no warm-up.

    Raises:
        ConfigError: a row has no text in one of the two columns, or too many are longer than the model's positions.
    """
    if config.cloning is None:
        return None, None
    started = time.monotonic()
    asks = config.task if config.sources.share("rollout") > 0 else None
    pairs = read_placed_pairs(config.cloning, task=asks, asked=prompts_of_training(config, task, logs))
    why = [(place, why_not_cloned(policy, pair)) for place, pair in pairs]
    found = Unusable(
        what="pairs of the warm-up",
        reasons=tuple((place, reason) for place, reason in why if reason),
        num_looked_at=len(pairs),
        seconds=time.monotonic() - started,
    )
    most = min(config.task.max_unusable_fraction, (len(pairs) - 1) / len(pairs))
    refuse_too_many(found, num_used=len(pairs), num_unusable=len(found.reasons), max_fraction=most)
    return [pair for (_, pair), (_, reason) in zip(pairs, why, strict=True) if not reason], found


def prompts_of_training(config: RunConfig, task: ProblemSet, logs: Sequence[OfflineSource]) -> list[Prompt]:
    """Return prompts that the run trains on: of its task, then of its logs."""
    drawn = task.train[:NUM_LOOKED_AT] if config.sources.share("rollout") > 0 else ()
    return [
        *(problem.messages for problem in drawn),
        *(prompt for log in logs for prompt in log.prompts(NUM_LOOKED_AT)),
    ]


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
    environments: Environments | OpenEndpoint | None
    offer: Offer | None
    load_seconds: float
    pairs: Sequence[Pair] | None = None
    callbacks: tuple[object, ...] = ()
    unusable: tuple[Unusable, ...] = ()

    @contextmanager
    def running(self) -> Generator[None]:
        """Start the processes that score and those of environments; at the end none is left.

        Raises:
            ConfigError: the model's chat template does not go with the environments.
        """
        with ExitStack() as stack:
            stack.enter_context(self.scorer)
            if self.environments is not None:
                stack.enter_context(self.environments)
                _ = self.dialogues
            yield

    @cached_property
    def dialogues(self) -> Dialogues | Agents | None:
        """The policy with the environments that it talks to; None where answers are one turn. They must be running."""
        if self.environments is None:
            return None
        return make_talks(self.policy, self.sampler, self.environments, self.config.environment)

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems of the evaluations."""
        return self.task.held_out[: self.config.evaluation.num_problems]

    @property
    def is_evaluated(self) -> bool:
        """Whether held-out problems are answered, at the ends or in between."""
        asked = self.config.evaluation
        return bool(self.held_out) and (asked.at_ends or asked.is_on)

    @cached_property
    def prompt_differences(self) -> tuple[str, ...]:
        """How the prompts of training, of the warm-up and of the evaluations differ, one sentence each."""
        config = self.config
        is_known = config.sources.share("rollout") == 1 and not is_own(config.task.kind)
        sources = {
            "training": prompts_of_training(config, self.task, self.logs),
            "the warm-up": [tuple(prompt_of(pair)) for pair in self.pairs or ()],
            "the evaluations": [problem.messages for problem in self.held_out] if self.is_evaluated else [],
        }
        return find_differences(sources, template=template_of(config.task, ()) if is_known else None)


def make_session(config: RunConfig, *, trains: bool = True) -> Session:
    """Load the model and makes the task; the scorer is not yet entered.

    The model comes last: what is wrong with the rest is known in no time. Then every prompt is looked at; what the
    model cannot be asked is left out.

    Args:
        config: of the run.
        trains: False where held-out problems are answered and nothing else is done.

    Raises:
        ConfigError: a part of the run cannot be made, or the model cannot be asked too many of the problems.
    """
    started = time.monotonic()
    if config.training.num_threads:
        torch.set_num_threads(config.training.num_threads)
    # A fresh adapter is drawn from the global random state; everything else has a generator of its own.
    torch.manual_seed(derive_seed(config.seed, "adapter"))
    objective = make_objective(config)
    callbacks = tuple(map(load_callback, config.run.callbacks))
    task = _make_unshaped_task(config)
    offer = find_offer(config.environment, task)
    _check_offer(config, offer, task)
    task = _shape(config, task)
    policy = make_policy(config.model)
    tools = () if offer is None else offer.tools
    task, unusable = _leave_out_unusable(config, policy, task, tools=tools, trains=trains)
    logs = make_logs(config, policy)
    check_logs(
        logs,
        config.sources,
        needs_log_mu=objective.needs_log_mu,
        advantages=config.advantages.kind,
        num_prompts=config.sampling.num_prompts,
        rewards=config.rewards,
        needs_both_sides=isinstance(objective, KtoSettings),
        needs_pairs=isinstance(objective, PairwiseSettings),
    )
    _check_groups(config, logs)
    policy.temperature = find_temperature(config.loop_settings(), logs, needs_log_mu=objective.needs_log_mu)
    sampler = make_sampler(policy, config.sampling)
    pairs, not_cloned = make_pairs(config, policy, task, logs)
    return Session(
        config=config,
        objective=objective,
        policy=policy,
        sampler=sampler,
        logs=logs,
        task=task,
        scorer=make_scorer(config, task),
        environments=make_environments(config.environment, policy, task, tools=tools),
        offer=offer,
        load_seconds=time.monotonic() - started,
        pairs=pairs,
        callbacks=callbacks,
        unusable=tuple(found for found in (unusable, not_cloned) if found is not None),
    )


def _leave_out_unusable(
    config: RunConfig, policy: Policy, task: ProblemSet, *, tools: Sequence[Mapping[str, Any]], trains: bool
) -> tuple[ProblemSet, Unusable]:
    asked = config.evaluation
    return leave_out_unusable(
        policy,
        task,
        tools=tools,
        max_new_tokens=config.sampling.max_new_tokens,
        max_fraction=config.task.max_unusable_fraction,
        is_trained=trains and config.sources.share("rollout") > 0,
        is_evaluated=not trains or asked.at_ends or asked.is_on,
    )


def _check_groups(config: RunConfig, logs: Sequence[OfflineSource]) -> None:
    """Return if a step that draws nothing has a group for each of its optimiser steps."""
    if config.sources.share("rollout") == 0:
        wanted = config.sources.num_groups(config.sampling.num_prompts)
        most = sum(min(wanted[log.source], log.num_groups) for log in logs)
        check_minibatches(config.training.num_minibatches, most, "sampling.num_prompts and the groups of the log")
