"""How the policy does on problems it has never trained on, sampled and greedy, as the configuration says."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from klimb.experience import SamplingSettings
from klimb.findings.evaluations import EvaluationRecord, Progress, When
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem, Scorer
from klimb.training import evaluate
from klimb.training.dialogues import Talks
from klimb.workbench.config import RunConfig


def measure(
    policy: Policy,
    sampler: Sampler,
    scorer: Scorer,
    problems: Sequence[Problem],
    config: RunConfig,
    *,
    when: When,
    progress: Progress,
    dialogues: Talks | None = None,
) -> EvaluationRecord:
    """Answer the problems as the configuration's evaluation section says.

    Raises:
        ValueError: there are no problems, or no answer could be scored.
    """
    section, sampling = config.evaluation, config.sampling

    def at(temperature: float) -> EvaluationRecord:
        return evaluate(
            policy,
            sampler,
            scorer,
            problems,
            settings=SamplingSettings(
                temperature=temperature, max_new_tokens=sampling.max_new_tokens, stop=sampling.stop
            ),
            num_samples=section.num_samples,
            generator=torch.Generator().manual_seed(section.seed),
            when=when,
            progress=progress,
            dialogues=dialogues,
        )

    sampled = at(policy.temperature)
    if not section.greedy:
        return sampled
    greedy = at(0.0)
    # One of them an accuracy, the other of rewards: a score that gives a verdict now and then. They do not compare.
    is_one_scale = greedy.is_accuracy == sampled.is_accuracy
    return replace(sampled, greedy=greedy.mean if is_one_scale else None, seconds=sampled.seconds + greedy.seconds)
