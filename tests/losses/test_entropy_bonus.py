"""The entropy bonus: its value by hand, its gradient in the enumerated world, and what it is not."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from klimb.losses import Corrected, DecoupledCorrection, NoCorrection, Objective
from tests.losses.enumerated import BEHAVIOUR, POLICY, log_of, log_probs
from tests.oracle import world

BONUS = 0.3
MASK = torch.from_numpy(world.MASK)


def entropies(table: Tensor) -> Tensor:
    """Entropy of the next-token distribution that each token of each sequence was drawn from; NaN after the end."""
    conditional = table.log_softmax(-1)
    of_row = -(conditional.exp() * conditional).sum(-1)
    rows = [torch.stack([of_row[world.ROW[y[:t]]] for t in range(len(y))]) for y in world.SEQUENCES]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("nan"))


def with_bonus(objective: Objective | Corrected, table: Tensor, advantages: Tensor, **options):
    log_mu = log_of(BEHAVIOUR)
    return objective(log_probs(table), log_mu, None, advantages, MASK, entropy=entropies(table), **options)


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        # Two responses of entropies (1, 3) and (2): per token, per sequence, per sequence and token, and over length 4.
        ("token-mean", (1 + 3 + 2) / 3),
        ("sequence-mean-token-sum", (4 + 2) / 2),
        ("sequence-mean-token-mean", (2 + 2) / 2),
        (4, (4 + 2) / (2 * 4)),
    ],
)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_bonus_is_the_mean_entropy_in_the_objectives_own_reduction(reduce, expected, level):
    objective = Objective(beta=0, entropy_bonus=BONUS, reduce=reduce, level=level)
    log_pi = torch.full((2, 2), -1.0)
    mask = torch.tensor([[True, True], [True, False]])
    entropy = torch.tensor([[1.0, 3.0], [2.0, math.nan]])
    out = objective(log_pi, log_pi, None, torch.zeros(2), mask, entropy=entropy)
    assert float(out.loss) == pytest.approx(-BONUS * expected, rel=1e-6)
    assert out.metrics["entropy"] == pytest.approx(2.0)


def test_nothing_is_added_without_a_bonus():
    log_pi, mask = torch.full((1, 2), -1.0), torch.ones(1, 2, dtype=torch.bool)
    given = objective_of(0.0)(log_pi, log_pi, None, torch.ones(1), mask, entropy=torch.ones(1, 2))
    absent = objective_of(0.0)(log_pi, log_pi, None, torch.ones(1), mask)
    assert torch.equal(given.loss, absent.loss)
    assert not objective_of(0.0).needs_entropy


def objective_of(bonus: float) -> Objective:
    return Objective(beta=0, entropy_bonus=bonus)


def test_a_bonus_without_an_entropy_is_refused():
    log_pi, mask = torch.full((1, 2), -1.0), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"entropy is None, and entropy_bonus = 0.3 takes it into the loss"):
        objective_of(BONUS)(log_pi, log_pi, None, torch.ones(1), mask)


@pytest.mark.parametrize("bonus", [-0.1, math.nan, math.inf])
def test_a_bonus_that_is_no_weight_is_refused(bonus: float):
    with pytest.raises(ValueError, match="entropy_bonus must be finite and >= 0"):
        objective_of(bonus)


def gradient_of_bonus(objective: Objective, behaviour: np.ndarray) -> np.ndarray:
    """Of what the bonus adds to E_μ of a sequence's loss, by enumeration."""
    table = torch.from_numpy(POLICY).requires_grad_()
    mu = torch.from_numpy(world.token_probabilities(behaviour).prod(1))
    out = with_bonus(objective, table, torch.zeros(len(world.SEQUENCES), dtype=torch.float64))
    return torch.autograd.grad((mu * out.terms.sum(1)).sum(), table)[0].numpy()


def visits(behaviour: np.ndarray) -> dict[tuple[int, ...], complex]:
    """Return how probable it is that a sequence of this policy passes each prefix."""
    steps = {row: behaviour[world.ROW[row]] for row in world.PREFIXES}
    return {p: complex(np.prod([steps[p[:t]][token] for t, token in enumerate(p)])) for p in world.PREFIXES}


def entropy_over_states(theta: np.ndarray, seen: dict[tuple[int, ...], complex]) -> complex:
    """Σ over prefixes of how often they are seen times the entropy of the next token there."""
    cond = world.conditionals(theta)
    return sum(seen[p] * -(cond[world.ROW[p]] * np.log(cond[world.ROW[p]])).sum() for p in world.PREFIXES)


@pytest.mark.parametrize("level", ["token", "prefix", "sequence", "sequence-mean"])
def test_its_gradient_is_that_of_the_mean_entropy_over_the_states_that_mu_visited(level: str):
    actual = gradient_of_bonus(Objective(beta=0, entropy_bonus=BONUS, level=level, clip="none"), BEHAVIOUR)
    seen = visits(BEHAVIOUR)
    expected = world.gradient(lambda theta: BONUS * entropy_over_states(theta, seen), POLICY)
    np.testing.assert_allclose(actual, -expected, atol=1e-9, rtol=0)
    assert np.abs(expected).max() > 1e-2


def test_even_on_policy_it_is_not_the_gradient_of_the_entropy_of_whole_answers():
    policy = world.conditionals(POLICY)
    actual = gradient_of_bonus(Objective(beta=0, entropy_bonus=BONUS, clip="none"), policy)
    of_sequences = world.gradient(
        lambda theta: BONUS * entropy_over_states(theta, visits(world.conditionals(theta))), POLICY
    )
    # What is missing: that today's token decides which states come later, and how open those are.
    frozen = world.gradient(lambda theta: BONUS * entropy_over_states(theta, visits(policy)), POLICY)
    np.testing.assert_allclose(actual, -frozen, atol=1e-9, rtol=0)
    assert np.abs(of_sequences - frozen).max() > 1e-2


def test_a_correction_weighs_every_term_but_the_bonus_and_leaves_none_of_it_out():
    table = torch.from_numpy(POLICY)
    advantages = torch.from_numpy(world.rewards(22))
    prox = log_of(world.conditionals(POLICY + 0.2))
    for correction in (DecoupledCorrection(), NoCorrection(off_policy_mask=1e-3)):
        plain = Corrected(objective=objective_of(0.0), correction=correction)
        rewarded = Corrected(objective=objective_of(BONUS), correction=correction)
        without = with_bonus(plain, table, advantages, log_prox=prox).terms
        added = with_bonus(rewarded, table, advantages, log_prox=prox).terms - without
        torch.testing.assert_close(added, torch.where(MASK, -BONUS * entropies(table), 0.0))
        assert rewarded.needs_entropy and not plain.needs_entropy
