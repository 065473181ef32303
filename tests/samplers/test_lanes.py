"""Continuous batching: who is fed when."""

import dataclasses

import pytest
import torch
from tests.samplers.test_local import PROMPTS, assert_same, flat, seeded

from klimb.experience.samples import SamplingSettings
from klimb.samplers import LocalSampler, StreamingSampler
from klimb.samplers.decoder import LlamaDecoder


@pytest.fixture
def ending_policy(tiny_policy):
    """A policy whose responses end after 4 tokens or so."""
    return dataclasses.replace(tiny_policy, end_ids=tuple(range(2, 98, 4)))


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Numbers of lanes of each step, and of prompts of each pass over prompts."""
    sizes: dict[str, list[int]] = {"step": [], "read_prompts": []}
    for name in sizes:
        own = getattr(LlamaDecoder, name)

        def counted(self, rows, *args, name=name, own=own):
            sizes[name].append(len(rows))
            return own(self, rows, *args)

        monkeypatch.setattr(LlamaDecoder, name, counted)
    return sizes


def drawn_with(policy, fed, prompts, *, num_samples: int, max_new_tokens: int, **options):
    sampler = LocalSampler(policy, **options)
    assert sampler.describe() == "decoded by klimb's own decoder"
    for sizes in fed.values():
        sizes.clear()
    settings = SamplingSettings(max_new_tokens=max_new_tokens)
    return sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=seeded())


def test_a_prompt_is_read_once_for_all_its_samples(tiny_policy, fed):
    tiny_policy.end_ids = ()
    drawn_with(tiny_policy, fed, PROMPTS[:2], num_samples=5, max_new_tokens=3)
    assert fed == {"read_prompts": [2], "step": [10, 10]}


def test_a_group_larger_than_a_batch_is_still_read_once(tiny_policy, fed):
    tiny_policy.end_ids = ()
    drawn_with(tiny_policy, fed, PROMPTS[:2], num_samples=6, max_new_tokens=2, max_batch=4)
    # Four lanes of the first prompt; its other two and two of the second, read when needed; then four of the second.
    assert fed == {"read_prompts": [1, 1], "step": [4, 4, 4]}


def test_waiting_samples_enter_as_others_finish(ending_policy, fed):
    completions = flat(drawn_with(ending_policy, fed, PROMPTS, num_samples=12, max_new_tokens=60, max_batch=8))
    lengths = [len(completion.response_ids) for completion in completions]
    assert max(lengths) > 2.5 * sum(lengths) / len(lengths)
    # Each response has one token less to feed than it is long. Without idle lanes there would be this many steps; the
    # last responses, for which nobody takes over, add at most the longest.
    least = sum(length - 1 for length in lengths) / 8
    assert least <= len(fed["step"]) <= least + max(lengths)
    assert all(lanes <= 8 for lanes in fed["step"])


def test_lanes_that_nobody_takes_over_are_dropped(ending_policy, fed):
    completions = flat(drawn_with(ending_policy, fed, PROMPTS, num_samples=8, max_new_tokens=60, compact_fraction=0.25))
    lengths = [len(completion.response_ids) for completion in completions]
    alive = [sum(length > t for length in lengths) for t in range(1, max(lengths))]
    # Less than a quarter of the lanes fed were already finished, and the last step was the longest response's.
    assert all(rows * 0.75 < num <= rows for rows, num in zip(fed["step"], alive, strict=True))


@pytest.mark.parametrize("max_prefill_tokens", [1, 12, 1000])
def test_prompts_read_in_any_portions_give_the_same_completions(ending_policy, fed, max_prefill_tokens):
    expected = drawn_with(ending_policy, fed, PROMPTS, num_samples=2, max_new_tokens=6)
    found = drawn_with(
        ending_policy, fed, PROMPTS, num_samples=2, max_new_tokens=6, max_prefill_tokens=max_prefill_tokens
    )
    # Lengths 1, 3, 4 and 10.
    assert fed["read_prompts"] == {1: [1, 1, 1, 1], 12: [3, 1], 1000: [4]}[max_prefill_tokens]
    assert_same(expected, found)


def test_both_decoders_draw_the_same(ending_policy, fed):
    own = drawn_with(ending_policy, fed, PROMPTS, num_samples=6, max_new_tokens=20, max_batch=5)
    sampler = LocalSampler(ending_policy, decoder="transformers")
    assert sampler.describe() == "decoded by transformers (as asked for)"
    settings = SamplingSettings(max_new_tokens=20)
    assert_same(own, sampler.sample(PROMPTS, num_samples=6, settings=settings, generator=seeded()))


def test_groups_are_handed_over_as_they_end(ending_policy, fed):
    sampler = LocalSampler(ending_policy, max_batch=6)
    assert isinstance(sampler, StreamingSampler)
    arguments = {"num_samples": 3, "settings": SamplingSettings(max_new_tokens=20)}
    expected = sampler.sample(PROMPTS, **arguments, generator=seeded())
    fed["step"].clear()
    came = []
    for number, completions in sampler.stream(PROMPTS, **arguments, generator=seeded()):
        came.append((len(fed["step"]), number, completions))
    assert_same(expected, [completions for _, _, completions in sorted(came, key=lambda each: each[1])])
    # Six lanes are two groups: the first is complete before the last has begun.
    assert came[0][0] < came[-1][0]


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_between_groups_the_callers_arithmetic_is_its_own(ending_policy, decoder):
    sampler = LocalSampler(ending_policy, max_batch=3, decoder=decoder)
    settings = SamplingSettings(max_new_tokens=5)
    for _ in sampler.stream(PROMPTS, num_samples=3, settings=settings, generator=seeded()):
        assert torch.is_grad_enabled()
        assert all(weight.requires_grad for weight in ending_policy.model.parameters())
