"""What is done with importance weights far from 1: one section a clip, told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from klimb.workbench.config.bounds import SECTION, Fraction

Width = Annotated[float, Field(ge=0, le=1_000)]


class NoClipSection(BaseModel):
    """Importance weights are used as they are."""

    model_config = SECTION

    kind: Literal["none"] = "none"
    """No clip."""


class DualClipSection(BaseModel):
    """The paper's clip (Algorithms 1 and 2)."""

    model_config = SECTION

    kind: Literal["dual"] = "dual"
    """Dual clip."""
    low: Fraction = 0.2
    """A bad unit stops learning at w <= 1 - low."""
    high: Width = 0.28
    """A good unit stops learning at w >= 1 + high."""
    ceiling: Annotated[float, Field(gt=1, le=1_000_000)] | Literal["none"] = 3.0
    """A bad unit stops learning at w >= ceiling, or `none`."""


class TruncateSection(BaseModel):
    """The weight is bounded, the gradient is kept (Eq. 4.1, CISPO)."""

    model_config = SECTION

    kind: Literal["truncate"] = "truncate"
    """Truncation."""
    low: Fraction = 0.2
    """Smallest weight is 1 - low."""
    high: Width = 0.28
    """Largest weight is 1 + high."""


class MaskSection(BaseModel):
    """Units whose weight leaves the band are left out (IcePop)."""

    model_config = SECTION

    kind: Literal["mask"] = "mask"
    """Masking."""
    low: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Smallest weight that counts."""
    high: Annotated[float, Field(gt=1, le=1_000_000)] = 2.0
    """Largest weight that counts."""


class TaperSection(BaseModel):
    """Good units weigh 1 whatever w is, bad ones min(w, 1) (TOPR)."""

    model_config = SECTION

    kind: Literal["taper"] = "taper"
    """Tapering."""


class TotalVariationSection(BaseModel):
    """Units whose probability moved too far from mu's, the way the advantage pushes, are left out (DPPO)."""

    model_config = SECTION

    kind: Literal["total-variation"] = "total-variation"
    """Difference of probabilities."""
    low: Fraction = 0.2
    """A bad unit stops learning at pi - mu < -low."""
    high: Fraction = 0.2
    """A good unit stops learning at pi - mu > high."""
    ceiling: Annotated[float, Field(gt=1, le=1_000_000)] | Literal["none"] = 20.0
    """Largest weight, or `none`."""


class SecondMomentSection(BaseModel):
    """The most extreme units are left out until the mean of log(w)^2 is small (M2PO)."""

    model_config = SECTION

    kind: Literal["second-moment"] = "second-moment"
    """Second moment."""
    threshold: Annotated[float, Field(gt=0, le=1_000)] = 0.04
    """Largest mean of log(w)^2 over the units of a minibatch that are kept."""


ClipSection = Annotated[
    NoClipSection
    | DualClipSection
    | TruncateSection
    | MaskSection
    | TaperSection
    | TotalVariationSection
    | SecondMomentSection,
    Field(discriminator="kind"),
]
