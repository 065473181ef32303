"""What a sample takes over from the completions that a sampler drew for it."""

from collections.abc import Sequence
from dataclasses import replace

from klimb.experience import Sample
from klimb.samplers.sampler import Completion


def attach_draws(sample: Sample, completions: Sequence[Completion], *, with_log_model: bool) -> Sample:
    """Return the sample with the log-probabilities and the support of its drawn tokens, turn after turn.

    Args:
        sample: whose response these completions are.
        completions: one a turn of the policy.
        with_log_model: take the sampler's log-probabilities under the policy itself as `log_ref`. They are over all
            tokens: with a recorded support, `log_ref` is left to whoever scores on it.

    Raises:
        ValueError: some turns come with a support and others without.
    """
    supports = [completion.support for completion in completions]
    recorded = [support for support in supports if support is not None]
    if recorded and len(recorded) < len(supports):
        raise ValueError(
            f"sample {sample.sample_id}: {len(recorded)} of its {len(supports)} turns come with a support; a sampler "
            "records it for all turns of a conversation or for none"
        )
    takes_log_model = with_log_model and not recorded
    return replace(
        sample,
        log_mu=tuple(value for completion in completions for value in completion.log_mu),
        log_mu_provenance="sampler",
        log_ref=tuple(value for completion in completions for value in completion.log_model)
        if takes_log_model
        else None,
        support=tuple(tuple(kept) for support in recorded for kept in support) if recorded else None,
    )


def check_support(samples: Sequence[Sample]) -> None:
    """Return if every sample that was to come with its support does.

    Raises:
        ValueError: the sampler recorded none.
    """
    bare = [sample for sample in samples if sample.response_ids and sample.support is None]
    if bare:
        raise ValueError(
            f"sampling.record_support is on, and {len(bare)} of {len(samples)} samples came without a support (the "
            f"first is {bare[0].sample_id}): this sampler does not record which tokens could be drawn. Use klimb's own "
            "(sampling.sampler = 'local'), return Completion.support, or turn record_support off"
        )
