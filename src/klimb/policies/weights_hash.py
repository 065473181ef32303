"""A hash of weights that is quick enough for every start of a run, and the same on every device."""

import hashlib
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

CHUNK_WORDS = 1 << 20
"""Words of eight bytes that become one number."""


WORD_BYTES = 8


@torch.no_grad()
def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """Return 16 hexadecimal digits that change with every name, shape, number format and bit of the weights.

    The bytes of a tensor are read as whole numbers of 64 bits; each chunk of them is multiplied with fixed random odd
    numbers and summed modulo 2^64, on the tensor's device, and SHA-256 takes the sums. Any one changed number changes
    its sum. This tells one model from another; it is no protection against someone who wants two models to look alike.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}\n".encode())
        digest.update(b"".join(number.to_bytes(8, "big", signed=True) for number in _sums(weight)))
    return digest.hexdigest()[:16]


def _sums(weight: Tensor) -> list[int]:
    octets = weight.detach().contiguous().view(-1).view(torch.uint8)
    num_whole = len(octets) // WORD_BYTES * WORD_BYTES
    rest = torch.nn.functional.pad(octets[num_whole:], (0, num_whole + WORD_BYTES - len(octets)))
    factors = _factors().to(weight.device)
    words = octets[:num_whole].view(torch.int64)
    sums = [(chunk * factors[: len(chunk)]).sum() for chunk in words.split(CHUNK_WORDS)]
    return torch.stack([*sums, rest.cpu().view(torch.int64).sum().to(weight.device)]).tolist()


@cache
def _factors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (CHUNK_WORDS,), generator=generator) * 2 + 1
