"""The head's fit, against closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from klimb.training.reward_model.head import (
    L2_GRID,
    RatingScale,
    choose_l2,
    fit_head,
    judgement_losses,
    targets_of,
)
from klimb.training.reward_model.judgements import Pair, Rating

THUMBS = RatingScale()


def test_losses_are_those_of_bradley_and_terry_and_of_the_logistic():
    scores = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    values = torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = judgement_losses(scores[:1], scores[1:2], scores[1:], values, is_binary=True)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = [-math.log(sigmoid(0.3 + 1.2)), -math.log(sigmoid(-1.2)), -math.log(1 - sigmoid(2.0))]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    squared = judgement_losses(scores[:1], scores[1:2], scores[1:], values, is_binary=False)
    assert squared.tolist()[1:] == pytest.approx([0.5 * 2.2**2, 0.5 * 2.0**2], rel=1e-12)


@pytest.mark.parametrize("is_binary", [True, False])
def test_the_fit_is_the_minimum_that_scipy_finds(is_binary: bool):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)) * [1, 10, 0.1, 3] + [0, 5, 0, -2]
    pairs = [Pair(better=int(a), worse=int(b), kind="ratings") for a, b in rng.integers(0, 30, size=(12, 2)) if a != b]
    values = rng.integers(0, 2, size=20) if is_binary else rng.normal(size=20)
    ratings = [Rating(text=number, value=float(value)) for number, value in enumerate(values)]
    targets = targets_of(pairs, ratings, RatingScale(is_binary=is_binary))
    head = fit_head(torch.tensor(features), targets, l2=0.1)
    named = [*(p.better for p in pairs), *(p.worse for p in pairs), *range(20)]
    x = (features - features[named].mean(0)) / features[named].std(0)

    def loss(parameters: np.ndarray) -> float:
        scores = x @ parameters[:4]
        of_pairs = sum(np.log1p(np.exp(scores[p.worse] - scores[p.better])) for p in pairs)
        of_rated = scores[:20] + parameters[4]
        if is_binary:
            of_ratings = np.log1p(np.exp(-(2 * values - 1) * of_rated)).sum()
        else:
            of_ratings = (0.5 * (of_rated - values) ** 2).sum()
        return (of_pairs + of_ratings) / (len(pairs) + 20) + 0.05 * (parameters[:4] ** 2).sum()

    best = minimize(loss, np.zeros(5), tol=1e-12)
    mine = (head.weights.numpy() * features[named].std(0)).tolist()
    assert mine == pytest.approx(best.x[:4].tolist(), abs=1e-4)
    predicted = head.scores(torch.tensor(features)) + head.offset
    assert predicted.tolist() == pytest.approx((x @ best.x[:4] + best.x[4]).tolist(), abs=1e-4)


def test_a_feature_that_never_changes_does_not_break_the_fit():
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    ratings = [Rating(text=number, value=float(number % 2)) for number in range(4)]
    head = fit_head(features, targets_of([], ratings, THUMBS), l2=0.1)
    assert head.weights[0] == 0 and head.weights[1] > 0


def test_the_penalty_is_small_where_features_say_much_and_large_where_they_say_nothing():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2, size=120)
    noise = rng.normal(size=(120, 20))
    told = np.concatenate([noise, (2 * values - 1)[:, None] + 0.1 * rng.normal(size=(120, 1))], axis=1)
    ratings = [Rating(text=number, value=float(value)) for number, value in enumerate(values)]
    units = [f"u{number}" for number in range(120)]
    assert choose_l2(torch.tensor(noise), [], ratings, THUMBS, units) >= 1.0
    assert choose_l2(torch.tensor(told), [], ratings, THUMBS, units) <= 0.01
    assert choose_l2(torch.tensor(told), [], ratings, THUMBS, ["one"] * 120) == L2_GRID[-1]
