"""Samples made of numbers: what a model would have drawn, without a model."""

from dataclasses import replace

import numpy as np

from klimb.experience.samples import Message, Sample, SamplingSettings

END = 2


def made(
    number: int = 0,
    *,
    group: str = "g",
    prompt: str = "what is asked",
    response: str = "an answer",
    ids: tuple[int, ...] = (11, 12, END),
    log_mu: tuple[float, ...] | None = (-1.0, -2.0, -0.5),
    reward: float | None = 1.0,
    **others: object,
) -> Sample:
    """One sample; any field can be given."""
    return replace(
        Sample(
            sample_id=f"s{number:05d}",
            group_id=group,
            prompt=(Message(role="user", content=prompt),),
            prompt_ids=(1, 5, 6),
            response=response,
            response_ids=ids,
            finish_reason="stop",
            reward=reward,
            log_mu=log_mu,
            log_mu_provenance="absent" if log_mu is None else "sampler",
            sampling=SamplingSettings(),
            model="m",
            tokenizer="t",
            created_at=1000.0 + number,
        ),
        **others,
    )


def drawn(num_prompts: int = 24, num_samples: int = 8, *, noise: float = 0.01, seed: int = 0):
    """Groups with pass rates around one half, and what the policy gives their tokens: `(samples, log_pi)`.

    log_mu is log_pi with normal noise. Prompts and answers differ from each other.
    """
    generator = np.random.default_rng(seed)
    samples: list[Sample] = []
    log_pi: list[tuple[float, ...]] = []
    for prompt in range(num_prompts):
        for index in range(num_samples):
            length = int(generator.integers(6, 12))
            scores = -generator.exponential(1.0, length)
            ids = (*generator.integers(10, 1000, length - 1).tolist(), END)
            values = np.minimum(scores + noise * generator.standard_normal(length), 0.0)
            samples.append(
                made(
                    len(samples),
                    group=f"g{prompt}",
                    prompt=f"question number {prompt} of the set",
                    response=" ".join(str(token) for token in ids),
                    ids=ids,
                    log_mu=tuple(values.tolist()),
                    reward=float((index + prompt) % num_samples < num_samples // 2),
                )
            )
            log_pi.append(tuple(scores.tolist()))
    return samples, log_pi
