"""The processed distribution and the inverse-CDF draw."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from klimb.experience.samples import SamplingSettings
from klimb.samplers.distribution import draw, processed_log_probs, tokens_at

PLAIN = SamplingSettings()
LARGEST_QUANTILE = 1 - 2**-53
# With a fixed seed these tests always give the same result; over seeds each would fail one time in ten thousand.
FALSE_ALARM_RATE = 1e-4


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log().float()


def kept(log_probs: torch.Tensor) -> list[int]:
    return log_probs[0].isfinite().nonzero()[:, 0].tolist()


def random_logits(batch: int, vocab: int, *, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(batch, vocab, generator=torch.Generator().manual_seed(seed))


def test_plain_settings_leave_the_softmax_in_float32():
    logits = random_logits(3, 50).bfloat16()
    log_probs = processed_log_probs(logits, PLAIN)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, logits.double().log_softmax(-1).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 0.7, 3.0])
def test_temperature_divides_the_logits(temperature: float):
    logits = random_logits(3, 50)
    expected = (logits.double() / temperature).log_softmax(-1).float()
    log_probs = processed_log_probs(logits, SamplingSettings(temperature=temperature))
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=1e-5)


def test_temperature_zero_is_a_point_mass_on_the_first_of_the_most_likely_tokens():
    log_probs = processed_log_probs(torch.tensor([[1.0, 5.0, 5.0]]), SamplingSettings(temperature=0))
    assert log_probs.tolist() == [[-math.inf, 0.0, -math.inf]]


def test_a_tiny_temperature_does_not_overflow():
    log_probs = processed_log_probs(torch.tensor([[40.0, 50.0, -60.0]]), SamplingSettings(temperature=1e-38))
    assert log_probs.tolist() == [[-math.inf, 0.0, -math.inf]]


def test_top_k_keeps_k_tokens_renormalised():
    log_probs = processed_log_probs(logits_of(0.1, 0.4, 0.2, 0.3), SamplingSettings(top_k=2))
    assert kept(log_probs) == [1, 3]
    torch.testing.assert_close(log_probs[0, [1, 3]].exp(), torch.tensor([4 / 7, 3 / 7]))


def test_top_k_keeps_ties_of_the_last_kept_token():
    assert kept(processed_log_probs(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), SamplingSettings(top_k=2))) == [0, 2, 3]


def test_top_k_larger_than_the_vocabulary_keeps_all():
    assert kept(processed_log_probs(torch.zeros(1, 3), SamplingSettings(top_k=10))) == [0, 1, 2]


def test_the_token_that_crosses_top_p_is_kept():
    # 0.5 < 0.6 and 0.5 + 0.3 >= 0.6: the second token crosses.
    assert kept(processed_log_probs(logits_of(0.2, 0.3, 0.5), SamplingSettings(top_p=0.6))) == [1, 2]


def test_top_p_below_the_largest_probability_keeps_one_token():
    log_probs = processed_log_probs(logits_of(0.2, 0.3, 0.5), SamplingSettings(top_p=0.01))
    assert kept(log_probs) == [2]
    assert log_probs[0, 2] == 0


def test_top_p_is_measured_on_what_top_k_left():
    # Top-k leaves 0.5 and 0.3, renormalised 0.625 and 0.375: 0.6 is reached by the first alone.
    assert kept(processed_log_probs(logits_of(0.2, 0.3, 0.5), SamplingSettings(top_k=2, top_p=0.6))) == [2]


def test_min_p_is_relative_to_the_most_likely_token():
    # The bound is 0.5 * 0.45 = 0.225.
    assert kept(processed_log_probs(logits_of(0.25, 0.2, 0.5, 0.05), SamplingSettings(min_p=0.45))) == [0, 2]


def test_top_p_falls_back_to_a_full_sort_on_flat_distributions():
    logits = random_logits(2, 5000, scale=0.01)
    log_probs = processed_log_probs(logits, SamplingSettings(top_p=0.9))
    # Nearly uniform: about 90 % of 5000 tokens are needed, more than are sorted at first.
    assert (log_probs.isfinite().sum(-1) > 4400).all()
    dropped = logits.log_softmax(-1).exp().masked_fill(log_probs.isfinite(), 0).sum(-1)
    assert ((dropped > 0.0995) & (dropped <= 0.1)).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "chosen",
    [
        SamplingSettings(temperature=0.7, top_p=0.9),
        SamplingSettings(temperature=1.3, top_k=20, top_p=0.8),
        SamplingSettings(top_k=5, min_p=0.1),
        SamplingSettings(temperature=1.5, top_k=50, top_p=0.95, min_p=0.05),
    ],
    ids=str,
)
def test_filters_agree_with_transformers(chosen: SamplingSettings, seed: int):
    logits = random_logits(4, 300, seed=seed)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(chosen.temperature)])
    warpers += [TopKLogitsWarper(chosen.top_k)] if chosen.top_k else []
    warpers += [TopPLogitsWarper(chosen.top_p)] if chosen.top_p < 1 else []
    warpers += [MinPLogitsWarper(chosen.min_p)] if chosen.min_p else []
    expected = warpers(torch.zeros(4, 1, dtype=torch.long), logits).log_softmax(-1)
    torch.testing.assert_close(processed_log_probs(logits, chosen), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("vocab", [1, 7, 256, 257, 1000])
def test_a_token_is_where_the_cumulative_probability_passes_the_quantile(vocab: int):
    log_probs = random_logits(1, vocab).log_softmax(-1)
    mass = log_probs[0].double().exp().numpy()
    edges = np.cumsum(mass) / mass.sum()
    quantiles = np.random.default_rng(0).random(2000)
    # Float32 block sums move an edge by about 1e-7 of its block: leave out quantiles that near to one.
    clear = np.abs(quantiles[:, None] - edges).min(axis=1) > 1e-6
    tokens = tokens_at(log_probs.exp().expand(2000, -1), torch.from_numpy(quantiles)).numpy()
    np.testing.assert_array_equal(tokens[clear], np.searchsorted(edges, quantiles, side="right")[clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize(
    "chosen", [PLAIN, SamplingSettings(temperature=0.8, top_k=300, top_p=0.9, min_p=0.01)], ids=str
)
def test_frequencies_match_the_distribution_drawn_from(chosen: SamplingSettings):
    num_draws = 100_000
    logits = random_logits(1, 700, scale=1.0)
    log_probs = processed_log_probs(logits, chosen)
    probabilities = log_probs[0].double().exp()
    quantiles = torch.rand(num_draws, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
    mass = log_probs.exp().expand(5000, -1)
    tokens = torch.cat([tokens_at(mass, part) for part in quantiles.split(5000)])
    counts = tokens.bincount(minlength=700)
    drawable = probabilities > 0
    assert counts[~drawable].sum() == 0
    expected = probabilities[drawable] / probabilities[drawable].sum() * num_draws
    assert stats.chisquare(counts[drawable].numpy(), expected.numpy()).pvalue > FALSE_ALARM_RATE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [3, 256, 700])
@pytest.mark.parametrize("batch", [1, 8, 21])
def test_a_plain_draw_is_the_token_of_the_whole_distribution(batch: int, vocab: int, dtype: torch.dtype):
    logits = random_logits(batch, vocab).to(dtype)
    quantiles = torch.rand(batch, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    drawn = draw(logits, PLAIN, quantiles=quantiles)
    log_probs = logits.double().log_softmax(-1)
    assert torch.equal(drawn.token_ids, tokens_at(log_probs.exp().float(), quantiles))
    expected = log_probs.gather(-1, drawn.token_ids[:, None])[:, 0].float()
    torch.testing.assert_close(drawn.log_mu, expected, rtol=0, atol=1e-5)


def test_a_token_rarer_than_float32_resolution_can_be_drawn():
    # Probability e^-25 = 1.4e-11 lies below the 2^-24 steps of a float32 uniform: the second token holds the last
    # such share of [0, 1).
    log_probs = torch.tensor([[0.0, -25.0]]).log_softmax(-1)
    assert tokens_at(log_probs.exp(), torch.tensor([1 - 0.5e-11], dtype=torch.float64)).item() == 1


@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_a_filtered_token_is_never_drawn(data: st.DataObject):
    vocab = data.draw(st.integers(1, 600))
    scale = data.draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 200.0]))
    chosen = SamplingSettings(
        temperature=data.draw(st.sampled_from([0.0, 0.3, 1.0, 2.0])),
        top_k=data.draw(st.sampled_from([0, 1, 3, 100])),
        top_p=data.draw(st.sampled_from([1.0, 1e-6, 0.3, 0.999999])),
        min_p=data.draw(st.sampled_from([0.0, 0.5, 0.99])),
    )
    logits = random_logits(1, vocab, scale=scale, seed=data.draw(st.integers(0, 2**31)))
    edges = [0.0, 2**-60, 0.5, 1 - 1e-9, LARGEST_QUANTILE]
    quantiles = torch.tensor([*edges, *data.draw(st.lists(st.floats(0, LARGEST_QUANTILE), max_size=5))]).double()
    policy = data.draw(st.sampled_from([0.3, 1.0, 2.0]))
    drawn = draw(logits.expand(len(quantiles), -1), chosen, quantiles=quantiles, policy_temperature=policy)
    expected = processed_log_probs(logits, chosen)[0]
    assert expected[drawn.token_ids].isfinite().all()
    assert torch.equal(expected[drawn.token_ids], drawn.log_mu) or chosen.draws_at(policy)
    torch.testing.assert_close(drawn.log_mu, expected[drawn.token_ids], rtol=0, atol=1e-4)
    of_policy = (logits[0] / policy).log_softmax(-1)[drawn.token_ids]
    torch.testing.assert_close(drawn.log_model, of_policy, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.3])
def test_at_the_policys_own_temperature_mu_is_the_policy_and_the_draw_that_of_any_other_way(temperature: float):
    logits = random_logits(64, 700, scale=3.0, seed=5)
    quantiles = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    settings = SamplingSettings(temperature=temperature)
    own = draw(logits, settings, quantiles=quantiles, policy_temperature=temperature)
    other = draw(logits, settings, quantiles=quantiles, policy_temperature=1.0)
    assert torch.equal(own.token_ids, other.token_ids)
    assert torch.equal(own.log_mu, own.log_model)
    torch.testing.assert_close(own.log_mu, other.log_mu, rtol=0, atol=1e-5)
    assert float((other.log_mu - other.log_model).abs().max()) > 0.1


@pytest.mark.parametrize("position", [0, 1, 255, 256, 511, 700, 999])
def test_the_only_token_with_mass_is_drawn_at_every_quantile(position: int):
    mass = torch.zeros(4, 1000)
    mass[:, position] = 0.3
    quantiles = torch.tensor([0.0, 1e-300, 0.5, LARGEST_QUANTILE], dtype=torch.float64)
    assert tokens_at(mass, quantiles).tolist() == [position] * 4


def test_a_quantile_on_an_edge_belongs_to_the_token_after_it():
    # Sums of powers of two are exact: the intervals are [0, 1/4), [1/4, 3/4), [3/4, 1).
    quantiles = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64)
    assert tokens_at(torch.tensor([[0.25, 0.5, 0.25]]).expand(3, -1), quantiles).tolist() == [0, 1, 2]


def test_a_parallel_scan_that_rounds_up_on_a_token_without_mass_does_not_draw_it(monkeypatch: pytest.MonkeyPatch):
    exact_cumsum = torch.Tensor.cumsum

    def cumsum_of_a_parallel_scan(self: torch.Tensor, dim: int) -> torch.Tensor:
        # On a GPU partial sums are added in another order at each position: equal sums may differ in the last bits.
        return exact_cumsum(self, dim) + torch.where(self == 0, 1e-9, 0.0)

    monkeypatch.setattr(torch.Tensor, "cumsum", cumsum_of_a_parallel_scan)
    mass = torch.tensor([[0.5, 0.0, 0.5]])
    # Half of the mass is reached exactly at token 0, and by rounding just passed at token 1.
    assert tokens_at(mass, torch.tensor([0.5], dtype=torch.float64)).item() == 2


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.5])
def test_logits_that_are_no_distribution_raise_and_say_what_came(broken: float, temperature: float):
    logits = torch.zeros(3, 10)
    logits[1, 4] = broken
    with pytest.raises(FloatingPointError, match=r"1 of 3 rows.*row 1 holds .*1 (nan|\+inf)"):
        draw(logits, SamplingSettings(temperature=temperature), quantiles=torch.full((3,), 0.5, dtype=torch.float64))


def test_a_vocabulary_the_model_masks_with_minus_infinity_is_respected():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0]]).expand(50, -1)
    drawn = draw(logits, PLAIN, quantiles=torch.linspace(0, LARGEST_QUANTILE, 50, dtype=torch.float64))
    assert set(drawn.token_ids.tolist()) == {1, 3}
