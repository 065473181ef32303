"""What is done about samples that a policy other than the one at the start of the update drew: `[correction]`."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from klimb.workbench.config.bounds import SECTION

Level = Literal["token", "prefix", "sequence", "sequence-mean"]


Threshold = Annotated[float, Field(gt=0, le=1_000)] | Literal["none"]


Weight = Annotated[float, Field(gt=1, le=1_000_000)]


class NoCorrectionSection(BaseModel):
    """The objective weighs by pi/mu itself."""

    model_config = SECTION

    kind: Literal["none"] = "none"
    """No weight besides."""
    off_policy_mask: Threshold = "none"
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""


class DecoupledSection(BaseModel):
    """The clip acts on pi/prox, prox the policy at the start of the update; terms are weighed by prox/mu as it is."""

    model_config = SECTION

    kind: Literal["decoupled"] = "decoupled"
    """Decoupled proximal policy."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    off_policy_mask: Threshold = "none"
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""


class TruncatedSection(BaseModel):
    """The same with the weight min(prox/mu, high) (TIS)."""

    model_config = SECTION

    kind: Literal["truncate"] = "truncate"
    """Truncated importance sampling."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    high: Weight = 2.0
    """Largest weight."""
    off_policy_mask: Threshold = "none"
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""


class NormalisedSection(BaseModel):
    """The same with the weight min(prox/mu, high), divided by its mean over the minibatch."""

    model_config = SECTION

    kind: Literal["normalised"] = "normalised"
    """Self-normalised truncated importance sampling."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    high: Weight = 2.0
    """Largest weight before the division."""
    off_policy_mask: Threshold = "none"
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""


class MaskedSection(BaseModel):
    """The same with units left out whose prox/mu leaves the band (IcePop at token level, MIS at sequence level)."""

    model_config = SECTION

    kind: Literal["mask"] = "mask"
    """Masked importance sampling."""
    level: Level = "token"
    """The unit over which prox/mu is formed."""
    low: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Smallest weight that counts."""
    high: Weight = 5.0
    """Largest weight that counts."""
    off_policy_mask: Threshold = "none"
    """Leave out responses with a negative advantage whose mean log(mu/pi) exceeds this, in nats per token."""


CorrectionSection = Annotated[
    NoCorrectionSection | DecoupledSection | TruncatedSection | NormalisedSection | MaskedSection,
    Field(discriminator="kind"),
]


def check_correction(correction: CorrectionSection, *, recipe: str, loss: str, ratio: str) -> None:
    """Return if the loss has something to correct.

    Raises:
        ValueError: it hasn't.
    """
    if correction == NoCorrectionSection():
        return
    if loss != "policy-gradient":
        raise ValueError(
            f"correction.kind = {correction.kind!r} weighs the terms of a policy gradient, and the loss {loss} of "
            f"recipe {recipe} is none; leave [correction] out, or take another recipe"
        )
    if correction.kind != "none" and ratio == "none":
        raise ValueError(
            f"correction.kind = {correction.kind!r} splits the ratio pi/mu, and objective.ratio = 'none' (recipe "
            f"{recipe}) forms none; leave [correction] out, or set objective.ratio = 'recorded'"
        )
