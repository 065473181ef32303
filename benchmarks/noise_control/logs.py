"""Logs that the first policy drew, with the temperature and top-p that they were drawn at, and rewards."""

from pathlib import Path

import torch

from benchmarks.noise_control.cells import NUM_PROMPTS, NUM_SAMPLES, NUM_STEPS, NUM_TOKENS
from benchmarks.noise_control.rewards import InProcessScorer, RewardFunction
from klimb.experience import Sample, SamplingSettings
from klimb.experience.store import Store
from klimb.policies import Policy, load_policy
from klimb.samplers import Completion, LocalSampler
from klimb.tasks import Problem, Response, Score
from klimb.tasks.arithmetic import ArithmeticSettings


def make_log(
    folder: Path, *, model: str, temperature: float, top_p: float, reward: RewardFunction, seed: int = 0
) -> None:
    """Write a store with as many groups as a run takes: no answer is seen twice, so that noise stays noise."""
    policy = load_policy(model, dtype="float32", device="cpu")
    problems = ArithmeticSettings(digits=1, held_out_fraction=0.1).make_task().train
    asked = [problems[number % len(problems)] for number in range(NUM_STEPS * NUM_PROMPTS)]
    settings = SamplingSettings(temperature=temperature, top_p=top_p, max_new_tokens=NUM_TOKENS)
    prompts = [policy.render(problem.messages) for problem in asked]
    groups = LocalSampler(policy).sample(
        prompts, num_samples=NUM_SAMPLES, settings=settings, generator=torch.Generator().manual_seed(seed)
    )
    samples: list[Sample] = []
    for number, (problem, prompt, answers) in enumerate(zip(asked, prompts, groups, strict=True)):
        samples += make_group(policy, number, problem, prompt, answers, settings, reward)
    Store(folder).append(samples)


def make_group(
    policy: Policy,
    number: int,
    problem: Problem,
    prompt: tuple[int, ...],
    answers: list[Completion],
    settings: SamplingSettings,
    reward: RewardFunction,
) -> list[Sample]:
    """Return the answers to one problem as they would have been recorded."""
    texts = [policy.decode(answer.response_ids) for answer in answers]
    responses = [
        Response(text=text, num_tokens=len(answer.response_ids), finish_reason=answer.finish_reason)
        for text, answer in zip(texts, answers, strict=True)
    ]
    scores: list[Score] = InProcessScorer(reward).score_many([problem] * len(responses), responses)
    return [
        Sample(
            sample_id=f"{number}-{index}",
            group_id=f"group-{number}",
            prompt=problem.messages,
            prompt_ids=prompt,
            response=texts[index],
            response_ids=answer.response_ids,
            finish_reason=answer.finish_reason,
            reward=scores[index].reward,
            log_mu=answer.log_mu,
            log_mu_provenance="sampler",
            sampling=settings,
            model="tiny",
            source="log",
            created_at=1_700_000_000.0 + number,
            tokenizer=policy.fingerprint,
        )
        for index, answer in enumerate(answers)
    ]
