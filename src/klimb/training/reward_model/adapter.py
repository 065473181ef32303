"""Train a low-rank adapter of a classifier's body together with its head, from the head's own solution on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from klimb.training.reward_model.classifier import score_texts
from klimb.training.reward_model.head import RatingScale, judgement_losses
from klimb.training.reward_model.judgements import Pair, Rating
from klimb.training.reward_model.settings import RewardModelSettings

MAX_GRAD_NORM = 1.0


Judgement = Pair | Rating


def train_adapter(
    model: PreTrainedModel,
    tokens: Sequence[Sequence[int]],
    judgements: Sequence[Judgement],
    scale: RatingScale,
    settings: RewardModelSettings,
    *,
    offset: float,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> tuple[PreTrainedModel, float]:
    """Return the classifier with the adapter merged into its weights, and the offset of its ratings.

    AdamW with a learning rate that falls to 0 along a line, on the mean loss of a minibatch's judgements, gradients
    clipped to a norm of 1.

    Args:
        model: a classifier; its head is where it begins.
        tokens: of each text.
        judgements: that are trained on.
        scale: of the ratings.
        settings: rank, rate, epochs, minibatch, seed.
        offset: where that of the ratings begins.
        progress: told the step, how many there are, and the loss.
    """
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        task_type="SEQ_CLS", r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", lora_dropout=0
    )
    adapted = cast(Any, get_peft_model(model, config))
    adapted.train()
    bias = nn.Parameter(torch.tensor(offset, device=model.device))
    trained = [*(weight for weight in adapted.parameters() if weight.requires_grad), bias]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    size = settings.batch_size
    num_steps = settings.num_epochs * -(-len(judgements) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)
    order, step = random.Random(settings.seed), 0
    for _ in range(settings.num_epochs):
        shuffled = order.sample(list(judgements), len(judgements))
        for start in range(0, len(shuffled), size):
            loss = _mean_loss(adapted, tokens, shuffled[start : start + size], scale, bias)
            optimizer.zero_grad()
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
            optimizer.step()  # pyright: ignore[reportUnknownMemberType]
            schedule.step()
            step += 1
            progress(step, num_steps, loss.item())
    return adapted.merge_and_unload().eval(), bias.item()


def _mean_loss(
    model: Any, tokens: Sequence[Sequence[int]], judgements: Sequence[Judgement], scale: RatingScale, bias: Tensor
) -> Tensor:
    pairs = [each for each in judgements if isinstance(each, Pair)]
    ratings = [each for each in judgements if isinstance(each, Rating)]
    named = [*(pair.better for pair in pairs), *(pair.worse for pair in pairs), *(rating.text for rating in ratings)]
    scores = score_texts(model, [tokens[text] for text in named])
    better, worse, rated = scores.split([len(pairs), len(pairs), len(ratings)])
    values = torch.tensor([(rating.value - scale.low) / scale.span for rating in ratings], device=scores.device)
    return judgement_losses(better, worse, rated + bias, values.float(), is_binary=scale.is_binary).mean()
