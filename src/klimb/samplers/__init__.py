"""Policy in, tokens and the log_mu they were really drawn with out."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.samplers.distribution import Drawn, draw, processed_log_probs, tokens_at
    from klimb.samplers.local import LocalSampler
    from klimb.samplers.sampler import Completion, Sampler, StreamingSampler

__all__ = [
    "Completion",
    "Drawn",
    "LocalSampler",
    "Sampler",
    "StreamingSampler",
    "draw",
    "processed_log_probs",
    "tokens_at",
]

open_lazily(__name__)
