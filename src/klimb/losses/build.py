"""From the settings of a loss to the loss itself, with the parts of the user's own that they name."""

from dataclasses import fields, replace
from typing import Any

from klimb.divergences import Divergence
from klimb.errors import ConfigError
from klimb.losses.clips import Clip
from klimb.losses.kto import KtoObjective
from klimb.losses.names import MAX_NEW_TOKENS
from klimb.losses.objective import Objective
from klimb.losses.pairs import PairwiseLoss
from klimb.losses.regression import SquaredResidual
from klimb.losses.settings import (
    KtoSettings,
    LossSettings,
    ObjectiveSettings,
    OwnClip,
    PairwiseSettings,
    SquaredResidualSettings,
)
from klimb.own_parts import is_own, load_part


def build_loss(
    settings: LossSettings, *, max_new_tokens: int | None = None
) -> Objective | SquaredResidual | KtoObjective | PairwiseLoss:
    """Return the loss of these settings.

    Args:
        settings: what the loss is told.
        max_new_tokens: the longest that a response may be: what the reduction `max-new-tokens` divides by.

    Raises:
        ConfigError: a part of the user's own is not there, or is something else.
        ValueError: the reduction asks for a length, and there is none.
    """
    if isinstance(settings, PairwiseSettings):
        return PairwiseLoss(**_values(settings, PairwiseSettings))
    if settings.reduce == MAX_NEW_TOKENS and max_new_tokens is not None:
        settings = replace(settings, reduce=max_new_tokens)
    if isinstance(settings, KtoSettings):
        return KtoObjective(**_values(settings, KtoSettings))
    if isinstance(settings, SquaredResidualSettings):
        return SquaredResidual(**_values(settings, SquaredResidualSettings))
    parts: dict[str, Any] = {"divergence": load_divergence(settings.divergence), "clip": load_clip(settings.clip)}
    return Objective(**_values(settings, ObjectiveSettings) | parts)


def _values(settings: LossSettings, kind: type[LossSettings]) -> dict[str, Any]:
    return {entry.name: getattr(settings, entry.name) for entry in fields(kind)}


def load_divergence(divergence: Any) -> Any:
    """Return the divergence as it is, or the `Divergence` that `python:module.name` names.

    Raises:
        ConfigError: there is no such module or name, or it isn't a Divergence.
    """
    if not (isinstance(divergence, str) and is_own(divergence)):
        return divergence
    found = load_part(divergence, setting="objective.divergence")
    if not isinstance(found, Divergence):
        raise ConfigError(
            f"objective.divergence = {divergence!r}: expected a klimb.divergences.Divergence of that name, "
            f"got {type(found).__name__}"
        )
    return found


def load_clip(clip: Any) -> Clip:
    """Return the clip itself, or the user's own that `python:module.name` names: an object, or a class of them.

    Raises:
        ConfigError: there is no such module or name, it isn't a clip, or its class wants arguments.
    """
    if not isinstance(clip, OwnClip):
        return clip
    found = load_part(clip.kind, setting="objective.clip")
    try:
        made = found() if isinstance(found, type) else found
    except TypeError as error:
        raise ConfigError(
            f"objective.clip = {clip.kind!r}: the class cannot be made without arguments: {error}"
        ) from error
    if not isinstance(made, Clip):
        raise ConfigError(
            f"objective.clip = {clip.kind!r}: expected a function of (w, is_good, log_pi) that returns a "
            f"klimb.losses.Clipped, got {type(made).__name__}"
        )
    return made
