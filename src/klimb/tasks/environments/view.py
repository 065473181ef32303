"""What a reward function sees of an environment that lived in another process: a copy, as whole as pickle makes it."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LARGEST_COPY = 64_000_000
"""Bytes of an environment, or of one attribute, that are sent."""


MAIN = b"__main__"
"""In what pickle writes of a thing that only the process that made it can find again."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentView:
    """A copy of an environment that is not opened yet: bytes, which the process that scores opens.

    Attributes:
        kind: the name of its class.
        whole: the environment as pickle writes it; None where it can't.
        parts: attributes one by one, where the whole can't be written or may not be read elsewhere.
        missing: why an attribute is not among the parts.
    """

    kind: str
    whole: bytes | None = None
    parts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    missing: Mapping[str, str] = field(default_factory=dict[str, str])

    def unseal(self) -> object:
        """Return the copy; where it cannot be read whole, a `PartialEnvironment`."""
        if self.whole is not None:
            try:
                return pickle.loads(self.whole)
            # Code of others, which may raise anything while it is read; the attributes may do.
            except Exception as error:
                missing = {**self.missing, "": _name_error(error)}
                return PartialEnvironment(self.kind, self.parts, missing)
        return PartialEnvironment(self.kind, self.parts, self.missing)

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON can write."""
        return {
            "kind": self.kind,
            "whole": None if self.whole is None else _as_text(self.whole),
            "parts": {name: _as_text(part) for name, part in self.parts.items()},
            "missing": dict(self.missing),
        }


def read_view(written: Mapping[str, Any]) -> EnvironmentView:
    """Return what `as_json` wrote."""
    whole = written["whole"]
    return EnvironmentView(
        kind=written["kind"],
        whole=None if whole is None else base64.b64decode(whole),
        parts={name: base64.b64decode(part) for name, part in written["parts"].items()},
        missing=written["missing"],
    )


def _as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class PartialEnvironment:
    """Those attributes of an environment that could be sent; another one raises an error that names it."""

    def __init__(self, kind: str, parts: Mapping[str, bytes], missing: Mapping[str, str]) -> None:
        self.__dict__.update(_kind=kind, _parts=dict(parts), _missing=dict(missing))

    def __getattr__(self, name: str) -> Any:
        """Return the attribute as it was sent.

        Raises:
            AttributeError: it was not, with the reason.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        parts, missing = self.__dict__["_parts"], self.__dict__["_missing"]
        why = missing.get(name, "")
        if name in parts:
            try:
                value = self.__dict__[name] = pickle.loads(parts[name])
                return value
            # Code of others, which may raise anything while it is read.
            except Exception as error:
                why = _name_error(error)
        kind = self.__dict__["_kind"]
        if why:
            raise AttributeError(
                f"{name!r} of the environment {kind} cannot be sent to a reward function ({why}); keep what rewards "
                "need in attributes that pickle takes, or let the environment give the reward with get_reward"
            )
        whole = f" ({missing['']})" if "" in missing else ""
        raise AttributeError(
            f"the environment {kind} cannot be sent whole{whole}, so that a reward function sees its attributes alone, "
            f"and {name!r} is none: there are {', '.join(sorted(parts)) or 'none'}"
        )

    def __repr__(self) -> str:
        return f"<what could be sent of {self.__dict__['_kind']}: {', '.join(sorted(self.__dict__['_parts']))}>"


def view_of(environment: object) -> EnvironmentView:
    """Return a copy of an environment that can be sent."""
    kind = type(environment).__name__
    whole, why = _try_pickle(environment)
    # What the program itself defines may be read in its own process, and in no other.
    if whole is not None and MAIN not in whole:
        return EnvironmentView(kind=kind, whole=whole)
    parts: dict[str, bytes] = {}
    missing = {} if whole is not None else {"": why}
    for name, value in _attributes_of(environment).items():
        part, why = _try_pickle(value)
        if part is None:
            missing[name] = why
        else:
            parts[name] = part
    return EnvironmentView(kind=kind, whole=whole, parts=parts, missing=missing)


def _attributes_of(environment: object) -> dict[str, Any]:
    slots = [name for each in type(environment).__mro__ for name in _names(getattr(each, "__slots__", ()))]
    found = {name: getattr(environment, name) for name in slots if hasattr(environment, name)}
    return {**found, **getattr(environment, "__dict__", {})}


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _try_pickle(value: object) -> tuple[bytes | None, str]:
    try:
        data = pickle.dumps(value)
    # Code of others, which may raise anything while it is written.
    except Exception as error:
        return None, _name_error(error)
    if len(data) > LARGEST_COPY:
        return None, f"it takes {len(data):,} bytes, more than {LARGEST_COPY:,}"
    return data, ""


def _name_error(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
