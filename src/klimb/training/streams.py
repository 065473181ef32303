"""Random numbers: every purpose draws from a stream of its own, which its name and the seed alone decide.

So a change in one leaves the others alone, and a new purpose moves none of those there are.
"""

import hashlib

import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """Return the seed of a stream, from 0 to 2⁶³ − 1: the first bits of SHA-256 of the run's seed and the purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def open_stream(seed: int, *purpose: object) -> torch.Generator:
    """Return a generator at the beginning of the stream of this purpose, such as `("minibatches",)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
