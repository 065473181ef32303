"""The oracle's world as tensors: what an objective is called with."""

from collections.abc import Callable

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


COUNTS = np.random.default_rng(14).integers(1, 5, len(world.SEQUENCES))
"""How often each sequence stands in a data set that holds them all."""


def data_conditionals() -> np.ndarray:
    """The policy that the data set is an exact sample of: next-token shares at each prefix."""
    totals = np.zeros((len(world.PREFIXES), world.NUM_TOKENS))
    for count, y in zip(COUNTS, world.SEQUENCES, strict=True):
        for t, token in enumerate(y):
            totals[world.ROW[y[:t]], token] += count
    return totals / totals.sum(1, keepdims=True)


def in_data(values: Tensor) -> Tensor:
    """Rows of sequences as rows of the data set."""
    return values.repeat_interleave(torch.from_numpy(COUNTS), dim=0)


def minimiser(loss_of: Callable[[Tensor], Tensor], start: np.ndarray) -> np.ndarray:
    """Probabilities of the sequences under the table of logits at which the loss is least, by L-BFGS in float64."""
    table = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [table], lr=1.0, max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(table)
        loss.backward()
        return loss

    optimizer.step(closure)
    return world.token_probabilities(world.conditionals(table.detach().numpy())).prod(1)
