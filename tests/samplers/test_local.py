"""LocalSampler against a teacher-forced forward of the same model, and against itself in other batches."""

import dataclasses
import itertools
from functools import partial

import pytest
import torch
from scipy import stats

from klimb.experience.samples import SamplingSettings
from klimb.samplers import Completion, LocalSampler, processed_log_probs

PROMPTS = ((5, 6, 7), (9,), (20, 21, 22, 23, 24, 25, 26, 27, 28, 29), (40, 41, 42, 43))
# Two ways to add the same float32 numbers; the tiny model's log-probs lie between 0 and −10.
TOLERANCE = 1e-4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(completions: list[list[Completion]]) -> list[Completion]:
    return list(itertools.chain.from_iterable(completions))


@torch.no_grad()
def teacher_forced_logits(policy, prompt, response) -> torch.Tensor:
    """Logits `[time, vocab]` that predict the response's tokens, from one forward of this sequence alone."""
    ids = torch.tensor([[*prompt, *response]])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=policy.compute_dtype == torch.bfloat16):
        return policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


def assert_log_probs_are_exact(policy, prompt, completion: Completion, settings: SamplingSettings, tolerance: float):
    logits = teacher_forced_logits(policy, prompt, completion.response_ids)
    tokens = torch.tensor(completion.response_ids)[:, None]
    expected_mu = processed_log_probs(logits, settings).gather(-1, tokens)[:, 0]
    expected_model = logits.float().log_softmax(-1).gather(-1, tokens)[:, 0]
    torch.testing.assert_close(torch.tensor(completion.log_mu), expected_mu, rtol=0, atol=tolerance)
    torch.testing.assert_close(torch.tensor(completion.log_model), expected_model, rtol=0, atol=tolerance)


def assert_same(left: list[list[Completion]], right: list[list[Completion]]):
    for a, b in zip(flat(left), flat(right), strict=True):
        assert a.response_ids == b.response_ids
        assert a.finish_reason == b.finish_reason
        assert a.log_mu == pytest.approx(b.log_mu, abs=TOLERANCE)
        assert a.log_model == pytest.approx(b.log_model, abs=TOLERANCE)


def input_shapes(sampler: LocalSampler, prompts, *, num_samples: int, max_new_tokens: int) -> list[tuple[int, int]]:
    """Shapes of the token ids that go through the transformers model in one call, the seed being 0."""
    call = partial(sampler.sample, prompts, num_samples=num_samples)
    # A first call also tries ways to compute attention.
    call(settings=SamplingSettings(max_new_tokens=1), generator=seeded())
    shapes = []
    hook = sampler.policy.model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    call(settings=SamplingSettings(max_new_tokens=max_new_tokens), generator=seeded())
    hook.remove()
    return shapes


@pytest.fixture
def ending_policy(tiny_policy):
    """A policy whose responses end after 4 tokens or so: a quarter of the vocabulary ends them."""
    return dataclasses.replace(tiny_policy, end_ids=tuple(range(2, 98, 4)))


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(max_new_tokens=20),
        SamplingSettings(max_new_tokens=20, temperature=0.6),
        SamplingSettings(max_new_tokens=20, temperature=1.5, top_k=20),
        SamplingSettings(max_new_tokens=20, top_p=0.8),
        SamplingSettings(max_new_tokens=20, temperature=0.9, top_k=30, top_p=0.9, min_p=0.02),
        SamplingSettings(max_new_tokens=20, temperature=0),
    ],
    ids=str,
)
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_log_probs_of_a_mixed_length_batch_equal_each_sequence_alone(ending_policy, settings, decoder):
    sampler = LocalSampler(ending_policy, decoder=decoder)
    completions = sampler.sample(PROMPTS, num_samples=3, settings=settings, generator=seeded())
    assert [len(group) for group in completions] == [3, 3, 3, 3]
    for prompt, group in zip(PROMPTS, completions, strict=True):
        for completion in group:
            assert_log_probs_are_exact(ending_policy, prompt, completion, settings, TOLERANCE)


def test_plain_settings_give_equal_log_mu_and_log_model(tiny_policy):
    settings = SamplingSettings(max_new_tokens=8)
    for completion in flat(
        LocalSampler(tiny_policy).sample(PROMPTS, num_samples=2, settings=settings, generator=seeded())
    ):
        assert completion.log_mu == completion.log_model


def test_bfloat16_log_probs_are_those_of_the_trainers_autocast(ending_policy):
    policy = dataclasses.replace(ending_policy, compute_dtype=torch.bfloat16)
    settings = SamplingSettings(max_new_tokens=20)
    completions = LocalSampler(policy).sample(PROMPTS, num_samples=3, settings=settings, generator=seeded())
    for prompt, group in zip(PROMPTS, completions, strict=True):
        for completion in group:
            # bfloat16 has 8 bits: logits of up to 8 are off by up to 0.03 each.
            assert_log_probs_are_exact(policy, prompt, completion, settings, 0.1)


def test_first_tokens_have_the_models_frequencies(tiny_policy):
    num_samples = 4000
    settings = SamplingSettings(max_new_tokens=1)
    sampler = LocalSampler(tiny_policy, max_batch=num_samples)
    (group,) = sampler.sample([PROMPTS[0]], num_samples=num_samples, settings=settings, generator=seeded(3))
    probabilities = teacher_forced_logits(tiny_policy, PROMPTS[0], (0,))[0].double().softmax(-1)
    counts = torch.tensor([completion.response_ids[0] for completion in group]).bincount(minlength=len(probabilities))
    # Rare tokens share one bin, so that every bin expects at least five.
    rare = probabilities * num_samples < 5
    observed = [*counts[~rare].tolist(), counts[rare].sum().item()]
    expected = [*(probabilities[~rare] * num_samples).tolist(), (probabilities[rare] * num_samples).sum().item()]
    # With this seed always the same result; over seeds it would fail one time in ten thousand.
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_greedy_equals_argmax_decoding_by_transformers(tiny_policy):
    settings = SamplingSettings(max_new_tokens=16, temperature=0)
    completions = LocalSampler(tiny_policy).sample(PROMPTS, num_samples=1, settings=settings, generator=seeded())
    for prompt, (completion,) in zip(PROMPTS, completions, strict=True):
        ids = tiny_policy.model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
        assert completion.response_ids == tuple(ids[0, len(prompt) :].tolist())
        assert set(completion.log_mu) == {0.0}


def test_one_prefill_for_a_group_equals_one_for_each_sample(tiny_policy):
    settings = SamplingSettings(max_new_tokens=10)
    sampler = LocalSampler(tiny_policy)
    together = sampler.sample(PROMPTS[:2], num_samples=4, settings=settings, generator=seeded())
    copies = [PROMPTS[0]] * 4 + [PROMPTS[1]] * 4
    separate = sampler.sample(copies, num_samples=1, settings=settings, generator=seeded())
    assert_same([flat(together)], [flat(separate)])


def test_a_prompt_goes_through_the_model_once_for_all_its_samples(tiny_policy):
    tiny_policy.end_ids = ()
    shapes = input_shapes(
        LocalSampler(tiny_policy, decoder="transformers"), PROMPTS[:2], num_samples=5, max_new_tokens=3
    )
    # Two prompts, the longer of three tokens; then ten rows of one token, twice.
    assert shapes == [(2, 3), (10, 1), (10, 1)]


def test_a_group_larger_than_a_batch_is_still_prefilled_once(tiny_policy):
    tiny_policy.end_ids = ()
    shapes = input_shapes(
        LocalSampler(tiny_policy, max_batch=4, decoder="transformers"), PROMPTS[:2], num_samples=6, max_new_tokens=2
    )
    # The shorter prompt comes first.
    assert shapes == [(1, 1), (4, 1), (2, 1), (1, 3), (4, 1), (2, 1)]


@pytest.mark.parametrize("max_batch", [1, 2, 3, 7])
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_batches_of_any_size_give_the_same_completions(ending_policy, max_batch, decoder):
    settings = SamplingSettings(max_new_tokens=12)
    at_once = LocalSampler(ending_policy).sample(PROMPTS, num_samples=3, settings=settings, generator=seeded())
    in_turn = LocalSampler(ending_policy, max_batch=max_batch, decoder=decoder).sample(
        PROMPTS, num_samples=3, settings=settings, generator=seeded()
    )
    assert_same(at_once, in_turn)


def test_rows_that_leave_do_not_change_the_others(ending_policy):
    settings = SamplingSettings(max_new_tokens=40)
    at_once, never = (
        LocalSampler(ending_policy, compact_fraction=fraction).sample(
            PROMPTS, num_samples=8, settings=settings, generator=seeded()
        )
        for fraction in (1e-9, 1.0)
    )
    assert len({len(completion.response_ids) for completion in flat(at_once)}) > 4
    assert_same(at_once, never)


def test_finished_rows_leave_the_batch(ending_policy):
    sampler = LocalSampler(ending_policy, compact_fraction=0.25, decoder="transformers")
    settings = SamplingSettings(max_new_tokens=60)
    completions = flat(sampler.sample(PROMPTS, num_samples=8, settings=settings, generator=seeded()))
    _, *fed = [rows for rows, _ in input_shapes(sampler, PROMPTS, num_samples=8, max_new_tokens=60)]
    unfinished = [sum(len(c.response_ids) > t for c in completions) for t in range(1, len(fed) + 1)]
    # Less than a quarter of the rows fed were already finished, and the last step was the longest response's.
    assert all(rows * 0.75 < alive <= rows for rows, alive in zip(fed, unfinished, strict=True))
    assert len(fed) == max(len(c.response_ids) for c in completions) - 1


def test_long_prompts_in_pieces_equal_one_prefill(tiny_policy):
    settings = SamplingSettings(max_new_tokens=6)
    whole, pieces = (
        LocalSampler(tiny_policy, max_prefill_tokens=size).sample(
            PROMPTS, num_samples=2, settings=settings, generator=seeded()
        )
        for size in (10_000, 9)
    )
    assert_same(whole, pieces)


def test_the_end_token_closes_the_response_and_has_its_log_prob(ending_policy):
    settings = SamplingSettings(max_new_tokens=6)
    completions = flat(
        LocalSampler(ending_policy).sample(PROMPTS, num_samples=16, settings=settings, generator=seeded())
    )
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        *before, last = completion.response_ids
        assert not set(before) & set(ending_policy.end_ids)
        assert (last in ending_policy.end_ids) == (completion.finish_reason == "stop")
        assert len(completion.response_ids) == 6 or completion.finish_reason == "stop"
        assert len(completion.log_mu) == len(completion.log_model) == len(completion.response_ids)


def test_without_end_tokens_every_response_is_cut(tiny_policy):
    tiny_policy.end_ids = ()
    settings = SamplingSettings(max_new_tokens=30)
    completions = flat(LocalSampler(tiny_policy).sample(PROMPTS, num_samples=2, settings=settings, generator=seeded()))
    assert {(len(c.response_ids), c.finish_reason) for c in completions} == {(30, "length")}


def test_a_seed_reproduces_tokens_and_log_probs_bit_for_bit(ending_policy):
    settings = SamplingSettings(max_new_tokens=12, temperature=0.8, top_p=0.9)
    first, second, other = (
        LocalSampler(ending_policy).sample(PROMPTS, num_samples=4, settings=settings, generator=seeded(seed))
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_a_generator_moves_on_between_calls(tiny_policy):
    generator = seeded()
    settings = SamplingSettings(max_new_tokens=12)
    sampler = LocalSampler(tiny_policy)
    first, second = (sampler.sample(PROMPTS, num_samples=2, settings=settings, generator=generator) for _ in range(2))
    assert first != second


def test_more_tokens_continue_the_same_responses(ending_policy):
    short, long = (
        LocalSampler(ending_policy).sample(
            PROMPTS, num_samples=4, settings=SamplingSettings(max_new_tokens=num_tokens), generator=seeded()
        )
        for num_tokens in (3, 12)
    )
    for a, b in zip(flat(short), flat(long), strict=True):
        assert b.response_ids[:3] == a.response_ids


def test_samples_of_one_prompt_differ(tiny_policy):
    settings = SamplingSettings(max_new_tokens=8)
    (group,) = LocalSampler(tiny_policy).sample([PROMPTS[0]], num_samples=6, settings=settings, generator=seeded())
    assert len({completion.response_ids for completion in group}) == 6


def test_new_weights_are_used_at_the_next_call(tiny_policy):
    settings = SamplingSettings(max_new_tokens=8, temperature=0)
    sampler = LocalSampler(tiny_policy)
    before = sampler.sample(PROMPTS, num_samples=1, settings=settings, generator=seeded())
    with torch.no_grad():
        tiny_policy.model.get_input_embeddings().weight.mul_(-1)
    after = sampler.sample(PROMPTS, num_samples=1, settings=settings, generator=seeded())
    assert before != after
    for prompt, (completion,) in zip(PROMPTS, after, strict=True):
        assert_log_probs_are_exact(tiny_policy, prompt, completion, settings, TOLERANCE)


def test_no_prompts_give_no_completions(tiny_policy):
    assert LocalSampler(tiny_policy).sample([], num_samples=2, settings=SamplingSettings(), generator=seeded()) == []
