"""What an off-policy estimate is made of: rewards, log-ratios and prompts, as arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.conversations import is_cut

Array = NDArray[np.float64]


USABLE_PROVENANCE = ("sampler", "recomputed")
"""Where a log μ must come from for a ratio to mean something."""


MAX_LOG_W = 300.0
"""A log-weight is bounded to ± this, in nats, so that squares of weights stay finite numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedData:
    """Responses of a behaviour policy μ with their rewards, and how likely the policy π makes them.

    Attributes:
        rewards: one a response, not discounted.
        token_log_w: `[samples, time]`, log π − log μ of each drawn token in nats; anything where the mask is False.
            What was put in between the turns of a conversation is no part of it: it has the same law under π and μ.
        mask: `[samples, time]`, True where a response has a drawn token.
        prompt_index: which prompt a response answers, 0 to `num_prompts` − 1.
        is_cut: True where the response was cut off at its longest length, or the conversation by a limit.
        reward_range: the least and the largest reward that there can be; None if that is not known.
        token_rewards: `[samples, time]`, rewards by token that add up to `rewards`; None when a reward belongs to a
            whole response, as if it came with the last token.
        notes: what was noticed while the arrays were made, as warnings for people.
    """

    rewards: Array
    token_log_w: Array
    mask: NDArray[np.bool_]
    prompt_index: NDArray[np.int64]
    is_cut: NDArray[np.bool_]
    token_rewards: Array | None = None
    reward_range: tuple[float, float] | None = None
    model_scores: Array | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_shapes(self)
        finite = (np.isfinite(self.rewards).all(), np.isfinite(self.token_log_w[self.mask]).all())
        if not all(finite):
            name = "rewards" if not finite[0] else "token_log_w"
            raise ValueError(f"{name} has values that are not finite; an unrated sample is left out, never put as NaN")
        _check_range(self)
        if self.token_rewards is not None:
            total = np.where(self.mask, self.token_rewards, 0.0).sum(axis=1)
            if not np.allclose(total, self.rewards, rtol=1e-9, atol=1e-9):
                row = int(np.abs(total - self.rewards).argmax())
                raise ValueError(
                    f"token_rewards of sample {row} add up to {total[row]}, and its reward is {self.rewards[row]}; "
                    "they must be the same"
                )

    @property
    def num_samples(self) -> int:
        """Number of responses."""
        return len(self.rewards)

    @cached_property
    def num_prompts(self) -> int:
        """Number of prompts; responses to one prompt are not independent pieces of evidence."""
        return int(self.prompt_index.max()) + 1

    @cached_property
    def seen_range(self) -> tuple[float, float]:
        """The least and the largest reward seen."""
        return float(self.rewards.min()), float(self.rewards.max())

    @cached_property
    def bounds(self) -> tuple[float, float] | None:
        """The rewards' range where it is known: the one given, or 0 to 1 where every reward is 0 or 1."""
        if self.reward_range is not None:
            return self.reward_range
        return (0.0, 1.0) if bool(np.isin(self.rewards, (0.0, 1.0)).all()) else None

    @cached_property
    def log_w(self) -> Array:
        """Log-ratio of each whole response: Σ over its tokens of log π − log μ, in nats."""
        return np.where(self.mask, self.token_log_w, 0.0).sum(axis=1)

    @cached_property
    def weights(self) -> Array:
        """Of each whole response: w = π/μ; its logarithm is bounded to ±`MAX_LOG_W`."""
        return np.exp(np.clip(self.log_w, -MAX_LOG_W, MAX_LOG_W))

    @cached_property
    def relative_weights(self) -> Array:
        """Of each response: w over the largest w, at least e⁻⁶⁰⁰; finite however large w is, for self-normalising."""
        return np.exp(np.maximum(self.log_w - self.log_w.max(), -2 * MAX_LOG_W))

    @cached_property
    def prefix_weights(self) -> Array:
        """`[samples, time]`: π/μ of the response up to and including a token; 0 where there is none."""
        log_prefix = np.cumsum(np.where(self.mask, self.token_log_w, 0.0), axis=1)
        return np.where(self.mask, np.exp(np.clip(log_prefix, -MAX_LOG_W, MAX_LOG_W)), 0.0)

    def by_prompt(self, values: Array) -> Array:
        """Return sums of the values over the responses of each prompt."""
        return np.bincount(self.prompt_index, weights=values).astype(np.float64)

    @property
    def num_tokens(self) -> Array:
        """Number of drawn tokens of each response."""
        return self.mask.sum(axis=1).astype(np.float64)


def logged_data(
    samples: Sequence[Sample],
    log_pi: Sequence[Sequence[float]],
    *,
    reward_range: tuple[float, float] | None = None,
    model_scores: Sequence[tuple[float, float]] | None = None,
) -> LoggedData:
    """Return the samples as arrays; those that no estimate can use are left out and counted in `notes`.

    Left out: a sample without reward (unrated is not 0), without tokens, whose log_mu is neither recorded while
    drawing nor recomputed by the weights that drew it, or with a number that is none; and a sample that is one turn of
    a conversation, whose reward hangs on the others' ratios too. Prompts are told apart by their token ids.

    Args:
        samples: with token ids.
        log_pi: for each sample, log-probability in nats of each drawn token under π, on the recorded support where
            there is one.
        reward_range: the least and the largest reward that there can be, if that is known.
        model_scores: of each sample a reward model's score, and its mean score of fresh responses to the same prompt.

    Raises:
        ValueError: not one row a sample, no sample can be used, or a reward is out of the range.
    """
    if len(samples) != len(log_pi):
        raise ValueError(f"{len(samples)} samples for {len(log_pi)} rows of log_pi; give one row a sample")
    left_out: dict[str, list[str]] = {}
    kept: list[tuple[Sample, Array]] = []
    by_model: list[tuple[float, float]] = []
    for sample, row, scores in zip(samples, log_pi, model_scores or [(0.0, 0.0)] * len(samples), strict=True):
        reason = reason_against(sample) or _reason_against_row(sample, row)
        if reason:
            left_out.setdefault(reason, []).append(sample.sample_id)
        else:
            kept.append((sample, np.asarray(row, dtype=np.float64) - np.asarray(sample.log_mu, dtype=np.float64)))
            by_model.append(scores)
    ordered = sorted(left_out.items(), key=lambda item: -len(item[1]))
    if not kept:
        reasons = "; ".join(f"{len(ids)} {reason}" for reason, ids in ordered) or "there are none"
        raise ValueError(
            f"no sample can be used for an estimate ({reasons}). Needed are a finite reward and log_mu recorded by the "
            "sampler or recomputed with the weights that drew the response (klimb experience score)"
        )
    used = [sample for sample, _ in kept]
    return LoggedData(
        rewards=np.array([sample.reward for sample in used], dtype=np.float64),
        **_padded([log_w for _, log_w in kept]),
        prompt_index=_prompt_index(used),
        is_cut=np.array([is_cut(sample) for sample in used]),
        reward_range=reward_range,
        model_scores=None if model_scores is None else np.array(by_model, dtype=np.float64),
        notes=(*(_left_out_note(*item, len(samples)) for item in ordered), *_support_notes(used)),
    )


def reason_against(sample: Sample) -> str:
    """Why no estimate can use the sample; empty if one can."""
    if sample.reward is None:
        return WITHOUT_REWARD
    if not math.isfinite(sample.reward):
        return INFINITE_REWARD
    if sample.log_mu is None or sample.log_mu_provenance not in USABLE_PROVENANCE:
        return f"with log_mu {sample.log_mu_provenance}"
    if not sample.num_drawn:
        return WITHOUT_IDS
    if sample.episode:
        return ONE_TURN
    if not np.isfinite(sample.log_mu).all():
        return INFINITE_LOG_MU
    return ""


def _reason_against_row(sample: Sample, log_pi: Sequence[float]) -> str:
    if len(log_pi) != sample.num_drawn:
        return OTHER_LENGTH
    return "" if np.isfinite(np.asarray(log_pi, dtype=np.float64)).all() else INFINITE_LOG_PI


def _padded(rows: Sequence[Array]) -> dict[str, NDArray[Any]]:
    width = max(map(len, rows))
    return {
        "token_log_w": np.array([np.pad(row, (0, width - len(row))) for row in rows], dtype=np.float64),
        "mask": np.array([np.arange(width) < len(row) for row in rows]),
    }


def _prompt_index(samples: Sequence[Sample]) -> NDArray[np.int64]:
    numbers: dict[object, int] = {}
    index = [numbers.setdefault(sample.prompt_ids or str(sample.prompt), len(numbers)) for sample in samples]
    return np.array(index, dtype=np.int64)


WITHOUT_REWARD = "without a reward"
WITHOUT_IDS = "without token ids"
ONE_TURN = "that are one turn of a conversation each"
INFINITE_REWARD = "with a reward that is not finite"
INFINITE_LOG_MU = "with a log_mu that is not finite"
INFINITE_LOG_PI = "with a log_pi that is not finite"
OTHER_LENGTH = "with a log_pi of another length than the response"


WHAT_TO_DO = {
    WITHOUT_REWARD: "if ratings are not missing at random, neither is the error",
    WITHOUT_IDS: "give them ids with the tokenizer of the model",
    ONE_TURN: "the reward is the whole conversation's; log it as one sample, with a template that keeps its history",
    INFINITE_REWARD: "score the response again, or give it no reward",
    INFINITE_LOG_MU: "a drawn token has a probability above 0: recompute log_mu (klimb experience score)",
    INFINITE_LOG_PI: "score the response again with the model; π gives every token a probability above 0",
    OTHER_LENGTH: "score the response again with the model: one number a drawn token",
}
"""Of each reason why a sample is left out, but for the origin of its log_mu."""


NUM_NAMED = 3
"""Samples named in the note on those that are left out."""


def _left_out_note(reason: str, ids: Sequence[str], total: int) -> str:
    default = "a ratio to a guessed or unknown behaviour policy means nothing (klimb experience score recomputes it)"
    more = f" and {len(ids) - NUM_NAMED} more" if len(ids) > NUM_NAMED else ""
    names = ", ".join(ids[:NUM_NAMED]) + more
    return f"{len(ids)} of {total} samples are left out: {reason} ({names}); {WHAT_TO_DO.get(reason, default)}."


def _support_notes(samples: Sequence[Sample]) -> list[str]:
    settings = [sample.sampling for sample in samples]
    known = [s for s in settings if s is not None]
    num_cut_off = sum(sample.lacks_support for sample in samples)
    num_recorded = sum(sample.support is not None and not sample.lacks_support for sample in samples)
    num_unknown = len(settings) - len(known)
    notes: list[str] = []
    if num_cut_off:
        notes.append(
            f"{num_cut_off} of {len(samples)} samples were drawn with top-p, top-k, min-p or greedily, or kept from "
            "ending, and which tokens could be drawn is not recorded: responses that were never drawn may be likely "
            "under π, so no estimate here can see what they are worth."
        )
    if num_recorded:
        notes.append(
            f"{num_recorded} of {len(samples)} samples were drawn with tokens cut off, and their support is recorded: "
            "there the estimate is that of π renormalised on the tokens that could be drawn, not of π as a whole."
        )
    if num_unknown:
        notes.append(
            f"{num_unknown} of {len(samples)} samples do not say how they were drawn; if tokens were cut off (top-p, "
            "top-k), no estimate here can see what the responses that were never drawn are worth."
        )
    return notes


def _check_range(data: LoggedData) -> None:
    if data.reward_range is None:
        return
    low, high = data.reward_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"reward_range must be two finite numbers, the lower one first, got {low} and {high}")
    outside = (data.rewards < low) | (data.rewards > high)
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} rewards are outside of reward_range, {low:g} to {high:g}; the first is "
            f"{data.rewards[outside][0]:g}. Give the range that every reward is in, or none"
        )


def _check_shapes(data: LoggedData) -> None:
    num = len(data.rewards)
    if not num:
        raise ValueError("there are no samples to estimate from")
    shapes = {
        "rewards": (data.rewards.shape, (num,)),
        "mask": (data.mask.shape, data.token_log_w.shape),
        "token_log_w": (data.token_log_w.shape[:1], (num,)),
        "prompt_index": (data.prompt_index.shape, (num,)),
        "is_cut": (data.is_cut.shape, (num,)),
    }
    if data.model_scores is not None:
        shapes["model_scores"] = (data.model_scores.shape, (num, 2))
    if data.token_rewards is not None:
        shapes["token_rewards"] = (data.token_rewards.shape, data.token_log_w.shape)
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            raise ValueError(f"{name} has shape {shape}, expected {expected}")
    if data.prompt_index.min() != 0 or len(np.unique(data.prompt_index)) != int(data.prompt_index.max()) + 1:
        raise ValueError("prompt_index must hold every number from 0 to the number of prompts - 1")
