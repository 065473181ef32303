"""In which order the problems are asked."""

from typing import Any

import torch

from klimb.training.streams import open_stream


class PromptStream:
    """Every problem once an epoch, in a new order each epoch.

    The order is a function of the seed, the purpose and the epoch, so (epoch, position) is all there is to save.
    """

    def __init__(self, num_problems: int, *, seed: int, purpose: str = "prompts") -> None:
        if num_problems < 1:
            raise ValueError("the task has no training problem; check its settings or its file")
        self._num_problems = num_problems
        self._seed = seed
        self._purpose = purpose
        self.epoch = 0
        self.position = 0
        self._order = self._order_of(0)

    def take(self, count: int) -> list[int]:
        """Return the numbers of the next problems; an epoch that ends in between is followed by the next."""
        taken: list[int] = []
        while len(taken) < count:
            if self.position == self._num_problems:
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._order_of(self.epoch)
            part = self._order[self.position : self.position + count - len(taken)]
            self.position += len(part)
            taken += part
        return taken

    def state(self) -> dict[str, int]:
        """Numbers that `load_state` takes back."""
        return {"epoch": self.epoch, "position": self.position, "num_problems": self._num_problems}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues where the saved stream stood.

        Raises:
            ValueError: the saved stream had another number of problems.
        """
        if state["num_problems"] != self._num_problems:
            raise ValueError(
                f"the saved position is in {state['num_problems']} problems and the task now has {self._num_problems}; "
                "resume with the data the run began with"
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._order_of(self.epoch)

    def _order_of(self, epoch: int) -> list[int]:
        generator = open_stream(self._seed, self._purpose, epoch)
        return torch.randperm(self._num_problems, generator=generator).tolist()
