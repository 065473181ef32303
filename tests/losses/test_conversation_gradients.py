"""Each objective against enumerated conversations: two turns of the policy, and an answer between that it did not draw.

The samples go through `collate`, which holds log_mu, log_ref and advantages in float32: hence the tolerance.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from klimb.losses import Corrected, DecoupledCorrection, Inputs, Objective, ObjectiveOutput
from tests.losses.enumerated_conversations import (
    BEHAVIOUR,
    DRAWN,
    ENVIRONMENT,
    POLICY,
    PROX,
    REFERENCE,
    REWARDS,
    batch_of,
    expectation,
    is_drawn,
    log_of,
    log_probs,
    place,
)
from tests.oracle import conversations, world
from tests.oracle.formulas import DIVERGENCES

BETA = 0.37
LEVELS = ("token", "prefix", "sequence", "sequence-mean")
NAMES = ("fkl", "rkl", "ufkl", "urkl")
REFERENCES = {"ref is not μ": REFERENCE, "ref is μ": BEHAVIOUR, "ref is unnormalised": 1.7 * REFERENCE}
TOLERANCE = 1e-6
BATCHES = {name: batch_of(ref=ref) for name, ref in REFERENCES.items()}
WIDTH = BATCHES["ref is not μ"].mask.shape[1]


def advantages_for(level: str) -> np.ndarray:
    return conversations.prefix_rewards(37) if level == "prefix" else REWARDS


def inputs_for(table: Tensor, level: str, reference: str) -> Inputs:
    """Return what klimb makes of the samples, with NaN for what the policy says of tokens that it did not draw."""
    advantages = torch.from_numpy(advantages_for(level))
    if level == "prefix":
        advantages = place(advantages, WIDTH)
    batch = replace(BATCHES[reference], advantages=advantages.float())
    return Inputs.of(batch, place(log_probs(table), WIDTH))


def gradient_of(out: ObjectiveOutput, table: Tensor) -> np.ndarray:
    """E_μ of a conversation's loss, differentiated with respect to the logits."""
    return torch.autograd.grad(expectation(out.terms.sum(1)), table)[0].numpy()


def truth(theta: np.ndarray, level: str, reference: str, name: str) -> complex:
    ref, reward, formula = REFERENCES[reference], advantages_for(level), DIVERGENCES[name]
    if level == "sequence":
        return conversations.objective(theta, ref, ENVIRONMENT, reward, BETA, formula)
    if level == "prefix":
        return conversations.prefix_objective(theta, ref, ENVIRONMENT, reward, BETA, formula)
    surrogate = conversations.token_objective if level == "token" else conversations.sequence_mean_surrogate
    return surrogate(theta, ref, BEHAVIOUR, ENVIRONMENT, reward, BETA, formula)


@cache
def true_gradient(level: str, reference: str, name: str) -> np.ndarray:
    return world.gradient(lambda theta: truth(theta, level, reference, name), POLICY)


def test_a_batch_counts_the_drawn_tokens_and_has_their_log_mu_in_their_places():
    batch = BATCHES["ref is not μ"]
    assert torch.equal(batch.mask, is_drawn(WIDTH))
    assert batch.num_tokens == conversations.LENGTHS.sum()
    torch.testing.assert_close(batch.log_mu, place(log_of(BEHAVIOUR), WIDTH, fill=0.0).float(), rtol=0, atol=0)
    torch.testing.assert_close(batch.log_ref, place(log_of(REFERENCE), WIDTH, fill=0.0).float(), rtol=0, atol=0)
    for row, (first, answer, second) in enumerate(conversations.CONVERSATIONS):
        said = first + (answer or ()) + second
        assert tuple(batch.response_ids[row, : len(said)].tolist()) == said


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_the_stated_objective_over_drawn_tokens(name, estimator, level, reference):
    table = torch.from_numpy(POLICY).requires_grad_()
    objective = Objective(divergence=name, beta=BETA, estimator=estimator, level=level, clip="none")
    found = gradient_of(objective(inputs_for(table, level, reference)), table)
    expected = true_gradient(level, reference, name)
    np.testing.assert_allclose(found, -expected, atol=TOLERANCE, rtol=0)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_differentiable_loss_has_the_value_of_the_objective_too(name, level):
    reference = "ref is unnormalised"
    objective = Objective(divergence=name, beta=BETA, estimator="differentiable", level=level, clip="none")
    out = objective(inputs_for(torch.from_numpy(POLICY), level, reference))
    expected = -truth(POLICY.astype(complex), level, reference, name).real
    assert float(expectation(out.terms.sum(1))) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize("name", ["fkl", "urkl"])
def test_a_third_policy_between_leaves_the_gradient_as_it_is(name, estimator, level):
    table = torch.from_numpy(POLICY).requires_grad_()
    objective = Objective(divergence=name, beta=BETA, estimator=estimator, level=level, clip="none")
    loss = Corrected(objective=objective, correction=DecoupledCorrection(level=level))
    inputs = replace(inputs_for(table, level, "ref is not μ"), log_prox=place(log_of(PROX), WIDTH))
    found = gradient_of(loss(inputs), table)
    np.testing.assert_allclose(found, -true_gradient(level, "ref is not μ", name), atol=TOLERANCE, rtol=0)


def test_counting_the_answers_would_be_seen():
    """The same loss with a mask that counts what the environment said misses the gradient by a thousand tolerances."""
    table = torch.from_numpy(POLICY).requires_grad_()
    objective = Objective(divergence="rkl", beta=BETA, level="sequence-mean", clip="none")
    inputs = inputs_for(table, "sequence-mean", "ref is not μ")
    lengths = torch.tensor([len(sample.response_ids) for sample in BATCHES["ref is not μ"].samples])
    log_pi = torch.where(inputs.mask, inputs.log_pi, 0.0)
    everything = replace(inputs, log_pi=log_pi, mask=torch.arange(WIDTH) < lengths[:, None])
    found = gradient_of(objective(everything), table)
    assert np.abs(found + true_gradient("sequence-mean", "ref is not μ", "rkl")).max() > 1000 * TOLERANCE


def test_the_entropy_bonus_is_the_mean_of_the_drawn_tokens_entropies():
    """By the definition: −c·Σ over drawn tokens of H, each conversation with its probability under μ."""
    table = torch.from_numpy(POLICY).requires_grad_()
    log_pi = table.log_softmax(-1)
    entropy = -(log_pi.exp() * log_pi).sum(-1)[torch.from_numpy(conversations.ROWS)]
    expected = torch.autograd.grad(
        expectation(torch.where(DRAWN, -0.3 * entropy, 0.0).sum(1)), table, retain_graph=True
    )
    inputs = replace(inputs_for(table.detach(), "token", "ref is not μ"), entropy=place(entropy, WIDTH))
    objective = Objective(beta=0.0, clip="none", entropy_bonus=0.3)
    found = gradient_of(objective(inputs), table)
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-12, rtol=0)
    assert np.abs(found).max() > 1e-3
