"""Streams of random numbers have names: what one purpose draws depends on no other."""

import hashlib

import torch

from klimb.training import PromptStream
from klimb.training.state import PURPOSES
from klimb.training.streams import derive_seed, open_stream


def first(*named: object) -> list[int]:
    return torch.randint(1 << 40, (4,), generator=open_stream(*named)).tolist()


def test_a_stream_is_its_name_and_the_seed_and_starts_anew_each_time():
    assert first(3, "minibatches") == first(3, "minibatches")
    names = [(seed, purpose) for seed in range(4) for purpose in (*PURPOSES, "prompts", "cloning")]
    assert len({tuple(first(*named)) for named in names}) == len(names)


def test_the_seed_of_a_stream_is_that_of_sha_256_and_fits_into_a_generator():
    digest = hashlib.sha256(b"7/prompts/2").hexdigest()
    assert derive_seed(7, "prompts", 2) == int(digest[:16], 16) // 2 < 2**63


def test_two_stores_of_one_size_are_not_read_in_the_same_order():
    orders = [PromptStream(50, seed=0, purpose=purpose).take(50) for purpose in ("prompts", "log", "feedback")]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
