"""Measures the base metrics of a policy; what `klimb.training` asks for by the name MeasuresBase."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import torch

from klimb.experience import Sample, SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import ProblemSet, Response, Scorer
from klimb.training.guarding import BaseMetrics, Flags
from klimb.workbench.guarding.flags import is_empty, is_refusal, is_repetition
from klimb.workbench.guarding.general import SET, format_problem
from klimb.workbench.guarding.perplexity import perplexity


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """Perplexity of a text, greedy answers to general problems, and the flags of responses; a context manager.

    Every measurement asks the same: two of them differ by the policy alone.

    Attributes:
        policy: whose weights are used as they stand.
        sampler: draws from it.
        text: token ids whose perplexity is measured; empty leaves it out.
        general: the problems, in its held-out part.
        has_format: whether the rollouts have a form to be checked.
        max_new_tokens: of an answer.
        max_tokens: that go through the model at once.
    """

    policy: Policy
    sampler: Sampler
    text: tuple[int, ...]
    general: ProblemSet
    has_format: bool
    max_new_tokens: int
    max_tokens: int
    _scorer: Scorer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A response that cannot be scored has no score; it never ends a run.
        object.__setattr__(self, "_scorer", Scorer(self.general, max_error_fraction=1.0))

    def __enter__(self) -> "Measurer":
        """Starts the scoring."""
        self._scorer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        self._scorer.close()

    def measure(self) -> BaseMetrics:
        """Everything but the rollouts."""
        surprise = perplexity(self.policy, self.text, max_tokens=self.max_tokens) if self.text else None
        problems = self.general.held_out
        if not problems:
            return BaseMetrics(perplexity=surprise)
        responses = self._answers()
        general: dict[str, list[float | None]] = {}
        for problem, score in zip(problems, self._scorer.score_many(problems, responses), strict=True):
            is_right = None if score.correct is None else float(score.correct)
            general.setdefault(problem.metadata[SET], []).append(score.reward if is_right is None else is_right)
        return BaseMetrics(
            perplexity=surprise,
            general={name: tuple(scores) for name, scores in general.items()},
            answers=flags_of([response.text for response in responses]),
        )

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        """The flags of what a step drew, its form included."""
        texts = [sample.response for sample in rollouts]
        if not (self.has_format and rollouts):
            return flags_of(texts)
        responses = [
            Response(
                text=sample.response, num_tokens=max(1, len(sample.response_ids)), finish_reason=sample.finish_reason
            )
            for sample in rollouts
        ]
        scores = self._scorer.score_many([format_problem()] * len(responses), responses)
        return flags_of(texts, format_valid=[bool(score.reward) for score in scores])

    def _answers(self) -> list[Response]:
        """One greedy answer to each problem."""
        groups = self.sampler.sample(
            [self.policy.render(problem.messages) for problem in self.general.held_out],
            num_samples=1,
            settings=SamplingSettings(temperature=0.0, max_new_tokens=self.max_new_tokens),
            generator=torch.Generator().manual_seed(0),
        )
        return [
            Response(
                text=self.policy.decode(answer.response_ids),
                num_tokens=len(answer.response_ids),
                finish_reason=answer.finish_reason,
            )
            for (answer,) in groups
        ]


def flags_of(texts: Sequence[str], *, format_valid: Sequence[bool] = ()) -> Flags:
    """What is wrong with each of the texts."""
    return Flags(
        refusal=tuple(is_refusal(text) for text in texts),
        empty=tuple(is_empty(text) for text in texts),
        repetition=tuple(is_repetition(text) for text in texts),
        format_valid=tuple(format_valid),
    )
