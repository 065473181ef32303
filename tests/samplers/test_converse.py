"""Conversations: what is drawn in several turns, its log μ, who is asked when, and what does not happen."""

import dataclasses
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from tests.samplers.test_local import PROMPTS, assert_same, seeded
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from klimb.experience.samples import SamplingSettings
from klimb.policies import DoesNotFitError
from klimb.samplers import Completion, ConversationSampler, Dialogue, LocalSampler, converse_in_rounds
from klimb.samplers.conversation_lanes import TOKENS_BETWEEN
from klimb.samplers.conversations import turn_quantiles
from klimb.samplers.decoder import LlamaDecoder

SETTINGS = SamplingSettings(max_new_tokens=6)
TOLERANCE = 2e-6


def resolved(ids: tuple[int, ...] | None) -> "Future[tuple[int, ...] | None]":
    future: Future[tuple[int, ...] | None] = Future()
    future.set_result(ids)
    return future


class Partner:
    """Answers with ids that depend on the conversation and its turn; the calls are kept.

    Some conversations are over earlier than others, with `ends_after[number]` turns.
    """

    def __init__(self, *, ends_after: dict[int, int] | None = None, longest: int = 7) -> None:
        self.ends_after = ends_after or {}
        self.longest = longest
        self.heard: dict[int, list[Completion]] = {}

    def ids(self, number: int, turn: int) -> tuple[int, ...] | None:
        if turn + 1 >= self.ends_after.get(number, 1000):
            return None
        return tuple((11 * number + 5 * turn + i) % 90 for i in range(1 + (3 * number + turn) % self.longest))

    def __call__(self, number: int, completion: Completion) -> "Future[tuple[int, ...] | None]":
        turns = self.heard.setdefault(number, [])
        turns.append(completion)
        return resolved(self.ids(number, len(turns) - 1))


class LatePartner(Partner):
    """Answers from other threads, after up to 20 ms, in another order each time."""

    def __init__(self, seed: int, **options) -> None:
        super().__init__(**options)
        self.pool = ThreadPoolExecutor(4)
        self.seed = seed

    def __call__(self, number: int, completion: Completion) -> "Future[tuple[int, ...] | None]":
        ids = super().__call__(number, completion).result()
        delay = (self.seed * 7919 + number * 104729 + len(self.heard[number]) * 31) % 20 / 1000

        def answer() -> tuple[int, ...] | None:
            time.sleep(delay)
            return ids

        return self.pool.submit(answer)


def converse(policy, prompts=PROMPTS, *, partner=None, settings=SETTINGS, max_turns=4, seed=0, **options):
    """Return the dialogues in the order of the prompts."""
    found = dict(
        LocalSampler(policy, **options).converse(
            prompts,
            settings=settings,
            generator=seeded(seed),
            answer=Partner() if partner is None else partner,
            max_turns=max_turns,
        )
    )
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


def assert_same_dialogues(left: list[Dialogue], right: list[Dialogue]) -> None:
    assert [dialogue.between for dialogue in left] == [dialogue.between for dialogue in right]
    assert_same([list(dialogue.turns) for dialogue in left], [list(dialogue.turns) for dialogue in right])


def drawn_ids(dialogues: list[Dialogue]) -> list[list[tuple[int, ...]]]:
    return [[turn.response_ids for turn in dialogue.turns] for dialogue in dialogues]


@pytest.fixture
def ending_policy(tiny_policy):
    """A policy whose turns end after 4 tokens or so."""
    return dataclasses.replace(tiny_policy, end_ids=tuple(range(2, 98, 4)))


# Numbers


SIZES = {"vocab_size": 98, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.1}
SIZES |= {"pad_token_id": 0, "attn_implementation": "eager", "max_position_embeddings": 256}
MODELS = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "Qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "Qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "Gemma": lambda: GemmaForCausalLM(GemmaConfig(**SIZES)),
    "SmolLM3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**SIZES, no_rope_layer_interval=2, use_sliding_window=False)),
}


OWN = ("Llama", "Qwen2")
"""Architectures that klimb itself decodes and packs."""


def of_kind(policy, kind: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = MODELS[kind]().eval()
    end_ids = tuple(range(2, 98, 4))
    return dataclasses.replace(policy, model=model, end_ids=end_ids, packs_rows=kind in OWN)


def masked_response(dialogue: Dialogue) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and mask `[1, time]`, and the log μ of those that count."""
    mask, log_mu = [], []
    for i, turn in enumerate(dialogue.turns):
        mask += [True] * len(turn.response_ids)
        log_mu += turn.log_mu
        if i < len(dialogue.between):
            mask += [False] * len(dialogue.between[i])
    return torch.tensor([dialogue.response_ids]), torch.tensor([mask]), torch.tensor(log_mu)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_log_mu_is_that_of_one_pass_over_the_whole_conversation(tiny_policy, kind: str, decoder):
    policy = of_kind(tiny_policy, kind)
    is_own = LocalSampler(policy).describe() == "decoded by klimb's own decoder"
    assert is_own == (kind in OWN)
    dialogues = converse(policy, PROMPTS * 2, decoder=decoder, max_batch=5, compact_fraction=0.3)
    assert {len(dialogue.turns) for dialogue in dialogues} == {4}
    for prompt, dialogue in zip(PROMPTS * 2, dialogues, strict=True):
        ids, mask, log_mu = masked_response(dialogue)
        with torch.no_grad():
            expected = policy.log_probs([prompt], torch.tensor([0]), ids, mask).log_pi[mask]
            # A context that is left out would show.
            other = policy.log_probs([prompt], torch.tensor([0]), ids[mask][None], torch.ones_like(ids[mask][None]) > 0)
        torch.testing.assert_close(log_mu, expected, rtol=0, atol=TOLERANCE)
        assert (other.log_pi[0] - expected).abs().max() > 1000 * TOLERANCE


@torch.no_grad()
def test_chunks_in_blocks_of_queries_equal_one_block(ending_policy, monkeypatch: pytest.MonkeyPatch):
    whole = converse(ending_policy)
    monkeypatch.setattr("klimb.samplers.decoder.MAX_SCORES", 4 * 20 * 2)
    assert_same_dialogues(converse(ending_policy), whole)


def test_bfloat16_is_read_as_the_trainer_reads_it(ending_policy):
    policy = dataclasses.replace(ending_policy, compute_dtype=torch.bfloat16)
    for prompt, dialogue in zip(PROMPTS, converse(policy), strict=True):
        ids, mask, log_mu = masked_response(dialogue)
        with torch.no_grad():
            expected = policy.log_probs([prompt], torch.tensor([0]), ids, mask).log_pi[mask]
        # bfloat16 has 8 bits: logits of up to 8 are off by up to 0.03 each.
        torch.testing.assert_close(log_mu, expected, rtol=0, atol=0.1)


# The same tokens


@pytest.mark.parametrize("options", [{"max_batch": 1}, {"max_batch": 3}, {"max_prefill_tokens": 5}], ids=str)
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_portions_of_any_size_and_either_decoder_give_the_same(ending_policy, options, decoder):
    prompts = [*PROMPTS, PROMPTS[2], PROMPTS[0]]
    ends = {1: 2, 4: 1}
    expected = converse(ending_policy, prompts, partner=Partner(ends_after=ends))
    found = converse(ending_policy, prompts, partner=Partner(ends_after=ends), decoder=decoder, **options)
    assert_same_dialogues(found, expected)
    assert [len(dialogue.turns) for dialogue in found] == [4, 2, 4, 4, 1, 4]


@pytest.mark.parametrize("compact_fraction", [1e-9, 0.3, 1.0])
@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_when_answers_come_changes_no_bit(ending_policy, decoder, compact_fraction):
    ends = {number: 1 + number % 5 for number in range(16)}

    def converse_with(partner: Partner) -> list[Dialogue]:
        options = {"max_batch": 6, "compact_fraction": compact_fraction, "decoder": decoder}
        return converse(ending_policy, PROMPTS * 4, partner=partner, max_turns=5, **options)

    expected = converse_with(Partner(ends_after=ends))
    for seed in (1, 2):
        assert converse_with(LatePartner(seed, ends_after=ends)) == expected


def test_another_conversation_does_not_change_the_draws_of_the_first(ending_policy):
    alone = converse(ending_policy, partner=Partner(ends_after={1: 1, 2: 1, 3: 1}))
    together = converse(ending_policy)
    assert_same_dialogues(alone[:1], together[:1])


def test_random_numbers_are_of_conversation_turn_and_token_alone():
    first = turn_quantiles(5, 0, 8)
    assert torch.equal(turn_quantiles(5, 0, 3), first[:3])
    assert first.dtype == torch.float64 and bool(((first >= 0) & (first < 1)).all())
    others = [turn_quantiles(5, 1, 8), turn_quantiles(6, 0, 8), turn_quantiles(5 + 2**32, 0, 8)]
    assert all(not torch.isin(other, first).any() for other in others)


def test_the_generator_moves_on_by_the_number_of_prompts_alone(ending_policy):
    states = []
    for max_turns, settings in ((1, SETTINGS), (3, SamplingSettings(max_new_tokens=4))):
        generator = seeded()
        LocalSampler(ending_policy).converse(
            PROMPTS, settings=settings, generator=generator, answer=Partner(), max_turns=max_turns
        )
        states.append(generator.get_state())
    assert torch.equal(*states)
    assert not torch.equal(states[0], seeded().get_state())


def test_conversations_of_one_prompt_and_turns_of_one_conversation_differ(tiny_policy):
    tiny_policy.end_ids = ()
    dialogues = converse(tiny_policy, [PROMPTS[0]] * 4)
    turns = [turn.response_ids for dialogue in dialogues for turn in dialogue.turns]
    assert len(set(turns)) == len(turns) == 16


# Who is asked, and when


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_every_turn_is_answered_once_also_the_last(ending_policy, decoder):
    partner = Partner(ends_after={2: 2})
    settings = SamplingSettings(max_new_tokens=3)
    dialogues = converse(ending_policy, partner=partner, settings=settings, max_turns=3, decoder=decoder)
    assert [len(dialogue.turns) for dialogue in dialogues] == [3, 3, 2, 3]
    for number, dialogue in enumerate(dialogues):
        assert tuple(partner.heard[number]) == dialogue.turns
        assert list(dialogue.between) == [partner.ids(number, turn) for turn in range(len(dialogue.turns) - 1)]
    assert {turn.finish_reason for turns in partner.heard.values() for turn in turns} == {"stop", "length"}


def test_others_go_on_for_some_tokens_while_one_waits(tiny_policy, monkeypatch):
    """The first conversation's turn ends after one token; the others are drawn on until an answer is due."""
    tiny_policy.end_ids = ()
    settings = SamplingSettings(max_new_tokens=20)
    first = converse(tiny_policy, settings=settings, max_turns=1)[0].turns[0].response_ids[0]
    tiny_policy.end_ids = (first,)
    stepped: list[int] = []
    num_before_the_answer: list[int] = []
    own = LlamaDecoder.step
    monkeypatch.setattr(LlamaDecoder, "step", lambda *arguments: stepped.append(1) or own(*arguments))

    def answer(number, completion):
        if number or num_before_the_answer:
            return resolved(None)
        num_before_the_answer.append(len(stepped))
        held: Future[tuple[int, ...] | None] = Future()

        def give() -> None:
            num_before_the_answer.append(len(stepped))
            held.set_result((7,))

        threading.Timer(0.5, give).start()
        return held

    found = converse(tiny_policy, partner=answer, settings=settings, max_turns=2)
    asked, answered = num_before_the_answer
    # The step in which the turn ended is the first of those between.
    assert answered - asked == TOKENS_BETWEEN - 1
    assert [len(dialogue.turns) for dialogue in found] == [2, 1, 1, 1]


def test_when_all_wait_the_sampler_blocks_without_using_the_processor(ending_policy):
    partner = Partner()
    waiting: list[Future[tuple[int, ...] | None]] = []

    def answer(number, completion):
        future: Future[tuple[int, ...] | None] = Future()
        threading.Timer(0.3, future.set_result, [partner(number, completion).result()]).start()
        waiting.append(future)
        return future

    found = LocalSampler(ending_policy).converse(
        PROMPTS[:2], settings=SETTINGS, generator=seeded(), answer=answer, max_turns=1
    )
    start, used = time.perf_counter(), time.thread_time()
    next(found)
    assert time.perf_counter() - start > 0.3
    assert time.thread_time() - used < 0.25
    assert len(waiting) == 2


def test_a_lane_that_waits_is_not_taken_by_a_conversation_that_has_not_begun(ending_policy, monkeypatch):
    reads = []
    own = LlamaDecoder.read_prompts
    monkeypatch.setattr(LlamaDecoder, "read_prompts", lambda self, rows: reads.append(len(rows)) or own(self, rows))
    sampler = LocalSampler(ending_policy, max_batch=2)
    assert "own" in sampler.describe()
    reads.clear()
    held: list[Future[tuple[int, ...] | None]] = []
    partner = Partner()

    def answer(number, completion):
        partner(number, completion)
        if len(partner.heard) < 3:
            held.append(Future())
            if len(held) == 2:
                # Only now: both lanes wait, and two conversations have not begun.
                threading.Timer(0.1, lambda: [future.set_result(None) for future in held]).start()
            return held[-1]
        return resolved(None)

    for _ in sampler.converse(PROMPTS, settings=SETTINGS, generator=seeded(), answer=answer, max_turns=3):
        assert len(held) == 2
    # The shorter two first; the others when both lanes, or one after the other, were free.
    assert reads[0] == 2 and sum(reads) == 4


def test_an_answer_is_read_alone_and_prompts_once(ending_policy, monkeypatch):
    read, chunks = [], []
    own_read, own_more = LlamaDecoder.read_prompts, LlamaDecoder.read_more
    monkeypatch.setattr(LlamaDecoder, "read_prompts", lambda self, rows: read.extend(rows) or own_read(self, rows))
    monkeypatch.setattr(
        LlamaDecoder,
        "read_more",
        lambda self, lanes, rows, *rest: chunks.extend(rows) or own_more(self, lanes, rows, *rest),
    )
    sampler = LocalSampler(ending_policy)
    assert "own" in sampler.describe()
    read.clear()
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[1]]
    dialogues = dict(sampler.converse(prompts, settings=SETTINGS, generator=seeded(), answer=Partner(), max_turns=3))
    assert sorted(map(tuple, read)) == sorted([PROMPTS[0], PROMPTS[1]])
    expected = [
        (turn.response_ids[-1], *context)
        for dialogue in dialogues.values()
        for turn, context in zip(dialogue.turns, dialogue.between, strict=False)
    ]
    assert sorted(map(tuple, chunks)) == sorted(expected)


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_in_answers_the_callers_arithmetic_is_its_own(ending_policy, decoder):
    def answer(number, completion):
        assert torch.is_grad_enabled()
        assert all(weight.requires_grad for weight in ending_policy.model.parameters())
        return resolved((5,))

    sampler = LocalSampler(ending_policy, decoder=decoder)
    for _ in sampler.converse(PROMPTS, settings=SETTINGS, generator=seeded(), answer=answer, max_turns=2):
        assert torch.is_grad_enabled()


def test_an_error_of_an_answer_is_raised_even_if_it_speaks_of_memory(ending_policy):
    future: Future[tuple[int, ...] | None] = Future()
    future.set_exception(RuntimeError("the environment ran out of memory"))
    with pytest.raises(RuntimeError, match="the environment ran out"):
        converse(ending_policy, partner=lambda number, completion: future)
    assert ending_policy.pass_limit.num_out_of_memory == 0


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(max_new_tokens=9, repetition_penalty=1.4),
        SamplingSettings(max_new_tokens=9, min_new_tokens=6),
        SamplingSettings(max_new_tokens=9, stop=("e", "T")),
        SamplingSettings(max_new_tokens=9, temperature=0.7, top_p=0.8),
        SamplingSettings(max_new_tokens=9, temperature=0),
    ],
    ids=str,
)
def test_settings_hold_in_every_turn_as_with_the_history_as_prompt(ending_policy, settings):
    """The penalty counts the whole history; the minimum and the stop strings count a turn."""
    dialogues = converse(ending_policy, settings=settings, max_batch=3)
    assert_same_dialogues(converse(ending_policy, settings=settings, decoder="transformers"), dialogues)
    for prompt, dialogue in zip(PROMPTS, dialogues, strict=True):
        history = list(prompt)
        for turn, context in zip(dialogue.turns, (*dialogue.between, ()), strict=True):
            assert forced_log_mu(ending_policy, history, turn, settings) == pytest.approx(turn.log_mu, abs=1e-4)
            history += [*turn.response_ids, *context]


def forced_log_mu(policy, history, turn, settings) -> list[float]:
    """Log μ of the turn's tokens, one pass and one setting at a time."""
    from klimb.samplers import processed_log_probs
    from klimb.samplers.drawing import keep_from_ending, penalise_repetition

    found = []
    for step, token in enumerate(turn.response_ids):
        before = torch.tensor([[*history, *turn.response_ids[:step]]])
        with torch.no_grad():
            logits = policy.model(input_ids=before, use_cache=False).logits[:, -1]
        logits = penalise_repetition(logits, before, settings.repetition_penalty)
        if step < settings.min_new_tokens:
            logits = keep_from_ending(logits, torch.tensor(policy.end_ids), torch.tensor([True]))
        found.append(float(processed_log_probs(logits, settings)[0, token]))
        is_end = token in policy.end_ids or any(text in policy.decode([token]) for text in settings.stop)
        assert is_end == (step + 1 == len(turn.response_ids) and turn.finish_reason == "stop")
    return found


# Room


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_the_last_turn_gets_what_room_is_left(tiny_policy, decoder):
    tiny_policy.end_ids = ()
    # The context is 256: 200 + 20 + 30 leave 6; and 200 + 20 + 36 leave none.
    settings = SamplingSettings(max_new_tokens=20, min_new_tokens=20)
    contexts = {0: (7,) * 30, 1: (7,) * 36, 2: (7,) * 35}
    heard = []

    def answer(number, completion):
        heard.append(number)
        return resolved(contexts[number])

    dialogues = converse(
        tiny_policy, [(5,) * 200] * 3, partner=answer, settings=settings, max_turns=5, decoder=decoder, max_batch=2
    )
    assert [[len(turn.response_ids) for turn in dialogue.turns] for dialogue in dialogues] == [[20, 6], [20], [20, 1]]
    assert [len(dialogue.response_ids) for dialogue in dialogues] == [56, 20, 56]
    # The turn that filled the context was answered as well.
    assert sorted(heard) == [0, 0, 1, 2, 2]


def test_without_a_context_limit_positions_are_made_as_they_are_needed(tiny_policy):
    tiny_policy.end_ids = ()
    tiny_policy.model.config.max_position_embeddings = 10_000
    settings = SamplingSettings(max_new_tokens=5)

    def answer(number, completion):
        return resolved(tuple(range(number, 80)))

    dialogues = converse(tiny_policy, partner=answer, settings=settings, max_turns=5)
    assert {len(dialogue.response_ids) for dialogue in dialogues} == {5 * 5 + 4 * (80 - i) for i in range(4)}
    for prompt, dialogue in zip(PROMPTS, dialogues, strict=True):
        ids, mask, log_mu = masked_response(dialogue)
        with torch.no_grad():
            logits = tiny_policy.model(input_ids=torch.tensor([[*prompt, *dialogue.response_ids]])).logits
        expected = logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, ids[0][:, None])[mask[0], 0]
        torch.testing.assert_close(log_mu, expected, rtol=0, atol=1e-4)


# Memory


@pytest.mark.parametrize("name", ["step", "read_more"])
def test_out_of_memory_goes_on_from_the_last_turn_with_half_as_many(ending_policy, monkeypatch, caplog, name):
    prompts = PROMPTS * 3
    ends = {number: 1 + number % 4 for number in range(12)}
    expected = converse(ending_policy, prompts, partner=Partner(ends_after=ends))
    own, calls = getattr(LlamaDecoder, name), []
    # The first steps are those of the comparison with transformers.
    failing = (4, 9) if name == "step" else (2, 5)

    def limited(self, rows, *rest):
        calls.append(len(rows))
        if len(calls) in failing:
            raise (
                MemoryError if len(calls) == failing[0] else RuntimeError("DefaultCPUAllocator: can't allocate memory")
            )
        return own(self, rows, *rest)

    monkeypatch.setattr(LlamaDecoder, name, limited)
    partner = Partner(ends_after=ends)
    found = converse(ending_policy, prompts, partner=partner, max_batch=8)
    assert_same_dialogues(found, expected)
    assert [tuple(partner.heard[number]) for number in range(12)] == [dialogue.turns for dialogue in found]
    assert ending_policy.pass_limit.num_sampling_halvings >= 2 == ending_policy.pass_limit.num_out_of_memory
    assert "ran out of memory" in caplog.text


def test_out_of_memory_in_rounds_goes_on_as_well(ending_policy, monkeypatch):
    prompts = PROMPTS * 3
    expected = converse(ending_policy, prompts)
    sampler_type = LocalSampler
    own, sizes = sampler_type._by_transformers, []

    def limited(self, rows, *rest):
        sizes.append(len(rows))
        if len(sizes) == 3 or len(rows) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from own(self, rows, *rest)

    monkeypatch.setattr(sampler_type, "_by_transformers", limited)
    partner = LatePartner(1)
    found = converse(ending_policy, prompts, partner=partner, decoder="transformers")
    assert_same_dialogues(found, expected)
    assert [tuple(partner.heard[number]) for number in range(12)] == [dialogue.turns for dialogue in found]
    assert ending_policy.pass_limit.num_out_of_memory >= 1


def test_one_conversation_that_does_not_fit_is_an_error(ending_policy, monkeypatch):
    def fail(*given):
        raise MemoryError

    monkeypatch.setattr(LlamaDecoder, "read_more", fail)
    with pytest.raises(DoesNotFitError, match="max_new_tokens"):
        converse(ending_policy, PROMPTS[:1])


# Errors


def test_what_cannot_be_drawn_is_refused(ending_policy):
    with pytest.raises(ValueError, match="max_turns must be >= 1, got 0"):
        converse(ending_policy, max_turns=0)
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        converse(ending_policy, [(1,), ()])
    with pytest.raises(ValueError, match=r"turn 0 of conversation 0 holds token ids from 3 to 500.*0 to 98"):
        converse(ending_policy, PROMPTS[:1], partner=lambda number, completion: resolved((3, 500)))
    assert converse(ending_policy, []) == []


def test_a_dialogue_has_a_context_between_each_two_turns():
    turn = Completion(response_ids=(1, 2), log_mu=(0.0, 0.0), log_model=(0.0, 0.0), finish_reason="stop")
    assert Dialogue((turn, turn), ((7, 8),)).response_ids == (1, 2, 7, 8, 1, 2)
    for turns, between in (((), ()), ((turn,), ((1,),)), ((turn, turn), ())):
        with pytest.raises(ValueError, match="one context between"):
            Dialogue(turns, between)


# Samplers of one's own


class OnlySamples:
    """A sampler without conversations; keeps what it was asked for."""

    def __init__(self, inner: LocalSampler) -> None:
        self.inner = inner
        self.asked: list[tuple[int, int]] = []

    def sample(self, prompts, *, num_samples, settings, generator):
        self.asked.append((len(prompts), num_samples))
        return self.inner.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)


def test_a_sampler_that_only_samples_converses_in_rounds(ending_policy):
    sampler = OnlySamples(LocalSampler(ending_policy))
    assert not isinstance(sampler, ConversationSampler)
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
    results = []
    for partner in (Partner(ends_after={1: 1}), LatePartner(1, ends_after={1: 1}), LatePartner(2, ends_after={1: 1})):
        sampler.asked.clear()
        found = dict(
            converse_in_rounds(
                sampler, prompts, settings=SETTINGS, generator=seeded(), answer=partner, max_turns=3, context=256
            )
        )
        assert sampler.asked == [(2, 3), (5, 1), (5, 1)]
        assert {number: dialogue.turns for number, dialogue in found.items()} == {
            number: tuple(turns) for number, turns in partner.heard.items()
        }
        results.append(found)
    # To the last bit, whenever answers came.
    assert results[0] == results[1] == results[2]
    assert len({turn.response_ids for dialogue in results[0].values() for turn in dialogue.turns}) > 10
    for number, dialogue in results[0].items():
        ids, mask, log_mu = masked_response(dialogue)
        with torch.no_grad():
            expected = ending_policy.log_probs([prompts[number]], torch.tensor([0]), ids, mask).log_pi[mask]
        torch.testing.assert_close(log_mu, expected, rtol=0, atol=1e-4)


def test_rounds_give_the_last_turn_what_room_is_left(tiny_policy):
    tiny_policy.end_ids = ()
    settings = SamplingSettings(max_new_tokens=20, min_new_tokens=20)
    found = dict(
        converse_in_rounds(
            LocalSampler(tiny_policy),
            [(5,) * 200, (5,) * 100],
            settings=settings,
            generator=seeded(),
            answer=lambda number, completion: resolved((7,) * 30),
            max_turns=3,
            context=256,
        )
    )
    assert [[len(turn.response_ids) for turn in found[i].turns] for i in range(2)] == [[20, 6], [20, 20, 20]]
