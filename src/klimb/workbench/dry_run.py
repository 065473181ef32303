"""`klimb train --dry-run`: load, take one group through everything, and say what the run will cost."""

import resource
import sys
import time
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from klimb.experience import Batch, collate
from klimb.training import Actors, Collection, Optimizer, PromptStream, Round, collect, optimizer_step
from klimb.workbench.assemble import make_loop_settings
from klimb.workbench.config import RunConfig
from klimb.workbench.reports import report_facts
from klimb.workbench.session import Session, described, make_session
from klimb.workbench.text import duration, printable

GIGABYTE = 1e9
BYTES_PER_FLOAT = 4
ADAM_COPIES = 3
"""Gradient, first and second moment: one float32 each per trained parameter."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one group cost."""

    batch: Batch | None
    rewards: tuple[float | None, ...]
    answer: str
    sample_seconds: float
    learn_seconds: float


def run_dry(config: RunConfig, *, console: Console) -> None:
    """Samples and learns from one group, prints shapes and estimates, and writes nothing."""
    session = make_session(config)
    report_facts(console, described(session))
    with session.scorer, console.status("one group"):
        trial = try_one_group(session)
    report_facts(console, [*estimates(session, trial), ("an answer", printable(trial.answer) or "(empty)")])


def try_one_group(session: Session) -> Trial:
    """Samples, scores and learns from one group, as a step of the run would; the policy is changed by it."""
    settings = make_loop_settings(session.config)
    actors = Actors(policy=session.policy, sampler=session.sampler, scorer=session.scorer, problems=session.task.train)
    started = time.monotonic()
    collection = collect(
        actors,
        PromptStream(len(session.task.train), seed=settings.seed),
        settings=replace(settings.collect, num_prompts=1, group_filter=False),
        this_round=Round(seed=settings.seed, step=1, policy_version=0, record_log_ref=True),
        sampling_generator=torch.Generator().manual_seed(settings.seed),
        shuffle_generator=torch.Generator().manual_seed(settings.seed),
    )
    sampled = time.monotonic()
    batch = _with_every_answer(collection)
    if batch is not None:
        optimizer = Optimizer(session.policy.trainable(), settings.optimizer)
        with optimizer.gradient_point():
            optimizer_step(session.policy, optimizer, session.objective, batch, settings=settings.update.step)
    return Trial(
        batch=batch,
        rewards=tuple(sample.reward for sample in collection.samples),
        answer=collection.samples[0].response,
        sample_seconds=sampled - started,
        learn_seconds=time.monotonic() - sampled,
    )


def _with_every_answer(collection: Collection) -> Batch | None:
    """The scored answers with advantages of 1: an even group would skip the model and cost nothing."""
    used = collection.used
    return collate(used, torch.ones(len(used))) if used else None


def estimates(session: Session, trial: Trial) -> list[tuple[str, str]]:
    """Shapes, memory and time, measured on the group and scaled to the run.

    The times are upper bounds: a whole batch uses the machine better than one group does.
    """
    config, sampling = session.config, session.config.sampling
    step_seconds = sampling.num_prompts * (trial.sample_seconds + config.training.num_epochs * trial.learn_seconds)
    return [
        ("prompt", _prompt_shape(trial)),
        ("group", _group_shape(trial)),
        ("rewards", ", ".join("error" if reward is None else f"{reward:g}" for reward in trial.rewards)),
        (
            "batch",
            f"{sampling.num_prompts * sampling.num_samples} answers, {config.training.num_epochs} epochs of "
            f"{config.training.num_minibatches} optimiser steps",
        ),
        *_memory(session),
        ("loading", duration(session.load_seconds)),
        ("one group", f"{trial.sample_seconds:.2f} s to sample and score, {trial.learn_seconds:.2f} s to learn from"),
        ("one step", f"at most {duration(step_seconds)}"),
        (
            "the run",
            f"at most {duration(step_seconds * config.training.num_steps)} for {config.training.num_steps} "
            "steps, without evaluations",
        ),
    ]


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
        ("peak now", f"{_peak_bytes(policy.device) / GIGABYTE:.2f} GB with one group"),
        ("checkpoint", f"{(trained * ADAM_COPIES + copy) / GIGABYTE:.2f} GB on disk each"),
    ]


def _peak_bytes(device: torch.device) -> int:
    """The most memory held so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
