"""The engine: what is drawn is what one request alone gets, whatever else is asked for beside it."""

import dataclasses
import threading

import pytest
import torch
from tests.samplers.service.listening import LONGEST_WAIT, Alone, Listener, request, scores

from klimb.samplers import Completion
from klimb.samplers.decoder import LlamaDecoder
from klimb.samplers.service import BusyError, ClosedError, DecodingEngine, DrawService, ServiceLimits, Ticket

TOLERANCE = 2e-6
BETWEEN_DECODERS = 5e-6
"""Two batches, or two decoders, each off by the order of their float32 sums."""
SETTINGS = (
    {},
    {"temperature": 0.6},
    {"temperature": 0},
    {"top_p": 0.8},
    {"top_k": 5, "temperature": 1.3},
    {"min_p": 0.05, "min_new_tokens": 4},
    {"repetition_penalty": 1.4},
    {"stop": ("a", "qq")},
    {"max_new_tokens": 1},
    {"max_new_tokens": 40},
)


def mixed_requests(count: int):
    """Requests of all settings, some prompts equal, some beginning like others."""
    shared = [(5 * i + 3) % 90 for i in range(20)]
    prompts = [[7], [9, 10, 11], shared, [*shared, 4, 5], [*shared[:15], 88], list(range(3, 90)), [40, 41, 42, 43]]
    return [
        request(prompts[i % 7], seed=i, num_top_log_probs=i % 3, **SETTINGS[i % len(SETTINGS)]) for i in range(count)
    ]


def assert_same(found: Completion, wanted: Completion, tolerance: float = BETWEEN_DECODERS) -> None:
    assert found.response_ids == wanted.response_ids
    assert found.finish_reason == wanted.finish_reason
    assert found.support == wanted.support
    for name in ("log_mu", "log_model"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=tolerance)
    assert (found.top is None) == (wanted.top is None)
    for own, other in zip(found.top or (), wanted.top or (), strict=True):
        assert [token for token, _ in own] == [token for token, _ in other]


@pytest.fixture
def ending_policy(tiny_policy):
    """A policy whose responses end after 8 tokens or so."""
    return dataclasses.replace(tiny_policy, end_ids=tuple(range(2, 98, 8)))


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_a_request_gets_the_same_answer_alone_and_among_others(ending_policy, decoder):
    asked = mixed_requests(34 if decoder == "auto" else 12)
    with DecodingEngine(ending_policy, decoder=decoder) as engine:
        assert isinstance(engine, DrawService)
        assert engine.describe().startswith("decoded by klimb" if decoder == "auto" else "decoded by transformers")
        together = [Listener(engine, each).completion for each in asked[:2]]
        listeners = [Listener(engine, each) for each in asked]
        crowded = [listener.completion for listener in listeners]
    assert_same(together[0], crowded[0])
    assert_same(together[1], crowded[1])
    alone = Alone(ending_policy)
    for each, found in zip(asked, crowded, strict=True):
        assert_same(found, alone(each))
    assert {completion.finish_reason for completion in crowded} == {"stop", "length"}


def test_log_mu_is_that_of_the_policy_itself(ending_policy):
    asked = [request([3 + i, 4, 5], seed=i, max_new_tokens=20) for i in range(8)]
    with DecodingEngine(ending_policy) as engine:
        listeners = [Listener(engine, each) for each in asked]
        completions = [listener.completion for listener in listeners]
    for each, completion in zip(asked, completions, strict=True):
        scored = scores(ending_policy, each.prompt_ids, completion.response_ids)
        assert completion.log_mu == completion.log_model == pytest.approx(scored, abs=TOLERANCE)


def test_each_token_comes_before_the_next_is_drawn(ending_policy, monkeypatch):
    num_steps = []
    own = LlamaDecoder.step_all
    came_at: list[int] = []
    policy = dataclasses.replace(ending_policy, end_ids=())
    with DecodingEngine(policy) as engine:
        monkeypatch.setattr(LlamaDecoder, "step_all", lambda *args: (num_steps.append(1), own(*args))[1])
        listener = Listener(engine, request([4, 5, 6]), lambda _: came_at.append(len(num_steps)))
        assert listener.completion.finish_reason == "length"
    assert came_at == list(range(12))


def test_callbacks_run_in_the_engines_thread_with_gradients_as_always(ending_policy):
    seen = []
    with DecodingEngine(ending_policy) as engine:
        listener = Listener(
            engine, request([4]), lambda _: seen.append((threading.current_thread().name, torch.is_grad_enabled()))
        )
        _ = listener.completion
    assert set(seen) == {("klimb-decoding", True)}


# Beginnings that were read before.


def read_tokens(monkeypatch) -> list[int]:
    """Counts the tokens that go through the model in chunks."""
    counts: list[int] = []
    own = LlamaDecoder.read_more

    def counted(self, lanes, chunks, starts, cache):
        counts.append(sum(map(len, chunks)))
        return own(self, lanes, chunks, starts, cache)

    monkeypatch.setattr(LlamaDecoder, "read_more", counted)
    return counts


def test_the_next_turn_reads_the_new_part_alone_and_draws_the_same(ending_policy, monkeypatch):
    prompt = list(range(10, 40))
    with DecodingEngine(ending_policy) as engine:
        first = Listener(engine, request(prompt, seed=1)).completion
        history = [*prompt, *first.response_ids, 50, 51, 52]
        counts = read_tokens(monkeypatch)
        second = Listener(engine, request(history, seed=2)).completion
        # The answer's last token was drawn and never fed.
        assert sum(counts) == 4
        assert engine.num_reused_tokens == len(history) - 4
    monkeypatch.undo()
    assert_same(second, Alone(ending_policy)(request(history, seed=2)))


def test_equal_prompts_that_arrive_together_go_through_the_model_once(ending_policy, monkeypatch):
    counts = read_tokens(monkeypatch)
    prompt = list(range(10, 60))
    asked = [request(prompt, seed=i) for i in range(6)]
    with DecodingEngine(ending_policy) as engine:
        listeners = [Listener(engine, each) for each in asked]
        completions = [listener.completion for listener in listeners]
        assert engine.num_reused_tokens == 5 * 49
    assert sum(counts) <= 50
    monkeypatch.undo()
    alone = Alone(ending_policy)
    for each, completion in zip(asked, completions, strict=True):
        assert_same(completion, alone(each))


def test_without_room_nothing_is_kept(ending_policy):
    prompt = list(range(10, 40))
    with DecodingEngine(ending_policy, limits=ServiceLimits(max_parked_bytes=0)) as engine:
        for _ in range(2):
            _ = Listener(engine, request(prompt)).completion
        assert engine.num_reused_tokens == 0


def test_a_long_prompt_is_read_between_the_tokens_of_others(ending_policy):
    policy = dataclasses.replace(ending_policy, end_ids=())
    with DecodingEngine(policy, limits=ServiceLimits(max_chunk_tokens=10)) as engine:
        began = threading.Event()
        short = Listener(engine, request([3], max_new_tokens=40), lambda _: began.set())
        assert began.wait(LONGEST_WAIT)
        before: list[int] = []
        long = Listener(engine, request([5] * 95), lambda _: before.append(len(short.tokens)))
        at_submit = len(short.tokens)
        assert_same(long.completion, Alone(policy)(request([5] * 95)))
        _ = short.completion
    # Ten chunks, and a token of the other one after each of them.
    assert before[0] - at_submit >= 9


def test_long_texts_lengthen_no_step_of_short_ones(ending_policy, monkeypatch):
    policy = dataclasses.replace(ending_policy, end_ids=())
    lengths: set[int] = set()
    own = LlamaDecoder.step_all

    def step_all(self, parts):
        short = [part for part in parts if int(part.positions.max()) < 30]
        result = own(self, parts)
        lengths.update(part.cache.reserved for part in short)
        return result

    asked = [request([5] * 150, max_new_tokens=20), request([4], seed=1, max_new_tokens=25)]
    with DecodingEngine(policy, limits=ServiceLimits(short_text=30)) as engine:
        monkeypatch.setattr(LlamaDecoder, "step_all", step_all)
        listeners = [Listener(engine, each) for each in asked]
        completions = [listener.completion for listener in listeners]
    monkeypatch.undo()
    # Buffers are multiples of 32 positions long.
    assert lengths and max(lengths) <= 64
    alone = Alone(policy)
    for each, completion in zip(asked, completions, strict=True):
        assert_same(completion, alone(each))


def test_a_text_that_becomes_long_is_drawn_on_the_same(ending_policy):
    policy = dataclasses.replace(ending_policy, end_ids=())
    asked = [request([4 + i] * (1 + i), seed=i, max_new_tokens=20) for i in range(3)]
    with DecodingEngine(policy, limits=ServiceLimits(short_text=1)) as engine:
        listeners = [Listener(engine, each) for each in asked]
        completions = [listener.completion for listener in listeners]
    alone = Alone(policy)
    for each, completion in zip(asked, completions, strict=True):
        assert_same(completion, alone(each))


# Leaving early.


def test_a_cancelled_request_hears_nothing_more_and_leaves_its_lane(ending_policy):
    policy = dataclasses.replace(ending_policy, end_ids=())
    with DecodingEngine(policy, max_batch=1) as engine:
        cancelled = Listener(engine, request([3], max_new_tokens=200), lambda own: own.ticket.cancel())
        other = Listener(engine, request([4]))
        assert isinstance(cancelled.ticket, Ticket)
        assert_same(other.completion, Alone(policy)(request([4])))
        assert len(cancelled.tokens) == 1 and not cancelled.ends
        cancelled.ticket.cancel()


def test_one_that_waits_can_be_cancelled(ending_policy):
    policy = dataclasses.replace(ending_policy, end_ids=())
    release = threading.Event()
    with DecodingEngine(policy, max_batch=1) as engine:
        first = Listener(engine, request([3]), lambda _: release.wait(LONGEST_WAIT))
        second = Listener(engine, request([4]))
        assert engine.num_waiting >= 1
        second.ticket.cancel()
        release.set()
        _ = first.completion
    assert not second.tokens and not second.ends


def test_too_many_are_refused_and_taken_again_later(ending_policy):
    release = threading.Event()
    with DecodingEngine(ending_policy, max_batch=1, max_waiting=1) as engine:
        held = [Listener(engine, request([3 + i]), lambda _: release.wait(LONGEST_WAIT)) for i in range(2)]
        with pytest.raises(BusyError, match="no more than 2 are taken together; submit it again later"):
            Listener(engine, request([9]))
        release.set()
        for listener in held:
            _ = listener.completion
        _ = Listener(engine, request([9])).completion


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_requests_that_cannot_be_drawn_are_refused_at_once(ending_policy, decoder):
    with DecodingEngine(ending_policy, decoder=decoder) as engine:
        assert engine.max_positions == 256
        with pytest.raises(ValueError, match="the prompt has 250 tokens and max_new_tokens is 12; together they must"):
            Listener(engine, request([3] * 250))
        with pytest.raises(ValueError, match="the prompt holds token ids from 3 to 1000, the model's vocabulary is"):
            Listener(engine, request([3, 1000]))
        assert engine.num_waiting == engine.num_running == 0


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_logits_that_are_no_distribution_end_their_own_request_alone(ending_policy, decoder):
    with torch.no_grad():
        # Token 1 is in the one prompt, and the tied head makes it nan everywhere: so the head gets weights of its own.
        head = ending_policy.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        ending_policy.model.get_input_embeddings().weight[1] = torch.nan
    asked = [request([3, 4, 5] if i % 3 else [3, 4, 1], seed=i, top_k=0 if i % 2 else 90) for i in range(9)]
    # Token 1 must not be drawn by those that go on.
    with DecodingEngine(ending_policy, max_batch=4, decoder=decoder) as engine:
        listeners = [Listener(engine, each) for each in asked]
        for i, listener in enumerate(listeners):
            if i % 3:
                assert len(listener.completion.response_ids) > 0
            else:
                assert isinstance(listener.error, FloatingPointError)
                assert "define no distribution" in str(listener.error)


@pytest.mark.parametrize("place", ["token", "end"])
def test_a_callback_that_raises_costs_its_own_request_alone(ending_policy, place, caplog):
    def refuse(_: object) -> None:
        raise KeyError("no")

    with DecodingEngine(ending_policy) as engine:
        others = [Listener(engine, request([3 + i], seed=i)) for i in range(3)]
        ends: list[object] = []
        if place == "token":
            engine.submit(request([4]), on_token=refuse, on_end=ends.append)
        else:
            engine.submit(request([4]), on_token=lambda _: None, on_end=refuse)
        alone = Alone(ending_policy)
        for i, listener in enumerate(others):
            assert_same(listener.completion, alone(request([3 + i], seed=i)))
        _ = Listener(engine, request([9])).completion
    assert [type(end) for end in ends] == ([KeyError] if place == "token" else [])
    assert f"on_{place} of a request raised" in caplog.text


def run_out_of_memory(monkeypatch, *, above: int, failures: list[int]) -> None:
    """Steps of more lanes than `above` fail."""
    own = LlamaDecoder.step_all

    def step_all(self, parts):
        count = sum(len(part.token_ids) for part in parts)
        if count > above:
            failures.append(count)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return own(self, parts)

    monkeypatch.setattr(LlamaDecoder, "step_all", step_all)


def test_without_memory_fewer_are_drawn_at_once_and_no_token_comes_twice(ending_policy, monkeypatch, caplog):
    asked = mixed_requests(11)
    failures: list[int] = []
    with DecodingEngine(ending_policy, max_batch=16) as engine:
        run_out_of_memory(monkeypatch, above=5, failures=failures)
        listeners = [Listener(engine, each) for each in asked]
        completions = [listener.completion for listener in listeners]
    monkeypatch.undo()
    assert failures and "ran out of memory (DefaultCPUAllocator: can't allocate memory" in caplog.text
    alone = Alone(ending_policy)
    for each, completion in zip(asked, completions, strict=True):
        assert_same(completion, alone(each))


def test_one_request_that_does_not_fit_ends_with_that_error(ending_policy, monkeypatch):
    with DecodingEngine(dataclasses.replace(ending_policy, end_ids=())) as engine:
        run_out_of_memory(monkeypatch, above=0, failures=[])
        error = Listener(engine, request([3])).error
        assert "drawing one answer at a time does not fit into memory" in str(error)
        monkeypatch.undo()
        _ = Listener(engine, request([3])).completion


def test_an_error_of_the_model_ends_those_under_way_and_not_the_engine(ending_policy, monkeypatch):
    own = LlamaDecoder.step_all

    def step_all(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    with DecodingEngine(dataclasses.replace(ending_policy, end_ids=())) as engine:
        monkeypatch.setattr(LlamaDecoder, "step_all", step_all)
        listeners = [Listener(engine, request([3], seed=i)) for i in range(3)]
        assert {str(listener.error) for listener in listeners} == {"shapes do not fit"}
        monkeypatch.setattr(LlamaDecoder, "step_all", own)
        _ = Listener(engine, request([3])).completion


# The end.


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_closing_ends_those_under_way_as_usual(ending_policy, decoder):
    engine = DecodingEngine(ending_policy, max_batch=2, decoder=decoder)
    asked = mixed_requests(5)
    listeners = [Listener(engine, each) for each in asked]
    engine.close()
    alone = Alone(ending_policy)
    for each, listener in zip(asked, listeners, strict=True):
        assert listener.is_over.is_set()
        assert_same(listener.completion, alone(each))
    with pytest.raises(ClosedError, match="takes no more requests"):
        Listener(engine, request([3]))
    engine.close()


def test_closing_at_once_ends_all_with_an_error(ending_policy):
    policy = dataclasses.replace(ending_policy, end_ids=())
    engine = DecodingEngine(policy, max_batch=2)
    listeners = [Listener(engine, request([3], seed=i, max_new_tokens=200)) for i in range(6)]
    engine.close(finish=False)
    assert all(isinstance(listener.ends[0], ClosedError) for listener in listeners)
    assert engine.num_running == engine.num_waiting == 0


def test_a_callback_may_close_the_engine(ending_policy):
    engine = DecodingEngine(ending_policy)
    listener = Listener(engine, request([3], max_new_tokens=200), lambda _: engine.close(finish=False))
    assert isinstance(listener.error, ClosedError)
    engine.close()
    assert len(listener.tokens) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_batch": 0}, "max_batch must be >= 1"),
        ({"max_waiting": -1}, "max_waiting must be >= 0"),
    ],
)
def test_impossible_options_are_errors(tiny_policy, options, words):
    with pytest.raises(ValueError, match=words):
        DecodingEngine(tiny_policy, **options)


def test_impossible_limits_are_errors():
    with pytest.raises(ValueError, match="max_chunk_tokens must be >= 1, got 0"):
        ServiceLimits(max_chunk_tokens=0)
    with pytest.raises(ValueError, match="max_parked_bytes must be >= 0, got -1"):
        ServiceLimits(max_parked_bytes=-1)
