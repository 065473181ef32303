"""Bounded field types that every section uses: finite numbers, texts with a longest length."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from klimb.declarations import OWN_KIND, OwnName
from klimb.own_parts import LOCATION
from klimb.workbench.loggers.registry import LOGGERS

SECTION = ConfigDict(
    frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
)
"""Settings of every section: unknown keys, NaN and silent conversions (`"5"` for 5) are errors."""


def in_plain_words(allowed: str) -> Any:
    """Mark a type with what an error should say it takes, where its pattern would say nothing to most people."""
    return Field(json_schema_extra={"allowed": allowed})


RunName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"),
    in_plain_words("1 to 100 letters, digits, dots, dashes and underscores, no dot first"),
]


def _without_repetition(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} is there more than once; name each once")
    return names


Loggers = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=rf"^({'|'.join(LOGGERS)})$|{LOCATION.pattern}")], ...],
    Field(strict=False),
    AfterValidator(_without_repetition),
    in_plain_words(f"a list of {', '.join(map(repr, LOGGERS))} or {OWN_KIND!r}; [] for none"),
]


OwnCallbacks = Annotated[
    tuple[OwnName, ...],
    Field(strict=False),
    AfterValidator(_without_repetition),
    in_plain_words(f"a list of {OWN_KIND!r}; [] for none"),
]


OwnFindings = Annotated[
    tuple[OwnName, ...],
    Field(strict=False),
    AfterValidator(_without_repetition),
    in_plain_words(f"a list of {OWN_KIND!r}; [] for none"),
]
