"""Log-probabilities of responses against full rows run naively through the transformers model."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from klimb.policies import LoraSettings, load_policy

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [15]]
"""Unequal lengths, one of a single token."""


def naive_rows(model, rows, *, temperature=1.0):
    """Log-probabilities and entropies of each (prompt, response), one full row at a time, no padding, no cache."""
    log_pi, entropy = [], []
    for prompt, response in rows:
        ids = torch.tensor([[*prompt, *response]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        log_p = (logits / temperature).log_softmax(-1)
        log_pi.append(log_p.gather(-1, torch.tensor(response)[:, None])[:, 0])
        entropy.append(-(log_p.exp() * log_p).sum(-1))
    return log_pi, entropy


def padded(responses, pad=2):
    width = max(map(len, responses))
    ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in responses])
    return ids, torch.tensor([[t < len(r) for t in range(width)] for r in responses])


def example(num_vocab=99):
    """Groups of 3, 2 and 1 responses of 1 to 6 tokens, in mixed order; some hold the end token 2 inside."""
    generator = torch.Generator().manual_seed(1)
    index = torch.tensor([1, 0, 2, 1, 0, 1])
    lengths = [6, 1, 4, 3, 5, 2]
    responses = [torch.randint(num_vocab, (n,), generator=generator).tolist() for n in lengths]
    responses[3][1] = 2
    ids, mask = padded(responses)
    return PROMPTS, index, ids, mask, responses


@pytest.fixture
def policy64(tiny_model_path):
    """In float64; with sdpa, because transformers' eager attention runs its softmax in float32."""
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu", attention="sdpa")
    policy.model.double()
    return policy


def naive_twin(path, dtype=torch.float64):
    """The plain transformers model, with the gradient of the padding token's embedding switched on."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    model.get_input_embeddings().padding_idx = None
    return model


@pytest.mark.parametrize("shares_prompts", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(
    ("attention", "dtype"),
    [("sdpa", torch.float64), ("eager", torch.float32), ("auto", torch.float64), ("auto", torch.float32)],
)
def test_values_and_gradients_are_those_of_separate_full_rows(
    tiny_model_path, shares_prompts, temperature, attention, dtype
):
    prompts, index, ids, mask, responses = example()
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu", attention=attention)
    policy.model.to(dtype)
    policy.shares_prompts = shares_prompts
    assert policy.packs_rows == (attention == "auto")
    twin = naive_twin(tiny_model_path, dtype)
    # Rotary angles and layer norms run in float32 in both: 1e-7 relative at each of them.
    value_tolerance, gradient_tolerance = (1e-6, 1e-5) if dtype == torch.float64 else (1e-5, 1e-4)
    out = policy.log_probs(prompts, index, ids, mask, temperature=temperature, with_entropy=True)
    rows = [(prompts[i], r) for i, r in zip(index.tolist(), responses, strict=True)]
    log_pi, entropy = naive_rows(twin, rows, temperature=temperature)
    for row, response in enumerate(responses):
        torch.testing.assert_close(out.log_pi[row, : len(response)], log_pi[row], rtol=0, atol=value_tolerance)
        torch.testing.assert_close(out.entropy[row, : len(response)], entropy[row], rtol=0, atol=value_tolerance)
    (out.log_pi.exp().sum() + out.entropy.sin().sum() - (~mask).sum()).backward()
    (torch.cat(log_pi).exp().sum() + torch.cat(entropy).sin().sum()).backward()
    expected = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in policy.trainable().items():
        assert (parameter.grad - expected[name]).norm() <= gradient_tolerance * expected[name].norm(), name


def test_float32_agrees_with_the_float32_model(tiny_policy, tiny_model_path):
    prompts, index, ids, mask, responses = example()
    twin = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    with torch.no_grad():
        out = tiny_policy.log_probs(prompts, index, ids, mask)
        log_pi, _ = naive_rows(twin, [(prompts[i], r) for i, r in zip(index.tolist(), responses, strict=True)])
    assert out.log_pi.dtype == torch.float32
    assert out.entropy is None
    torch.testing.assert_close(out.log_pi[mask], torch.cat(log_pi), rtol=0, atol=1e-5)


def test_the_first_token_sends_its_gradient_through_the_prompt_alone(policy64, tiny_model_path):
    twin = naive_twin(tiny_model_path)
    policy64.log_probs(
        [[5, 6, 7]], torch.tensor([0]), torch.tensor([[9]]), torch.tensor([[True]])
    ).log_pi.sum().backward()
    log_pi, _ = naive_rows(twin, [([5, 6, 7], [9])])
    log_pi[0].sum().backward()
    for ours, theirs in zip(policy64.trainable().values(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def inputs_of_decoder(policy, *arguments):
    """Shapes of the token ids that were embedded while `log_probs` ran."""
    seen = []
    embedding = policy.causal_lm.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    policy.log_probs(*arguments)
    hook.remove()
    return seen


def test_a_prompt_goes_through_the_model_once_for_all_its_responses(tiny_policy):
    prompts, index, ids, mask, _ = example()
    # Prompts of 3, 7 and 1 tokens, and 6, 1, 4, 3, 5 and 2 response tokens less the last of each.
    assert inputs_of_decoder(tiny_policy, prompts, index, ids, mask) == [(3 + 7 + 1 + 21 - 6,)]
    tiny_policy.packs_rows = False
    # Three prompts as long as the longest; six responses without their last token.
    assert inputs_of_decoder(tiny_policy, prompts, index, ids, mask) == [(3, 7), (6, 5)]


@pytest.mark.parametrize("packs_rows", [True, False])
def test_gradients_do_not_depend_on_the_order_of_threads(tiny_policy, packs_rows):
    # All answers read one prompt, whose gradient has as many parts.
    tiny_policy.packs_rows = packs_rows
    ids = torch.arange(2 * 1000).view(1000, 2) % 50 + 3
    arguments = ([[5, 6, 7]], torch.zeros(1000, dtype=torch.long), ids, torch.ones_like(ids, dtype=torch.bool))
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        runs = []
        for _ in range(6):
            tiny_policy.model.zero_grad()
            (tiny_policy.log_probs(*arguments).log_pi * ids.cos()).sum().backward()
            runs.append([parameter.grad for parameter in tiny_policy.trainable().values()])
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_unused_prompts_are_not_run(tiny_policy):
    prompts, _, ids, mask, _ = example()
    only_second = torch.ones(6, dtype=torch.long)
    assert inputs_of_decoder(tiny_policy, [[], *prompts[1:]], only_second, ids, mask) == [(7 + 21 - 6,)]
    tiny_policy.packs_rows = False
    assert inputs_of_decoder(tiny_policy, [[], *prompts[1:]], only_second, ids, mask)[0] == (1, 7)


def test_masked_positions_are_zero_and_what_is_in_the_padding_does_not_matter(tiny_policy):
    prompts, index, ids, mask, _ = example()
    out = tiny_policy.log_probs(prompts, index, ids, mask, with_entropy=True)
    other = torch.where(mask, ids, -100)
    again = tiny_policy.log_probs(prompts, index, other, mask, with_entropy=True)
    assert torch.equal(out.log_pi, again.log_pi)
    assert torch.equal(out.entropy, again.entropy)
    assert (out.log_pi[~mask] == 0).all()
    assert (out.entropy[~mask] == 0).all()


def test_tokens_masked_in_the_middle_are_still_read(tiny_policy):
    prompt, response = [[5, 6, 7]], torch.tensor([[20, 30, 40, 50]])
    full = tiny_policy.log_probs(prompt, torch.tensor([0]), response, torch.ones(1, 4, dtype=torch.bool))
    holes = torch.tensor([[True, False, False, True]])
    part = tiny_policy.log_probs(prompt, torch.tensor([0]), response, holes)
    torch.testing.assert_close(part.log_pi, torch.where(holes, full.log_pi, 0.0), rtol=0, atol=1e-6)


def test_padding_columns_do_not_change_the_shape_of_the_result(tiny_policy):
    prompts, index, ids, mask, _ = example()
    wide_ids, wide_mask = nn.functional.pad(ids, (0, 9)), nn.functional.pad(mask, (0, 9))
    wide = tiny_policy.log_probs(prompts, index, wide_ids, wide_mask)
    assert wide.log_pi.shape == wide_mask.shape
    torch.testing.assert_close(wide.log_pi[:, : ids.shape[1]], tiny_policy.log_probs(prompts, index, ids, mask).log_pi)


def test_a_batch_without_columns_has_nothing_to_say(tiny_policy):
    nothing = torch.zeros(2, 0, dtype=torch.long)
    scored = tiny_policy.log_probs(PROMPTS, torch.tensor([0, 1]), nothing, nothing.bool(), with_entropy=True)
    assert scored.log_pi.shape == scored.entropy.shape == (2, 0)


def test_rows_do_not_depend_on_their_neighbours(policy64):
    prompts, index, ids, mask, _ = example()
    together = policy64.log_probs(prompts, index, ids, mask).log_pi
    for row in range(len(ids)):
        alone = policy64.log_probs(prompts, index[[row]], ids[[row]], mask[[row]]).log_pi
        torch.testing.assert_close(together[[row]], alone, rtol=0, atol=1e-6)


def test_a_batch_in_which_nothing_counts_gives_zero_gradients(tiny_policy):
    out = tiny_policy.log_probs([[5]], torch.tensor([0]), torch.tensor([[7, 8]]), torch.zeros(1, 2, dtype=torch.bool))
    assert torch.equal(out.log_pi, torch.zeros(1, 2))
    out.log_pi.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in tiny_policy.trainable().values())


def test_the_end_token_has_the_gradient_of_any_other_token(policy64):
    # pad == eos == 2; with torch's padding_idx its row would get no gradient from being an input.
    (end,) = policy64.end_ids
    embedding = policy64.causal_lm.get_input_embeddings()
    assert policy64.causal_lm.config.pad_token_id == end

    def log_pi():
        ids, mask = torch.tensor([[8, 9]]), torch.ones(1, 2, dtype=torch.bool)
        return policy64.log_probs([[5, end, 7]], torch.tensor([0]), ids, mask).log_pi.sum()

    (gradient,) = torch.autograd.grad(log_pi(), [embedding.weight])
    step = 1e-4
    with torch.no_grad():
        embedding.weight[end, 3] += step
        above = log_pi()
        embedding.weight[end, 3] -= 2 * step
        below = log_pi()
    # Central difference: error of order step² (1e-8) plus float32 parts of the model (1e-7 / 1e-4).
    assert gradient[end, 3].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=0.02)
    assert abs(gradient[end, 3].item()) > 0.01


@pytest.mark.parametrize("packs_rows", [True, False])
def test_bfloat16_compute_keeps_float32_weights_gradients_and_results(tiny_model_path, packs_rows):
    policy = load_policy(tiny_model_path, dtype="bfloat16", device="cpu")
    policy.packs_rows = packs_rows
    exact = load_policy(tiny_model_path, dtype="float32", device="cpu")
    prompts, index, ids, mask, _ = example()
    product_dtypes = set()
    # A layer with a hook is called, whichever way.
    down = policy.causal_lm.model.layers[0].mlp.down_proj
    down.register_forward_hook(lambda _, args, out: product_dtypes.add(out.dtype))
    out = policy.log_probs(prompts, index, ids, mask, with_entropy=True)
    assert product_dtypes == {torch.bfloat16}
    reference = exact.log_probs(prompts, index, ids, mask, with_entropy=True)
    assert out.log_pi.dtype == out.entropy.dtype == torch.float32
    out.log_pi.sum().backward()
    reference.log_pi.sum().backward()
    # bfloat16 has 8 bits, so every product is off by up to 0.4 %; log-probabilities near -5 by a few hundredths.
    torch.testing.assert_close(out.log_pi, reference.log_pi, rtol=0, atol=0.1)
    for name, parameter in policy.trainable().items():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        expected = exact.trainable()[name].grad
        assert (parameter.grad - expected).norm() < 0.05 * expected.norm(), name


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "auto"])
def test_lora_gradients_are_those_of_separate_full_rows(tiny_model_path, attention, kind):
    torch.manual_seed(0)
    lora = LoraSettings(rank=2, alpha=4.0, **kind)
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu", lora=lora, attention=attention)
    assert policy.packs_rows == (attention == "auto")
    with torch.no_grad():
        for name, parameter in policy.trainable().items():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    policy.model.double()
    prompts, index, ids, mask, responses = example()
    out = policy.log_probs(prompts, index, ids, mask)
    ours = torch.autograd.grad(out.log_pi.exp().sum(), list(policy.trainable().values()))
    log_pi, _ = naive_rows(policy.model, [(prompts[i], r) for i, r in zip(index.tolist(), responses, strict=True)])
    theirs = torch.autograd.grad(torch.cat(log_pi).exp().sum(), list(policy.trainable().values()))
    for name, actual, expected in zip(policy.trainable(), ours, theirs, strict=True):
        assert (actual - expected).norm() <= 1e-5 * expected.norm(), name


def test_training_mode_is_refused_because_dropout_would_act(tiny_policy):
    tiny_policy.model.train()
    with pytest.raises(ValueError, match="training mode"):
        tiny_policy.log_probs([[5]], torch.tensor([0]), torch.tensor([[7]]), torch.tensor([[True]]))


def test_without_gradients_nothing_is_kept(tiny_policy):
    prompts, index, ids, mask, _ = example()
    with torch.no_grad():
        assert not tiny_policy.log_probs(prompts, index, ids, mask).log_pi.requires_grad


@pytest.mark.parametrize("is_tied", [True, False])
def test_plain_transformers_leaves_the_row_of_a_padding_token_out_of_the_gradient_and_klimb_does_not(
    tiny_model_path, tmp_path, is_tied: bool
):
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32, attn_implementation="eager")
    if not is_tied:
        plain.config.tie_word_embeddings = False
        plain.lm_head.weight = torch.nn.Parameter(plain.lm_head.weight.detach().clone())
    plain.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    policy = load_policy(tmp_path, dtype="float32", device="cpu")
    end = plain.config.pad_token_id
    assert end == policy.end_ids[0]
    prompt, response = [5, end, 7, 8], [9, 10, end]
    ids = torch.tensor([prompt + response])
    log_probs = plain(input_ids=ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    log_probs.gather(1, torch.tensor(response)[:, None]).sum().backward()
    counted = torch.ones(1, len(response), dtype=torch.bool)
    policy.log_probs([prompt], torch.tensor([0]), torch.tensor([response]), counted).log_pi.sum().backward()
    theirs = plain.get_input_embeddings().weight.grad
    ours = policy.causal_lm.get_input_embeddings().weight.grad
    others = [row for row in range(len(ours)) if row != end]
    torch.testing.assert_close(ours[others], theirs[others], rtol=1e-3, atol=1e-5)
    assert (ours[end] - theirs[end]).abs().max() > 1e-2
    assert bool((theirs[end] == 0).all()) is not is_tied


def test_a_policy_scores_at_its_own_temperature_unless_another_is_named(tiny_policy):
    prompts, index = [[1, 2, 3], [4, 5]], torch.tensor([0, 1, 1])
    ids = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    named = tiny_policy.log_probs(prompts, index, ids, mask, temperature=0.7, with_entropy=True)
    at_one = tiny_policy.log_probs(prompts, index, ids, mask, with_entropy=True)
    tiny_policy.temperature = 0.7
    own = tiny_policy.log_probs(prompts, index, ids, mask, with_entropy=True)
    assert torch.equal(own.log_pi, named.log_pi) and torch.equal(own.entropy, named.entropy)
    assert not torch.allclose(own.log_pi, at_one.log_pi, rtol=0, atol=1e-3)
    again = tiny_policy.log_probs(prompts, index, ids, mask, temperature=1.0)
    assert torch.equal(again.log_pi, at_one.log_pi)
