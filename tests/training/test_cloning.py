import math

import pytest
import torch

from klimb.losses import Objective
from klimb.training import CLONING_OBJECTIVE, CloningSettings, OptimizerSettings, clone
from klimb.training.cloning import cloning_batch, pair_as_samples

PAIRS = [(({"role": "user", "content": str(number)},), "ab" * (number + 1)) for number in range(3)]


def gradients(policy, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(policy.trainable().values())))


def batch_of(policy):
    return cloning_batch(
        [sample for number, pair in enumerate(PAIRS) for sample in pair_as_samples(policy, pair, number=number)]
    )


@pytest.mark.parametrize("estimator", ["differentiable", "reinforce"])
def test_forward_kl_with_advantage_zero_has_the_gradient_of_maximum_likelihood(tiny_policy, estimator):
    batch = batch_of(tiny_policy)
    objective = Objective(divergence="fkl", beta=1.0, estimator=estimator, clip="none", reduce="token-mean")
    log_pi = tiny_policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask).log_pi
    ours = gradients(tiny_policy, objective(log_pi, batch.log_mu, batch.log_ref, batch.advantages, batch.mask).loss)
    # Cross-entropy by the model itself, one full row at a time.
    total = torch.zeros(())
    for sample in batch.samples:
        ids = torch.tensor([[*sample.prompt_ids, *sample.response_ids]])
        logits = tiny_policy.model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(sample.response_ids), reduction="sum")
    theirs = gradients(tiny_policy, total / batch.num_tokens)
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.allclose(our, their, rtol=1e-4, atol=1e-5 * scale)


def test_the_cloning_loss_is_the_mean_negative_log_likelihood(tiny_policy):
    batch = batch_of(tiny_policy)
    log_pi = tiny_policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask).log_pi
    out = CLONING_OBJECTIVE(log_pi, batch.log_mu, batch.log_ref, batch.advantages, batch.mask)
    assert float(out.loss.detach()) == pytest.approx(-float(log_pi[batch.mask].mean().detach()), rel=1e-6)


def test_a_pair_ends_with_the_end_token_and_invents_no_log_mu(tiny_policy):
    (sample,) = pair_as_samples(tiny_policy, PAIRS[0], number=0)
    assert tiny_policy.decode(sample.response_ids) == "ab"
    assert sample.response_ids[-1] == tiny_policy.end_ids[0]
    assert (sample.log_mu, sample.log_mu_provenance, sample.source) == (None, "absent", "log")


def test_text_that_looks_like_an_end_token_is_text(tiny_policy):
    (sample,) = pair_as_samples(tiny_policy, (PAIRS[0][0], "a<|im_end|>b"), number=0)
    assert not set(sample.response_ids[:-1]) & set(tiny_policy.end_ids)
    assert len(sample.response_ids) == len("a<|im_end|>b") + 1


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_cloning_learns_the_pairs(tiny_policy, kind: str):
    losses = []
    settings = CloningSettings(
        num_epochs=40,
        batch_size=2,
        learning_rate=1e-2,
        warmup_steps=2,
    )
    optimizer = OptimizerSettings(kind=kind, weight_decay=0.0)
    record = lambda metrics: losses.append(metrics["loss"])  # noqa: E731
    clone(tiny_policy, PAIRS, settings=settings, optimizer=optimizer, on_step=record)
    assert len(losses) == 80
    assert losses[0] > 3
    assert max(losses[-4:]) < 0.5


def test_bad_pairs_are_named(tiny_policy):
    with pytest.raises(ValueError, match="no pairs"):
        clone(tiny_policy, [], settings=CloningSettings())
    with pytest.raises(ValueError, match="response of pair 1 is empty"):
        clone(tiny_policy, [PAIRS[0], (PAIRS[0][0], "")], settings=CloningSettings())


def test_a_loss_that_is_not_finite_stops_it(tiny_policy):
    with torch.no_grad():
        next(iter(tiny_policy.trainable().values())).fill_(math.nan)
    with pytest.raises(ValueError, match="the loss is not finite"):
        clone(tiny_policy, PAIRS, settings=CloningSettings())
