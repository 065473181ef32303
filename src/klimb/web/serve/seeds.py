"""The seed of each answer of a request: a function of the request's own and the answer's number alone."""

import hashlib

NUM_SEEDS = 2**64


def seed_of(seed: int, number: int) -> int:
    """Return the seed of an answer in 0 to 2^64 − 1: the request's own for the first, others by a hash.

    An answer does not depend on how many others were asked for; the answers to several prompts of one request have the
    seeds that each would have alone.
    """
    if number == 0:
        return seed % NUM_SEEDS
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
