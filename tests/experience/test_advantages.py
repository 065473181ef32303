import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klimb.experience.advantages import (
    ADVANTAGES,
    NEEDS_GROUPS,
    TAKES_OFFSET,
    are_equal,
    batch_mean,
    batch_soft_value,
    batch_z_score,
    binary_feedback,
    compute_advantages,
    group_mean,
    group_mean_batch_z_score,
    group_soft_value,
    group_z_score,
    leave_one_out,
    no_baseline,
    ones,
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


DUST = (0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1)


@pytest.mark.parametrize("name", sorted(set(ADVANTAGES) - {"no-baseline", "binary-feedback", "ones", "zero"}))
@pytest.mark.parametrize("scale", [1.0, -1e6, 1e-6])
def test_rewards_that_differ_by_rounding_alone_are_equal(name: str, scale: float):
    rewards = torch.tensor([*DUST, *DUST], dtype=torch.float64) * scale
    assert rewards[0] != rewards[1]
    assert ADVANTAGES[name](rewards, ["a", "a", "b", "b"]).tolist() == [0.0] * 4


def test_rewards_further_apart_than_rounding_are_not_equal():
    rewards = torch.tensor([1.0, 1.0 + 1e-8], dtype=torch.float64)
    assert ADVANTAGES["group-mean"](rewards, ["a", "a"]).tolist() == pytest.approx([-5e-9, 5e-9], rel=1e-4)
    assert are_equal([1.0, 1.0 + 1e-10]) and not are_equal([1.0, 1.0 + 1e-8])
    assert not are_equal([0.0, 1e-300]) and not are_equal([-1e308, 1e308])
    assert are_equal([]) and are_equal([0.0, 0.0])


@pytest.mark.parametrize("name", sorted(set(ADVANTAGES) - {"no-baseline", "binary-feedback", "ones"}))
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
    for function in (batch_z_score, batch_mean, batch_soft_value):
        with pytest.raises(ValueError, match="at least 2 responses"):
            function(numbers(1), ["a"])


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
    name=st.sampled_from(
        sorted(set(ADVANTAGES) - {"no-baseline", "binary-feedback", "group-z-score", "batch-z-score"})
    ),
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


def test_batch_mean_ignores_the_groups():
    assert batch_mean(numbers(0, 1, 5), ["a", "b", "b"]).tolist() == [-2, -1, 3]


def test_soft_values_by_hand():
    # β·log mean exp(r/β): group a holds 0 and 2·log 3, at β = 2 the mean of 1 and 3 is 2; group b holds one value.
    rewards = numbers(0, 2 * math.log(3), 7, 7)
    value = 2 * math.log(2)
    expected = [-value, 2 * math.log(3) - value, 0, 0]
    assert group_soft_value(rewards, ["a", "a", "b", "b"], temperature=2.0).tolist() == pytest.approx(expected)
    rewards = numbers(0, math.log(3), math.log(2))  # mean of 1, 3 and 2
    expected = [-math.log(2), math.log(1.5), 0]
    assert batch_soft_value(rewards, ["a", "b", "b"]).tolist() == pytest.approx(expected, abs=1e-15)


@given(
    rewards=st.lists(st.floats(-50, 50), min_size=2, max_size=9),
    temperature=st.floats(1e-3, 1e3),
)
def test_a_soft_value_lies_between_the_mean_and_the_largest_reward(rewards, temperature: float):
    """Jensen's inequality; and at these temperatures exp(r/β) alone would overflow."""
    values = torch.tensor(rewards, dtype=torch.float64)
    soft = values - group_soft_value(values, ["a"] * len(rewards), temperature=temperature)
    assert bool((soft >= values.mean() - 1e-9).all() and (soft <= values.max() + 1e-9).all())


def test_soft_values_become_the_mean_in_heat_and_the_maximum_in_cold():
    rewards = numbers(0, 1, 1, 4)
    groups = ["a"] * 4
    hot = compute_advantages(rewards, groups, kind="group-soft-value", temperature=1e7)
    assert hot.tolist() == pytest.approx(group_mean(rewards, groups).tolist(), abs=1e-6)
    cold = compute_advantages(rewards, groups, kind="batch-soft-value", temperature=1e-7)
    assert cold.tolist() == pytest.approx([-4, -3, -3, 0], abs=1e-6)


def test_binary_feedback_is_desirable_above_one_half():
    assert binary_feedback(numbers(0, 0.5, 0.51, 1), ["a"] * 4).tolist() == [-1, -1, 1, 1]
    assert ones(numbers(0, 3), ["a", "b"]).tolist() == [1, 1]


@pytest.mark.parametrize("kind", sorted(ADVANTAGES))
def test_without_offset_the_entry_point_gives_what_the_table_gives(kind: str):
    rewards, groups = numbers(0, 1, 3, 1), ["a", "a", "b", "b"]
    assert torch.equal(compute_advantages(rewards, groups, kind=kind), ADVANTAGES[kind](rewards, groups))


@pytest.mark.parametrize("kind", sorted(TAKES_OFFSET))
def test_a_negative_offset_lowers_the_baseline_so_that_every_advantage_rises(kind: str):
    rewards, groups = numbers(0, 1, 3, 1), ["a", "a", "b", "b"]
    moved = compute_advantages(rewards, groups, kind=kind, offset=-0.25)
    assert moved.tolist() == (ADVANTAGES[kind](rewards, groups) + 0.25).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "group-meen"}, "unknown advantages 'group-meen'; there are group-mean"),
        (
            {"kind": "binary-feedback", "offset": -0.1},
            "binary-feedback: offset -0.1 moves a baseline in units of the reward",
        ),
        ({"kind": "group-z-score", "offset": -0.1}, "those that have one are batch-mean"),
        ({"kind": "group-mean", "offset": math.nan}, "must be finite"),
        ({"kind": "group-soft-value", "temperature": 0.0}, "temperature of a soft value must be finite and > 0, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message: str):
    with pytest.raises(ValueError, match=message):
        compute_advantages(numbers(0, 1), ["a", "a"], **options)
