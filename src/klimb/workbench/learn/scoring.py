"""How much likelier a candidate makes held-out answers than the policy that serves."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum

from klimb.experience import Sample
from klimb.policies import ModelSettings, Policy, load_model
from klimb.policies.tokenizing import UnusableSample, fit_sample
from klimb.training.minibatches import MicroBatchTokens, score_samples, tokens_at_once

logger = logging.getLogger(__name__)


ANSWERS_AT_ONCE = 256


def score_answers(
    model: ModelSettings, path: str, samples: Sequence[Sample], *, micro_batch_tokens: MicroBatchTokens
) -> Mapping[str, float]:
    """Return log π of each whole answer, in nats, at the temperature that it was drawn at.

    An answer that cannot be given to the policy (another tokenizer's, too long) is left out and named in the log.

    Args:
        model: how a model is loaded.
        path: of the model.
        samples: answers.
        micro_batch_tokens: that go through the model at once.
    """
    if not samples:
        return {}
    policy = load_model(replace(model, path=path))
    most = tokens_at_once(micro_batch_tokens, policy.device)
    found: dict[str, float] = {}
    for temperature, drawn in _by_temperature(samples).items():
        policy.temperature = temperature
        fitting = [each for sample in drawn if (each := _fitted(policy, sample)) is not None]
        for start in range(0, len(fitting), ANSWERS_AT_ONCE):
            part = fitting[start : start + ANSWERS_AT_ONCE]
            scores = score_samples(policy, part, max_tokens=most)
            found |= {sample.sample_id: fsum(score) for sample, score in zip(part, scores, strict=True)}
    return found


def score_changes(
    model: ModelSettings,
    *,
    serving: str,
    candidate: str,
    samples: Sequence[Sample],
    micro_batch_tokens: MicroBatchTokens,
) -> Mapping[str, float]:
    """Return log π(candidate) − log π(serving) of each whole answer that both can be given, in nats."""
    before, after = (
        score_answers(model, path, samples, micro_batch_tokens=micro_batch_tokens) for path in (serving, candidate)
    )
    return {sample_id: after[sample_id] - before[sample_id] for sample_id in before if sample_id in after}


def _by_temperature(samples: Sequence[Sample]) -> Mapping[float, list[Sample]]:
    found: dict[float, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[1.0 if sample.sampling is None else sample.sampling.scoring_temperature].append(sample)
    return found


def _fitted(policy: Policy, sample: Sample) -> Sample | None:
    try:
        return fit_sample(policy, sample)
    except UnusableSample as error:
        logger.warning("%s: it cannot judge", error)
        return None
