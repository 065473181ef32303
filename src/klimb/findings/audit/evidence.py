"""What several checks read: prompts as text, tokens with both log-probabilities side by side.

Numbers against thresholds, and numbers as people read them.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.finding import Finding, Status
from klimb.findings.statistics import ALPHA, Interval

USABLE = ("sampler", "recomputed")
"""Provenances of log_mu that a ratio may be built on."""


CLAIM_ALPHA = ALPHA / 3
"""Level of each claim on how rewards come about: drift, and two correlations with length. An audit of unrelated columns
then makes one of them in at most 5 % of reports."""


QUIRK_ALPHA = ALPHA / 3
"""Level of each claim on whom and what ratings follow: raters of one value, language, hour. They share another 5 %."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPairs:
    """Drawn tokens of the samples that have a finite log-probability from both sides, one after another.

    Attributes:
        rows: which samples.
        starts: the tokens of `rows[i]` are `starts[i]:starts[i + 1]`; one entry more than rows.
        opens: True for the first drawn token of a turn: the one before it was put in, or is none of the response.
        log_mu: recorded log-probabilities in nats.
        log_pi: those they are compared with.
        num_left_out: samples with both, of which some value is NaN or infinite.
    """

    rows: tuple[int, ...]
    starts: NDArray[np.int64]
    opens: NDArray[np.bool_]
    log_mu: NDArray[np.float64]
    log_pi: NDArray[np.float64]
    num_left_out: int

    @property
    def log_w(self) -> NDArray[np.float64]:
        """Log-ratio, log w = log_pi − log_mu of every token."""
        return self.log_pi - self.log_mu

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample."""
        return np.diff(self.starts)

    @property
    def num_neighbours(self) -> NDArray[np.int64]:
        """Tokens of each sample that stand behind another of the same turn."""
        return self.lengths - self.sums(self.opens.astype(np.float64)).astype(np.int64)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the tokens of each sample."""
        return np.add.reduceat(values, self.starts[:-1]) if self.rows else np.zeros(0)


def pair_up(
    samples: Sequence[Sample], scores: Sequence[Sequence[float] | None], *, only_at: float | None = None
) -> TokenPairs:
    """Return the tokens of samples with a usable log_mu and a score.

    Args:
        samples: those with log_mu from a sampler or recomputed are taken.
        scores: per sample, the log-probabilities of its drawn tokens, or None where it was not scored.
        only_at: take only samples not known to be drawn at another temperature than this, or with top-p, top-k or
            min-p: those for which the model's own log-probability should be log_mu. None takes all.

    Raises:
        ValueError: a score has another number of tokens than its sample.
    """
    rows: list[int] = []
    left_out = 0
    for row, (sample, score) in enumerate(zip(samples, scores, strict=True)):
        if score is not None and len(score) != sample.num_drawn:
            raise ValueError(
                f"sample {sample.sample_id}: {len(score)} scores for {sample.num_drawn} drawn tokens; "
                "score every token that was drawn once, the end token included"
            )
        if score is None or not _has_usable(sample) or (only_at is not None and _is_altered(sample, only_at)):
            continue
        if np.isfinite(sample.log_mu or ()).all() and np.isfinite(score).all():
            rows.append(row)
        else:
            left_out += 1
    lengths = [samples[row].num_drawn for row in rows]
    return TokenPairs(
        rows=tuple(rows),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        opens=np.array([is_first for row in rows for is_first in _opens(samples[row])], dtype=np.bool_),
        log_mu=_flat([samples[row].log_mu or () for row in rows]),
        log_pi=_flat([scores[row] or () for row in rows]),
        num_left_out=left_out,
    )


def prompt_text(sample: Sample) -> str:
    """Return the messages of the prompt, one under another."""
    return "\n".join(message["content"] for message in sample.prompt)


def normalised(text: str) -> str:
    """Lower case, every run of white space one blank, none at the ends."""
    return " ".join(text.casefold().split())


def user_of(sample: Sample) -> str:
    """Return the user's name; empty if the sample does not say."""
    return sample.metadata.get("user", "")


def prompt_units(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return the number of each one's prompt, case and white space aside: the independent unit, in whatever group."""
    return numbered([normalised(prompt_text(sample)) for sample in samples])


def without_copies(samples: Sequence[Sample]) -> list[Sample]:
    """Leave out rows that stand in another group too, with the same prompt, response, reward, user and time.

    A log that was read twice under other names counts once so. Equal answers within one group are draws, and rows
    without a time could be: they stay.
    """
    groups: dict[Hashable, str] = {}
    kept: list[Sample] = []
    for sample in samples:
        key = (prompt_text(sample), sample.response, sample.reward, user_of(sample), sample.created_at)
        if sample.created_at <= 0 or groups.setdefault(key, sample.group_id) == sample.group_id:
            kept.append(sample)
    return kept


def is_truncated(sample: Sample) -> bool:
    """Return True if the sampler could not draw every token, and nothing says which: no ratio knows what is missing.

    That is a sample cut off, kept from ending, or greedy. Where the support is recorded, ratios are formed on it.
    """
    return sample.lacks_support


def is_rated(sample: Sample) -> bool:
    """Return True if the sample has a finite reward."""
    return sample.reward is not None and math.isfinite(sample.reward)


def numbered(keys: Sequence[str]) -> NDArray[np.int64]:
    """Equal keys get equal numbers, counted from 0 in the order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _has_usable(sample: Sample) -> bool:
    return sample.log_mu is not None and sample.log_mu_provenance in USABLE and sample.num_drawn > 0


def _opens(sample: Sample) -> list[bool]:
    return [place == 0 for _, ids in sample.drawn_turns for place in range(len(ids))]


def _is_altered(sample: Sample, temperature: float) -> bool:
    return sample.sampling is not None and not sample.draws_at(temperature)


def _flat(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([value for row in rows for value in row], dtype=np.float64)


def at_most(number: float, *, good: float, bad: float | None = None) -> Status:
    """`good` up to `good`, `bad` above `bad`, `warning` between; without `bad` nothing is worse than a warning."""
    if number <= good:
        return "good"
    return "bad" if bad is not None and number > bad else "warning"


def at_least(number: float, *, good: float, bad: float | None = None) -> Status:
    """`good` from `good` on, `bad` below `bad`, `warning` between; without `bad` nothing is worse than a warning."""
    if number >= good:
        return "good"
    return "bad" if bad is not None and number < bad else "warning"


def both_at_most(good: str, bad: str) -> str:
    """Return the two limits of `at_most` in words, so that a warning is read beside the number that made it one."""
    return f"good up to {good}, bad above {bad}" if good != bad else f"at most {good}"


def both_at_least(good: str, bad: str) -> str:
    """Return the two limits of `at_least` in words."""
    return f"good from {good}, bad below {bad}" if good != bad else f"at least {good}"


def unknown(name: str, why: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(name=name, evidence="unknown", status="unknown", title=why)


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage; what is not 0 never reads as 0, and what is not all never as 100 %."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.3g} %"


def ends(interval: Interval) -> str:
    """`0.41 to 0.57, 95 %, 48 prompts`; without an interval the reason."""
    if not interval.is_known:
        return interval.reason
    return f"{short(interval.low)} to {short(interval.high)}, 95 %, {interval.counted_units}"


def short(number: float) -> str:
    """Three significant digits."""
    return f"{number:.3g}"


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`, `12,000 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
