"""Log-probabilities on a recorded support against the full softmax of the transformers model, renormalised."""

import pytest
import torch
from tests.policies.test_log_probs import example, naive_twin

from klimb.experience.support import Support
from klimb.policies import load_policy


def random_sets(ids, mask, *, without_row, num_vocab=99):
    """1 to 8 tokens at each counted place, the drawn one among them; none in one row."""
    generator = torch.Generator().manual_seed(3)
    sets = {}
    for row, time in mask.nonzero().tolist():
        if row != without_row:
            others = torch.randperm(num_vocab, generator=generator)[: time + 2].tolist()
            sets[row, time] = sorted({int(ids[row, time]), *others})
    return sets


def as_support(sets, shape):
    sizes = torch.zeros(shape, dtype=torch.int64)
    for place, kept in sets.items():
        sizes[place] = len(kept)
    flat = [token for place in sorted(sets) for token in sets[place]]
    return Support(ids=torch.tensor(flat, dtype=torch.int32), sizes=sizes)


def naive(model, prompts, index, ids, mask, sets, *, temperature):
    out = torch.zeros(mask.shape, dtype=torch.float64)
    for row in range(len(ids)):
        response = ids[row][mask[row]].tolist()
        prompt = prompts[int(index[row])]
        logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits
        u = logits[0, len(prompt) - 1 : -1] / temperature
        for time, token in enumerate(response):
            kept = torch.tensor(sets.get((row, time), range(u.shape[-1])))
            out[row, time] = u[time, token] - u[time, kept].logsumexp(0)
    return out


@pytest.mark.parametrize("attention", ["sdpa", "auto"])
def test_values_and_gradients_are_those_of_the_renormalised_full_softmax(tiny_model_path, attention):
    prompts, index, ids, mask, _ = example()
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu", attention=attention)
    policy.model.double()
    twin = naive_twin(tiny_model_path)
    sets = random_sets(ids, mask, without_row=1)
    support = as_support(sets, mask.shape)
    scored = policy.log_probs(prompts, index, ids, mask, temperature=0.7, with_entropy=True, support=support)
    expected = naive(twin, prompts, index, ids, mask, sets, temperature=0.7)
    # Rotary angles and layer norms run in float32 in both.
    torch.testing.assert_close(scored.log_pi, expected, rtol=0, atol=2e-6)
    scored.log_pi.exp().sum().backward()
    expected.exp().sum().backward()
    ours, theirs = (model.get_input_embeddings().weight.grad for model in (policy.causal_lm, twin))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    plain = policy.log_probs(prompts, index, ids, mask, temperature=0.7, with_entropy=True)
    # The entropy stays that of the whole distribution, and a row without a record is what it was.
    assert torch.equal(scored.entropy, plain.entropy)
    assert torch.equal(scored.log_pi[1], plain.log_pi[1])
    assert (scored.log_pi >= plain.log_pi).all()


def test_a_support_of_another_shape_is_refused(tiny_policy):
    prompts, index, ids, mask, _ = example()
    support = as_support({(0, 0): [int(ids[0, 0])]}, (1, 2))
    with pytest.raises(ValueError, match=r"one set for each place of mask \[6, 6\], got sizes \[1, 2\]"):
        tiny_policy.log_probs(prompts, index, ids, mask, support=support)


def test_a_token_outside_of_its_support_is_refused(tiny_policy):
    prompts, index, ids, mask, _ = example()
    support = as_support({(0, 0): [int(ids[0, 0]) - 1]}, mask.shape)
    with pytest.raises(ValueError, match="is not in its support of 1 tokens"):
        tiny_policy.log_probs(prompts, index, ids, mask, support=support)
