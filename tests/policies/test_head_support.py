"""The tiled head where a token could have been one of a few words only."""

import pytest
import torch
from tests.policies.test_head import TILES, example, naive

from klimb.experience.support import Support
from klimb.policies import token_log_probs


def sets_for(targets, num_vocab, *, seed=0, plain=()):
    """Random sets of 1 to 9 words with the target in each; none for the tokens of `plain`."""
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for place, target in enumerate(targets.tolist()):
        size = 1 + place % 9
        others = [word for word in torch.randperm(num_vocab, generator=generator).tolist() if word != target]
        sets.append([] if place in plain else sorted([target, *others[: size - 1]]))
    return sets


def support_of(sets, dtype=torch.int32):
    return Support(
        ids=torch.tensor([word for kept in sets for word in kept], dtype=dtype),
        sizes=torch.tensor([len(kept) for kept in sets]),
    )


def naive_on(sets, hidden, weight, targets, **options):
    """Renormalise the full softmax: what is not in a token's set gets no logit."""
    whole, entropy = naive(hidden, weight, targets, **options)
    z = hidden @ weight.t() + (options.get("bias") if options.get("bias") is not None else 0.0)
    if options.get("softcap") is not None:
        z = options["softcap"] * torch.tanh(z / options["softcap"])
    u = z / options.get("temperature", 1.0)
    rows = [
        whole[row] if not kept else u[row, targets[row]] - u[row, torch.tensor(kept)].logsumexp(0)
        for row, kept in enumerate(sets)
    ]
    return torch.stack(rows), entropy


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_values_and_gradients_are_those_of_the_renormalised_softmax(with_bias, temperature, softcap):
    hidden, weight, bias, targets = example()
    sets = sets_for(targets, 70, plain=(3, 8))
    options = {"bias": bias if with_bias else None, "temperature": temperature, "softcap": softcap}
    leaves = [hidden, weight, *([bias] if with_bias else [])]
    expected_log_pi, expected_entropy = naive_on(sets, hidden, weight, targets, **options)
    out = token_log_probs(hidden, weight, targets, with_entropy=True, support=support_of(sets), **options, **TILES)
    expected = torch.autograd.grad((expected_log_pi.exp() + expected_entropy.sin()).sum(), leaves)
    actual = torch.autograd.grad((out.log_pi.exp() + out.entropy.sin()).sum(), leaves)
    torch.testing.assert_close(out.log_pi, expected_log_pi, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.entropy, expected_entropy, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradcheck_on_a_support_in_float64(softcap):
    hidden, weight, bias, targets = example(num_tokens=4, num_hidden=4, num_vocab=11)
    support = support_of(sets_for(targets, 11, plain=(1,)))

    def both(hidden, weight, bias):
        out = token_log_probs(
            hidden, weight, targets, bias=bias, temperature=0.8, softcap=softcap, with_entropy=True, support=support,
            block_tokens=2, tile_vocab=4,
        )  # fmt: skip
        return out.log_pi, out.entropy

    assert torch.autograd.gradcheck(both, (hidden, weight, bias))


def test_a_set_of_one_word_has_log_probability_zero_and_no_gradient():
    hidden, weight, _, targets = example()
    out = token_log_probs(hidden, weight, targets, support=support_of([[word] for word in targets.tolist()]), **TILES)
    assert torch.equal(out.log_pi, torch.zeros(13, dtype=torch.float64))
    for gradient in torch.autograd.grad(out.log_pi.sum(), [hidden, weight]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


def test_sets_of_the_whole_vocabulary_give_the_plain_result_to_the_last_bit():
    hidden, weight, _, targets = example(dtype=torch.float32)
    whole = support_of([torch.randperm(70).tolist() for _ in targets])
    results = []
    for support in (None, whole):
        out = token_log_probs(hidden, weight, targets, with_entropy=True, support=support, **TILES)
        results.append((out.log_pi, *torch.autograd.grad((out.log_pi.exp() + out.entropy).sum(), [hidden, weight])))
    assert all(map(torch.equal, *results))


def test_words_outside_of_the_set_feel_nothing_of_the_log_probability():
    hidden, weight, _, targets = example()
    sets = sets_for(targets, 70)
    out = token_log_probs(hidden, weight, targets, support=support_of(sets), **TILES)
    (gradient,) = torch.autograd.grad(out.log_pi.sum(), [weight])
    outside = sorted({*range(70)} - {word for kept in sets for word in kept})
    assert outside
    assert not gradient[outside].any()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([[0], [1, 2]], "must have one set for each of 1 targets"),
        ([[1, 2]], "target 0 of token 0 is not in its support of 2 tokens"),
        ([[0, 99]], "ids from 0 to 99, but the model's vocabulary is 0 to 10"),
    ],
)
def test_sets_that_cannot_be_are_refused(sets, message):
    hidden, weight, _, _ = example(num_tokens=1, num_vocab=11)
    with pytest.raises(ValueError, match=message):
        token_log_probs(hidden, weight, torch.tensor([0]), support=support_of(sets))
