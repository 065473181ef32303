"""klimb's own training loop on a workload, a step at a time: what a benchmark calls, and what `klimb train` runs."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.workload import NEVER, Phases, Workload, make_task
from klimb.losses import Loss
from klimb.policies import Policy, keep_freed_memory, load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import Scorer
from klimb.training import (
    AdvantageSettings,
    CheckpointSettings,
    LoopSettings,
    OptimizerSettings,
    RolloutSettings,
    TrainingSettings,
    recipe_named,
    reference_named,
    train,
)


def make_objective(workload: Workload) -> Loss:
    """Return the recipe's loss, without its penalty where there is no reference."""
    recipe = recipe_named(workload.recipe)
    return recipe.make_objective() if workload.reference == "fixed" else recipe.make_objective(beta=0.0)


def make_loop_settings(workload: Workload, *, num_steps: int) -> LoopSettings:
    """Return the defaults but for what the workload says; nothing is saved at the end."""
    return LoopSettings(
        training=TrainingSettings(
            num_steps=num_steps,
            num_epochs=workload.num_epochs,
            micro_batch_tokens=workload.micro_batch_tokens or "auto",
        ),
        advantages=AdvantageSettings(kind=recipe_named(workload.recipe).advantages.kind, group_filter=False),
        sampling=RolloutSettings(
            num_prompts=workload.num_prompts, num_samples=workload.group_size, max_new_tokens=workload.response_tokens
        ),
        seed=workload.seed,
        optimizer=OptimizerSettings(learning_rate=workload.learning_rate, weight_decay=0.0, warmup_steps=0),
        reference=reference_named(workload.reference),
        checkpoints=CheckpointSettings(every_steps=NEVER, at_end=False),
    )


def prepare_policy(workload: Workload) -> Policy:
    """Return the policy as `klimb train` loads it; it knows no end token unless it is to learn."""
    if workload.threads:
        torch.set_num_threads(workload.threads)
    keep_freed_memory()
    policy = load_policy(workload.model, dtype=workload.dtype, device="cpu")
    policy.activation_checkpointing = workload.checkpointing
    return policy if workload.learning else dataclasses.replace(policy, end_ids=())


def train_steps(
    policy: Policy, workload: Workload, *, num_steps: int, on_step: Callable[[Mapping[str, float]], None]
) -> None:
    """Trains the policy; `on_step` gets each step's metrics."""
    task = make_task(workload, policy.render)
    settings = make_loop_settings(workload, num_steps=num_steps)
    with tempfile.TemporaryDirectory() as folder, Scorer(task) as scorer:
        train(
            policy,
            LocalSampler(policy),
            scorer,
            make_objective(workload),
            problems=task.train,
            settings=settings,
            folder=Path(folder),
            on_step=lambda metrics, _: on_step(metrics),
        )


def phases_of(metrics: Mapping[str, float], *, seconds: float) -> Phases:
    """Return the phases of klimb's step, from its own metrics and its wall time as seen from outside."""
    sample, update = metrics["sample_seconds"], metrics["update_seconds"]
    named = sample + update + metrics["score_seconds"] + metrics["reference_seconds"]
    # Unnamed is the measurement of the gap between sampler and trainer, where the update does not show it.
    gap = max(0.0, metrics["step_seconds"] - named)
    score = metrics["score_seconds"] + metrics["reference_seconds"] + gap
    return Phases(sample=sample, score=score, update=max(0.0, seconds - sample - score))
