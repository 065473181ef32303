"""A conversation as one row has the loss and gradient of its turns as rows of their own, the history their prompt."""

from dataclasses import replace

import pytest
import torch

from klimb.experience import Batch, Sample, Turn, collate
from klimb.losses import Inputs, Objective
from klimb.policies import Policy, gradients_in_place, load_policy

LOSS = Objective(divergence="rkl", beta=0.3, level="token", clip="dual", reduce="token-mean", entropy_bonus=0.1)
"""Every token counts the same, whatever row it is in."""

PROMPTS = ((5, 6, 7, 8), (9, 10))
CONVERSATIONS = (
    (0, (("assistant", 3), ("tool", 4), ("assistant", 2))),
    (0, (("assistant", 1), ("tool", 1), ("assistant", 4), ("user", 2), ("assistant", 1))),
    (1, (("assistant", 5),)),
    (0, (("assistant", 2), ("tool", 3))),
    (1, (("tool", 2), ("assistant", 3), ("user", 1), ("assistant", 2))),
)
"""The prompt of each, and the tokens of its turns; 2, the model's end token, is among those drawn and those put in."""


def make_samples() -> list[Sample]:
    """Return the conversations with random tokens, log_mu and log_ref."""
    generator = torch.Generator().manual_seed(6)
    samples: list[Sample] = []
    for number, (prompt, spans) in enumerate(CONVERSATIONS):
        turns = tuple(Turn(role=role, text="", num_tokens=count) for role, count in spans)
        length = sum(turn.num_tokens for turn in turns)
        num_drawn = sum(turn.num_tokens for turn in turns if turn.is_drawn)
        ids = torch.randint(3, 99, (length,), generator=generator)
        ids[::3] = 2
        log_mu, log_ref = -3 - torch.rand(2, num_drawn, generator=generator)
        samples.append(
            Sample(
                sample_id=f"{number}",
                group_id=f"{prompt}",
                prompt=(),
                prompt_ids=PROMPTS[prompt],
                response="",
                response_ids=tuple(ids.tolist()),
                finish_reason="stop",
                log_mu=tuple(log_mu.tolist()),
                log_mu_provenance="sampler",
                log_ref=tuple(log_ref.tolist()),
                turns=turns,
            )
        )
    return samples


def split(sample: Sample) -> list[Sample]:
    """Return each drawn turn as a sample of one turn, with all that was said before as its prompt."""
    assert sample.log_mu is not None
    assert sample.log_ref is not None
    found: list[Sample] = []
    begin = num_before = 0
    for turn in sample.turns:
        end = begin + turn.num_tokens
        if turn.is_drawn:
            drawn = slice(num_before, num_before + turn.num_tokens)
            found.append(
                replace(
                    sample,
                    sample_id=f"{sample.sample_id}-{begin}",
                    prompt_ids=sample.prompt_ids + sample.response_ids[:begin],
                    response_ids=sample.response_ids[begin:end],
                    log_mu=sample.log_mu[drawn],
                    log_ref=sample.log_ref[drawn],
                    turns=(),
                )
            )
            num_before += turn.num_tokens
        begin = end
    return found


def advantage_of(sample: Sample) -> float:
    return (1.0, -2.0, 0.5, -1.0, 3.0)[int(sample.sample_id.partition("-")[0])]


def batch_of(samples: list[Sample]) -> Batch:
    return collate(samples, torch.tensor([advantage_of(sample) for sample in samples]))


def step(policy: Policy, batch: Batch, *, in_place: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and the gradient of every weight."""
    policy.model.zero_grad(set_to_none=True)

    def backward() -> float:
        scored = policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask, with_entropy=True)
        out = LOSS(Inputs.of(batch, scored.log_pi, entropy=scored.entropy))
        out.loss.backward()
        return float(out.loss.detach())

    if in_place:
        with gradients_in_place():
            loss = backward()
    else:
        loss = backward()
    return loss, {name: weight.grad for name, weight in policy.trainable().items() if weight.grad is not None}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    assert any(bool(gradient.any()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-12, name


@pytest.fixture(params=["packed", "transformers"])
def policy(request, tiny_model_path) -> Policy:
    """In float64, where what is left of a difference is that of rotary angles and norms in float32."""
    attention = "auto" if request.param == "packed" else "sdpa"
    loaded = load_policy(tiny_model_path, dtype="float32", device="cpu", attention=attention)
    loaded.model.double()
    assert loaded.packs_rows == (request.param == "packed")
    return loaded


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shares_prompts", [True, False])
def test_a_conversation_has_the_gradient_of_its_turns_with_their_history_as_prompt(policy, shares_prompts, in_place):
    policy.shares_prompts = shares_prompts
    samples = make_samples()
    turns = [turn for sample in samples for turn in split(sample)]
    assert len(turns) == 9
    loss, gradients = step(policy, batch_of(samples), in_place=in_place)
    loss_of_turns, of_turns = step(policy, batch_of(turns), in_place=in_place)
    assert loss == pytest.approx(loss_of_turns, rel=1e-6)
    assert_close(gradients, of_turns, tolerance=1e-5)


def test_it_is_the_gradient_of_each_conversation_alone_added_up(policy):
    """Prompts are shared and rows are packed: nothing of one conversation is seen by another."""
    samples = make_samples()
    whole, total = batch_of(samples), dict[str, torch.Tensor]()
    _, together = step(policy, whole)
    for row in range(len(samples)):
        part = whole.select([row])
        _, alone = step(policy, part)
        share = part.num_tokens / whole.num_tokens
        total = {name: total.get(name, 0.0) + share * gradient.clone() for name, gradient in alone.items()}
    assert_close(together, total, tolerance=1e-5)


def test_what_was_put_in_is_read_by_later_turns_and_at_the_end_by_none(policy):
    samples = make_samples()
    loss, gradients = step(policy, batch_of(samples))
    ids = samples[3].response_ids
    at_end = [*samples[:3], replace(samples[3], response_ids=(*ids[:2], 50, 51, 52)), samples[4]]
    same_loss, same = step(policy, batch_of(at_end))
    assert same_loss == loss
    for name, gradient in gradients.items():
        assert torch.equal(same[name], gradient), name
    ids = samples[0].response_ids
    between = [replace(samples[0], response_ids=(*ids[:4], 60, *ids[5:])), *samples[1:]]
    assert step(policy, batch_of(between))[0] != pytest.approx(loss, rel=1e-6)


def test_states_that_a_critic_reads_are_those_of_the_turns(policy):
    samples = make_samples()
    batch, turns = batch_of(samples), batch_of([turn for sample in samples for turn in split(sample)])
    found, expected = (
        policy.predicting_states(each.prompts, each.prompt_index, each.response_ids, each.mask)
        for each in (batch, turns)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
