"""The view that shows whether recorded log-probabilities belong to their tokens. Pure."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klimb.experience import Sample
from klimb.workbench.text import UNSEEN_CATEGORIES

NUM_LARGEST = 3
SHIFTS = (-1, 0, 1)
SHIFT_FACTOR = 2.0
"""A neighbour's place must fit better by this factor before one sample is said to look shifted."""


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """The tokens of one response.

    Attributes:
        tokens: text of each token, made visible; ids where no model says their text.
        other_name: what stands beside log_mu: `log_pi` or `log_ref`.
        columns: log_mu, the other, and other − log_mu, in nats; None where there is no value.
        largest: positions of the largest differences.
        notes: what the numbers say together.
    """

    tokens: tuple[str, ...]
    other_name: str
    columns: tuple[tuple[float | None, ...], ...]
    largest: frozenset[int]
    notes: tuple[str, ...]


def token_rows(
    sample: Sample, *, log_pi: Sequence[float] | None = None, texts: Sequence[str] | None = None
) -> TokenRows:
    """Each token with log_mu, log_pi (else log_ref) and their difference, log_pi − log_mu = log w.

    Args:
        sample: with token ids.
        log_pi: at temperature 1, one number a token.
        texts: of each token.
    """
    other = sample.log_ref if log_pi is None else log_pi
    size = len(sample.response_ids)
    left: Sequence[float | None] = (None,) * size if sample.log_mu is None else sample.log_mu
    right: Sequence[float | None] = (None,) * size if other is None else other
    gaps = [None if mu is None or pi is None else pi - mu for mu, pi in zip(left, right, strict=True)]
    sized = [(abs(gap), row) for row, gap in enumerate(gaps) if gap]
    return TokenRows(
        tokens=tuple(map(visible, texts)) if texts is not None else tuple(map(str, sample.response_ids)),
        other_name="log_ref" if log_pi is None and other is not None else "log_pi",
        columns=(tuple(left), tuple(right), tuple(gaps)),
        largest=frozenset(row for _, row in sorted(sized, key=lambda pair: -pair[0])[:NUM_LARGEST]),
        notes=_notes(sample, log_pi),
    )


def shift_errors(log_mu: Sequence[float], log_pi: Sequence[float]) -> tuple[float | None, ...]:
    """Mean |log_mu[t + s] − log_pi[t]| in nats for s = −1, 0, +1; None where no position has such a neighbour."""
    return tuple(_mean_gap(log_mu[max(s, 0) :], log_pi[max(-s, 0) :]) for s in SHIFTS)


def visible(token: str) -> str:
    r"""A token's text with its spaces and line breaks shown and its invisible characters named.

    >>> visible(" a\n\u202e")
    '␣a⏎<202e>'
    """
    replaced = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    return "".join(
        replaced.get(c) or (f"<{ord(c):x}>" if unicodedata.category(c) in UNSEEN_CATEGORIES else c) for c in token
    )


def _mean_gap(left: Sequence[float], right: Sequence[float]) -> float | None:
    gaps = [abs(mu - pi) for mu, pi in zip(left, right, strict=False)]
    return sum(gaps) / len(gaps) if gaps else None


def _notes(sample: Sample, log_pi: Sequence[float] | None) -> tuple[str, ...]:
    notes: list[str] = []
    if sample.log_mu is not None and log_pi is not None:
        found = dict(zip(SHIFTS, shift_errors(sample.log_mu, log_pi), strict=True))
        means = {shift: error for shift, error in found.items() if error is not None}
        listed = ", ".join(f"{error:.4f} at s = {shift}" for shift, error in means.items())
        notes.append(f"mean |log_mu[t + s] − log_pi[t]|: {listed}; the smallest should be at 0")
        notes += _shift_note(means)
        if sample.sampling is None or not sample.sampling.is_plain:
            notes.append(
                "log_pi is at temperature 1 without truncation; this sample's settings are others or not known"
            )
    if log_pi is None:
        notes.append("--model MODEL shows the tokens' texts and log_pi beside log_mu")
    return tuple(notes)


def _shift_note(means: Mapping[int, float]) -> list[str]:
    best = min(means, key=lambda shift: means[shift], default=0)
    if best == 0 or means[0] < SHIFT_FACTOR * means[best]:
        return []
    return [f"log_mu fits the tokens {'after' if best < 0 else 'before'} its own: it looks moved by one place"]
