"""`klimb train --dry-run`: load, take one group through everything, and say what the run will cost."""

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from klimb.declarations import narrow
from klimb.experience import NEEDS_BATCH, Batch, Sample, SamplingSettings, collate
from klimb.experience.turn_rewards import number_conversations
from klimb.findings.conversations import ENDED, ENVIRONMENT_ERROR, is_conversation
from klimb.findings.metrics.of_losses import CLIP_FRACTIONS
from klimb.losses import Inputs
from klimb.tasks.environment_problems import seed_for
from klimb.training import (
    Optimizer,
    PromptStream,
    RolloutContext,
    Rollouts,
    RolloutWorker,
    collect_rollouts,
    optimizer_step,
)
from klimb.training.iteration import iterate
from klimb.training.minibatches import score_batch
from klimb.training.settings import AdvantageSettings
from klimb.training.state import fresh_state
from klimb.ui.conversation import Said, asked_in, counted, said_in
from klimb.ui.terminal.run import print_facts
from klimb.ui.text import duration, printable
from klimb.workbench.announcing import announce
from klimb.workbench.config import RunConfig
from klimb.workbench.description import describe
from klimb.workbench.environments import describe_dialogues
from klimb.workbench.session import Session, make_loop_settings, make_session

GIGABYTE = 1e9


BYTES_PER_FLOAT = 4


ADAM_COPIES = 3
"""Gradient, first and second moment: one float32 each per trained parameter."""


ENDED_IN_WORDS = {
    "over": "the last turn called no tool, or the environment is done",
    "max_new_tokens": "the last turn was cut at sampling.max_new_tokens",
    "max_turns": "environment.max_turns is reached",
    "max_tokens": "environment.max_tokens is reached",
    "sample_seconds": "environment.sample_seconds are over",
    "context": "the model has no more positions",
    "template": "the chat template refuses what came in",
    "error": "the environment is lost",
}
"""What ended a conversation, as `metadata["ended"]` of a sample has it -> a sentence."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds for one answer and for a whole group of `num_rows`, both measured warm."""

    one: float
    group: float
    num_rows: int

    @property
    def per_row(self) -> float:
        """What one more answer adds."""
        return max(0.0, self.group - self.one) / max(1, self.num_rows - 1)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one group, and what it cost. There is no batch if no answer could be scored.

    `touched` is the share of units that the clip changes before anything was learnt, good answers and bad ones alike;
    None without a clip.
    """

    batch: Batch | None
    rewards: tuple[float | None, ...]
    error: str
    answer: tuple[Sample, ...]
    score_seconds: float
    sampling: Cost
    learning: Cost
    touched: float | None


def run_dry(config: RunConfig, *, console: Console) -> None:
    """Take one group through everything, or a run on logs through one step; print estimates, and write nothing."""
    session = make_session(config)
    print_facts(console, describe(session))
    if config.sources.rollout == 0:
        with console.status("one step"):
            metrics = try_one_step(session)
        print_facts(console, estimates_of_step(session, metrics))
        return
    with session.running():
        if session.dialogues is not None:
            print_facts(console, describe_dialogues(config.environment, session.dialogues))
        with console.status("one group"):
            trial = try_one_group(session)
    print_facts(console, [*estimates(session, trial), *shown_answer(trial.answer)])


def shown_answer(answer: Sequence[Sample]) -> list[tuple[str, str]]:
    """Return an answer as text; a conversation turn by turn, with its calls and their results.

    Args:
        answer: one sample, or those of a conversation whose turns are samples of their own.
    """
    first, *_ = answer
    if not is_conversation(first) and not first.episode:
        return [("an answer", printable(first.response) or "(empty)")]
    facts = [("conversation", f"prompt of {counted(len(first.prompt_ids), 'token')}, tools included")]
    facts += [_line_of(said) for said in asked_in(first)]
    facts += [_line_of(said) for sample in answer for said in said_in(sample)]
    ended, error = (answer[-1].metadata.get(name, "") for name in (ENDED, ENVIRONMENT_ERROR))
    facts.append(("ended", ENDED_IN_WORDS.get(ended, ended) + (f": {printable(error)}" if error else "")))
    return facts


def _line_of(said: Said) -> tuple[str, str]:
    """Return who spoke, and what; of a drawn turn the calls that were read from it, and what went wrong."""
    marks = ", ".join(part for part in (said.mark, *said.facts) if part)
    parts = [printable(said.text) or "(empty)", *(f"calls {printable(call)}" for call in said.calls)]
    parts += [f"error: {printable(said.error)}"] if said.error else []
    return said.who, " · ".join(parts) + (f" ({marks})" if marks else "")


def try_one_step(session: Session) -> Mapping[str, float]:
    """Return the metrics of one step on the logs; the policy is changed by it.

    The step before it, with a group for each optimiser step, makes the optimizer's state and is not counted.
    """
    settings = make_loop_settings(session.config)
    actors = RolloutWorker(policy=session.policy, sampler=session.sampler, scorer=session.scorer, problems=())
    num_prompts = min(settings.sampling.num_prompts, settings.training.num_minibatches)
    warm_up = replace(settings.sampling, num_prompts=num_prompts)
    with TemporaryDirectory() as folder:
        state = fresh_state(
            session.policy, settings, num_problems=0, folder=Path(folder), identity={}, logs=session.logs
        )
        iterate(state, actors, session.objective, replace(settings, sampling=warm_up))
        return iterate(state, actors, session.objective, settings).metrics


def estimates_of_step(session: Session, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Shapes, memory and time of a run that draws nothing, as its second step measured them."""
    training, evaluation = session.config.training, session.config.evaluation
    num_groups, num_samples = (
        sum(metrics.get(f"{logged.source}/{name}", 0.0) for logged in session.logs)
        for name in ("num_groups", "num_samples")
    )
    seconds = metrics["step_seconds"]
    evaluated = evaluation.at_ends or make_loop_settings(session.config).evaluation.is_on
    return [
        (
            "batch",
            f"{num_samples:.0f} answers in {num_groups:.0f} groups, {metrics['num_tokens_trained']:.0f} tokens learnt "
            f"from in {training.num_epochs} epochs of {training.num_minibatches} optimiser steps",
        ),
        *_touched_in_words(metrics.get("clip_at_start_fraction")),
        *_memory(session),
        ("loading", duration(session.load_seconds)),
        (
            "one step",
            f"{seconds:.2f} s, of which {metrics.get('update_seconds', 0.0):.2f} s to learn and "
            f"{metrics.get('reference_seconds', 0.0):.2f} s under the reference",
        ),
        (
            "the run",
            f"about {duration(seconds * training.num_steps)} for {training.num_steps} steps"
            + (", and evaluations" if evaluated and session.held_out else ""),
        ),
        _all_of_it(session),
    ]


def try_one_group(session: Session) -> Trial:
    """Sample, scores and learns from one group, as a step of the run would; the policy is changed by it."""
    settings = make_loop_settings(session.config)
    actors = RolloutWorker(
        policy=session.policy,
        sampler=session.sampler,
        scorer=session.scorer,
        problems=session.task.train,
        dialogues=session.dialogues,
    )
    collection = collect_rollouts(
        actors,
        PromptStream(len(session.task.train), seed=settings.seed),
        settings=replace(settings.sampling, num_prompts=1),
        advantages=_without_comparison(settings.advantages),
        this_round=RolloutContext(seed=settings.seed, step=1, policy_version=0, record_log_ref=True),
        sampling_generator=torch.Generator().manual_seed(settings.seed),
        shuffle_generator=torch.Generator().manual_seed(settings.seed),
    )
    batch = _with_every_answer(collection, on_support=session.objective.needs_log_mu)
    touched = None if batch is None else touched_at_start(session, batch)
    return Trial(
        batch=batch,
        rewards=tuple(sample.reward for sample in collection.samples),
        error=next((sample.reward_reason for sample in collection.samples if sample.reward is None), ""),
        answer=_one_answer(collection.samples),
        score_seconds=collection.metrics["score_seconds"],
        sampling=_sampling_cost(session, collection.samples[0]),
        learning=Cost(one=0.0, group=0.0, num_rows=0) if batch is None else _learning_cost(session, batch),
        touched=touched,
    )


@torch.no_grad()
def touched_at_start(session: Session, batch: Batch) -> float | None:
    """Return the share of units that the clip changes before the first step, the mean over good and bad advantages."""
    max_tokens = session.config.training.micro_batch_tokens
    log_pi = score_batch(session.policy, batch, max_tokens=max_tokens)
    shares: list[float] = []
    for advantage in (1.0, -1.0):
        part = replace(batch, advantages=torch.full((len(batch),), advantage), log_prox=log_pi)
        # The entropy is no matter of the clip, and an objective with a bonus for it wants one.
        inputs = Inputs.of(part, log_pi, entropy=torch.zeros_like(log_pi), groups=part.groups)
        objective = session.objective
        if objective.needs_minibatch:
            objective, inputs = objective.prepare(inputs)
        metrics = objective(inputs).metrics
        shares += [sum(metrics[name] for name in CLIP_FRACTIONS)] if CLIP_FRACTIONS[0] in metrics else []
    return sum(shares) / len(shares) if shares else None


def _touched_in_words(touched: float | None) -> list[tuple[str, str]]:
    return [] if touched is None else [("clip", f"touches {touched:.1%} of the units before the first step")]


def _without_comparison(advantages: AdvantageSettings) -> AdvantageSettings:
    """Return settings that keep every scored answer of one group, which may be less than a batch's baseline needs."""
    kind = "no-baseline" if advantages.kind in NEEDS_BATCH else advantages.kind
    return replace(advantages, group_filter=False, kind=kind, min_reward=None)


def _one_answer(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the first answer: more than one sample where the turns of a conversation are samples of their own."""
    numbers = number_conversations(samples)
    return tuple(sample for sample, number in zip(samples, numbers, strict=True) if number == numbers[0])


def _sampling_cost(session: Session, drawn: Sample) -> Cost:
    num_rows, dialogues = session.config.sampling.num_samples, session.dialogues
    settings = narrow(session.config.sampling, SamplingSettings)
    problem = next(each for each in session.task.train if each.problem_id == drawn.metadata["problem_id"])

    def sample(num_samples: int) -> None:
        generator = torch.Generator().manual_seed(session.config.seed)
        if dialogues is None:
            session.sampler.sample([drawn.prompt_ids], num_samples=num_samples, settings=settings, generator=generator)
        else:
            seeds = [seed_for(problem, drawn.group_id)] * num_samples
            dialogues.hold([problem] * num_samples, seeds=seeds, settings=settings, generator=generator)

    return Cost(one=_seconds(lambda: sample(1)), group=_seconds(lambda: sample(num_rows)), num_rows=num_rows)


def _learning_cost(session: Session, batch: Batch) -> Cost:
    settings = make_loop_settings(session.config)
    optimizer = Optimizer(session.policy.trainable(), settings.optimizer)
    if session.objective.needs_log_prox:
        log_prox = score_batch(session.policy, batch, max_tokens=settings.training.micro_batch_tokens)
        batch = replace(batch, log_prox=log_prox)

    def learn(part: Batch) -> None:
        optimizer_step(
            session.policy, optimizer, session.objective, part, micro_batch_tokens=settings.training.micro_batch_tokens
        )

    with optimizer.gradient_point():
        learn(batch)  # the first step makes the optimizer's state; its time says nothing about the others
        return Cost(
            one=_seconds(lambda: learn(batch.select([0]))), group=_seconds(lambda: learn(batch)), num_rows=len(batch)
        )


def _seconds(action: Callable[[], None]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def _with_every_answer(collection: Rollouts, *, on_support: bool) -> Batch | None:
    """Return the scored answers with advantages of 1: an even group would skip the model and cost nothing."""
    # Which reference it is makes no difference to the cost, and a recorded support comes without one.
    used = [sample if sample.log_ref else replace(sample, log_ref=sample.log_mu) for sample in collection.used]
    return collate(used, torch.ones(len(used)), on_support=on_support) if used else None


def estimates(session: Session, trial: Trial) -> list[tuple[str, str]]:
    """Shapes, memory and time, measured on the group and scaled to the run."""
    sampling, training = session.config.sampling, session.config.training
    seconds = step_seconds(session.config, trial)
    return [
        ("prompt", _prompt_shape(trial)),
        ("group", _group_shape(trial)),
        ("rewards", ", ".join("error" if reward is None else f"{reward:g}" for reward in trial.rewards)),
        *([("first error", trial.error)] if trial.error else []),
        (
            "batch",
            f"{sampling.num_prompts * sampling.num_samples} answers, {training.num_epochs} epochs of "
            f"{training.num_minibatches} optimiser steps",
        ),
        *_touched_in_words(trial.touched),
        *_memory(session),
        ("loading", duration(session.load_seconds)),
        ("one group", f"{trial.sampling.group:.2f} s to sample, {trial.learning.group:.2f} s to learn from"),
        ("one step", f"about {seconds:.1f} s"),
        ("the run", f"about {duration(seconds * training.num_steps)} for {training.num_steps} steps, and evaluations"),
        _all_of_it(session),
    ]


def _all_of_it(session: Session) -> tuple[str, str]:
    return "in all", announce(session.config, has_held_out=bool(session.held_out)).in_words()


def step_seconds(config: RunConfig, trial: Trial) -> float:
    """Time of one step: what an answer adds, times the answers, and what a wave or an optimiser step costs in itself.

    Refills of dropped groups come on top of it, and so does scoring old samples under the reference. Logged groups are
    taken to be as large as drawn ones.
    """
    num_rows = config.sampling.num_prompts * config.sampling.num_samples
    num_drawn = round(num_rows * config.sources.share("rollout"))
    num_waves = math.ceil(num_drawn / config.sampling.max_batch)
    sampling = num_waves * trial.sampling.one + (num_drawn - num_waves) * trial.sampling.per_row
    num_updates = config.training.num_minibatches
    learning = num_updates * trial.learning.one + max(0, num_rows - num_updates) * trial.learning.per_row
    return sampling + config.sampling.num_prompts * trial.score_seconds + config.training.num_epochs * learning


def _prompt_shape(trial: Trial) -> str:
    return "no answer could be scored" if trial.batch is None else f"{len(trial.batch.prompts[0])} tokens"


def _group_shape(trial: Trial) -> str:
    if trial.batch is None:
        return "no answer could be scored"
    rows, width = trial.batch.mask.shape
    return f"{rows} answers × {width} tokens, {int(trial.batch.mask.sum())} of them counted"


def _memory(session: Session) -> list[tuple[str, str]]:
    policy = session.policy
    weights = sum(parameter.numel() * parameter.element_size() for parameter in policy.model.parameters())
    trained = sum(parameter.numel() for parameter in policy.trainable().values()) * BYTES_PER_FLOAT
    copy = trained if make_loop_settings(session.config).reference.needs_copy else 0
    return [
        ("weights", f"{weights / GIGABYTE:.2f} GB"),
        ("training", f"{ADAM_COPIES * trained / GIGABYTE:.2f} GB for gradients and moments"),
        ("reference", f"{copy / GIGABYTE:.2f} GB" if copy else "no copy"),
        ("peak now", f"{_peak_bytes(policy.device) / GIGABYTE:.2f} GB"),
        ("checkpoint", f"{(trained * ADAM_COPIES + copy) / GIGABYTE:.2f} GB on disk each"),
    ]


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory held so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
