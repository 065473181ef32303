"""Repetition penalty, minimum length and stop strings: what is drawn, its log μ, and where a response ends."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from tests.samplers.test_local import PROMPTS, TOLERANCE, assert_same, flat, seeded, teacher_forced_logits
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from klimb.experience.samples import SamplingSettings
from klimb.policies.tokenizer import decode_ids
from klimb.samplers import Completion, LocalSampler, processed_log_probs
from klimb.samplers.drawing import completes_stop_string, keep_from_ending, make_drawing, penalise_repetition
from klimb.samplers.sampler import Results

END = 2
FALSE_ALARM_RATE = 1e-4


def test_a_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens_once():
    logits = torch.tensor([[2.0, -1.0, 0.5, -4.0]])
    changed = penalise_repetition(logits, torch.tensor([[0, 1, 0, 0]]), 2.0)
    assert changed.tolist() == [[1.0, -2.0, 0.5, -4.0]]
    assert logits.tolist() == [[2.0, -1.0, 0.5, -4.0]]


def test_a_penalty_comes_before_the_temperature():
    changed = penalise_repetition(torch.tensor([[math.log(16.0), 0.0]]), torch.tensor([[0]]), 2.0)
    log_probs = processed_log_probs(changed, SamplingSettings(temperature=2.0, repetition_penalty=2.0))
    # ln 16 / 2 / 2 = ln 2: odds of 2 to 1.
    torch.testing.assert_close(log_probs.exp(), torch.tensor([[2 / 3, 1 / 3]]))


def test_before_the_minimum_the_end_has_probability_zero_and_the_rest_is_renormalised():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log()
    changed = keep_from_ending(logits, torch.tensor([0, 99]), torch.tensor([True, False]))
    log_probs = processed_log_probs(changed, SamplingSettings(min_new_tokens=1))
    torch.testing.assert_close(log_probs.exp(), torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.25, 0.25]]))


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("least", [0, 3])
def test_the_distribution_is_that_of_transformers_processors_in_generates_order(penalty: float, least: int):
    generator = seeded(1)
    vocab, prompt, response = 40, [3, 3, 9], [5, 9]
    logits = 3 * torch.randn(1, vocab, generator=generator)
    settings = SamplingSettings(temperature=0.8, top_p=0.9, repetition_penalty=penalty, min_new_tokens=least)
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            MinNewTokensLengthLogitsProcessor(len(prompt), least, [END, 7]),
            TemperatureLogitsWarper(0.8),
            TopPLogitsWarper(0.9),
        ]
    )
    expected = processors(torch.tensor([prompt + response]), logits).log_softmax(-1)  # pyright: ignore
    drawing = make_drawing(
        settings, policy_temperature=1.0, end_ids=[END, 7], prompts=[prompt], decode=None, device=torch.device("cpu")
    )
    results = Results(1, 8, torch.device("cpu"))
    results.token_ids[0, :2] = torch.tensor(response)
    slots, steps = torch.tensor([0]), torch.tensor([2])
    for quantile in (0.01, 0.3, 0.6, 0.99):
        tokens, _ = drawing(logits, results, slots, steps, torch.tensor([quantile], dtype=torch.float64))
        assert float(results.log_mu[0, 2]) == pytest.approx(float(expected[0, tokens[0]]), abs=1e-5)
        own = logits.log_softmax(-1)[0, tokens[0]]
        assert float(results.log_model[0, 2]) == pytest.approx(float(own), abs=1e-5)
    changed = drawing._changed(logits, results, slots, steps)
    found = processed_log_probs(logits if changed is None else changed, settings)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def log_mu_by_hand(policy, prompt, completion: Completion, settings: SamplingSettings) -> torch.Tensor:
    """Log-probabilities of the tokens from one forward of this sequence alone, processed one position at a time."""
    logits = teacher_forced_logits(policy, prompt, completion.response_ids).clone()
    found = []
    for step, token in enumerate(completion.response_ids):
        row = logits[step]
        for seen in {*prompt, *completion.response_ids[:step]}:
            row[seen] = (
                row[seen] * settings.repetition_penalty if row[seen] < 0 else row[seen] / settings.repetition_penalty
            )
        if step < settings.min_new_tokens:
            row[list(policy.end_ids)] = -math.inf
        found.append(processed_log_probs(row[None], settings)[0, token])
    return torch.stack(found)


@pytest.fixture
def ending_policy(tiny_policy):
    """A policy whose responses end after 4 tokens or so: a quarter of the vocabulary ends them."""
    return dataclasses.replace(tiny_policy, end_ids=tuple(range(2, 98, 4)))


OTHERWISE = [
    SamplingSettings(max_new_tokens=20, repetition_penalty=1.5),
    SamplingSettings(max_new_tokens=20, repetition_penalty=0.8, temperature=1.3),
    SamplingSettings(max_new_tokens=20, min_new_tokens=6),
    SamplingSettings(max_new_tokens=20, repetition_penalty=1.2, min_new_tokens=4, top_p=0.9, temperature=0.9),
    SamplingSettings(max_new_tokens=20, repetition_penalty=1.3, min_new_tokens=5, temperature=0),
]


@pytest.mark.parametrize("settings", OTHERWISE, ids=str)
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_log_mu_is_that_of_what_was_drawn_and_log_model_that_of_the_policy(ending_policy, settings, decoder):
    sampler = LocalSampler(ending_policy, decoder=decoder, max_batch=5)
    completions = sampler.sample(PROMPTS, num_samples=3, settings=settings, generator=seeded())
    for prompt, group in zip(PROMPTS, completions, strict=True):
        for completion in group:
            expected = log_mu_by_hand(ending_policy, prompt, completion, settings)
            torch.testing.assert_close(torch.tensor(completion.log_mu), expected, rtol=0, atol=TOLERANCE)
            logits = teacher_forced_logits(ending_policy, prompt, completion.response_ids)
            own = logits.log_softmax(-1).gather(-1, torch.tensor(completion.response_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.log_model), own, rtol=0, atol=TOLERANCE)
            assert len(completion.response_ids) > settings.min_new_tokens - 1


STOPS = (("a",), ("ab", "Zq", "e"), ("\n", "0", "9x"))


@pytest.mark.parametrize(
    "settings",
    [*OTHERWISE, *(SamplingSettings(max_new_tokens=30, stop=stop) for stop in STOPS)],
    ids=str,
)
def test_both_decoders_and_all_batch_sizes_give_the_same_responses(ending_policy, settings):
    def drawn(**options):
        sampler = LocalSampler(ending_policy, **options)
        return sampler.sample(PROMPTS, num_samples=6, settings=settings, generator=seeded())

    expected = drawn()
    for options in (
        {"max_batch": 4},
        {"max_batch": 1},
        {"decoder": "transformers"},
        {"decoder": "transformers", "max_batch": 5, "compact_fraction": 0.1},
    ):
        assert_same(drawn(**options), expected)


def test_a_stream_hands_over_the_same_responses(ending_policy):
    settings = SamplingSettings(max_new_tokens=20, repetition_penalty=1.4, min_new_tokens=2, stop=("a", "b"))
    sampler = LocalSampler(ending_policy, max_batch=4)
    expected = sampler.sample(PROMPTS, num_samples=4, settings=settings, generator=seeded())
    streamed = dict(sampler.stream(PROMPTS, num_samples=4, settings=settings, generator=seeded()))
    assert [streamed[i] for i in range(len(PROMPTS))] == expected


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_a_response_ends_with_the_token_that_completes_a_stop_string(tiny_policy, decoder):
    tiny_policy.end_ids = ()
    sampler = LocalSampler(tiny_policy, decoder=decoder)
    whole = flat(
        sampler.sample(PROMPTS, num_samples=8, settings=SamplingSettings(max_new_tokens=40), generator=seeded())
    )
    stop = ("e", "5", "!!")
    settings = SamplingSettings(max_new_tokens=40, stop=stop)
    stopped = flat(sampler.sample(PROMPTS, num_samples=8, settings=settings, generator=seeded()))
    kinds = set()
    for without, completion in zip(whole, stopped, strict=True):
        ends = first_end(list(without.response_ids), stop, tiny_policy.decode)
        length = 40 if ends is None else ends
        assert completion.response_ids == without.response_ids[:length]
        assert completion.finish_reason == ("length" if ends is None else "stop")
        assert completion.log_mu == pytest.approx(without.log_mu[:length], abs=TOLERANCE)
        assert completion.log_mu == completion.log_model
        kinds.add(completion.finish_reason)
    assert kinds == {"stop", "length"}


def test_drawn_frequencies_are_those_that_log_mu_says(tiny_policy):
    tiny_policy.end_ids = tuple(range(2, 50))
    prompt, number = (5, 6, 7, 60, 61, 62), 4000
    settings = SamplingSettings(max_new_tokens=1, min_new_tokens=1, repetition_penalty=1.8, temperature=1.2)
    sampler = LocalSampler(tiny_policy, max_batch=number)
    drawn = flat(sampler.sample([prompt], num_samples=number, settings=settings, generator=seeded(3)))
    log_mu = {completion.response_ids[0]: completion.log_mu[0] for completion in drawn}
    likely = [token for token, value in log_mu.items() if math.exp(value) * number >= 8]
    counts = [sum(completion.response_ids[0] == token for completion in drawn) for token in likely]
    expected = [number * math.exp(log_mu[token]) for token in likely]
    counts, expected = [*counts, number - sum(counts)], [*expected, number - sum(expected)]
    assert len(likely) > 10
    assert not set(log_mu) & set(tiny_policy.end_ids)
    assert stats.chisquare(counts, expected).pvalue > FALSE_ALARM_RATE


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level vocabulary with tokens of one byte to many characters, as large models have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = ["the answer</answer>\n\n is <answer> übergrößer 日本 naïve </answer>.\n\n", "a sum of the </answers> 😀😀"]
    tokenizer.train_from_iterator(text * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def first_end(ids: list[int], stop: tuple[str, ...], decode: Callable[..., str]) -> int | None:
    """Return the least number of tokens whose text holds a stop string."""
    return next((n for n in range(1, len(ids) + 1) if any(text in decode(ids[:n]) for text in stop)), None)


@pytest.mark.parametrize(
    "stop", [("</answer>",), ("\n\n",), ("é", "日本"), ("😀",), ("ü",), ("r", "answer> is"), ("s w" * 60, "the </")]
)
def test_a_stop_string_is_found_across_tokens_bytes_and_tokens_that_hold_more(byte_level, stop):
    def decode(ids):
        return decode_ids(byte_level, ids)

    generator = seeded(5)
    words = byte_level("<answer> ü 日本 😀 the </answer>\n\n the é answer> is")["input_ids"]
    num_found = 0
    for _ in range(60):
        ids = torch.randint(0, len(byte_level), (40,), generator=generator).tolist()
        place = int(torch.randint(0, 40, (), generator=generator))
        # The end token has no text: it stands between others without a trace.
        ids = [*ids[:place], *words, 0, 0, *ids[place:]]
        expected = first_end(ids, stop, decode)
        found = next((n for n in range(1, len(ids) + 1) if completes_stop_string(ids[:n], stop, decode)), None)
        assert found == expected
        num_found += found is not None
    assert num_found > 0


def test_a_model_without_text_cannot_have_stop_strings(tiny_policy):
    @dataclasses.dataclass
    class Bare:
        model: object
        device: torch.device
        compute_dtype: torch.dtype
        end_ids: tuple[int, ...]
        temperature: float = 1.0

    bare = Bare(tiny_policy.model, tiny_policy.device, tiny_policy.compute_dtype, tiny_policy.end_ids)
    with pytest.raises(ValueError, match="stop strings need a policy that decodes, and Bare has no decode"):
        LocalSampler(bare).sample([(5,)], num_samples=1, settings=SamplingSettings(stop=("a",)), generator=seeded())
