"""Requests of a model that klimb's own decoder does not do: those with equal settings are drawn together, in rounds."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from klimb.samplers.completion import Completion
from klimb.samplers.conversations import turn_quantiles
from klimb.samplers.distribution import TokenDetails
from klimb.samplers.local import LocalSampler
from klimb.samplers.service.jobs import Job, Step
from klimb.samplers.service.requests import DrawnToken


class RequestRounds:
    """A `DrawBatch` by transformers: a round draws whole answers, whose tokens come when all of them have ended.

    Args:
        sampler: draws the rounds, of up to its `max_batch` requests.
    """

    def __init__(self, sampler: LocalSampler) -> None:
        self.max_jobs = sampler.max_batch
        self._sampler = sampler
        self._jobs: list[Job] = []
        self._num_reused_tokens = 0

    @property
    def num_reused_tokens(self) -> int:
        """Tokens of prompts that were not read, since another request of the round had the same prompt."""
        return self._num_reused_tokens

    def choose(self, waiting: Sequence[Job]) -> list[Job]:
        """Return those that are drawn like the first, once the last round is over."""
        if self._jobs or not waiting:
            return []
        first = waiting[0]
        return [job for job in waiting if _drawn_like(job) == _drawn_like(first)][: self.max_jobs]

    def enter(self, jobs: Sequence[Job]) -> None:
        """Make these the next round."""
        self._jobs += jobs

    def remove(self, jobs: Sequence[Job]) -> None:
        """Leave these out of the next round."""
        self._jobs = [job for job in self._jobs if job not in jobs]

    def advance(self) -> list[Step]:
        """Draw a whole round; return its tokens."""
        steps: list[Step] = []
        for jobs in self._by_size():
            try:
                steps += self._draw(jobs)
            except FloatingPointError:
                # Alone, those whose logits are a distribution are drawn all the same.
                for job in jobs:
                    steps += self._draw_alone(job)
        self._jobs = []
        return steps

    def tidy(self) -> None:
        """Nothing is left after a round."""

    def clear(self) -> bool:
        """Forget the round."""
        self._jobs = []
        return False

    def _by_size(self) -> list[list[Job]]:
        """Return the jobs that are drawn in one call: equally many of each prompt, one prompt after the other."""
        of_prompt: dict[tuple[int, ...], list[Job]] = defaultdict(list)
        for job in self._jobs:
            of_prompt[job.request.prompt_ids].append(job)
        of_size: dict[int, list[Job]] = defaultdict(list)
        for jobs in of_prompt.values():
            of_size[len(jobs)] += jobs
        return list(of_size.values())

    def _draw_alone(self, job: Job) -> list[Step]:
        try:
            return self._draw([job])
        except FloatingPointError as error:
            return [Step(job, end=error)]

    def _draw(self, jobs: list[Job]) -> list[Step]:
        request = jobs[0].request
        prompts = list(dict.fromkeys(job.request.prompt_ids for job in jobs))
        num_tokens = request.settings.max_new_tokens
        groups = self._sampler.sample_at(
            prompts,
            settings=request.settings,
            quantiles=torch.stack([turn_quantiles(job.request.seed, 0, num_tokens) for job in jobs], dim=1),
            details=TokenDetails(support=request.keep_support, num_top=request.num_top_log_probs),
        )
        self._num_reused_tokens += sum(len(job.request.prompt_ids) for job in jobs) - sum(map(len, prompts))
        completions = [completion for group in groups for completion in group]
        return [step for job, drawn in zip(jobs, completions, strict=True) for step in _steps(job, drawn)]


def _drawn_like(job: Job) -> tuple[object, ...]:
    return job.request.settings, job.request.keep_support, job.request.num_top_log_probs


def _steps(job: Job, completion: Completion) -> list[Step]:
    """Return the completion token by token; the last one ends it."""
    steps: list[Step] = []
    last = len(completion.response_ids) - 1
    for place, token_id in enumerate(completion.response_ids):
        token = DrawnToken(
            token_id=token_id,
            log_mu=completion.log_mu[place],
            log_model=completion.log_model[place],
            top=completion.top[place] if completion.top is not None else (),
            support=completion.support[place] if completion.support is not None else None,
        )
        job.drawn.append(token)
        steps.append(Step(job, token, completion.finish_reason if place == last else None))
    return steps
