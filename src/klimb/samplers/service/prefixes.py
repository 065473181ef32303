"""Keys and values of texts that were read, kept for texts that begin like them."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.samplers.decoder import LaneStates

LEAST_REUSED = 8
"""A common beginning shorter than this is read again: it costs no more than to copy it."""


Ids = NDArray[np.int64]
"""Token ids of a text."""


@dataclass(frozen=True)
class _Parked:
    ids: Ids
    states: LaneStates


class ParkedPrefixes:
    """Texts with their states, as many as there is room for; the one that has not been used for longest goes first.

    Args:
        max_bytes: that all states take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._parked: OrderedDict[bytes, _Parked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return self._num_bytes

    def park(self, ids: Ids, states: LaneStates) -> None:
        """Keep a copy of the states of a text. Texts that are its beginning are in it, and go."""
        if len(ids) < LEAST_REUSED or states.num_bytes > self._max_bytes:
            return
        for key, other in list(self._parked.items()):
            shared = common_length(ids, other.ids)
            if shared == len(ids):
                self._parked.move_to_end(key)
                return
            if shared == len(other.ids):
                self._drop(key)
        while self._num_bytes + states.num_bytes > self._max_bytes:
            self._drop(next(iter(self._parked)))
        self._parked[ids.tobytes()] = _Parked(ids, states.clone())
        self._num_bytes += states.num_bytes

    def find(self, ids: Ids) -> tuple[LaneStates, int] | None:
        """Return the states of the text that begins most like this one, and how many tokens they share."""
        lengths = {key: common_length(ids, parked.ids) for key, parked in self._parked.items()}
        key = max(lengths, key=lengths.__getitem__, default=b"")
        if lengths.get(key, 0) < LEAST_REUSED:
            return None
        self._parked.move_to_end(key)
        return self._parked[key].states, lengths[key]

    def clear(self) -> None:
        """Forget all."""
        self._parked.clear()
        self._num_bytes = 0

    def _drop(self, key: bytes) -> None:
        self._num_bytes -= self._parked.pop(key).states.num_bytes


def common_length(one: Ids, other: Ids) -> int:
    """Return how many tokens the two begin with alike."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
