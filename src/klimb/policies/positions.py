"""How many positions a model has at which its log-probabilities do not depend on the rows beside them."""

from collections.abc import Iterator, Mapping
from typing import Any

LENGTH_DEPENDENT = ("longrope", "dynamic")
"""Rotary embeddings whose angles change for all rows once the longest row of a batch passes the original positions."""


def find_max_positions(config: Any) -> int | None:
    """Return the positions of a model by its text configuration; None if it has no bound.

    Beyond the original positions of `longrope` (Phi-3) and `dynamic` scaling, transformers takes other angles for the
    whole batch, and keys that were cached before keep the old ones: what a row's tokens are worth would depend on its
    neighbours. So these models have their original positions.

    Source: transformers' modeling_rope_utils.dynamic_rope_update.
    """
    bounds = [getattr(config, "max_position_embeddings", None)]
    for parameters in _rope_parameters(config):
        if parameters.get("rope_type", parameters.get("type")) in LENGTH_DEPENDENT:
            original = parameters.get("original_max_position_embeddings")
            bounds.append(original or getattr(config, "original_max_position_embeddings", None))
    known = [bound for bound in bounds if bound is not None]
    return min(known) if known else None


def _rope_parameters(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of the rotary embeddings: one mapping, or one for each type of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(config, name, None)
        if not isinstance(found, Mapping):
            continue
        nested = [value for value in found.values() if isinstance(value, Mapping)]
        yield from nested or [found]
