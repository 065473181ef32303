"""Looks at what an objective is called with before any arithmetic: shapes, mask, numbers that are not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check_tensors(
    log_pi: Tensor, others: Mapping[str, Tensor | None], advantages: Tensor, mask: Tensor, *, per_sequence: bool = False
) -> None:
    """Raise at the first thing that does not fit. A non-finite log_pi is let through: it gives a non-finite loss.

    Args:
        log_pi: [batch, time].
        others: log-probabilities that the loss reads, by name; None was not given.
        advantages: [batch], or [batch, time] unless `per_sequence`.
        mask: boolean, True counts.
        per_sequence: the loss weighs whole sequences, and one advantage each is all it takes.

    Raises:
        ValueError: shapes don't match, the mask isn't boolean, or a counted number isn't finite.
    """
    shape = tuple(log_pi.shape)
    if log_pi.ndim != 2:
        raise ValueError(f"log_pi must have shape [batch, time], got {list(shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (True counts), got {mask.dtype}; convert with mask.bool()")
    given = {name: tensor for name, tensor in {**others, "mask": mask}.items() if tensor is not None}
    for name, tensor in given.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have the shape of log_pi, {list(shape)}, got {list(tensor.shape)}")
    _check_advantages(advantages, shape, per_sequence=per_sequence)
    per_token = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(mask)
    del given["mask"]
    for name, tensor in {**given, "advantages": per_token}.items():
        bad = mask & ~tensor.isfinite()
        if bool(bad.any()):
            row, time = (int(index) for index in bad.nonzero()[0])
            raise ValueError(
                f"{name} is {float(tensor[row, time])} at row {row}, position {time}, which counts (and at "
                f"{int(bad.sum())} positions in all); drop such samples or mask the tokens"
            )


def _check_advantages(advantages: Tensor, shape: tuple[int, ...], *, per_sequence: bool) -> None:
    if per_sequence and tuple(advantages.shape) != shape[:1]:
        raise ValueError(
            f"advantages must be [batch], one a sequence, of {list(shape)}, got {list(advantages.shape)}; "
            "this loss is one of whole sequences"
        )
    if tuple(advantages.shape) not in (shape, shape[:1]):
        raise ValueError(f"advantages must be [batch] or [batch, time] of {list(shape)}, got {list(advantages.shape)}")


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float32, or wider where an input is: log-ratios are never computed in less."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
