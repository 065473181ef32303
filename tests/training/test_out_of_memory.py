"""A pass that runs out of memory: halved, with the same gradient, counted, told, and no further than one response."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.test_step import batch_of, gradient_of

from klimb.experience import SamplingSettings
from klimb.losses import Objective
from klimb.policies import DoesNotFitError, Policy, is_out_of_memory, load_policy
from klimb.samplers import LocalSampler
from klimb.samplers.decoder import LlamaDecoder
from klimb.training import read_metrics
from klimb.training.minibatches import micro_batches_for, score_batch

MESSAGES = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    MemoryError(),
)


class SmallMemory:
    """Passes of a policy with more than so many response tokens fail, some after their gradients have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, most: int, error: Exception = MESSAGES[0]) -> None:
        self.num_failed, self.sizes = 0, []
        inner = Policy.log_probs

        def log_probs(policy, prompts, prompt_index, response_ids, mask, **options):
            size = int(mask.sum())
            self.sizes.append(size)
            if size > most:
                self.num_failed += 1
                raise error
            return inner(policy, prompts, prompt_index, response_ids, mask, **options)

        monkeypatch.setattr(Policy, "log_probs", log_probs)


@pytest.mark.parametrize("error", MESSAGES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("packs_rows", [True, False])
@pytest.mark.parametrize("portions", [{}, {"micro_batch_tokens": 30}])
def test_the_gradient_is_that_of_a_pass_that_fits(tiny_policy, monkeypatch, error, packs_rows: bool, portions: dict):
    tiny_policy.packs_rows = packs_rows
    objective, batch = Objective(divergence="urkl", beta=0.1, entropy_bonus=0.2), batch_of(tiny_policy)
    expected, of_whole = gradient_of(tiny_policy, objective, batch)
    memory = SmallMemory(monkeypatch, most=10, error=error)
    actual, of_torn = gradient_of(tiny_policy, objective, batch, **portions)
    assert memory.num_failed == tiny_policy.pass_limit.num_out_of_memory > 0
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.allclose(actual[name], gradient, rtol=1e-4, atol=2e-6 * scale), name
    assert of_torn.metrics["loss"] == pytest.approx(of_whole.metrics["loss"], rel=1e-5)
    assert of_torn.num_tokens == of_whole.num_tokens


def test_what_the_half_done_minibatch_left_is_taken_away(tiny_policy, monkeypatch):
    objective, batch = Objective(beta=0.1), batch_of(tiny_policy)
    expected, _ = gradient_of(tiny_policy, objective, batch, micro_batch_tokens=20)
    inner, num_passes = torch.Tensor.backward, []

    def backward(loss, *given, **options):
        inner(loss, *given, **options)
        num_passes.append(1)
        if len(num_passes) == 3:  # with its gradient already added, and those of two passes before it
            raise MESSAGES[0]

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    actual, _ = gradient_of(tiny_policy, objective, batch, micro_batch_tokens=20)
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert len(num_passes) > 6
    for name, gradient in expected.items():
        assert torch.allclose(actual[name], gradient, rtol=1e-4, atol=2e-6 * scale), name


def test_the_smaller_portion_is_kept_and_each_halving_is_told_once(tiny_policy, monkeypatch, caplog):
    batch = batch_of(tiny_policy)
    expected = score_batch(tiny_policy, batch, max_tokens="auto")
    memory = SmallMemory(monkeypatch, most=12)
    torch.testing.assert_close(score_batch(tiny_policy, batch, max_tokens="auto"), expected, rtol=0, atol=1e-5)
    failed, limit = memory.num_failed, tiny_policy.pass_limit.most_tokens
    assert 0 < failed <= 6
    assert (
        caplog.text.count("ran out of memory (CUDA out of memory. Tried to allocate 20.00 MiB); from now on") == failed
    )
    score_batch(tiny_policy, batch, max_tokens="auto")
    assert memory.num_failed == failed
    for max_tokens in ("auto", 1000):
        for rows in micro_batches_for(tiny_policy, batch, range(len(batch)), max_tokens=max_tokens):
            part = batch.select(rows)
            assert len(rows) == 1 or int(part.mask.sum()) + sum(map(len, part.prompts)) <= limit


def test_rows_that_were_scored_before_are_not_scored_again(tiny_policy, monkeypatch):
    batch = batch_of(tiny_policy)
    memory = SmallMemory(monkeypatch, most=9)
    score_batch(tiny_policy, batch, max_tokens=30)
    # Every response once, beside the passes that failed.
    assert sum(size for size in memory.sizes if size <= 9) == int(batch.mask.sum())


def test_one_response_that_does_not_fit_is_an_error_that_says_what_to_set(tiny_policy, monkeypatch):
    batch = batch_of(tiny_policy)
    SmallMemory(monkeypatch, most=5)
    with pytest.raises(
        DoesNotFitError,
        match=r"one response with its prompt, \d+ tokens, does not fit into memory \(CUDA out of memory",
    ) as raised:
        gradient_of(tiny_policy, Objective(), batch)
    assert "sampling.max_new_tokens" in str(raised.value)
    assert not is_out_of_memory(raised.value)


def test_another_error_is_raised_as_it_is(tiny_policy, monkeypatch):
    batch = batch_of(tiny_policy)
    SmallMemory(monkeypatch, most=0, error=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        gradient_of(tiny_policy, Objective(), batch)
    assert tiny_policy.pass_limit.num_out_of_memory == 0


PROMPTS = [(3, 4, 5), (6, 7), (8, 9, 10, 11), (12, 13)]


def drawn(sampler: LocalSampler) -> list:
    settings = SamplingSettings(max_new_tokens=12)
    groups = sampler.sample(PROMPTS, num_samples=4, settings=settings, generator=torch.Generator().manual_seed(3))
    return [[completion.response_ids for completion in group] for group in groups]


@pytest.mark.parametrize("decoder", ["auto", "transformers"])
def test_sampling_that_runs_out_of_memory_draws_the_same_answers_with_fewer_at_once(
    tiny_policy, monkeypatch, caplog, decoder: str
):
    policy = replace(tiny_policy, end_ids=tuple(range(2, 98, 4)))  # answers end soon, and some before memory does
    expected = drawn(LocalSampler(policy, decoder=decoder))
    num_calls = []

    def limited(function):
        def call(first, *given, **options):
            ids = given[0] if given else options["input_ids"]
            num_calls.append(len(ids))
            if len(ids) > 5 and len(num_calls) > 3:
                raise MESSAGES[1]
            return function(first, *given, **options)

        return call

    owner, name = (LlamaDecoder, "step") if decoder == "auto" else (type(policy.causal_lm.get_decoder()), "forward")
    monkeypatch.setattr(owner, name, limited(getattr(owner, name)))
    sampler = LocalSampler(policy, max_batch=16, decoder=decoder)
    assert drawn(sampler) == expected
    assert policy.pass_limit.num_sampling_halvings == policy.pass_limit.num_out_of_memory == 2  # 16, 8, 4
    assert "sampling 16 answers at once ran out of memory" in caplog.text
    assert drawn(sampler) == expected
    assert policy.pass_limit.num_out_of_memory == 2


def test_one_answer_that_cannot_be_sampled_is_an_error_that_says_what_to_set(tiny_policy, monkeypatch):
    def fail(*given, **options):
        raise MemoryError

    sampler = LocalSampler(tiny_policy, max_batch=3)
    sampler.describe()  # which tries the decoder
    monkeypatch.setattr(LlamaDecoder, "step", fail)
    with pytest.raises(DoesNotFitError, match=r"sampling one answer at a time does not fit .* sampling.max_new_tokens"):
        drawn(sampler)


def test_a_run_goes_on_counts_it_and_a_resume_takes_the_same_portions_bit_for_bit(
    tiny_run, tiny_policy, tiny_model_path: Path, tmp_path: Path, monkeypatch
):
    settings = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=3))
    half = replace(settings, training=replace(settings.training, num_steps=2))
    SmallMemory(monkeypatch, most=14)
    tiny_run.run(tiny_policy, tmp_path / "straight", settings)
    counts = [row["num_out_of_memory"] for row in read_metrics(tmp_path / "straight" / "metrics.jsonl")]
    assert 0 < counts[0] == counts[-1]
    torn = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    tiny_run.run(torn, tmp_path / "torn", half)
    limit = torn.pass_limit.most_tokens
    torn = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    tiny_run.run(torn, tmp_path / "torn", settings, resume=True)
    assert torn.pass_limit.most_tokens == limit
    assert [row["num_out_of_memory"] for row in read_metrics(tmp_path / "torn" / "metrics.jsonl")] == counts
    for name, parameter in tiny_policy.trainable().items():
        assert torch.equal(parameter, torn.trainable()[name])
    other = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    smaller = replace(settings, training=replace(settings.training, num_steps=3, micro_batch_tokens=200))
    tiny_run.run(other, tmp_path / "torn", smaller, resume=True)
    assert other.pass_limit.most_tokens is None  # what was learnt of other portions
