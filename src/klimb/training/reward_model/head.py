"""A linear head on features of answers: Bradley–Terry on pairs, logistic or squared on ratings, one convex problem.

The head is a direction w and an offset b. The offset is of ratings alone: no pair says anything of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from klimb.training.reward_model.judgements import Judgements, Pair, Rating

L2_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties that are tried, on the weights of standardised features, beside a mean loss a judgement."""


NUM_FOLDS = 5


MAX_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Judgements as numbers.

    Attributes:
        better: number of the better answer of each pair.
        worse: of the other.
        rated: number of each answer that has a rating.
        values: its rating: 0 or 1 for thumbs, else standardised.
        is_binary: whether ratings are thumbs.
    """

    better: Tensor
    worse: Tensor
    rated: Tensor
    values: Tensor
    is_binary: bool

    @property
    def num_judgements(self) -> int:
        """Pairs and ratings."""
        return len(self.better) + len(self.rated)


@dataclass(frozen=True)
class RatingScale:
    """How a rating becomes a target and a prediction a rating: rating = low + span·target.

    Attributes:
        low: the lower of two values; the mean of graded ratings.
        span: the upper minus the lower one; the standard deviation of graded ratings.
        is_binary: whether there are two values; the prediction is then the logistic of the score.
    """

    low: float = 0.0
    span: float = 1.0
    is_binary: bool = True


def scale_of(data: Judgements) -> RatingScale:
    """Return the scale by the ratings that are trained on."""
    if data.thumbs is not None:
        return RatingScale(data.thumbs[0], (data.thumbs[1] - data.thumbs[0]) or 1.0)
    values = np.array([rating.value for rating in data.ratings_of(held_out=False)], dtype=np.float64)
    if not values.size:
        return RatingScale()
    return RatingScale(float(values.mean()), float(values.std()) or 1.0, is_binary=False)


def targets_of(pairs: Sequence[Pair], ratings: Sequence[Rating], scale: RatingScale) -> Targets:
    """Return the judgements as numbers."""
    return Targets(
        better=torch.tensor([pair.better for pair in pairs], dtype=torch.long),
        worse=torch.tensor([pair.worse for pair in pairs], dtype=torch.long),
        rated=torch.tensor([rating.text for rating in ratings], dtype=torch.long),
        values=torch.tensor([(rating.value - scale.low) / scale.span for rating in ratings], dtype=torch.float64),
        is_binary=scale.is_binary,
    )


def judgement_losses(
    better: Float[Tensor, " pairs"],
    worse: Float[Tensor, " pairs"],
    predicted: Float[Tensor, " ratings"],
    values: Float[Tensor, " ratings"],
    *,
    is_binary: bool,
) -> Float[Tensor, " judgements"]:
    """Return the loss of each judgement.

    A pair: −log σ(s_better − s_worse). A thumb v in {0, 1}: −log σ(±s), the sign that of 2v − 1. A graded rating:
    ½·(s − v)².

    Args:
        better: scores of the better answers.
        worse: scores of the others.
        predicted: scores of rated answers, offset included.
        values: their ratings.
        is_binary: whether these are thumbs.

    Source: Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1.
    """
    of_pairs = softplus(worse - better)
    if is_binary:
        of_ratings = binary_cross_entropy_with_logits(predicted, values, reduction="none")
    else:
        of_ratings = 0.5 * (predicted - values) ** 2
    return torch.cat([of_pairs, of_ratings])


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """score = w·features, and the offset b that ratings need besides.

    Attributes:
        weights: w, one number a feature.
        offset: b.
        l2: the penalty that it was fitted with.
    """

    weights: Float[Tensor, " features"]
    offset: float
    l2: float

    def scores(self, features: Float[Tensor, "texts features"]) -> Float[Tensor, " texts"]:
        """Return w·features of each text."""
        return features.double() @ self.weights


def fit_head(features: Float[Tensor, "texts features"], targets: Targets, *, l2: float) -> Head:
    """Return the head with the least mean loss + l2/2·|w'|², w' the weights of standardised features.

    Features are centred and scaled by the texts that the targets name; the solution is unique for l2 > 0.
    """
    named = torch.cat([targets.better, targets.worse, targets.rated])
    used = features.double()[named]
    centre, spread = used.mean(dim=0), used.std(dim=0, unbiased=False)
    scale = torch.where(spread > 1e-9 * (1 + centre.abs()), spread, torch.inf)
    x = (features.double() - centre) / scale
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, offset], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = _losses(x @ weights, offset, targets).mean() + 0.5 * l2 * weights.square().sum()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        return loss

    optimizer.step(step)  # pyright: ignore[reportUnknownMemberType, reportArgumentType]
    found = weights.detach() / scale
    return Head(weights=found, offset=float(offset.detach() - found @ centre), l2=l2)


def _losses(scores: Tensor, offset: Tensor, targets: Targets) -> Tensor:
    return judgement_losses(
        scores[targets.better],
        scores[targets.worse],
        scores[targets.rated] + offset,
        targets.values,
        is_binary=targets.is_binary,
    )


def choose_l2(
    features: Float[Tensor, "texts features"],
    pairs: Sequence[Pair],
    ratings: Sequence[Rating],
    scale: RatingScale,
    units: Sequence[str],
) -> float:
    """Return the penalty of `L2_GRID` with the least loss on folds of whole units; the largest where there are none.

    Args:
        features: of each text.
        pairs: that are trained on.
        ratings: that are trained on.
        scale: of the ratings.
        units: of each text: what belongs together.
    """
    of_judgement = [units[pair.better] for pair in pairs] + [units[rating.text] for rating in ratings]
    order = {unit: number for number, unit in enumerate(dict.fromkeys(of_judgement))}
    num_folds = min(NUM_FOLDS, len(order))
    if num_folds < 2:
        return L2_GRID[-1]
    fold = {unit: number % num_folds for unit, number in order.items()}
    losses = dict.fromkeys(L2_GRID, 0.0)
    for number in range(num_folds):
        inside, outside = (
            targets_of(
                [pair for pair in pairs if (fold[units[pair.better]] == number) == is_held],
                [rating for rating in ratings if (fold[units[rating.text]] == number) == is_held],
                scale,
            )
            for is_held in (False, True)
        )
        for l2 in L2_GRID:
            head = fit_head(features, inside, l2=l2)
            scores = head.scores(features)
            losses[l2] += float(_losses(scores, torch.tensor(head.offset, dtype=torch.float64), outside).sum())
    return min(losses, key=lambda l2: losses[l2])
