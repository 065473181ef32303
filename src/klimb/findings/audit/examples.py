"""Three rows that show what decided."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from klimb.experience.samples import Sample
from klimb.findings.audit.alignment import BROKEN, SHIFT, Alignment, Decode
from klimb.findings.audit.evidence import USABLE, TokenPairs, is_rated, is_truncated, prompt_text, short
from klimb.findings.audit.overlap import MASKED, SAME_MODEL, TOKEN_ESS
from klimb.findings.audit.provenance import NO_LOG_MU, TRUNCATED
from klimb.findings.audit.report import Example
from klimb.findings.audit.signal import ZERO_VARIANCE, equal_groups

NUM_EXAMPLES = 3


MOST_TOKENS = 200
"""Tokens of an example that are shown one by one; the response is always whole."""


_Chosen = tuple[int, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the checks found of single rows.

    Attributes:
        scores: log-probabilities under the policy to train, by row.
        pairs: the rows that were compared, None where none was scored.
        same: the rows that were compared with the logging model.
    """

    samples: Sequence[Sample]
    scores: Sequence[Sequence[float] | None] | None
    pairs: TokenPairs | None
    same: TokenPairs | None
    alignment: Alignment


def choose_examples(
    evidence: Evidence, decided_by: str, decode: Decode | None, *, is_good: bool
) -> tuple[Example, ...]:
    """At most three rows: those that the deciding check objects to, or, if it is content, the extremes of the data."""
    chosen: dict[int, str] = {}
    preferred = _extremes(evidence) if is_good else _objected(evidence, decided_by)
    for row, note in (*preferred, *_first_of_prompts(evidence.samples)):
        if len(chosen) < NUM_EXAMPLES:
            chosen.setdefault(row, note)
    return tuple(_example(evidence, row, note, decode) for row, note in chosen.items())


def _objected(evidence: Evidence, decided_by: str) -> list[_Chosen]:
    samples = evidence.samples
    if decided_by == ZERO_VARIANCE:
        return _of_equal_groups(samples)
    if decided_by == NO_LOG_MU:
        rows = [row for row, sample in enumerate(samples) if sample.log_mu_provenance not in USABLE]
        return [(row, f"log-probabilities: {samples[row].log_mu_provenance}") for row in rows[:NUM_EXAMPLES]]
    if decided_by == BROKEN:
        return [(row, f"log-probabilities: {fault}") for row, fault in list(evidence.alignment.broken.items())]
    if decided_by == SHIFT and evidence.alignment.shift is not None:
        moved = set(evidence.alignment.shift.shifted_rows)
        pairs = evidence.pairs or evidence.same
        return [] if pairs is None else [chosen for chosen in _furthest(pairs, len(pairs.rows)) if chosen[0] in moved]
    if decided_by == TRUNCATED:
        rows = [row for row, sample in enumerate(samples) if is_truncated(sample)]
        return [(row, f"drawn with {samples[row].sampling}") for row in rows[:NUM_EXAMPLES]]
    if decided_by in (TOKEN_ESS, MASKED) and evidence.pairs is not None:
        return _furthest(evidence.pairs, NUM_EXAMPLES)
    if decided_by == SAME_MODEL and evidence.same is not None:
        return _furthest(evidence.same, NUM_EXAMPLES)
    return []


def _of_equal_groups(samples: Sequence[Sample]) -> list[_Chosen]:
    equal = set(equal_groups(samples))
    rows: dict[str, int] = {}
    for row, sample in enumerate(samples):
        if sample.group_id in equal and sample.reward is not None:
            rows.setdefault(sample.group_id, row)
    return [(row, f"all rewards of group {group} are {samples[row].reward:g}") for group, row in rows.items()]


def _extremes(evidence: Evidence) -> list[_Chosen]:
    rated = [(sample.reward or 0.0, row) for row, sample in enumerate(evidence.samples) if is_rated(sample)]
    by_reward = [(max(rated)[1], "highest reward"), (min(rated)[1], "lowest reward")] if rated else []
    return by_reward + (_furthest(evidence.pairs, NUM_EXAMPLES) if evidence.pairs is not None else [])


def _furthest(pairs: TokenPairs, most: int) -> list[_Chosen]:
    """Rows by mean |log w|, largest first."""
    gaps = pairs.sums(np.abs(pairs.log_w)) / pairs.lengths
    order = np.argsort(-gaps, kind="stable")[:most]
    return [(pairs.rows[int(i)], f"mean |log π − log μ| is {short(float(gaps[i]))} nats") for i in order]


def _first_of_prompts(samples: Sequence[Sample]) -> Iterable[_Chosen]:
    """Return the first row of each prompt, then all others."""
    seen: dict[str, int] = {}
    for row, sample in enumerate(samples):
        seen.setdefault(prompt_text(sample), row)
        if len(seen) >= NUM_EXAMPLES:
            break
    return [(row, "the first of its prompt") for row in seen.values()] + [
        (row, "one of the first rows") for row in range(min(NUM_EXAMPLES, len(samples)))
    ]


def _example(evidence: Evidence, row: int, note: str, decode: Decode | None) -> Example:
    sample = evidence.samples[row]
    score = evidence.scores[row] if evidence.scores is not None else None
    shown = sample.drawn_ids[:MOST_TOKENS]
    cut = len(shown) < sample.num_drawn
    return Example(
        sample_id=sample.sample_id,
        prompt=prompt_text(sample),
        response=sample.response,
        reward=sample.reward,
        note=f"{note}; its first {MOST_TOKENS} tokens" if cut else note,
        # A special token decodes to nothing, and an empty cell would look like a mistake.
        tokens=tuple(decode((token,)) or f"⟨{token}⟩" for token in shown) if decode is not None else (),
        log_mu=tuple((sample.log_mu or ())[:MOST_TOKENS]),
        log_pi=tuple((score or ())[:MOST_TOKENS]),
    )
