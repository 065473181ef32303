"""From a configuration to the loss that it trains with."""

import math
import os
import sys
from importlib import import_module
from typing import Any

from klimb.divergences import Divergence
from klimb.losses import (
    Clip,
    Corrected,
    DualClip,
    KtoObjective,
    Loss,
    Mask,
    NoClip,
    Objective,
    SecondMoment,
    SquaredResidual,
    Taper,
    TotalVariation,
    Truncate,
)
from klimb.workbench.config import ConfigError, RunConfig
from klimb.workbench.config.correction import CorrectionSection

PYTHON_PREFIX = "python:"
CLIPS: dict[str, type[Clip]] = {
    "none": NoClip,
    "dual": DualClip,
    "truncate": Truncate,
    "mask": Mask,
    "taper": Taper,
    "total-variation": TotalVariation,
    "second-moment": SecondMoment,
}


def make_objective(config: RunConfig) -> Loss:
    """The objective, with a divergence of the user's own if the configuration names one, and its correction."""
    section = config.objective
    reduce = config.sampling.max_new_tokens if section.reduce == "max-new-tokens" else section.reduce
    if section.loss == "squared-residual":
        assert section.level in ("sequence", "sequence-mean")
        return SquaredResidual(
            beta=section.beta, anchor=section.anchor, value=section.value, level=section.level, reduce=reduce
        )
    if section.loss == "kto":
        return KtoObjective(
            beta=section.beta,
            desirable_weight=section.desirable_weight,
            undesirable_weight=section.undesirable_weight,
            reduce=reduce,
        )
    bounds = section.clip.model_dump(exclude={"kind"})
    clip = CLIPS[section.clip.kind](**{name: math.inf if bound == "none" else bound for name, bound in bounds.items()})
    divergence = load_divergence(section.divergence)
    if not isinstance(divergence, str):
        _check_own_divergence(config, divergence)
    objective = Objective(
        divergence=divergence,
        beta=section.beta,
        estimator=section.estimator,
        level=section.level,
        clip=clip,
        reduce=reduce,
        ratio=section.ratio,
    )
    return _corrected(objective, config.correction)


def _check_own_divergence(config: RunConfig, divergence: Divergence) -> None:
    try:
        config.check_divergence(divergence)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _corrected(objective: Objective, section: CorrectionSection) -> Loss:
    """The objective under the correction, or as it is where there is none."""
    mask = None if section.off_policy_mask == "none" else section.off_policy_mask
    if section.kind == "none":
        return objective if mask is None else Corrected(objective=objective, rule=None, off_policy_mask=mask)
    if section.kind == "decoupled":
        rule = NoClip()
    elif section.kind == "mask":
        rule = Mask(section.low, section.high)
    else:
        rule = Truncate(low=1.0, high=section.high - 1)
    return Corrected(
        objective=objective,
        rule=rule,
        level=section.level,
        normalised=section.kind == "normalised",
        off_policy_mask=mask,
    )


def load_divergence(name: str) -> str | Divergence:
    """The name itself, or the `Divergence` that `python:module.name` names, found from the working directory.

    Raises:
        ConfigError: there is no such module or name, or it isn't a Divergence.
    """
    if not name.startswith(PYTHON_PREFIX):
        return name
    module_name, _, attribute = name.removeprefix(PYTHON_PREFIX).rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = getattr(import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"objective.divergence = {name!r}: there is no module {error.name!r} in {os.getcwd()} or installed"
        ) from error
    if not isinstance(found, Divergence):
        raise ConfigError(
            f"objective.divergence = {name!r}: expected a klimb.divergences.Divergence of that name in {module_name}, "
            f"got {type(found).__name__}"
        )
    return found
