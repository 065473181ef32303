"""How many different things the data holds.

Near duplicates among many texts, in time that grows with their total length.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    at_least,
    at_most,
    both_at_least,
    counted,
    normalised,
    percent,
    prompt_text,
    unknown,
)
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import perplexity

SHINGLE = 5
"""Characters of a shingle."""


MOST_CHARACTERS = 4000
"""Of each text; what follows is not compared."""


NUM_HASHES = 32


BAND = 4
"""Hashes of a band: with 8 bands of 4, two texts of similarity s meet with probability 1 − (1 − s⁴)⁸: 0.985 at 0.8."""


_CHUNK = 2_000_000


_BASE = np.uint64(0x9E3779B97F4A7C15)


_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)


_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


Hashes = NDArray[np.uint64]


def near_duplicates(texts: Sequence[str], *, similarity: float) -> list[int]:
    """Numbers of the texts that are near an earlier one: Jaccard similarity of character 5-grams >= `similarity`.

    Candidates meet in a band of their minhashes; the similarity of a candidate to the first text of its band is then
    computed exactly. A pair that meets in no band, or is near another member than the first, is missed.

    Source: Broder 1997; arXiv 2107.06499 for training data.
    """
    if len(texts) < 2:
        return []
    signatures = minhashes(texts)
    found: set[int] = set()
    for band in range(0, NUM_HASHES, BAND):
        keys = _mixed_rows(signatures[:, band : band + BAND])
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        earliest = first[inverse]
        for text in np.flatnonzero(earliest != np.arange(len(texts))).tolist():
            if text not in found and jaccard(texts[text], texts[int(earliest[text])]) >= similarity:
                found.add(text)
    return sorted(found)


def jaccard(first: str, second: str) -> float:
    """Character 5-grams in both texts over those in either; of the first 4000 characters."""
    a, b = np.unique(_shingles(first)), np.unique(_shingles(second))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def minhashes(texts: Sequence[str]) -> Hashes:
    """Return the smallest value of each of 32 hash functions over the shingles of each text, one row a text."""
    rows: list[Hashes] = []
    start = 0
    while start < len(texts):
        stop, size = start, 0
        while stop < len(texts) and (stop == start or size < _CHUNK):
            size += min(len(texts[stop]), MOST_CHARACTERS)
            stop += 1
        rows.append(_minhashes([_shingles(text) for text in texts[start:stop]]))
        start = stop
    return np.concatenate(rows)


def _minhashes(shingles: Sequence[Hashes]) -> Hashes:
    starts = np.concatenate([[0], np.cumsum([len(part) for part in shingles])[:-1]]).astype(np.int64)
    flat = np.concatenate(shingles)
    columns = [np.minimum.reduceat(_mixed(flat ^ seed), starts) for seed in _seeds()]
    return np.stack(columns, axis=1)


def _seeds() -> Hashes:
    return _mixed(np.arange(1, NUM_HASHES + 1, dtype=np.uint64) * _BASE)


def _shingles(text: str) -> Hashes:
    """Return a number for each window of 5 characters; one for a shorter text."""
    codes = np.frombuffer(text[:MOST_CHARACTERS].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = np.concatenate([codes.astype(np.uint64), np.zeros(max(0, SHINGLE - len(codes)), dtype=np.uint64)])
    num_windows = len(codes) - SHINGLE + 1
    values = np.zeros(num_windows, dtype=np.uint64)
    for offset in range(SHINGLE):
        values = values * _BASE + codes[offset : offset + num_windows]  # wraps around: a polynomial hash
    return _mixed(values)


def _mixed_rows(rows: Hashes) -> Hashes:
    keys = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        keys = _mixed(keys * _BASE + column)
    return keys


def _mixed(values: Hashes) -> Hashes:
    """Return the finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST_FACTOR
    values = (values ^ (values >> np.uint64(27))) * _SECOND_FACTOR
    return values ^ (values >> np.uint64(31))


EFFECTIVE_PROMPTS = "effective prompts"


_MOST_BARS = 20


def redundancy_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Repeated rows, near duplicates, and how evenly rows are spread over prompts and users."""
    prompts = [normalised(prompt_text(sample)) for sample in samples]
    pairs = [f"{prompt}\n{normalised(sample.response)}" for prompt, sample in zip(prompts, samples, strict=True)]
    counts = Counter(prompts)
    return Block(
        name="redundancy",
        title="How many different things the data holds",
        findings=(
            _effective_prompts(counts, thresholds),
            _rows_a_prompt(counts),
            _exact(pairs, thresholds),
            _near("near-duplicate prompts", "different prompt", list(counts), thresholds),
            _near("near-duplicate rows", "different row", list(dict.fromkeys(pairs)), thresholds),
            top_users(samples, thresholds),
        ),
        figures=(_rows(counts),),
        notes=("texts are compared in lower case with white space made even; near means shared character 5-grams",),
    )


def top_users(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    """Share of rows from the most active 1 % of users, at least one user."""
    name = "rows of the most active 1 % of users"
    users = Counter(user for sample in samples if (user := sample.metadata.get("user", "")))
    if not users:
        return unknown(name, "no sample says which user it came from")
    num_top = max(1, round(len(users) / 100))
    share = sum(rows for _, rows in users.most_common(num_top)) / users.total()
    return Finding(
        name=name,
        evidence=f"{percent(share)} from {num_top} of {counted(len(users), 'user')}",
        status=at_most(share, good=thresholds.max_top_user_share),
        title="" if share <= thresholds.max_top_user_share else "the data follows the taste of a few",
        threshold=f"at most {percent(thresholds.max_top_user_share)}",
        source="own choice",
        number=share,
    )


def _effective_prompts(counts: Counter[str], thresholds: Thresholds) -> Finding:
    effective = perplexity(np.array(list(counts.values()), dtype=np.float64))
    return Finding(
        name=EFFECTIVE_PROMPTS,
        evidence=f"{effective:.1f} of {len(counts):,}",
        status=at_least(effective, good=2 * thresholds.min_effective_prompts, bad=thresholds.min_effective_prompts),
        title="exp(entropy) of rows over prompts: as many equally frequent prompts would be as diverse",
        threshold=both_at_least(f"{2 * thresholds.min_effective_prompts:g}", f"{thresholds.min_effective_prompts:g}"),
        source="few clusters make intervals too narrow (Cameron, Gelbach, Miller 2008); own choice of the number",
        advice=_prompts_to_reach(len(counts), effective, thresholds),
        number=effective,
    )


def _prompts_to_reach(num_prompts: int, effective: float, thresholds: Thresholds) -> str:
    least = math.ceil(thresholds.min_effective_prompts)
    if effective >= least:
        return ""
    # The effective number grows with the number of prompts, if rows stay as unevenly spread.
    uneven = math.ceil(thresholds.min_effective_prompts * num_prompts / effective - 1e-9)
    evenly = f", or to {least:,} with as many rows each" if uneven > least else ""
    return f"Collect answers to {counted(uneven, 'different prompt')} in all{evenly}"


def _rows_a_prompt(counts: Counter[str]) -> Finding:
    sizes = list(counts.values())
    mean = sum(sizes) / len(sizes)
    return Finding(
        name="rows a prompt",
        evidence=f"{min(sizes)} to {max(sizes)}, mean {mean:.1f}",
        status="good",
        title="",
        number=mean,
    )


def _exact(pairs: Sequence[str], thresholds: Thresholds) -> Finding:
    share = 1 - len(set(pairs)) / len(pairs)
    return Finding(
        name="repeated rows",
        evidence=percent(share),
        status=at_most(share, good=thresholds.max_duplicates),
        title=(
            "the same prompt and response again; right where short answers were drawn several times, "
            "wrong where a log was read twice"
            if share
            else ""
        ),
        threshold=f"at most {percent(thresholds.max_duplicates)}",
        source="own choice",
        number=share,
    )


def _near(name: str, noun: str, texts: Sequence[str], thresholds: Thresholds) -> Finding:
    found = near_duplicates(texts, similarity=thresholds.near_duplicate)
    share = len(found) / len(texts)
    return Finding(
        name=name,
        evidence=f"{percent(share)} of {counted(len(texts), noun)}",
        status=at_most(share, good=thresholds.max_duplicates),
        title="texts made from one template count as near" if found else "",
        threshold=f"at most {percent(thresholds.max_duplicates)} of Jaccard >= {thresholds.near_duplicate:g}",
        source="similarity: arXiv 2107.06499; share: own choice",
        number=share,
    )


def _rows(counts: Counter[str]) -> Figure:
    largest = [float(rows) for _, rows in counts.most_common(_MOST_BARS)]
    return Figure(
        title=f"Rows of the {len(largest)} most frequent prompts",
        kind="bars",
        x=tuple(float(place) for place in range(len(largest))),
        y=tuple(largest),
        x_label="prompt, most frequent first",
        y_label="rows",
        labels=tuple(str(place + 1) for place in range(len(largest))),
    )
