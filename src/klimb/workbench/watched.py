"""The sampler, the scorer and the loop's steps, with what they do shown in a view."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from klimb.experience import Sample, SamplingSettings
from klimb.samplers import Completion, Sampler, StreamingSampler
from klimb.tasks import Problem, Response, Score, Scorer
from klimb.workbench.config import RunConfig, save_config
from klimb.workbench.runs import RunFolder
from klimb.workbench.trackers import Tracker
from klimb.workbench.view import Glimpse, View


class StepRecorder:
    """Takes each step to the view and the tracker."""

    def __init__(self, config: RunConfig, folder: RunFolder, view: View, tracker: Tracker) -> None:
        self._config = config
        self._folder = folder
        self._view = view
        self._tracker = tracker
        self._is_accepted = False

    def __call__(self, metrics: Mapping[str, float], samples: Sequence[Sample]) -> None:
        """One finished step of the loop."""
        if not self._is_accepted:
            # A resumed run may have been given other settings; now the loop has accepted them.
            save_config(self._folder.config, self._config)
            self._is_accepted = True
        number = int(metrics["step"])
        self._tracker.write(number, metrics)
        if samples:
            self._view.step(number, metrics, glimpse_of(samples[number % len(samples)]))
        else:
            self._view.step(number, _of_old_samples(metrics), None)


def _of_old_samples(metrics: Mapping[str, float]) -> dict[str, float]:
    """What the view shows where nothing was drawn: the logged rewards, and no speed of sampling."""
    shown = {name: value for name, value in metrics.items() if name != "tokens_per_second"}
    for source in ("feedback", "log"):
        for name in ("reward_mean", "length_mean"):
            if f"{source}/{name}" in metrics:
                shown[name] = metrics[f"{source}/{name}"]
    return shown


def glimpse_of(sample: Sample) -> Glimpse:
    """What the view shows of one answer."""
    return Glimpse(prompt=sample.prompt[-1]["content"], answer=sample.response, reward=sample.reward)


@dataclass(frozen=True)
class WatchedSampler:
    """The sampler, saying in the view that it samples; it streams if the sampler does."""

    sampler: Sampler
    view: View

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """As the sampler does."""
        self.view.phase("sampling")
        return self.sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """As the sampler does; one that cannot, hands over all prompts at the end."""
        self.view.phase("sampling")
        if isinstance(self.sampler, StreamingSampler):
            yield from self.sampler.stream(prompts, num_samples=num_samples, settings=settings, generator=generator)
            return
        answers = self.sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
        yield from enumerate(answers)


@dataclass(frozen=True)
class WatchedScorer:
    """The scorer, saying in the view that it scores and that learning comes next."""

    scorer: Scorer
    view: View

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """As the scorer does."""
        self.view.phase("scoring")
        scores = self.scorer.score_many(problems, responses)
        self.view.phase("learning")
        return scores
