"""Stores of samples drawn from the tiny model."""

from dataclasses import replace

import torch

from klimb.experience import Sample, SamplingSettings
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.samplers import LocalSampler

SETTINGS = SamplingSettings(max_new_tokens=5)


def drawn(policy, *, num_prompts=6, num_samples=4, settings=SETTINGS, name="tiny"):
    """Samples of the policy; the reward is the share of letters."""
    questions = [({"role": "user", "content": f"question {number}"},) for number in range(num_prompts)]
    prompts = [policy.render(question) for question in questions]
    generator = torch.Generator().manual_seed(0)
    completions = LocalSampler(policy).sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
    samples = []
    for number, (question, prompt_ids, group) in enumerate(zip(questions, prompts, completions, strict=True)):
        for index, completion in enumerate(group):
            text = policy.decode(completion.response_ids)
            samples.append(
                Sample(
                    sample_id=f"s{number:03d}-{index}",
                    group_id=f"g{number:03d}",
                    prompt=question,
                    prompt_ids=prompt_ids,
                    response=text,
                    response_ids=completion.response_ids,
                    finish_reason=completion.finish_reason,
                    reward=sum(character.isalpha() for character in text) / 5,
                    log_mu=completion.log_mu,
                    log_mu_provenance="sampler",
                    sampling=settings,
                    model=name,
                    tokenizer=policy.fingerprint,
                )
            )
    return samples


def without_log_mu(sample):
    """The same as if nothing had been recorded of its drawing but the settings."""
    return replace(sample, log_mu=None, log_mu_provenance="absent")


def text_only(sample):
    """The same as if only its text had been recorded."""
    return replace(without_log_mu(sample), prompt_ids=(), response_ids=(), tokenizer="")


def store_of(folder, samples):
    """A store of these samples; its folder."""
    Store(folder).append(samples)
    return folder


def talked_about(folder, policy):
    """A store with everything that people say: ratings, preferences, corrections, comments, a conversation."""
    first, *others = drawn(policy, num_prompts=2)
    said = ({"role": "assistant", "content": first.response}, {"role": "user", "content": "and?"})
    second = replace(
        others[-1],
        sample_id="second",
        group_id="second",
        prompt=(*first.prompt, *said),
        prompt_ids=(*first.prompt_ids, *first.response_ids, *policy.render(said[1:])),
        episode="e",
    )
    samples = [replace(first, episode="e"), *others, second]
    store = Store(folder)
    store.append(samples)
    rows = [
        Feedback(
            feedback_id=f"r{number}",
            sample_id=sample.sample_id,
            value=float(number % 2),
            user=f"u{number % 5 if number > 4 else 0}",
            comment="too long" if number % 2 else "",
        )
        for number, sample in enumerate(samples)
    ]
    rows.append(Feedback(feedback_id="p", sample_id=others[0].sample_id, value=None, over=others[1].sample_id))
    rows.append(Feedback(feedback_id="c", sample_id=others[2].sample_id, value=None, correction="abc"))
    store.append_feedback(rows)
    return folder
