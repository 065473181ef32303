"""The tokens that could be drawn, and the likeliest ones: what is recorded of each token besides its log μ."""

import dataclasses
from concurrent.futures import Future

import pytest
import torch
from tests.samplers.test_local import PROMPTS, assert_same, flat, seeded, teacher_forced_logits

from klimb.experience.samples import SamplingSettings
from klimb.samplers import LocalSampler, processed_log_probs
from klimb.samplers.distribution import TokenDetails, cuts_off_tokens, draw

CUTTING = [
    SamplingSettings(max_new_tokens=12, top_p=0.8),
    SamplingSettings(max_new_tokens=12, top_k=7, temperature=1.4),
    SamplingSettings(max_new_tokens=12, min_p=0.1, min_new_tokens=3),
]
WHOLE = [
    SamplingSettings(max_new_tokens=6),
    SamplingSettings(max_new_tokens=6, temperature=0, top_p=0.5),
    SamplingSettings(max_new_tokens=6, min_new_tokens=3, repetition_penalty=1.2),
]


@pytest.fixture
def ending_policy(tiny_policy):
    return dataclasses.replace(tiny_policy, end_ids=tuple(range(2, 98, 4)))


@pytest.mark.parametrize("settings", CUTTING, ids=str)
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_the_support_is_the_set_of_tokens_with_mass(ending_policy, settings, decoder):
    sampler = LocalSampler(ending_policy, decoder=decoder, record_support=True, max_batch=3)
    groups = sampler.sample(PROMPTS, num_samples=2, settings=settings, generator=seeded())
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            logits = teacher_forced_logits(ending_policy, prompt, completion.response_ids)
            logits[: settings.min_new_tokens, list(ending_policy.end_ids)] = -torch.inf
            log_mu = processed_log_probs(logits, settings)
            assert completion.support == tuple(tuple((row > -torch.inf).nonzero()[:, 0].tolist()) for row in log_mu)
            assert all(len(ids) < 98 for ids in completion.support)


@pytest.mark.parametrize("settings", WHOLE, ids=str)
def test_without_a_cut_there_is_no_support(ending_policy, settings):
    assert not cuts_off_tokens(settings)
    sampler = LocalSampler(ending_policy, record_support=True)
    completions = flat(sampler.sample(PROMPTS, num_samples=1, settings=settings, generator=seeded()))
    assert {completion.support for completion in completions} == {None}


def test_recording_changes_no_draw_and_is_off_unless_asked_for(ending_policy):
    plain = LocalSampler(ending_policy).sample(PROMPTS, num_samples=3, settings=CUTTING[0], generator=seeded())
    sampler = LocalSampler(ending_policy, record_support=True)
    recorded = sampler.sample(PROMPTS, num_samples=3, settings=CUTTING[0], generator=seeded())
    assert_same(plain, recorded)
    assert {completion.support for completion in flat(plain)} == {None}


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_every_turn_of_a_conversation_has_the_support_of_its_own_tokens(ending_policy, decoder):
    def answer(number, completion):
        future: Future[tuple[int, ...] | None] = Future()
        future.set_result((7, 8, 9))
        return future

    sampler = LocalSampler(ending_policy, decoder=decoder, record_support=True)
    arguments = {"settings": CUTTING[0], "generator": seeded(), "answer": answer, "max_turns": 3}
    for _, dialogue in sampler.converse(PROMPTS, **arguments):
        for turn in dialogue.turns:
            assert turn.support is not None
            assert all(token in ids for token, ids in zip(turn.response_ids, turn.support, strict=True))


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_the_likeliest_tokens_are_those_of_the_policy_itself(ending_policy, decoder):
    policy = dataclasses.replace(ending_policy, temperature=0.7)
    settings = SamplingSettings(max_new_tokens=9, top_k=3)
    quantiles = torch.rand(9, len(PROMPTS), dtype=torch.float64, generator=seeded())
    sampler, details = LocalSampler(policy, decoder=decoder), TokenDetails(num_top=5)
    for prompt, (completion,) in zip(
        PROMPTS, sampler.sample_at(PROMPTS, settings=settings, quantiles=quantiles, details=details), strict=True
    ):
        logits = teacher_forced_logits(policy, prompt, completion.response_ids)
        expected = (logits / 0.7).log_softmax(-1).topk(5)
        assert completion.top is not None
        for alternatives, ids, log_probs in zip(completion.top, expected.indices, expected.values, strict=True):
            assert [token for token, _ in alternatives] == ids.tolist()
            assert [value for _, value in alternatives] == pytest.approx(log_probs.tolist(), abs=1e-5)


def test_more_alternatives_than_tokens_are_all_tokens():
    drawn = draw(
        torch.tensor([[0.0, 1.0, 2.0]]),
        SamplingSettings(),
        quantiles=torch.zeros(1, dtype=torch.float64),
        details=TokenDetails(num_top=20),
    )
    assert drawn.top_ids is not None and drawn.top_ids.tolist() == [[2, 1, 0]]


def test_the_same_random_numbers_give_the_same_completions(ending_policy):
    settings = SamplingSettings(max_new_tokens=9)
    sampler = LocalSampler(ending_policy)
    quantiles = torch.rand(9, 2 * len(PROMPTS), dtype=torch.float64, generator=seeded(5))
    assert_same(
        sampler.sample_at(PROMPTS, settings=settings, quantiles=quantiles),
        sampler.sample(PROMPTS, num_samples=2, settings=settings, generator=seeded(5)),
    )


def test_random_numbers_of_another_shape_are_an_error(ending_policy):
    with pytest.raises(ValueError, match=r"quantiles must be \[max_new_tokens = 9, a multiple of 4 prompts\], got"):
        LocalSampler(ending_policy).sample_at(
            PROMPTS, settings=SamplingSettings(max_new_tokens=9), quantiles=torch.zeros(9, 6, dtype=torch.float64)
        )
