"""On the enumerated world: what theory calls unbiased is, what it calls biased has the bias it says."""

from itertools import product

import numpy as np
import pytest
from tests.oracle import world

from klimb.findings.off_policy_evaluation import (
    ESTIMATORS,
    LoggedData,
    clipped_ips,
    direct,
    doubly_robust,
    ips,
    per_decision,
    self_normalised_doubly_robust,
    snips,
)
from klimb.findings.off_policy_evaluation.estimators import predicted_rewards, prompt_baseline

MU = world.token_probabilities(world.conditionals(world.logits(1, scale=0.7)))
PI = world.token_probabilities(world.conditionals(world.logits(2, scale=0.7)))
P_MU, P_PI = MU.prod(1), PI.prod(1)
TOKEN_REWARDS = np.where(world.MASK, world.prefix_rewards(3), 0.0)
REWARDS = TOKEN_REWARDS.sum(1)
VALUE = float((P_PI * REWARDS).sum())
W = P_PI / P_MU
NUM = len(world.SEQUENCES)


def drawn(numbers, prompt_index=None, *, with_token_rewards=True):
    """The data of these responses of the world, all to one prompt unless said."""
    numbers = np.asarray(numbers)
    index = np.zeros(len(numbers), dtype=np.int64) if prompt_index is None else np.asarray(prompt_index)
    return LoggedData(
        rewards=REWARDS[numbers],
        token_log_w=np.log(PI / MU)[numbers],
        mask=world.MASK[numbers],
        prompt_index=index,
        is_cut=world.LENGTHS[numbers] == world.MAX_LENGTH,
        token_rewards=TOKEN_REWARDS[numbers] if with_token_rewards else None,
    )


def expectation(estimator, prompt_index):
    """E_μ of the estimate, by enumerating every pair of responses."""
    pairs = product(range(NUM), repeat=2)
    return sum(P_MU[a] * P_MU[b] * estimator(drawn([a, b], prompt_index)).value for a, b in pairs)


def test_the_two_policies_differ_enough_to_show_a_mistake():
    assert abs(VALUE - (P_MU * REWARDS).sum()) > 0.2
    assert W.max() > 3 * W.min() > 0
    assert W.max() > 1.5


@pytest.mark.parametrize("prompt_index", [[0, 0], [0, 1]], ids=["one-prompt", "two-prompts"])
@pytest.mark.parametrize("estimator", [ips, per_decision, doubly_robust])
def test_the_expectation_over_all_data_sets_is_the_exact_value(estimator, prompt_index):
    assert expectation(estimator, prompt_index) == pytest.approx(VALUE, abs=1e-12)


@pytest.mark.parametrize("estimator", [snips, self_normalised_doubly_robust])
def test_self_normalised_estimates_are_biased_on_two_responses(estimator):
    assert abs(expectation(estimator, [0, 0]) - VALUE) > 0.01


def test_the_expectation_of_the_clipped_estimate_is_the_enumerated_one():
    for clip in (0.5, 1.0, 1.3):
        expected = (P_MU * np.minimum(W, clip) * REWARDS).sum()
        assert abs(expected - VALUE) > 0.01
        assert expectation(lambda data, clip=clip: clipped_ips(data, clip=clip), [0, 1]) == pytest.approx(expected)
    assert expectation(lambda data: clipped_ips(data, clip=W.max()), [0, 1]) == pytest.approx(VALUE)


@pytest.mark.parametrize("estimator", [ips, per_decision, doubly_robust])
def test_the_mean_over_many_draws_is_within_three_standard_errors_of_the_exact_value(estimator):
    generator = np.random.default_rng(0)
    index = np.repeat(np.arange(25), 2)
    values = [estimator(drawn(generator.choice(NUM, 50, p=P_MU), index)).value for _ in range(1000)]
    assert abs(np.mean(values) - VALUE) < 3 * np.std(values) / np.sqrt(len(values))


def test_self_normalised_estimates_approach_the_exact_value():
    generator = np.random.default_rng(1)
    for estimator in (snips, self_normalised_doubly_robust):
        errors = [
            abs(estimator(drawn(generator.choice(NUM, size, p=P_MU))).value - VALUE)
            for size in (100, 10_000, 1_000_000)
        ]
        assert errors[2] < 0.01
        assert errors[2] < errors[0]


def test_per_decision_is_ips_for_a_reward_at_the_end_and_differs_for_rewards_by_token():
    numbers = np.random.default_rng(2).choice(NUM, 30, p=P_MU)
    at_the_end, by_token = drawn(numbers, with_token_rewards=False), drawn(numbers)
    assert per_decision(at_the_end).value == ips(at_the_end).value
    assert "same as ips" in per_decision(at_the_end).note
    assert abs(per_decision(by_token).value - ips(by_token).value) > 1e-3
    assert per_decision(by_token).note == ""


def test_per_decision_has_less_variance_than_ips_on_rewards_by_token():
    """By enumeration: Var_μ of one response's term."""
    prefix = np.cumprod(PI / MU, axis=1)
    variances = [(P_MU * (term - VALUE) ** 2).sum() for term in ((prefix * TOKEN_REWARDS).sum(1), W * REWARDS)]
    assert variances[0] < variances[1]
    every = drawn(np.arange(NUM))
    assert per_decision(every).ratios[0][0] == pytest.approx((prefix * TOKEN_REWARDS).sum(1))


def test_under_the_same_policy_every_estimate_is_the_mean_reward_but_the_models():
    data = drawn(np.random.default_rng(3).choice(NUM, 40, p=P_MU), np.repeat(np.arange(10), 4))
    same = LoggedData(
        rewards=data.rewards,
        token_log_w=np.zeros_like(data.token_log_w),
        mask=data.mask,
        prompt_index=data.prompt_index,
        is_cut=data.is_cut,
    )
    for name, make in ESTIMATORS.items():
        if name != "direct":
            assert make(same).value == pytest.approx(data.rewards.mean()), name


def test_the_doubly_robust_estimate_has_less_variance_where_prompts_differ_in_their_mean():
    generator = np.random.default_rng(4)
    index = np.repeat(np.arange(20), 4)
    level = 5.0 * index
    values = {"ips": [], "dr": []}
    for _ in range(200):
        base = drawn(generator.choice(NUM, 80, p=P_MU), index, with_token_rewards=False)
        data = LoggedData(
            rewards=base.rewards + level,
            token_log_w=base.token_log_w,
            mask=base.mask,
            prompt_index=index,
            is_cut=base.is_cut,
        )
        values["ips"].append(ips(data).value)
        values["dr"].append(doubly_robust(data).value)
    assert np.std(values["dr"]) < 0.5 * np.std(values["ips"])


def test_a_baseline_holds_nothing_of_its_own_response():
    numbers, index = np.array([0, 1, 2, 3, 4]), [0, 0, 0, 1, 2]
    before = prompt_baseline(drawn(numbers, index))
    for row in range(5):
        moved = drawn(numbers, index, with_token_rewards=False)
        moved.rewards[row] += 7.0
        after = prompt_baseline(moved)
        assert after[row] == pytest.approx(before[row], abs=1e-12)
        assert np.abs(after - before).max() > 1


def test_a_baseline_by_hand():
    # Prompt 0 has rewards 1 and 4, prompt 1 has 10: the first one's is (4 + 10)/2, the last one's (1 + 4)/2.
    data = LoggedData(
        rewards=np.array([1.0, 4.0, 10.0]),
        token_log_w=np.zeros((3, 1)),
        mask=np.ones((3, 1), dtype=bool),
        prompt_index=np.array([0, 0, 1]),
        is_cut=np.zeros(3, dtype=bool),
    )
    assert prompt_baseline(data).tolist() == [7.0, 5.5, 2.5]


def test_the_reward_model_predicts_other_prompts_from_length():
    generator = np.random.default_rng(5)
    lengths = generator.integers(1, 30, size=400)
    index = np.repeat(np.arange(100), 4)
    data = LoggedData(
        rewards=2.0 - np.log1p(lengths.astype(float)),
        token_log_w=np.zeros((400, 30)),
        mask=np.arange(30) < lengths[:, None],
        prompt_index=index,
        is_cut=np.zeros(400, dtype=bool),
    )
    assert np.abs(predicted_rewards(data) - data.rewards).max() < 0.05
    assert direct(data).value == pytest.approx(data.rewards.mean(), abs=0.01)


def test_huge_ratios_stay_finite():
    data = LoggedData(
        rewards=np.array([1.0, 0.0, 1.0]),
        token_log_w=np.array([[900.0], [0.0], [-2000.0]]),
        mask=np.ones((3, 1), dtype=bool),
        prompt_index=np.array([0, 1, 2]),
        is_cut=np.zeros(3, dtype=bool),
    )
    assert all(np.isfinite(make(data).value) for make in ESTIMATORS.values())
    assert snips(data).value == pytest.approx(1.0)


def test_a_clip_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="clip must be > 0"):
        clipped_ips(drawn([0]), clip=0.0)
