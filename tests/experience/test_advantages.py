import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klimb.experience import (
    ADVANTAGES,
    NEEDS_GROUPS,
    batch_z_score,
    group_mean,
    group_mean_batch_z_score,
    group_z_score,
    leave_one_out,
    no_baseline,
)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_group_mean_subtracts_the_mean_of_its_own_group():
    # Group a: mean of 1, 0, 2 is 1. Group b: mean of 5, 7 is 6. Rows of a group need not be neighbours.
    advantages = group_mean(numbers(1, 5, 0, 7, 2), ["a", "b", "a", "b", "a"])
    assert advantages.tolist() == [0, -1, -1, 1, 1]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    # 1 − mean(0, 2) = 0; 0 − mean(1, 2) = −1.5; 2 − mean(1, 0) = 1.5
    assert leave_one_out(numbers(1, 0, 2), ["a"] * 3).tolist() == pytest.approx([0, -1.5, 1.5], abs=1e-15)


def test_group_z_score_divides_by_the_sample_deviation():
    # Deviations −1, 1: variance (1 + 1) / (2 − 1) = 2.
    advantages = group_z_score(numbers(0, 2, 10, 14), ["a", "a", "b", "b"])
    a, b = 1 / (math.sqrt(2) + 1e-6), 2 / (math.sqrt(8) + 1e-6)
    assert advantages.tolist() == pytest.approx([-a, a, -b, b], rel=1e-14)


def test_batch_z_score_ignores_the_groups():
    # mean 2, deviations −2, 0, 2: variance 8 / 2 = 4.
    advantages = batch_z_score(numbers(0, 2, 4), ["a", "b", "b"])
    assert advantages.tolist() == pytest.approx([-2 / (2 + 1e-6), 0, 2 / (2 + 1e-6)], rel=1e-14)


def test_group_mean_batch_z_score_scales_the_centred_rewards_over_the_batch():
    # Centred: −1, 1, −2, 2; variance (1 + 1 + 4 + 4) / 3.
    scale = math.sqrt(10 / 3) + 1e-6
    advantages = group_mean_batch_z_score(numbers(0, 2, 10, 14), ["a", "a", "b", "b"])
    assert advantages.tolist() == pytest.approx([-1 / scale, 1 / scale, -2 / scale, 2 / scale], rel=1e-14)


def test_no_baseline_returns_the_rewards():
    assert no_baseline(numbers(3, -1), ["a", "a"]).tolist() == [3, -1]


@pytest.mark.parametrize("name", sorted(set(ADVANTAGES) - {"no-baseline"}))
@given(value=st.floats(-1e6, 1e6), size=st.integers(2, 9), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equal_rewards_give_exactly_zero(name: str, value: float, size: int, dtype: torch.dtype):
    rewards = torch.full((size,), value, dtype=dtype)
    assert ADVANTAGES[name](rewards, ["a"] * size).tolist() == [0.0] * size


@pytest.mark.parametrize("name", sorted(NEEDS_GROUPS))
def test_an_even_group_beside_an_uneven_one_gives_exactly_zero(name: str):
    advantages = ADVANTAGES[name](torch.tensor([0.1, 0.1, 0.1, 1.0, 0.0]), ["even"] * 3 + ["uneven"] * 2)
    assert advantages[:3].tolist() == [0.0] * 3
    assert advantages[3] > 0 > advantages[4]


@pytest.mark.parametrize("name", sorted(NEEDS_GROUPS))
def test_a_group_of_one_is_refused_with_what_to_do(name: str):
    with pytest.raises(ValueError, match=r"group 'lonely' has 1 response.*at least 2 responses a prompt"):
        ADVANTAGES[name](numbers(1, 0, 1), ["a", "a", "lonely"])


def test_a_batch_of_one_cannot_be_normalised():
    with pytest.raises(ValueError, match="at least 2 responses"):
        batch_z_score(numbers(1), ["a"])


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused_by_its_number(name: str, bad: float):
    with pytest.raises(ValueError, match=r"reward number 1 is (nan|inf)"):
        ADVANTAGES[name](numbers(1, bad), ["a", "a"])


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 rewards for 3 group ids"):
        group_mean(numbers(1, 2), ["a", "a", "a"])


@given(
    rewards=st.lists(st.floats(-100, 100), min_size=4, max_size=12),
    shift=st.floats(-100, 100),
    name=st.sampled_from(sorted(set(ADVANTAGES) - {"no-baseline", "group-z-score", "batch-z-score"})),
)
def test_adding_a_constant_to_every_reward_changes_no_centred_advantage(rewards, shift: float, name: str):
    groups = [index % 2 for index in range(len(rewards))]
    if name == "group-mean-batch-z-score":
        rewards = [*rewards[:-2], 100.0, -100.0]  # Keeps the scale away from the floor, where rounding is divided.
    before = ADVANTAGES[name](torch.tensor(rewards, dtype=torch.float64), groups)
    after = ADVANTAGES[name](torch.tensor(rewards, dtype=torch.float64) + shift, groups)
    assert torch.allclose(before, after, atol=1e-11)


def test_zero_advantages_are_zero_whatever_the_rewards():
    assert ADVANTAGES["zero"](torch.tensor([1.0, -3.0, 2.0]), ["a", "a", "b"]).tolist() == [0.0, 0.0, 0.0]
