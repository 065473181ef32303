"""How much a clip does before the first step was taken: the tokens whose gradient it changes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.noise_control.cells import CELL_SEED, Cell
from benchmarks.noise_control.logs import make_group
from benchmarks.noise_control.rewards import RewardFunction
from klimb.experience import Sample, SamplingSettings, collate, group_mean, open_store
from klimb.losses import Corrected, Inputs, Loss, NoClip, Objective
from klimb.policies import Policy
from klimb.samplers import LocalSampler
from klimb.tasks import Problem

RELATIVE = 1e-4
"""Gradients that differ by less than this share are equal up to rounding."""


def touched_share(loss: Loss, policy: Policy, samples: Sequence[Sample]) -> float | None:
    """Return the share of tokens whose gradient the loss's clip changes while π is the policy; None without a clip."""
    plain = without_clip(loss)
    if plain is None:
        return None
    inputs = first_inputs(policy, samples)
    clipped, exact = gradient(loss, inputs), gradient(plain, inputs)
    is_changed = (clipped - exact).abs() > RELATIVE * exact.abs().max()
    return float(is_changed[inputs.mask].double().mean())


def without_clip(loss: Loss) -> Loss | None:
    """Return the loss without its clip; None if it has none."""
    inner = loss.objective if isinstance(loss, Corrected) else loss
    if not isinstance(inner, Objective) or isinstance(inner.clip, NoClip):
        return None
    plain = replace(inner, clip=NoClip())
    return replace(loss, objective=plain) if isinstance(loss, Corrected) else plain


def first_inputs(policy: Policy, samples: Sequence[Sample]) -> Inputs:
    """Return what the first update gives to a loss: prox and the reference are the policy itself."""
    rewards = torch.tensor([sample.reward or 0.0 for sample in samples])
    batch = collate(samples, group_mean(rewards, [sample.group_id for sample in samples]))
    with torch.no_grad():
        log_pi = policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask).log_pi
    inputs = Inputs.of(batch, log_pi, groups=batch.groups)
    return replace(inputs, log_ref=log_pi, log_prox=log_pi)


def gradient(loss: Loss, inputs: Inputs) -> Float[Tensor, "batch time"]:
    """Return that of the loss in log π."""
    leaf = inputs.log_pi.detach().clone().requires_grad_()
    if loss.needs_minibatch:
        loss, inputs = loss.prepare(inputs)
    loss(replace(inputs, log_pi=leaf)).loss.backward()
    assert leaf.grad is not None
    return leaf.grad


def first_samples(
    cell: Cell,
    policy: Policy,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    *,
    log: Path,
    num_groups: int,
    num_samples: int,
    reward: RewardFunction,
) -> list[Sample]:
    """Return samples such as the first batch holds: of the log, or drawn now."""
    if cell.origin == "log":
        store = open_store(log)
        return [sample for group in store.groups(store.group_ids()[:num_groups]) for sample in group]
    asked = problems[:num_groups]
    prompts = [policy.render(problem.messages) for problem in asked]
    drawn = LocalSampler(policy).sample(
        prompts, num_samples=num_samples, settings=settings, generator=torch.Generator().manual_seed(CELL_SEED)
    )
    groups = [
        make_group(policy, number, problem, prompt, answers, settings, reward)
        for number, (problem, prompt, answers) in enumerate(zip(asked, prompts, drawn, strict=True))
    ]
    return [sample for group in groups for sample in group]
