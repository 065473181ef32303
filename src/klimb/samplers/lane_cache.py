"""Keys and values of the rows being decoded: one lane a row, each at a position of its own."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROOM_FRACTION, ROOM_MULTIPLE = 1 / 8, 32
"""Full buffers grow by this share, to a multiple of 32 positions: products over such lengths are the fastest."""


@dataclass(frozen=True)
class PromptStates:
    """Keys and values of prompts after their pass through the model, and what it says comes next.

    Attributes:
        keys: by layer; behind a prompt's own length they hold anything finite.
        logits: after each prompt's last token.
    """

    keys: list[Float[Tensor, "prompts groups longest head_dim"]]
    values: list[Float[Tensor, "prompts groups longest head_dim"]]
    logits: Float[Tensor, "prompts vocab"]
    lengths: Int[Tensor, " prompts"]


class LaneCache:
    """Per layer `[lanes · groups, reserved, head_dim]` for keys and for values.

    The buffers are as long as what is read of them, give or take the room: a product over a part of a longer buffer
    would first copy it.
    """

    def __init__(self, *, num_layers: int, num_lanes: int, num_groups: int, head_dim: int, dtype: torch.dtype) -> None:
        self.num_lanes = num_lanes
        self.num_groups = num_groups
        self.reserved = 0
        # Zeros, not empty memory: a nan there would survive its weight of 0.
        empty = torch.zeros(num_lanes * num_groups, 0, head_dim, dtype=dtype)
        self.keys = [empty] * num_layers
        self.values = [empty] * num_layers
        self.mask = torch.zeros(num_lanes, 1, 0)
        self._places = torch.zeros(0, dtype=torch.long)

    def enter(self, lanes: Int[Tensor, " rows"], states: PromptStates, which: Int[Tensor, " rows"]) -> None:
        """Copies the prompts `which` into the lanes."""
        length = states.keys[0].shape[2]
        self._reserve(length)
        for buffers, prompts in ((self.keys, states.keys), (self.values, states.values)):
            for buffer, prompt in zip(buffers, prompts, strict=True):
                buffer.view(self.num_lanes, self.num_groups, self.reserved, -1)[lanes, :, :length] = prompt[which]

    def keep(self, lanes: Int[Tensor, " rows"]) -> None:
        """Keeps these lanes, in this order. One buffer at a time, so that only one is ever held twice."""
        for buffers in (self.keys, self.values):
            for index, buffer in enumerate(buffers):
                by_lane = buffer.view(self.num_lanes, -1)
                buffers[index] = by_lane[lanes].view(len(lanes) * self.num_groups, self.reserved, -1)
        self.num_lanes = len(lanes)

    def open_positions(self, positions: Int[Tensor, " lanes"]) -> None:
        """Prepares a step that writes each lane at this position and reads it up to there."""
        self._reserve(int(positions.max()) + 1)
        is_read = torch.arange(self.reserved) <= positions[:, None]
        self.mask = torch.where(is_read, 0.0, -math.inf)[:, None]
        starts = torch.arange(self.num_lanes * self.num_groups) * self.reserved
        self._places = starts + positions.repeat_interleave(self.num_groups)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes `[lanes, groups, head_dim]` at the open positions; returns the layer's buffers."""
        for buffer, states in ((self.keys[layer], keys), (self.values[layer], values)):
            head_dim = buffer.shape[-1]
            buffer.view(-1, head_dim).index_copy_(0, self._places, states.reshape(-1, head_dim))
        return self.keys[layer], self.values[layer]

    def _reserve(self, length: int) -> None:
        if length <= self.reserved:
            return
        reserved = math.ceil(length * (1 + ROOM_FRACTION) / ROOM_MULTIPLE) * ROOM_MULTIPLE
        room = (0, 0, 0, reserved - self.reserved)
        for buffers in (self.keys, self.values):
            for index, buffer in enumerate(buffers):
                buffers[index] = torch.nn.functional.pad(buffer, room)
        self.reserved = reserved
