"""From judgements to a reward model, with what it and the length of an answer alone say of every answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from klimb.findings.reward_model import HeldOutPairs, HeldOutRatings
from klimb.policies import Policy
from klimb.training.reward_model.adapter import train_adapter
from klimb.training.reward_model.classifier import (
    head_of,
    make_classifier,
    portions,
    read_features,
    score_texts,
    tokens_of,
)
from klimb.training.reward_model.head import Head, RatingScale, choose_l2, fit_head, scale_of, targets_of
from klimb.training.reward_model.judgements import Judgements
from klimb.training.reward_model.settings import RewardModelSettings

LEAST_JUDGEMENTS = 2
"""To train on: with fewer there is nothing that could differ."""


TOO_LONG = "answers that are longer than the model reads, or that its chat template refuses"


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRewardModel:
    """A reward model and what came with it.

    Attributes:
        model: the classifier.
        data: the judgements, without answers that the model cannot be shown.
        scale: of the ratings.
        offset: that ratings need besides the logit.
        l2: the head's penalty.
        logits: of each text.
        by_length: a head on the logarithm of the length alone, fitted in the same way.
    """

    model: PreTrainedModel
    data: Judgements
    scale: RatingScale
    offset: float
    l2: float
    logits: Float[Tensor, " texts"]
    by_length: Head

    def predict(self, logits: Tensor, offset: float) -> Tensor:
        """Return ratings in their own units: low + span·σ(logit + offset) for thumbs, else without the σ."""
        scores = logits.double() + offset
        return self.scale.low + self.scale.span * (scores.sigmoid() if self.scale.is_binary else scores)

    def held_out_pairs(self) -> HeldOutPairs:
        """Return how far apart the model, and the length, put the answers of each held-out pair."""
        pairs = self.data.pairs_of(held_out=True)
        lengths = self.by_length.scores(length_features(self.data))

        def margins(scores: Tensor) -> tuple[float, ...]:
            return tuple(float(scores[pair.better] - scores[pair.worse]) for pair in pairs)

        return HeldOutPairs(
            margins=margins(self.logits.double()),
            length_margins=margins(lengths),
            units=tuple(self.data.texts[pair.better].unit for pair in pairs),
            kinds=tuple(pair.kind for pair in pairs),
            sources=tuple(self.data.texts[pair.better].source for pair in pairs),
        )

    def held_out_ratings(self) -> HeldOutRatings:
        """Return each held-out rating beside what the model, the length and a constant say."""
        ratings, texts = self.data.ratings_of(held_out=True), self.data.texts
        rows = [rating.text for rating in ratings]
        lengths = self.by_length.scores(length_features(self.data))
        learnt = [rating.value for rating in self.data.ratings_of(held_out=False)]
        return HeldOutRatings(
            values=tuple(rating.value for rating in ratings),
            scores=tuple(self.logits[rows].tolist()),
            predicted=tuple(self.predict(self.logits, self.offset)[rows].tolist()),
            length_scores=tuple(lengths[rows].tolist()),
            length_predicted=tuple(self.predict(lengths, self.by_length.offset)[rows].tolist()),
            constant=math.fsum(learnt) / len(learnt) if learnt else math.nan,
            units=tuple(texts[row].unit for row in rows),
            sources=tuple(texts[row].source for row in rows),
            thumbs=self.data.thumbs,
        )


Progress = Callable[[str], None]


def train_reward_model(
    policy: Policy, data: Judgements, settings: RewardModelSettings, *, progress: Progress = lambda line: None
) -> TrainedRewardModel:
    """Fit the head on what is not held out and, if asked, train an adapter from there.

    Raises:
        ValueError: the model has no such classifier, or too little is left to train on.
    """
    model = make_classifier(policy)
    data, tokens = _readable(policy, data)
    pairs, ratings = data.pairs_of(held_out=False), data.ratings_of(held_out=False)
    if len(pairs) + len(ratings) < LEAST_JUDGEMENTS:
        raise ValueError(
            f"{len(pairs)} pairs and {len(ratings)} ratings are not held out, and nothing can be learnt from that; "
            "collect more, or hold out less (--held-out-fraction)"
        )
    scale, units = scale_of(data), [text.unit for text in data.texts]
    targets = targets_of(pairs, ratings, scale)
    progress(f"reading {len(tokens)} answers")
    features = read_features(model, tokens)
    head = fit_head(features, targets, l2=choose_l2(features, pairs, ratings, scale, units))
    with torch.no_grad():
        head_of(model).weight.copy_(head.weights.float()[None])
    offset = head.offset
    if settings.train == "lora":
        model, offset = train_adapter(
            model,
            tokens,
            [*pairs, *ratings],
            scale,
            settings,
            offset=offset,
            progress=lambda step, steps, loss: progress(f"step {step} of {steps}, loss {loss:.3f}"),
        )
    lengths = length_features(data)
    return TrainedRewardModel(
        model=model,
        data=data,
        scale=scale,
        offset=offset,
        l2=head.l2,
        logits=score_all(model, tokens),
        by_length=fit_head(lengths, targets, l2=choose_l2(lengths, pairs, ratings, scale, units)),
    )


def _readable(policy: Policy, data: Judgements) -> tuple[Judgements, list[list[int]]]:
    tokens: list[list[int]] = []
    refused: list[int] = []
    room = math.inf if policy.max_positions is None else policy.max_positions
    for number, text in enumerate(data.texts):
        try:
            ids = tokens_of(policy.tokenizer, text.messages)
        except ValueError:
            ids = []
        if 0 < len(ids) <= room:
            tokens.append(ids)
        else:
            refused.append(number)
    return data.without(set(refused), TOO_LONG), tokens


def length_features(data: Judgements) -> Float[Tensor, "texts 1"]:
    """Return log(1 + characters) of each answer."""
    return torch.tensor([[math.log1p(text.num_characters)] for text in data.texts], dtype=torch.float64)


def score_all(model: PreTrainedModel, tokens: Sequence[Sequence[int]]) -> Float[Tensor, " texts"]:
    """Return the logit of each text."""
    found = torch.empty(len(tokens))
    order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
    with torch.inference_mode():
        for rows in portions(order, [len(each) for each in tokens]):
            found[rows] = score_texts(model, [tokens[row] for row in rows]).cpu()
    return found
