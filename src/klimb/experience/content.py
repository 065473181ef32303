"""What samples say, as one hash: two logs with the same ids are not the same log."""

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import asdict, fields, replace

from klimb.experience.samples import Sample, SamplingSettings

NOT_CONTENT = ("raw", "reward_reason", "created_at", "log_ref", "source")
"""Fields of a sample that no training reads: what people are told, where it is from, and what each run scores anew."""


ARRAYS = {"prompt_ids": "q", "response_ids": "q", "log_mu": "d"}
"""Long fields -> how their numbers are written."""


FIRST_SETTINGS = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
"""Settings of a sampler that samples of every schema version have; a later one counts where it is not at its default,
so that the hash of older samples stays the one that the runs on them wrote down."""


OF_CONVERSATIONS = ("turns", "tools", "episode")
"""Fields that samples of a single turn leave empty, and that count where they are not."""


LATER = (*OF_CONVERSATIONS, "support")
"""Fields that older samples do not have."""


OTHERS = tuple(each.name for each in fields(Sample) if each.name not in (*NOT_CONTENT, *ARRAYS, *LATER))


MODULUS = 1 << 256


def hash_content(samples: Iterable[Sample]) -> str:
    """Return 16 hexadecimal digits that change with every token, reward, log-probability and setting of the samples.

    Their order and how they are spread over files do not matter. Every field counts but those that no training reads.
    """
    total = 0
    for sample in samples:
        total = (total + int.from_bytes(_digest(sample), "big")) % MODULUS
    return hashlib.sha256(total.to_bytes(32, "big")).hexdigest()[:16]


def _digest(sample: Sample) -> bytes:
    content = [_plain(getattr(sample, name)) for name in OTHERS]
    if any(getattr(sample, name) for name in OF_CONVERSATIONS):
        content += [[asdict(replace(turn, seconds=None)) for turn in sample.turns], sample.tools, sample.episode]
    if sample.support is not None:
        content.append(sample.support)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, kind in ARRAYS.items():
        numbers = getattr(sample, name)
        digest.update(b"\n-" if numbers is None else b"\n%d " % len(numbers) + array(kind, numbers).tobytes())
    return digest.digest()


def _plain(value: object) -> object:
    if not isinstance(value, SamplingSettings):
        return value
    plain = asdict(SamplingSettings())
    return {name: each for name, each in asdict(value).items() if name in FIRST_SETTINGS or each != plain[name]}
