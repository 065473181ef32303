"""How likely a policy makes the rows of a log that are held out."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from klimb.experience import Sample
from klimb.policies import Policy
from klimb.training.minibatches import MicroBatchTokens, score_samples
from klimb.training.sources.offline import OfflineSource

ROWS_AT_ONCE = 256
"""Held-out rows that are scored, and in memory, at once."""


def read_held_out(logs: Sequence[OfflineSource]) -> list[tuple[Sample, str]]:
    """Return the held-out rows of all logs, each with what was held out whole with it."""
    return [each for logged in logs for each in logged.held_out_samples()]


def score_held_out(policy: Policy, samples: Sequence[Sample], *, max_tokens: MicroBatchTokens) -> Mapping[str, float]:
    """Return the mean log-probability of each sample, by its id, in nats per drawn token: of all that could be said."""
    found: dict[str, float] = {}
    for start in range(0, len(samples), ROWS_AT_ONCE):
        part = samples[start : start + ROWS_AT_ONCE]
        scores = score_samples(policy, part, max_tokens=max_tokens, on_support=False)
        found |= {sample.sample_id: fmean(score) for sample, score in zip(part, scores, strict=True)}
    return found
