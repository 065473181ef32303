"""A reward model's scores of logged answers, and of fresh answers that the policy to be estimated gives."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence

from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.policies import Policy
from klimb.tasks.batches import BatchLimits, prepare
from klimb.tasks.protocol import Problem, Response, Score
from klimb.tasks.reward_model import ModelReward
from klimb.workbench.log_scoring import draw_fresh

NO_SCORES = (0.0, 0.0)
"""Of samples that no estimate uses."""


TRAINED_ON_OTHERS = (
    "model-doubly-robust holds for a reward model that never saw these answers' rewards; one that was trained on them "
    "foresees them too well."
)


BATCH = 32


def score_with_model(
    policy: Policy, samples: Sequence[Sample], reward: ModelReward, *, num_fresh: int, seed: int
) -> tuple[list[tuple[float, float]], tuple[str, ...]]:
    """Return (score of the logged answer, mean score of fresh answers to its prompt) of each sample, and notes.

    Raises:
        ConfigError: answers were drawn from a recorded part of the vocabulary, which fresh ones would not be.
    """
    if any(sample.support is not None for sample in samples):
        raise ConfigError(
            "some samples record which tokens could be drawn, so the estimate is of the model on those tokens, and "
            "fresh answers would be of the whole model; leave --reward-model out, or take other samples: "
            '--where "sampling.top_p = 1 and sampling.top_k = 0"'
        )
    prepare(reward)
    num_prompts = len({_prompt_of(sample) for sample in samples})
    fresh = draw_fresh(policy, samples, num_answers=num_fresh * num_prompts, seed=seed)
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for sample, score in zip(fresh.samples, _scores(reward, fresh.samples), strict=True):
        if score is not None:
            by_prompt[_prompt_of(sample)].append(score)
    logged = _scores(reward, samples)
    known = [score for score in logged if score is not None]
    middle = math.fsum(known) / len(known) if known else 0.0
    found: list[tuple[float, float]] = []
    without = 0
    for sample, score in zip(samples, logged, strict=True):
        of_prompt = by_prompt.get(_prompt_of(sample))
        if score is None or of_prompt is None:
            # One number on both sides is a constant, on which the estimate depends by noise alone.
            found.append((middle, middle))
            without += 1
        else:
            found.append((score, math.fsum(of_prompt) / len(of_prompt)))
    notes = [*fresh.notes, TRAINED_ON_OTHERS]
    if without:
        notes.append(f"{without} of {len(samples)} answers have no score by the reward model, or no fresh answers.")
    return found, tuple(notes)


def _prompt_of(sample: Sample) -> str:
    return json.dumps((sample.prompt, sample.tools))


def _scores(reward: ModelReward, samples: Sequence[Sample]) -> list[float | None]:
    scores: list[float | None] = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        problems = [Problem(problem_id=each.group_id, messages=each.prompt, answer="") for each in part]
        responses = [
            Response(text=each.response, num_tokens=each.num_drawn, finish_reason=each.finish_reason) for each in part
        ]
        scored = reward.score_batch(problems, responses, BatchLimits())
        scores += [
            each.reward if isinstance(each, Score) and len(sample.conversation) == 1 else None
            for sample, each in zip(part, scored, strict=True)
        ]
    return scores
