"""Near duplicates among many texts, in time that grows with their total length."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
    """The smallest value of each of 32 hash functions over the shingles of each text, one row a text."""
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
    """A number for each window of 5 characters; one for a shorter text."""
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
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST_FACTOR
    values = (values ^ (values >> np.uint64(27))) * _SECOND_FACTOR
    return values ^ (values >> np.uint64(31))
