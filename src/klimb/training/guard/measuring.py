"""What can be wrong with a response whatever was asked: it is empty, it ends in a loop (or refuses: `refusals`).

Rules of a few lines, in time linear in the text: a model may write anything.

Measures the base metrics of a policy; what `klimb.training` asks for by the name MeasuresBase.

Perplexity of a text under a policy: how surprised it is by ordinary writing.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import TracebackType

import torch

from klimb.errors import ConfigError
from klimb.experience import Message, Sample, SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import ProblemSet, Response, Scorer, ScorerSettings
from klimb.training.guard.base_metrics import BaseMetrics, Flags
from klimb.training.guard.checks import is_violated
from klimb.training.guard.general import SET, check_problem, format_problem, general_problems
from klimb.training.guard.refusals import is_refusal
from klimb.training.guard.settings import GuardSettings

HIGHEST_COMPRESSION = 2.4
"""Source: arXiv 2212.04356 (Whisper), section 4.5: above this ratio a decoded text is taken for a repetition loop."""


LAST_CHARACTERS = 1_000
"""Loops last until the end, and longer texts compress better without being loops."""


def is_empty(text: str) -> bool:
    """Return True if there is nothing but white space."""
    return not text.strip()


def is_repetition(text: str) -> bool:
    """Return True if its last 1000 characters, as UTF-8, are more than 2.4 times as long as zlib makes them.

    Short texts never are: zlib's own bytes outweigh what it saves. `1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1` is.
    """
    end = text.strip()[-LAST_CHARACTERS:].encode("utf-8", errors="replace")
    return bool(end) and len(end) / len(zlib.compress(end)) > HIGHEST_COMPRESSION


WINDOW = 512
"""Positions that go through the model as one row, context and scored tokens together."""


CONTEXT = 128
"""Of these, at most so many are context: a text's tokens are predicted from 128 to 511 tokens before them."""


MOST_TOKENS = 8_192
"""Of a text, so many are read: enough for a stable number, and a measurement takes seconds."""


def text_ids(policy: Policy, text: str) -> tuple[int, ...]:
    """Token ids of plain text, at most 8192; what spells a control token is encoded as ordinary characters.

    Raises:
        ValueError: there are fewer than two.
    """
    ids = policy.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if len(ids) < 2:
        raise ValueError(f"the text for the perplexity has {len(ids)} tokens; give one of a few hundred words")
    return tuple(ids[:MOST_TOKENS])


@torch.no_grad()
def perplexity(policy: Policy, ids: Sequence[int], *, max_tokens: int) -> float:
    """exp(−mean of log π(token | up to 511 tokens before it)) over all tokens but the first; inf if it overflows.

    Args:
        policy: whose weights are used as they stand.
        ids: token ids of the text, at least two.
        max_tokens: tokens that go through the model at once; changes memory, not the result.
    """
    rows = _rows(len(ids), window=min(WINDOW, policy.max_positions or WINDOW))
    per_pass = max(1, max_tokens // WINDOW)
    total = sum(_log_prob(policy, ids, rows[first : first + per_pass]) for first in range(0, len(rows), per_pass))
    surprise = -total / (len(ids) - 1)
    return math.exp(surprise) if surprise < math.log(torch.finfo(torch.float64).max) else math.inf


def _rows(num_tokens: int, *, window: int) -> list[tuple[int, int, int]]:
    """(begin of the context, first scored, end) of each row: every token but the first is scored once."""
    context = window * CONTEXT // WINDOW
    step = window - context
    return [(max(0, first - context), first, min(first + step, num_tokens)) for first in range(1, num_tokens, step)]


def _log_prob(policy: Policy, ids: Sequence[int], rows: Sequence[tuple[int, int, int]]) -> float:
    width = max(end - first for _, first, end in rows)
    response_ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width).bool()
    for row, (_, first, end) in enumerate(rows):
        response_ids[row, : end - first] = torch.tensor(ids[first:end])
        mask[row, : end - first] = True
    prompts = [ids[begin:first] for begin, first, _ in rows]
    scored = policy.log_probs(prompts, torch.arange(len(rows)), response_ids, mask)
    return float(scored.log_pi.double().sum())


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
        checks: of the user's own.
        asked: prompts whose answers they are made on.
        max_answer_tokens: of such an answer.
    """

    policy: Policy
    sampler: Sampler
    text: tuple[int, ...]
    general: ProblemSet
    has_format: bool
    max_new_tokens: int
    max_tokens: int
    checks: tuple[str, ...] = ()
    asked: tuple[tuple[Message, ...], ...] = ()
    max_answer_tokens: int = 64
    _scorer: Scorer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A response that cannot be scored has no score; it never ends a run.
        settings = ScorerSettings(max_error_fraction=1.0, truncated="as-written")
        object.__setattr__(self, "_scorer", Scorer(self.general, settings))

    def __enter__(self) -> "Measurer":
        """Start the scoring."""
        self._scorer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._scorer.close()

    def measure(self) -> BaseMetrics:
        """Everything but the rollouts."""
        surprise = perplexity(self.policy, self.text, max_tokens=self.max_tokens) if self.text else None
        problems = self.general.held_out
        checks = self._check()
        if not problems:
            return BaseMetrics(perplexity=surprise, checks=checks)
        responses = self._answers()
        general: dict[str, list[float | None]] = {}
        for problem, score in zip(problems, self._scorer.score_many(problems, responses), strict=True):
            is_right = None if score.correct is None else float(score.correct)
            general.setdefault(problem.metadata[SET], []).append(score.reward if is_right is None else is_right)
        return BaseMetrics(
            perplexity=surprise,
            general={name: tuple(scores) for name, scores in general.items()},
            answers=flags_of([response.text for response in responses]),
            checks=checks,
        )

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        """Return the flags of what a step drew, its form included."""
        texts = [sample.response for sample in rollouts]
        if not (self.has_format and rollouts):
            return flags_of(texts)
        responses = [
            Response(
                # As a reward reads it: of a conversation the policy's last turn.
                text=sample.drawn_turns[-1][0].text if sample.turns else sample.response,
                num_tokens=max(1, sample.num_drawn),
                finish_reason=sample.finish_reason,
            )
            for sample in rollouts
        ]
        scores = self._scorer.score_many([format_problem()] * len(responses), responses)
        return flags_of(texts, format_valid=[bool(score.reward) for score in scores])

    def _check(self) -> dict[str, tuple[bool | None, ...]]:
        """Return what the answers to the prompts of the checks violate."""
        if not self.checks:
            return {}
        settings = SamplingSettings(temperature=self.policy.temperature, max_new_tokens=self.max_answer_tokens)
        responses = self._draw(self.asked, settings)
        found: dict[str, tuple[bool | None, ...]] = {}
        for check in self.checks:
            problems = [check_problem(messages, check) for messages in self.asked]
            found[check] = tuple(map(is_violated, self._scorer.score_many(problems, responses)))
            if None in found[check] and not any(each is not None for each in found[check]):
                raise ConfigError(f"guard.checks: {check!r} could judge none of {len(responses)} answers")
        return found

    def _answers(self) -> list[Response]:
        """One greedy answer to each problem."""
        settings = SamplingSettings(temperature=0.0, max_new_tokens=self.max_new_tokens)
        return self._draw([problem.messages for problem in self.general.held_out], settings)

    def _draw(self, prompts: Sequence[Sequence[Message]], settings: SamplingSettings) -> list[Response]:
        """One answer to each prompt, the same for the same weights."""
        groups = self.sampler.sample(
            [self.policy.render(messages) for messages in prompts],
            num_samples=1,
            settings=settings,
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
    """Return what is wrong with each of the texts."""
    return Flags(
        refusal=tuple(is_refusal(text) for text in texts),
        empty=tuple(is_empty(text) for text in texts),
        repetition=tuple(is_repetition(text) for text in texts),
        format_valid=tuple(format_valid),
    )


def make_measurer(
    settings: GuardSettings | None,
    policy: Policy,
    sampler: Sampler,
    *,
    max_tokens: int,
    scoring_format: str = "",
    asked: Sequence[Sequence[Message]] = (),
    max_answer_tokens: int = 64,
) -> Measurer | None:
    """Return what measures the base metrics, not yet entered; None without settings.

    Args:
        settings: what is to be measured.
        policy: whose weights are measured.
        sampler: draws from it.
        max_tokens: that go through the model at once.
        scoring_format: the regular expression by which rollouts are scored, used where the guard has none of its own.
        asked: held-out prompts, for the checks of the user's own; the first `num_problems` are asked.
        max_answer_tokens: of an answer to one of them.

    Raises:
        ConfigError: there are checks and no prompts to make them on, the text cannot be read, a limit has nothing to
            be measured on, or there is no such set.
    """
    if settings is None:
        return None
    pattern = settings.format or scoring_format
    if settings.min_format_fraction is not None and not pattern:
        raise ConfigError(
            "guard.min_format_fraction is set, and there is no format to check: give guard.format, a regular expression"
        )
    if settings.checks and not asked:
        raise ConfigError(
            "guard.checks are made on the answers to held-out prompts, and there are none: hold some out "
            "(task.held_out_fraction, log.held_out_fraction or feedback.held_out_fraction), or leave the checks out"
        )
    try:
        general = general_problems(
            settings.general, num_problems=settings.num_problems, pattern=pattern, checks=settings.checks
        )
    except ValueError as error:
        if str(error).startswith("guard.checks"):
            raise ConfigError(str(error)) from error
        raise ConfigError(f"guard.general: {error}; the set that is shipped is everyday") from error
    return Measurer(
        policy=policy,
        sampler=sampler,
        text=_ids(policy, settings.text),
        general=general,
        has_format=bool(pattern),
        max_new_tokens=settings.max_new_tokens,
        max_tokens=max_tokens,
        checks=settings.checks,
        asked=tuple(tuple(messages) for messages in asked[: settings.num_problems]),
        max_answer_tokens=max_answer_tokens,
    )


def _ids(policy: Policy, text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    content = _content(text)
    try:
        return text_ids(policy, content)
    except ValueError as error:
        raise ConfigError(f"guard.text: {error}") from error


def _content(text: str) -> str:
    if text == "built-in":
        return (files("klimb.training.guard") / "text.txt").read_text(encoding="utf-8")
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"guard.text = {text!r} cannot be read as UTF-8 text: {error}") from error
