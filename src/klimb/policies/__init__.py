"""The language model: loading, log-probabilities of given tokens, LoRA, reference weights."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.policies.gradients import gradients_in_place
    from klimb.policies.head import TokenLogProbs, token_log_probs
    from klimb.policies.loading import cache_folder, load_model, load_policy
    from klimb.policies.memory import keep_freed_memory
    from klimb.policies.model_names import EMBEDDED_MODELS
    from klimb.policies.policy import Policy, ScoredTokens
    from klimb.policies.reference import Snapshot
    from klimb.policies.settings import LoraSettings, ModelSettings
    from klimb.policies.tokenizing import (
        TokenMismatch,
        UnusableSample,
        fit_sample,
        ids_of_tokens,
        why_no_room,
        with_token_ids,
    )
    from klimb.policies.value_head import ValueHead

__all__ = [
    "EMBEDDED_MODELS",
    "LoraSettings",
    "ModelSettings",
    "Policy",
    "ScoredTokens",
    "Snapshot",
    "TokenLogProbs",
    "TokenMismatch",
    "UnusableSample",
    "ValueHead",
    "cache_folder",
    "fit_sample",
    "gradients_in_place",
    "ids_of_tokens",
    "keep_freed_memory",
    "load_model",
    "load_policy",
    "token_log_probs",
    "why_no_room",
    "with_token_ids",
]

open_lazily(__name__)
