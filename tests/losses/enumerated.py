"""The oracle's world as tensors: what an objective is called with."""

import numpy as np
import torch
from torch import Tensor

from tests.oracle import world

POLICY = world.logits(11)
BEHAVIOUR = world.conditionals(world.logits(12))
REFERENCE = world.conditionals(world.logits(13))


def log_probs(table: Tensor) -> Tensor:
    """Log-probability of each sequence's tokens [sequences, time], differentiable; NaN after the end."""
    conditional = table.log_softmax(-1)
    rows = [torch.stack([conditional[world.ROW[y[:t]], token] for t, token in enumerate(y)]) for y in world.SEQUENCES]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("nan"))


def log_of(conditionals: np.ndarray) -> Tensor:
    return torch.from_numpy(np.log(world.token_probabilities(conditionals)))
