"""Comments as a signal for single tokens: the same model that was shown the comment says which tokens it would keep.

With q = π(· | x with the comment, y_<t) and the policy before the batch, a token's advantage is

    A_t = log q(y_t) − log π(y_t | x, y_<t)

and what is trained on is (1 − λ)·A_reward + λ·A_t. On the policy's own answers E[A_t·∇log π] = −∇KL(π‖q) at each
prefix: reverse KL to the teacher, of the next token. Without a comment nothing changes.

Source: arXiv 2601.20802 (SDPO), there with λ = 1 as the loss's own gradient and over all tokens of the vocabulary.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.experience import Batch, Message, Sample
from klimb.experience.batches import place_scores
from klimb.policies import Policy
from klimb.policies.tokenizer import PromptError
from klimb.training.settings.feedback import FeedbackSettings
from klimb.training.sources.feedback import COMMENT

Score = Callable[[Sequence[Sample]], Sequence[Sequence[float]]]
"""From samples to the log-probability of each of their drawn tokens."""


def blend_comments(
    policy: Policy, batch: Batch, settings: FeedbackSettings, *, score_policy: Score, score_teacher: Score
) -> tuple[Batch, dict[str, float]]:
    """Return the batch with what the comments say in its advantages, and metrics.

    Rows without a comment keep their advantages. Those whose comment the policy cannot be shown (no user's message to
    put it in, or too long with it) do too, and are counted.

    Args:
        policy: renders the prompts.
        batch: with the advantages of the rewards, one a row or one a token.
        settings: the weight λ and the template.
        score_policy: the policy before the batch.
        score_teacher: who is shown the comment: it, or the reference.
    """
    rows = [row for row, sample in enumerate(batch.samples) if sample.metadata.get(COMMENT)]
    shown = {row: told for row in rows if (told := show_comment(policy, batch.samples[row], settings)) is not None}
    metrics = {"num_comments": float(len(shown)), "num_comments_unused": float(len(rows) - len(shown))}
    if not shown or not settings.comment_weight:
        return batch, metrics
    teacher = score_teacher(list(shown.values()))
    student = score_policy([batch.samples[row] for row in shown])
    by_comment = torch.zeros(batch.mask.shape)
    for row, of_teacher, of_student in zip(shown, teacher, student, strict=True):
        sample = batch.samples[row]
        gained = [one - other for one, other in zip(of_teacher, of_student, strict=True)]
        placed = place_scores(sample, gained)[: by_comment.shape[1]]
        by_comment[row, : len(placed)] = torch.tensor(placed)
    is_shown = torch.zeros(len(batch), dtype=torch.bool)
    is_shown[list(shown)] = True
    counted = by_comment[is_shown][batch.mask[is_shown]]
    metrics |= {
        "comment_advantage_mean": float(counted.mean()),
        "comment_advantage_rms": float(counted.square().mean().sqrt()),
    }
    blended = blend(batch.advantages, by_comment, is_shown, weight=settings.comment_weight)
    return replace(batch, advantages=torch.where(batch.mask, blended, 0.0)), metrics


def blend(
    advantages: Float[Tensor, "batch ..."],
    by_comment: Float[Tensor, "batch time"],
    is_shown: Bool[Tensor, " batch"],
    *,
    weight: float,
) -> Float[Tensor, "batch time"]:
    """Return (1 − λ)·A_reward + λ·A_comment a token where a comment was shown, A_reward elsewhere."""
    of_reward = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(by_comment)
    return torch.where(is_shown[:, None], (1 - weight) * of_reward + weight * by_comment, of_reward)


def show_comment(policy: Policy, sample: Sample, settings: FeedbackSettings) -> Sample | None:
    """Return the sample with the comment in its last user's message; None where the policy cannot be shown it."""
    prompt = with_comment(sample.prompt, sample.metadata[COMMENT], settings.comment_template)
    if prompt is None:
        return None
    try:
        prompt_ids = policy.render(prompt, json.loads(sample.tools) if sample.tools else ())
    except PromptError:
        return None
    room = policy.max_positions
    if room is not None and len(prompt_ids) + len(sample.response_ids) > room:
        return None
    return replace(sample, prompt=prompt, prompt_ids=prompt_ids, log_ref=None)


def with_comment(prompt: Sequence[Message], comment: str, template: str) -> tuple[Message, ...] | None:
    """Return the messages with the template in place of the last user's; None if there is none."""
    places = [number for number, message in enumerate(prompt) if message["role"] == "user"]
    if not places:
        return None
    last = places[-1]
    # Not str.format, and each slot once: what people wrote may look like a slot.
    filled = {"{question}": prompt[last]["content"], "{comment}": comment}
    text = "".join(filled.get(part, part) for part in re.split(r"(\{question\}|\{comment\})", template))
    return (*prompt[:last], {**prompt[last], "content": text}, *prompt[last + 1 :])
