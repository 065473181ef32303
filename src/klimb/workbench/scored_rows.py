"""Logged samples with their log-probabilities under a model; what the model cannot score is counted with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from klimb.experience import Sample
from klimb.policies import Policy
from klimb.policies.tokenizing import TokenMismatch, with_token_ids
from klimb.training import score_samples

MAX_TOKENS = 8192
"""Prompt and response tokens, padding included, that go through the model at once."""


@dataclass
class Refusals:
    """How many samples were refused for which reason, and one example each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Counts one."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, example)

    def in_words(self) -> list[str]:
        """One sentence a reason, most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        return [f"{count}: {reason}. The first: {self.examples[reason]}" for reason, count in ordered]


def scored_rows(
    policy: Policy, samples: Sequence[Sample], refusals: Refusals
) -> list[tuple[Sample, tuple[float, ...]]]:
    """The samples with token ids, each with the log-probability of its response tokens at temperature 1, in order.

    Those whose ids and text do not fit the policy's tokenizer, or that are longer than its context, are left out and
    counted in `refusals`.
    """
    ready = [sample for sample in (_with_ids(policy, sample, refusals) for sample in samples) if sample is not None]
    if not ready:
        return []
    # Scoring reads ids alone; what else a log brings must neither stop it nor change it.
    bare = [replace(sample, log_mu=None, log_mu_provenance="absent", log_ref=None) for sample in ready]
    return list(zip(ready, score_samples(policy, bare, max_tokens=MAX_TOKENS), strict=True))


def _with_ids(policy: Policy, sample: Sample, refusals: Refusals) -> Sample | None:
    try:
        complete = with_token_ids(policy, sample)
    except TokenMismatch as error:
        refusals.add("text and token ids are not of this model's tokenizer", str(error))
        return None
    except ValueError as error:
        refusals.add("the prompt cannot be rendered", f"sample {sample.sample_id}: {error}")
        return None
    length, room = len(complete.prompt_ids) + len(complete.response_ids), policy.max_positions
    if room is not None and length > room:
        refusals.add(f"longer than the model's context of {room} tokens", f"sample {sample.sample_id}, {length} tokens")
        return None
    return complete
