"""Behaviour cloning as the same objective: no reward (A = 0), forward KL to the data (ref = μ).

Then v = ref/μ = 1 whatever μ was, and the term is −β·log π up to a constant: maximum likelihood. So nobody needs to
know the μ of the data, and log μ = log ref = 0 stands for it; this is the one place where a missing log_mu is none.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from klimb.experience import Batch, Message, Sample, collate
from klimb.losses import Objective
from klimb.policies import Policy, why_no_room
from klimb.policies.answers import AnswerError, encode_answer
from klimb.policies.tokenizer import PromptError
from klimb.training.demonstrations import Demonstration, demonstration_as_samples, why_not_shown
from klimb.training.optimizers import (
    Optimizer,
)
from klimb.training.settings import CloningSettings, MicroBatchTokens, OptimizerSettings
from klimb.training.streams import open_stream
from klimb.training.update import (
    optimizer_step,
)

CLONING_OBJECTIVE = Objective(
    divergence="fkl", beta=1.0, estimator="differentiable", level="token", clip="none", reduce="token-mean"
)
"""Its loss is the mean negative log-likelihood of the response tokens, in nats."""


METRICS = ("loss", "grad_norm", "learning_rate", "entropy")
"""What means something without a behaviour policy; ratios to a μ that stands for nothing do not."""


Pair = tuple[Sequence[Message], str] | Demonstration
"""What was asked, and the response to imitate; or a conversation of several turns."""


def prompt_of(pair: Pair) -> Sequence[Message]:
    """Return what was asked."""
    return pair.prompt if isinstance(pair, Demonstration) else pair[0]


def clone(
    policy: Policy,
    pairs: Sequence[Pair],
    *,
    settings: CloningSettings,
    optimizer: OptimizerSettings | None = None,
    micro_batch_tokens: MicroBatchTokens = "auto",
    seed: int = 0,
    on_step: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Trains the policy to give these responses, their end included.

    Args:
        policy: trained in place.
        pairs: what was asked, and the response to imitate.
        settings: how.
        optimizer: how a gradient becomes a step, the default settings if None; the learning rate and the warm-up are
            those of `settings`.
        micro_batch_tokens: tokens that go through the model at once.
        seed: orders the pairs.
        on_step: sees the metrics of each optimiser step.

    Raises:
        ValueError: there is no pair, a response is empty, a pair is too long for the model or its prompt is refused by
            the chat template, or a loss or gradient is not finite.
    """
    if not pairs:
        raise ValueError("clone: no pairs to imitate; check the file they come from")
    samples = [sample for number, pair in enumerate(pairs) for sample in pair_as_samples(policy, pair, number=number)]
    steps = Optimizer(policy.trainable(), settings.optimizer(optimizer or OptimizerSettings(), num_pairs=len(samples)))
    generator = open_stream(seed, "cloning")
    for epoch in range(settings.num_epochs):
        order = torch.randperm(len(samples), generator=generator).tolist()
        for start in range(0, len(order), settings.batch_size):
            batch = cloning_batch([samples[index] for index in order[start : start + settings.batch_size]])
            with steps.gradient_point():
                outcome = optimizer_step(policy, steps, CLONING_OBJECTIVE, batch, micro_batch_tokens=micro_batch_tokens)
            if outcome.not_finite:
                raise ValueError(f"clone: the {outcome.not_finite} is not finite; lower the learning rate")
            if on_step is not None:
                known = {name: outcome.metrics[name] for name in METRICS if name in outcome.metrics}
                on_step(known | {"step": float(steps.num_steps), "epoch": float(epoch)})


def pair_as_samples(policy: Policy, pair: Pair, *, number: int) -> list[Sample]:
    """Return the pair as samples of an unknown behaviour policy: the response and its end token, or each turn's."""
    if not isinstance(pair, Demonstration) and not pair[1]:
        raise ValueError(f"clone: the response of pair {number} is empty; there is nothing to imitate")
    reason = why_not_cloned(policy, pair)
    if reason:
        raise ValueError(f"clone: pair {number}: {reason}")
    if isinstance(pair, Demonstration):
        return list(demonstration_as_samples(policy, pair, name=f"pair-{number:06d}"))
    messages, response = pair
    sample = Sample(
        sample_id=f"pair-{number:06d}",
        group_id=f"pair-{number:06d}",
        prompt=tuple(messages),
        prompt_ids=tuple(policy.render(messages)),
        response=response,
        response_ids=_response_ids(policy, messages, response),
        finish_reason="stop",
        source="log",
    )
    return [sample]


def why_not_cloned(policy: Policy, pair: Pair) -> str:
    """Return why the policy cannot imitate the pair: too long, a prompt that is refused, a response that has no tokens.

    Empty where it can.
    """
    if isinstance(pair, Demonstration):
        return why_not_shown(policy, pair)
    messages, response = pair
    try:
        num_tokens = len(_response_ids(policy, messages, response))
    except (PromptError, AnswerError) as error:
        return str(error)
    return why_no_room(policy, messages, max_new_tokens=num_tokens)


def _response_ids(policy: Policy, messages: Sequence[Message], response: str) -> tuple[int, ...]:
    return encode_answer(policy, messages, response, prompt_ids=policy.render(messages))


def cloning_batch(samples: Sequence[Sample]) -> Batch:
    """Return the samples with A = 0 and log μ = log ref = 0."""
    batch = collate(samples, allow_absent_log_mu=True, on_support=False)
    zeros = torch.zeros_like(batch.log_mu)
    return replace(batch, log_mu=zeros, log_ref=zeros)
