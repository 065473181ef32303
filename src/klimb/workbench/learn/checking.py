"""Do the base metrics hold? The candidate beside the deployment's first policy; a broken limit stops a promotion.

Beside the first one and not the one that serves, so that many small losses do not add up unseen.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from klimb.experience import Message, Sample
from klimb.findings.finding import Finding
from klimb.findings.guard.events import GuardEvent
from klimb.policies import load_model
from klimb.samplers import LocalSampler
from klimb.training.guard.base_metrics import BaseMetrics, metrics_of
from klimb.training.guard.limits import find_breaches
from klimb.training.guard.measuring import make_measurer
from klimb.training.guard.settings import GuardSettings
from klimb.training.minibatches import tokens_at_once
from klimb.training.run_folder import write_json
from klimb.workbench.config import RunConfig


def check_base_metrics(
    config: RunConfig, *, first: str, candidate: str, asked: Sequence[Sample], path: Path
) -> tuple[Finding, ...]:
    """Measure both policies, write down what was found, and return the limits that the candidate breaks.

    Args:
        config: of the round's run; without a section `[guard]` the defaults are taken.
        first: the model of the deployment's first policy.
        candidate: the model of the candidate.
        asked: held-out answers, whose prompts the guard's own checks are made on.
        path: of the file.
    """
    settings = config.guard or GuardSettings()
    before, after = (_measure(config, settings, model, asked) for model in (first, candidate))
    breaches = find_breaches(before, after, settings, level=settings.false_alarm_rate)
    events = [GuardEvent(step=0, action="stop", finding=breach) for breach in breaches]
    content = {
        "time": time.time(),
        "before": metrics_of(before),
        "after": metrics_of(after),
        "events": [event.row() for event in events],
    }
    write_json(path, content)
    return breaches


def _measure(config: RunConfig, settings: GuardSettings, model: str, asked: Sequence[Sample]) -> BaseMetrics:
    policy = load_model(replace(config.model, path=model))
    measurer = make_measurer(
        # What rollouts must look like is asked of rollouts, and there are none here.
        replace(settings, min_format_fraction=None),
        policy,
        LocalSampler(policy, max_batch=config.sampling.max_batch),
        max_tokens=tokens_at_once(config.training.micro_batch_tokens, policy.device),
        asked=_prompts(asked),
        max_answer_tokens=config.sampling.max_new_tokens,
    )
    assert measurer is not None
    with measurer:
        return measurer.measure()


def _prompts(asked: Sequence[Sample]) -> list[tuple[Message, ...]]:
    """Return the prompts, each once."""
    return list({repr(sample.prompt): sample.prompt for sample in asked if sample.prompt}.values())
