import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from klimb.experience import explained_variance, generalised_advantages, rewards_to_go, token_rewards, whitened

MASK = torch.tensor([[True, True, True, False], [True, False, True, True]])


def test_the_reward_stands_at_the_last_counted_token():
    rewards = token_rewards(torch.tensor([2.0, -1.0]), MASK)
    assert rewards.tolist() == [[0, 0, 2, 0], [0, 0, 0, -1]]


def test_every_counted_token_is_charged_for_the_log_ratio_to_the_reference():
    log_mu = torch.tensor([[-1.0, -2.0, -3.0, 9.0], [-1.0, 9.0, -1.0, -1.0]])
    log_ref = torch.tensor([[-2.0, -2.0, -1.0, 0.0], [-1.0, 0.0, -3.0, -1.0]])
    rewards = token_rewards(torch.tensor([1.0, 0.0]), MASK, log_prox=log_mu, log_ref=log_ref, kl_in_reward=0.5)
    # -0.5 * (log mu - log ref): row 0: -0.5, 0, +1 (and R = 1 there); row 1: 0, masked, -1, 0
    assert rewards.tolist() == [[-0.5, 0, 2.0, 0], [0, 0, -1.0, 0]]


def test_the_rewards_to_go_of_an_undiscounted_response_add_up_what_is_still_to_come():
    rewards = torch.tensor([[1.0, 2.0, 4.0, 100.0], [1.0, 100.0, 2.0, 4.0]], dtype=torch.float64)
    assert rewards_to_go(rewards, MASK).tolist() == [[7, 6, 4, 0], [7, 0, 6, 4]]
    assert rewards_to_go(rewards, MASK, discount=0.5).tolist() == [[3, 4, 4, 0], [3, 0, 4, 4]]


def test_generalised_advantages_by_hand():
    mask = torch.ones(1, 3, dtype=torch.bool)
    rewards = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 0.25, 0.75]], dtype=torch.float64)
    # gamma = 0.5: deltas -0.5 + 0.125, -0.25 + 0.375, 1 - 0.75; decay gamma*lambda = 0.25
    advantages, returns = generalised_advantages(rewards, values, mask, discount=0.5, gae_lambda=0.5)
    by_hand = [[-0.375 + 0.25 * (0.125 + 0.25 * 0.25), 0.125 + 0.25 * 0.25, 0.25]]
    assert advantages.tolist() == by_hand
    assert returns.tolist() == (advantages + values).tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1.0))
def test_at_lambda_one_it_is_the_reward_to_go_less_the_value_and_at_zero_the_one_step_difference(seed, discount):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 6, generator=generator) > 0.3
    mask[:, 0] = True
    rewards, values = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    advantages, returns = generalised_advantages(rewards, values, mask, discount=discount, gae_lambda=1.0)
    to_go = rewards_to_go(rewards, mask, discount=discount)
    torch.testing.assert_close(advantages, torch.where(mask, to_go - values, 0.0))
    torch.testing.assert_close(returns, to_go)
    one_step, _ = generalised_advantages(rewards, values, mask, discount=discount, gae_lambda=0.0)
    for row in range(3):
        columns = [column for column in range(6) if mask[row, column]]
        for place, column in enumerate(columns):
            following = values[row, columns[place + 1]] if place + 1 < len(columns) else 0.0
            by_hand = rewards[row, column] + discount * following - values[row, column]
            assert one_step[row, column] == pytest.approx(float(by_hand))


def test_an_exact_critic_leaves_advantages_of_mean_zero_whatever_lambda_is():
    # Two equally likely second tokens with rewards 0 and 1: V = 0.5 before, R after.
    mask = torch.ones(2, 2, dtype=torch.bool)
    rewards = token_rewards(torch.tensor([0.0, 1.0]), mask)
    values = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    for gae_lambda in (0.0, 0.3, 1.0):
        advantages, _ = generalised_advantages(rewards, values, mask, gae_lambda=gae_lambda)
        assert float(advantages.mean()) == 0


def test_whitening_centres_and_scales_over_counted_tokens_alone():
    advantages = torch.tensor([[1.0, 2.0, 3.0, 1e9], [4.0, 1e9, 5.0, 6.0]])
    done = whitened(advantages, MASK)
    assert float(done[MASK].mean()) == pytest.approx(0, abs=1e-6)
    assert float(done[MASK].std()) == pytest.approx(1, abs=1e-5)
    assert done[~MASK].tolist() == [0, 0]


def test_equal_advantages_whiten_to_exactly_nothing():
    assert not whitened(torch.full((2, 4), 0.1), MASK).any()


def test_explained_variance_is_one_for_the_returns_themselves_and_zero_for_their_mean():
    returns = torch.tensor([0.0, 1.0, 1.0, 4.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.full((4,), 1.5), returns) == 0
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert explained_variance(returns, torch.ones(4)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.zeros(2, 4, dtype=torch.bool)}, "a response has no token"),
        ({"rewards": torch.tensor([0.0, float("nan")])}, "a reward is not finite"),
        ({"kl_in_reward": 0.1}, "kl_in_reward is 0.1, and log_prox or log_ref is missing"),
    ],
)
def test_what_cannot_be_credited_is_refused(changes: dict, message: str):
    arguments = {"rewards": torch.tensor([0.0, 1.0]), "mask": MASK} | changes
    with pytest.raises(ValueError, match=message):
        token_rewards(arguments.pop("rewards"), arguments.pop("mask"), **arguments)
