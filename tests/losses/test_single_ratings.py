"""One rated answer a prompt: what ratings teach there, and that shuffled ones teach nothing, over all their orders."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from klimb.experience.advantages import ADVANTAGES
from klimb.losses import Inputs, build_loss
from klimb.training import RECIPES

NUM = 4
GROUPS = torch.arange(NUM)
"""Every answer is to a prompt of its own."""


def gradient(recipe: str, ratings: tuple[float, ...], kind: str, **settings: float) -> torch.Tensor:
    """Return the gradient with respect to log π of four answers of two tokens, at π = μ = ref."""
    loss = build_loss(replace(RECIPES[recipe].objective, **settings), max_new_tokens=2)
    log_mu = torch.full((NUM, 2), -1.0, dtype=torch.float64)
    leaf = log_mu.clone().requires_grad_()
    rewards = torch.tensor(ratings, dtype=torch.float64)
    advantages = ADVANTAGES[kind](rewards, GROUPS.tolist())
    inputs = Inputs(log_mu, log_mu, log_mu, advantages, torch.ones(NUM, 2, dtype=torch.bool), groups=GROUPS)
    if loss.needs_minibatch:
        loss, inputs = loss.prepare(inputs)
    out = loss(Inputs(leaf, log_mu, log_mu, inputs.advantages, inputs.mask))
    return torch.autograd.grad(out.loss, leaf)[0]


CASES = [
    ("dro", "no-baseline"),
    ("kto", "binary-feedback"),
    ("rpg-urkl", "batch-z-score"),
    ("rpg-reinforce-urkl", "batch-z-score"),
    ("rpg-reinforce-ufkl", "batch-z-score"),
]


@pytest.mark.parametrize(("recipe", "kind"), CASES)
def test_a_liked_answer_becomes_likelier_and_a_disliked_one_less_likely(recipe: str, kind: str):
    slope = gradient(recipe, (1.0, 0.0, 1.0, 0.0), kind)
    assert bool((slope[[0, 2]] < 0).all()) and bool((slope[[1, 3]] > 0).all())


@pytest.mark.parametrize(("recipe", "kind"), CASES)
def test_shuffled_ratings_teach_nothing_on_average_over_their_orders(recipe: str, kind: str):
    orders = sorted(set(permutations((1.0, 1.0, 0.0, 0.0))))
    mean = torch.stack([gradient(recipe, ratings, kind) for ratings in orders]).mean(0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-12, rtol=0)


def test_with_kto_uneven_thumbs_push_all_answers_alike_whoever_gave_them_and_weights_balance_that():
    """Three of four liked: shuffled, kto raises every answer by the same; weights of 1 to 3 take that away."""
    orders = sorted(set(permutations((1.0, 1.0, 1.0, 0.0))))
    mean = torch.stack([gradient("kto", ratings, "binary-feedback") for ratings in orders]).mean(0)
    assert float(mean.max()) < 0
    torch.testing.assert_close(mean, mean[:1, :1].expand_as(mean))
    balanced = [gradient("kto", ratings, "binary-feedback", undesirable_weight=3.0) for ratings in orders]
    torch.testing.assert_close(torch.stack(balanced).mean(0), torch.zeros_like(mean), atol=1e-12, rtol=0)
    for recipe, kind in CASES:
        if recipe != "kto":
            even = torch.stack([gradient(recipe, ratings, kind) for ratings in orders]).mean(0)
            torch.testing.assert_close(even, torch.zeros_like(even), atol=1e-12, rtol=0)
