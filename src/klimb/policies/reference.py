"""A frozen copy of the trained weights, which takes the place of the policy's own while something is scored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from klimb.policies.policy import Policy


class Snapshot:
    """The trained parameters of a policy as they were at one moment.

    It holds what is trained and nothing else: of a LoRA policy the adapter alone, so that the snapshot of a fresh
    adapter is the base model. No second model is ever in memory.

    Attributes:
        is_torn: an error came in the middle of `lerp_from`, so that it is no snapshot of any moment.
        num_moves: calls of `lerp_from` that came to their end.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """Take over `weights` (name -> tensor) without copying; `Snapshot.of` makes one from a policy."""
        self._weights = weights
        self.is_torn = False
        self.num_moves = 0

    @classmethod
    def of(cls, policy: Policy) -> "Snapshot":
        """Return a copy of the policy's trained parameters."""
        return cls({name: parameter.detach().clone() for name, parameter in policy.trainable().items()})

    @contextmanager
    def swapped_into(self, policy: Policy) -> Iterator[None]:
        """While the block runs, the policy has the weights of the snapshot; nothing is copied.

        For scoring alone: gradients are off inside, and a graph made outside must not be differentiated inside.

        Raises:
            ValueError: the policy trains other parameters than the one of which this is a snapshot.
        """
        parameters = self._matching(policy)
        own = {name: parameter.data for name, parameter in parameters.items()}
        try:
            _point(parameters, self._weights)
            with torch.no_grad():
                yield
        finally:
            _point(parameters, own)

    @torch.no_grad()
    def update_from(self, policy: Policy) -> None:
        """Becomes a copy of the policy as it is now, in place."""
        for name, parameter in self._matching(policy).items():
            self._weights[name].copy_(parameter)

    @torch.no_grad()
    def lerp_from(self, policy: Policy, decay: float) -> None:
        """Move towards the policy: snapshot = decay·snapshot + (1 - decay)·policy.

        Raises:
            ValueError: decay is not in [0, 1].
        """
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {decay}; it is the share of the old snapshot that is kept")
        for name, parameter in self._matching(policy).items():
            self.is_torn = True
            self._weights[name].lerp_(parameter, 1 - decay)
        self.is_torn = False
        self.num_moves += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Name -> weight, the tensors themselves."""
        return dict(self._weights)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy saved weights into the snapshot.

        Raises:
            ValueError: names or shapes differ.
        """
        _check_same(self._weights, state, what="saved snapshot")
        for name, weight in state.items():
            self._weights[name].copy_(weight)

    def _matching(self, policy: Policy) -> dict[str, nn.Parameter]:
        parameters = policy.trainable()
        _check_same(self._weights, parameters, what=f"policy {policy.name}")
        return parameters


def _point(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.data = weights[name]
    # Inside a caller's autocast, casts of the other weights would still be in use.
    torch.clear_autocast_cache()


def _check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, what: str) -> None:
    different = sorted(expected.keys() ^ found.keys())
    if different:
        raise ValueError(
            f"the {what} does not have the parameters of this snapshot: {len(different)} differ, first {different[0]!r}"
        )
    for name, weight in expected.items():
        if weight.shape != found[name].shape:
            raise ValueError(f"{name} of the {what} has shape {list(found[name].shape)}, expected {list(weight.shape)}")
