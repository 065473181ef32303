"""Do the recorded log-probabilities belong to their tokens, or to the tokens beside them?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.experience.audit.evidence import USABLE, TokenPairs, prompt_text
from klimb.experience.audit.thresholds import Thresholds
from klimb.experience.samples import Sample

MIN_TOKENS = 4
"""A shorter response can fit the wrong place by chance."""

SAME = 0.05
"""Nats up to which two programs give the same probability (TRL issue 6789 measured a deviation of 0.05)."""


@dataclass(frozen=True, kw_only=True)
class ShiftTest:
    """Mean |log_mu[t + s] − log_pi[t]| in nats for s = −1, 0, +1, over all tokens that have such a neighbour.

    Attributes:
        place: s ≠ 0 if log_mu of all samples fits better there, else 0.
        shifted_rows: samples that fit a neighbour's place exactly and not their own; all, where `place` is not 0.
        num_rows: samples that were tested.
    """

    errors: tuple[float, float, float]
    place: int
    shifted_rows: tuple[int, ...]
    num_rows: int


def shift_test(pairs: TokenPairs, thresholds: Thresholds) -> ShiftTest | None:
    """Compares every place with its neighbours; None if no sample has two tokens.

    All data is called shifted if its mean error at s = 0 is above `shift_noise` and `shift_factor` times that at a
    neighbour. A single sample of at least 4 tokens is, if besides its error at the neighbour is at most `shift_noise`:
    one sample of another policy fits a neighbour a little better by chance, but not exactly.
    """
    if not (pairs.lengths >= 2).any():
        return None
    per_row = np.stack([_errors(pairs, place) for place in (-1, 0, 1)])
    weights = np.stack([np.maximum(pairs.lengths - abs(place), 0) for place in (-1, 0, 1)])
    before, at, after = ((per_row * weights).sum(axis=1) / weights.sum(axis=1)).tolist()
    best = min(before, after)
    moved = at > thresholds.shift_noise and at >= thresholds.shift_factor * best
    rows = np.array(pairs.rows)
    if not moved:
        best_of_row = np.minimum(per_row[0], per_row[2])
        fits = (best_of_row <= thresholds.shift_noise) & (per_row[1] >= thresholds.shift_factor * best_of_row)
        rows = rows[fits & (per_row[1] > thresholds.shift_noise) & (pairs.lengths >= MIN_TOKENS)]
    return ShiftTest(
        errors=(before, at, after),
        place=0 if not moved else (-1 if before < after else 1),
        shifted_rows=tuple(rows.tolist()),
        num_rows=len(pairs.rows),
    )


def _errors(pairs: TokenPairs, place: int) -> NDArray[np.float64]:
    """Mean |log_mu[t + place] − log_pi[t]| of each row; 0 for rows without such a pair."""
    if place == 0:
        return pairs.sums(np.abs(pairs.log_w)) / pairs.lengths
    gaps = np.zeros(len(pairs.log_mu))
    earlier, later = (pairs.log_pi, pairs.log_mu) if place == 1 else (pairs.log_mu, pairs.log_pi)
    gaps[:-1] = np.abs(earlier[:-1] - later[1:])
    gaps[pairs.starts[1:] - 1] = 0.0  # the last token of a row has its neighbour in another row
    return pairs.sums(gaps) / np.maximum(pairs.lengths - 1, 1)


def first_token_conflicts(samples: Sequence[Sample]) -> tuple[int, int]:
    """How many samples disagree about the first token's log_mu with others that must agree, and how many could.

    Needs no model: after the same prompt, under the same model, version and settings, the same first token has the
    same log-probability. Log-probabilities moved by one place break this, as the second tokens differ. A sample
    disagrees if it is more than 0.05 nats from its cell's median.
    """
    cells: dict[object, list[tuple[int, float]]] = defaultdict(list)
    for sample in samples:
        if sample.log_mu and len(sample.response_ids) > 1 and sample.log_mu_provenance in USABLE:
            key = (
                prompt_text(sample),
                sample.prompt_ids,
                sample.model,
                sample.policy_version,
                sample.sampling,
                sample.response_ids[0],
            )
            cells[key].append((sample.response_ids[1], sample.log_mu[0]))
    conflicts = compared = 0
    for members in cells.values():
        if len({second for second, _ in members}) < 2:
            continue
        values = np.array([value for _, value in members])
        compared += len(values)
        conflicts += int((np.abs(values - np.median(values)) > SAME).sum())
    return conflicts, compared
