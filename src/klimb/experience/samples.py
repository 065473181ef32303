"""The vocabulary of experience: what was asked, what was answered, and who produced it.

A sample is one response. Its behaviour log-probabilities `log_mu` never travel without their provenance,
because a ratio computed from the wrong ones is silently wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import configurable

Provenance = Literal["sampler", "recomputed", "estimated", "absent"]
"""Where `log_mu` comes from: recorded while drawing, scored again by the same weights, guessed, or not known."""


Source = Literal["rollout", "replay", "log", "feedback"]


FinishReason = Literal["stop", "length", "unknown"]
"""`stop`: the model ended its text (the end token is part of the response). `length`: it was cut off.
`unknown`: who recorded it did not say; never what a sampler of ours reports."""


MOST_REWARD = 1e15
"""Largest magnitude of a reward. Squares of rewards, and sums of those over any batch, are then numbers in float32."""


class Message(TypedDict):
    """One chat message. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@configurable
@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are drawn; together with the weights they define the behaviour policy μ."""

    temperature: Annotated[float, Ge(0), Le(100)] = 1.0
    """Softmax temperature; 0 draws the likeliest token (a point mass: its log_mu is 0), and training needs more."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    top_k: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Keep this many most likely tokens; 0 keeps all."""
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Keep tokens at least this share as likely as the likeliest; 0 keeps all."""
    max_new_tokens: Annotated[int, Ge(1), Le(1_000_000)] = 64
    """An answer is cut after this many tokens."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be finite and >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}; 1 keeps every token")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}; 0 keeps every token")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must be in [0, 1), got {self.min_p}; 0 keeps every token")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")

    @property
    def is_untruncated(self) -> bool:
        """True when any token can be drawn: a temperature above 0, nothing cut off."""
        return self.temperature > 0 and self.top_p == 1 and self.top_k == 0 and self.min_p == 0

    @property
    def scoring_temperature(self) -> float:
        """The temperature at which a model's log-probability compares with μ: its own, and 1 for a point mass."""
        return self.temperature or 1.0

    def draws_at(self, temperature: float) -> bool:
        """Return True when μ is softmax(logits / temperature) itself: π, for a policy of that temperature."""
        return self.is_untruncated and self.temperature == temperature


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response with everything a loss, a report or an auditor needs to know of it.

    Attributes:
        sample_id: unique within a store.
        group_id: responses to the same prompt drawn together share it; baselines are computed within it.
        prompt: the chat messages.
        prompt_ids: token ids of the rendered prompt; empty when only the text was recorded.
        response: decoded text, without special tokens.
        response_ids: token ids, the end token included when `finish_reason` is `stop`; empty when only the text was
            recorded.
        reward: None when no reward could be computed; such a sample is never averaged in.
        reward_parts: named parts, e.g. `{"correct": 1.0, "overlong": -0.2}`.
        reward_reason: one line for people: why this reward.
        log_mu: log-probability in nats of each response token under μ, settings included; None when absent.
        log_ref: log-probability (log-mass, if unnormalised) under the reference, once scored.
        policy_version: number of optimiser steps the sampling weights had seen.
        created_at: seconds since the epoch.
        tokenizer: fingerprint of the tokenizer that the ids belong to (`Policy.fingerprint`); empty when not known.
        raw: the row that an importer made this sample from, as JSON, so that any mapping can be redone.
    """

    sample_id: str
    group_id: str
    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    response: str
    response_ids: tuple[int, ...]
    finish_reason: FinishReason
    reward: float | None = None
    reward_parts: Mapping[str, float] = field(default_factory=dict[str, float])
    reward_reason: str = ""
    log_mu: tuple[float, ...] | None = None
    log_mu_provenance: Provenance = "absent"
    log_ref: tuple[float, ...] | None = None
    sampling: SamplingSettings | None = None
    model: str = ""
    policy_version: int = 0
    source: Source = "rollout"
    created_at: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    tokenizer: str = ""
    raw: str = ""

    def __post_init__(self) -> None:
        if (self.log_mu is None) != (self.log_mu_provenance == "absent"):
            raise ValueError(
                f"sample {self.sample_id}: log_mu is {'absent' if self.log_mu is None else 'given'} but its "
                f"provenance is {self.log_mu_provenance!r}; state where the log-probabilities come from"
            )
        for name in ("log_mu", "log_ref"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.response_ids):
                raise ValueError(
                    f"sample {self.sample_id}: {name} has {len(values)} values for {len(self.response_ids)} "
                    "response tokens; position t must hold the log-probability of token t"
                )
