"""What a drawn token of a conversation is credited with: by hand, and so that the expected gradient is the true one."""

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from tests.losses.enumerated_conversations import (
    BEHAVIOUR,
    ENVIRONMENT,
    POLICY,
    REFERENCE,
    REWARDS,
    expectation,
    log_probs,
    make_sample,
    place,
)
from tests.oracle import conversations, world
from tests.oracle.formulas import DIVERGENCES

from klimb.experience import Batch, Sample, Turn, collate, generalised_advantages
from klimb.losses import Inputs, Objective, SquaredResidual
from klimb.training import reference_named
from klimb.training.credit import assign_advantages
from klimb.training.rollouts import compute_credits, compute_turn_credits
from klimb.training.settings import AdvantageSettings, CreditSettings, LoopSettings, check_loss_fits

ON_POLICY = world.conditionals(POLICY)
FIRST_REWARDS = conversations.first_turn_rewards(41)
ALL = range(len(conversations.CONVERSATIONS))
MOST_TOKENS = max(len(y) + len(a or ()) + len(z) for y, a, z in conversations.CONVERSATIONS)
TOLERANCE = 1e-6
PLAIN = Objective(ratio="none", beta=0.0, clip="none", reduce="sequence-mean-token-sum")
"""REINFORCE: −A·log π of each token."""


def credit(policy, samples, settings, *, credits=None, turn_credits=()):
    """Return the batch of these samples with its advantages; a reward less nothing where no credits are given."""
    batch, metrics = assign_advantages(
        policy,
        None,
        collate(samples),
        torch.tensor([sample.reward for sample in samples]) if credits is None else credits,
        settings,
        turn_credits=turn_credits,
        max_tokens="auto",
        generator=torch.Generator(),
    )
    assert metrics == {}
    return batch


def talk(*turns: Turn, reward: float = 1.0, log_ratio: float = 0.0) -> Sample:
    """Return a conversation of these turns; log_mu of its drawn tokens is −1, and log_ref that less `log_ratio`."""
    num_drawn = sum(turn.num_tokens for turn in turns if turn.is_drawn)
    return Sample(
        sample_id="talk",
        group_id="g",
        prompt=(),
        prompt_ids=(1,),
        response="",
        response_ids=(5,) * sum(turn.num_tokens for turn in turns),
        finish_reason="stop",
        reward=reward,
        log_mu=(-1.0,) * num_drawn,
        log_mu_provenance="sampler",
        log_ref=(-1.0 - log_ratio,) * num_drawn,
        turns=turns,
    )


def said(num_tokens: int, reward: float | None = None) -> Turn:
    return Turn(role="assistant", text="", num_tokens=num_tokens, reward=reward)


def heard(num_tokens: int) -> Turn:
    return Turn(role="tool", text="", num_tokens=num_tokens)


def test_rewards_to_go_pass_over_what_was_not_drawn_without_discounting_it(tiny_policy):
    """R = 3, of which the first turn has 1: the last turn has 2. γ = ½: 2, 1, then 1 + ½·1 and ½ of that."""
    sample = talk(said(2, 1.0), heard(3), said(2), reward=3.0)
    batch = credit(tiny_policy, [sample], CreditSettings(kind="reward-to-go", discount=0.5))
    assert batch.advantages.tolist() == [[0.75, 1.5, 0, 0, 0, 1, 2]]


def test_only_drawn_tokens_are_charged_for_leaving_the_reference(tiny_policy):
    """Each of four drawn tokens costs κ·log(μ/ref) = ½·¼, and R = 3 stands at the last."""
    sample = talk(said(2), heard(3), said(2), heard(1), reward=3.0, log_ratio=0.25)
    batch = credit(tiny_policy, [sample], CreditSettings(kind="reward-to-go", kl_in_reward=0.5))
    assert batch.advantages.tolist() == [[2.5, 2.625, 0, 0, 0, 2.75, 2.875, 0]]


def test_turns_have_their_own_advantage_and_what_lies_between_has_none(tiny_policy):
    samples = [talk(said(2), heard(2), said(1)), talk(said(1))]
    batch = credit(tiny_policy, samples, CreditSettings(kind="turn"), turn_credits=[(3.0, -1.0), (2.0,)])
    assert batch.advantages.tolist() == [[3, 3, 0, 0, -1], [2, 0, 0, 0, 0]]


def test_whitening_counts_drawn_tokens_alone(tiny_policy):
    """Returns 1 and 3 at two tokens each: mean 2, and a deviation of √(4/3)."""
    samples = [talk(said(1), heard(4), said(1), reward=1.0), talk(said(2), heard(1), reward=3.0)]
    batch = credit(tiny_policy, samples, CreditSettings(kind="reward-to-go", whiten=True))
    unit = 1 / ((4 / 3) ** 0.5 + 1e-6)
    expected = torch.tensor([[-unit, 0, 0, 0, 0, -unit], [unit, unit, 0, 0, 0, 0]])
    torch.testing.assert_close(batch.advantages, expected)


@pytest.mark.parametrize("silent", [(said(2), heard(1), said(0)), (said(2), said(0), heard(1), said(0))])
def test_the_reward_of_a_turn_without_a_token_stands_at_the_last_token_before(tiny_policy, silent):
    batch = credit(tiny_policy, [talk(*silent, reward=2.0)], CreditSettings(kind="reward-to-go", discount=0.5))
    assert batch.advantages[0, :2].tolist() == [1, 2]


def test_what_comes_before_every_token_is_nobodys_doing(tiny_policy):
    sample = talk(said(0, 5.0), heard(1), said(1), reward=7.0)
    batch = credit(tiny_policy, [sample], CreditSettings(kind="reward-to-go"))
    assert batch.advantages.tolist() == [[0, 2]]


def test_generalised_advantages_take_the_value_after_the_answer_for_what_follows_a_turn():
    """γ = ½, λ = ½: δ = 1 + ½·0.5 − 0.25 = 1 at the turn's end and 2 − 0.5 = 1.5 behind the answer."""
    mask = torch.tensor([[True, False, False, True]])
    nan = float("nan")
    rewards = torch.tensor([[1.0, nan, nan, 2.0]], dtype=torch.float64)
    values = torch.tensor([[0.25, nan, nan, 0.5]], dtype=torch.float64)
    advantages, returns = generalised_advantages(rewards, values, mask, discount=0.5, gae_lambda=0.5)
    assert advantages.tolist() == [[1 + 0.25 * 1.5, 0, 0, 1.5]]
    assert returns.tolist() == [[1.625, 0, 0, 2.0]]


def true_gradient(reward: np.ndarray, *, beta: float = 0.0, table: np.ndarray = POLICY) -> np.ndarray:
    """∇(E_π[R] − β·KL(π‖ref))."""
    return world.gradient(
        lambda theta: conversations.objective(theta, REFERENCE, ENVIRONMENT, reward, beta, DIVERGENCES["rkl"]), table
    )


def enumerated() -> list[Sample]:
    """All conversations as the policy itself draws them, with a reward and one for their first turn."""
    return [
        make_sample(number, mu=ON_POLICY, reward=float(REWARDS[number]), first_reward=float(FIRST_REWARDS[number]))
        for number in ALL
    ]


def expected_gradient(inputs_of, *, objective: Objective = PLAIN, drawn_by: np.ndarray = ON_POLICY) -> np.ndarray:
    """The mean over conversations of the gradient of their loss, turned round."""
    table = torch.from_numpy(POLICY).requires_grad_()
    loss = expectation(objective(inputs_of(log_probs(table))).terms.sum(1), drawn_by)
    return -torch.autograd.grad(loss, table)[0].numpy()


@pytest.mark.parametrize("kind", ["response", "reward-to-go"])
def test_crediting_leaves_the_expected_gradient_of_the_reward(tiny_policy, kind):
    batch = credit(tiny_policy, enumerated(), CreditSettings(kind=kind))
    found = expected_gradient(lambda log_pi: Inputs.of(batch, place(log_pi, batch.mask.shape[1])))
    np.testing.assert_allclose(found, true_gradient(REWARDS), atol=TOLERANCE, rtol=0)


def test_the_kl_in_the_reward_has_the_gradient_of_the_kl_of_whole_conversations(tiny_policy):
    batch = credit(tiny_policy, enumerated(), CreditSettings(kind="reward-to-go", kl_in_reward=0.3))
    found = expected_gradient(lambda log_pi: Inputs.of(batch, place(log_pi, batch.mask.shape[1])))
    expected = true_gradient(REWARDS, beta=0.3)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert np.abs(expected - true_gradient(REWARDS)).max() > 1e-2


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_with_true_values_the_expected_gradient_is_that_of_the_reward_whatever_lambda_is(tiny_policy, gae_lambda):
    """The value before a token of the second turn knows the answer, and what the first turn was paid is behind it."""
    batch = credit(tiny_policy, enumerated(), CreditSettings(kind="reward-to-go", discount=0.0))
    width = batch.mask.shape[1]
    values = conversations.values(ON_POLICY, ENVIRONMENT, REWARDS)
    values = values - np.where(conversations.IS_SECOND, FIRST_REWARDS[:, None], 0.0)
    # With a discount of 0 the rewards to go are the rewards themselves.
    advantages, _ = generalised_advantages(
        batch.advantages, place(torch.from_numpy(values), width), batch.mask, gae_lambda=gae_lambda
    )
    batch = replace(batch, advantages=advantages.float())
    found = expected_gradient(lambda log_pi: Inputs.of(batch, place(log_pi, width)))
    np.testing.assert_allclose(found, true_gradient(REWARDS), atol=TOLERANCE, rtol=0)


def test_at_lambda_one_any_value_will_do_and_below_it_a_wrong_one_is_seen(tiny_policy):
    batch = credit(tiny_policy, enumerated(), CreditSettings(kind="reward-to-go", discount=0.0))
    width = batch.mask.shape[1]
    wrong = np.random.default_rng(42).normal(size=(len(conversations.POINTS),))[conversations.ROWS]

    def found(gae_lambda: float) -> np.ndarray:
        advantages, _ = generalised_advantages(
            batch.advantages, place(torch.from_numpy(wrong), width), batch.mask, gae_lambda=gae_lambda
        )
        credited = replace(batch, advantages=advantages.float())
        return expected_gradient(lambda log_pi: Inputs.of(credited, place(log_pi, width)))

    expected = true_gradient(REWARDS)
    np.testing.assert_allclose(found(1.0), expected, atol=TOLERANCE, rtol=0)
    assert np.abs(found(0.0) - expected).max() > 1e-2


def test_rewards_of_turns_at_prefix_level_are_exact_off_policy(tiny_policy):
    """Each reward is weighed by π/μ of the drawn tokens up to it; what the environment said after it is no matter."""
    samples = [replace(sample, log_mu=make_sample(number).log_mu) for number, sample in enumerate(enumerated())]
    batch = credit(tiny_policy, samples, CreditSettings(kind="reward-to-go", discount=0.0))
    prefixes = Objective(level="prefix", beta=0.0, clip="none", reduce="sequence-mean-token-sum")
    found = expected_gradient(
        lambda log_pi: Inputs.of(batch, place(log_pi, batch.mask.shape[1])), objective=prefixes, drawn_by=BEHAVIOUR
    )
    np.testing.assert_allclose(found, true_gradient(REWARDS), atol=TOLERANCE, rtol=0)


FEW = np.where(np.arange(world.NUM_TOKENS) < 2, POLICY, -80.0)
"""A policy that never draws token 2, so that its groups can be enumerated."""
DRAWN_BY_FEW = [
    number for number, (first, _, second) in enumerate(conversations.CONVERSATIONS) if 2 not in first + second
]
PAIRS = list(combinations_with_replacement(DRAWN_BY_FEW, 2))
"""Every group of two, whatever its order."""


def pairs_of_samples() -> list[Sample]:
    """The samples of all groups, one group after another."""
    samples = enumerated()
    return [replace(samples[number], group_id=f"{pair}") for pair in PAIRS for number in pair]


def mean_gradient_over_groups(batch: Batch) -> np.ndarray:
    """The mean over groups of the mean over their two rows of the loss's gradient, turned round."""
    chances = conversations.probabilities(world.conditionals(FEW), ENVIRONMENT)
    weights = [(1 if one == other else 2) * chances[one] * chances[other] for one, other in PAIRS]
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    table = torch.from_numpy(FEW).requires_grad_()
    log_pi = place(log_probs(table), MOST_TOKENS)[torch.tensor(PAIRS).view(-1), : batch.mask.shape[1]]
    by_row = PLAIN(Inputs.of(batch, log_pi)).terms.sum(1)
    loss = (torch.tensor(weights, dtype=torch.float64) * by_row.view(-1, 2).mean(dim=1)).sum()
    return -torch.autograd.grad(loss, table)[0].numpy()


@pytest.mark.parametrize("kind", ["turn", "response", "reward-to-go"])
def test_leave_one_out_is_unbiased_over_all_groups_of_two(tiny_policy, kind):
    samples = pairs_of_samples()
    settings = AdvantageSettings(kind="leave-one-out")
    batch = credit(
        tiny_policy,
        samples,
        CreditSettings(kind=kind),
        credits=compute_credits(samples, settings, beta=1.0),
        turn_credits=compute_turn_credits(samples, settings, beta=1.0) if kind == "turn" else (),
    )
    expected = true_gradient(REWARDS, table=FEW)
    np.testing.assert_allclose(mean_gradient_over_groups(batch), expected, atol=TOLERANCE, rtol=0)
    assert np.abs(expected).max() > 1e-2


def test_a_baseline_with_its_own_number_in_it_would_be_seen(tiny_policy):
    """The mean of two has half of one's own in it: half the gradient."""
    samples, settings = pairs_of_samples(), AdvantageSettings(kind="group-mean")
    turn_credits = compute_turn_credits(samples, settings, beta=1.0)
    batch = credit(tiny_policy, samples, CreditSettings(kind="turn"), turn_credits=turn_credits)
    found = mean_gradient_over_groups(batch)
    np.testing.assert_allclose(found, true_gradient(REWARDS, table=FEW) / 2, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Objective(level="sequence", beta=0.0), "objective.level = 'sequence' weighs whole responses"),
        (Objective(level="sequence-mean", beta=0.0), "objective.level = 'sequence-mean' weighs whole responses"),
        (SquaredResidual(beta=0.1), "the loss squared-residual takes one a response"),
    ],
)
@pytest.mark.parametrize("kind", ["turn", "reward-to-go"])
def test_a_loss_of_whole_responses_is_refused_before_the_run_where_turns_or_tokens_are_credited(kind, loss, message):
    settings = LoopSettings(
        advantages=AdvantageSettings(kind="no-baseline"),
        credit=CreditSettings(kind=kind),
        reference=reference_named("none"),
    )
    with pytest.raises(ValueError, match=f"credit.kind = '{kind}' .*{message}"):
        check_loss_fits(settings, loss, None)
    check_loss_fits(replace(settings, credit=CreditSettings()), loss, None)
    check_loss_fits(settings, PLAIN, None)
