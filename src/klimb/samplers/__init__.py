"""Policy in, tokens and the log_mu they were really drawn with out."""

from klimb.samplers.completions import Completion, Sampler, StreamingSampler
from klimb.samplers.distribution import Drawn, draw, processed_log_probs, tokens_at
from klimb.samplers.gap import sampler_trainer_gap
from klimb.samplers.local import LocalSampler

__all__ = [
    "Completion",
    "Drawn",
    "LocalSampler",
    "Sampler",
    "StreamingSampler",
    "draw",
    "processed_log_probs",
    "sampler_trainer_gap",
    "tokens_at",
]
