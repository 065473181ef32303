"""Policy in, tokens and the log_mu they were really drawn with out."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.samplers.completion import Completion
    from klimb.samplers.conversations import converse_in_rounds
    from klimb.samplers.distribution import Drawn, draw, processed_log_probs, tokens_at
    from klimb.samplers.local import LocalSampler
    from klimb.samplers.sampler import Answer, ConversationSampler, Dialogue, Sampler, StreamingSampler

__all__ = [
    "Answer",
    "Completion",
    "ConversationSampler",
    "Dialogue",
    "Drawn",
    "LocalSampler",
    "Sampler",
    "StreamingSampler",
    "converse_in_rounds",
    "draw",
    "processed_log_probs",
    "tokens_at",
]

open_lazily(__name__)
