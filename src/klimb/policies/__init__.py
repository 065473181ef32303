"""The language model: loading, log-probabilities of given tokens, LoRA, reference weights."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.policies.gradients import gradients_in_place
    from klimb.policies.head import TokenLogProbs, token_log_probs
    from klimb.policies.loading import load_model, load_policy
    from klimb.policies.memory import keep_freed_memory
    from klimb.policies.model_names import EMBEDDED_MODELS
    from klimb.policies.out_of_memory import DoesNotFitError, PassLimit, free_memory, is_out_of_memory
    from klimb.policies.policy import Policy, ScoredTokens
    from klimb.policies.reference import Snapshot
    from klimb.policies.settings import LoraSettings, ModelSettings
    from klimb.policies.stability import Stability, Trial, check_history
    from klimb.policies.tokenizing import (
        TokenMismatch,
        UnusableSample,
        fit_sample,
        ids_of_tokens,
        why_no_room,
        with_token_ids,
    )
    from klimb.policies.turns import (
        end_of_turn,
        history_is_kept,
        ids_between,
        message_of_turn,
        opened_thought,
        rendered_history,
    )
    from klimb.policies.value_head import ValueHead
    from klimb.working_directory import cache_folder

__all__ = [
    "EMBEDDED_MODELS",
    "DoesNotFitError",
    "LoraSettings",
    "ModelSettings",
    "PassLimit",
    "Policy",
    "ScoredTokens",
    "Snapshot",
    "Stability",
    "TokenLogProbs",
    "TokenMismatch",
    "Trial",
    "UnusableSample",
    "ValueHead",
    "cache_folder",
    "check_history",
    "end_of_turn",
    "fit_sample",
    "free_memory",
    "gradients_in_place",
    "history_is_kept",
    "ids_between",
    "ids_of_tokens",
    "is_out_of_memory",
    "keep_freed_memory",
    "load_model",
    "load_policy",
    "message_of_turn",
    "opened_thought",
    "rendered_history",
    "token_log_probs",
    "why_no_room",
    "with_token_ids",
]

open_lazily(__name__)
