"""The last complete step, kept so that it can be saved whatever ends the run in the middle of the next one.

A checkpoint's content is numbers and tensors. The numbers of a complete step are written down when it is complete, and
cost nothing. Its large tensors are the policy's and the optimizer's own: they stay what they were until the update, so
they are copied right before the first change of a step, and not at all by a step that changes nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from klimb.training.checkpoints import CheckpointContent

logger = logging.getLogger(__name__)


MEMORY = Path("/proc/meminfo")


LARGEST_SHARE = 0.5
"""Of the memory that is free, which the copy may take."""


CHANGED_BY_STEP = ("weights", "optimizer")


class NothingToSave(Exception):
    """The last complete step is not known any more; the message says why."""


class Rescue:
    """Keeps the content of the last complete step while the next one changes the run.

    Attributes:
        step: the last complete one; None before `keep`.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self.step: int | None = None
        self._is_on = is_on
        self._content: CheckpointContent | None = None
        self._lost = ""
        self._is_held = False
        self._buffers: dict[str, dict[str, Tensor]] = {}
        self._is_told = False

    def keep(self, content: CheckpointContent) -> None:
        """Take the content of a complete step; what is small and trained in place is copied at once."""
        tensors = dict(content.tensors)
        if "critic" in tensors:
            tensors["critic"] = {name: tensor.detach().clone() for name, tensor in tensors["critic"].items()}
        self._content = replace(content, tensors=tensors)
        self.step = int(content.numbers["step"])
        self._is_held, self._lost = False, ""

    def follow_reference(self, numbers: Mapping[str, Any]) -> None:
        """Take note that the reference has followed the policy.

        A run that is resumed from here does not move it a second time, so the step is as complete as before.
        """
        if self._content is not None:
            self._content = replace(self._content, numbers={**self._content.numbers, "reference": dict(numbers)})

    def lose(self, why: str) -> None:
        """Take note that the last complete step cannot be saved any more."""
        self._lost = self._lost or why

    def hold(self) -> None:
        """Copy what the update is about to change; does nothing the second time in a step."""
        if self._content is None or self._is_held:
            return
        self._is_held = True
        self._copy(CHANGED_BY_STEP)

    def hold_all(self) -> None:
        """Copy the reference too, which only a rollback changes in the middle of a step."""
        if self._content is None:
            return
        self.hold()
        if "reference" in self._content.tensors:
            self._copy(("reference",))

    def content(self) -> CheckpointContent:
        """Return the last complete step.

        Raises:
            NothingToSave: it is not known any more.
        """
        if self._content is None:
            raise NothingToSave("no step had begun")
        if self._lost:
            raise NothingToSave(self._lost)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the copies run behind the program
        return self._content

    def _copy(self, stems: tuple[str, ...]) -> None:
        assert self._content is not None
        tensors = dict(self._content.tensors)
        problem = self._why_not({stem: tensors[stem] for stem in stems})
        if not problem:
            try:
                tensors |= {stem: self._copies(stem, tensors[stem]) for stem in stems}
            except (MemoryError, RuntimeError) as error:
                problem = f"no memory for a copy of it ({error})"
                self._buffers.clear()
        if problem:
            self.lose(f"the update had begun, and there was {problem}")
            self._tell(problem)
            return
        self._content = replace(self._content, tensors=tensors)

    def _copies(self, stem: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        buffers = self._buffers.setdefault(stem, {})
        for name, tensor in tensors.items():
            if not _fits(buffers.get(name), tensor):
                buffers[name] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.device.type == "cuda"
                )
            buffers[name].copy_(tensor.detach(), non_blocking=True)
        return {name: buffers[name] for name in tensors}

    def _why_not(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> str:
        """Return why no copy is made, in words; empty if one is."""
        if not self._is_on:
            return "no copy of the step before (checkpoints.rescue is off)"
        needed = sum(
            tensor.numel() * tensor.element_size()
            for stem, named in tensors.items()
            for name, tensor in named.items()
            if not _fits(self._buffers.get(stem, {}).get(name), tensor)
        )
        free = free_memory()
        if needed > LARGEST_SHARE * free:
            return f"no memory for a copy of the step before ({needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free)"
        return ""

    def _tell(self, problem: str) -> None:
        if self._is_on and not self._is_told:
            self._is_told = True
            logger.warning(
                "there is %s: an error in the middle of an update goes back to the newest checkpoint", problem
            )


def _fits(buffer: Tensor | None, tensor: Tensor) -> bool:
    return buffer is not None and buffer.shape == tensor.shape and buffer.dtype == tensor.dtype


def free_memory() -> float:
    """Bytes of main memory that could be had now; infinite where the system does not say."""
    if not MEMORY.is_file():
        return float("inf")
    fields = dict(line.split(":", 1) for line in MEMORY.read_text(encoding="ascii").splitlines() if ":" in line)
    found = fields.get("MemAvailable", "").split()
    return float(found[0]) * 1024 if found else float("inf")
