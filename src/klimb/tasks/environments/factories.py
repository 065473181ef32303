"""What makes environments: where it is, and whether another process can find it there."""

from __future__ import annotations

import sys
from collections.abc import Callable

from klimb.own_parts import PREFIX, is_object, load_function
from klimb.tasks.environments import openenv
from klimb.tasks.environments.settings import OPENENV, EnvironmentSettings

SETTING = "environment.factory"


EXPECTED = "a class, or a function without parameters, that makes an environment"


def load_factory(settings: EnvironmentSettings) -> Callable[[], object] | None:
    """Return what makes the environments of a run; None where there are tools alone.

    Raises:
        ValueError: there is no such thing.
    """
    if not settings.factory:
        return None
    if settings.factory.startswith(OPENENV):
        address = settings.factory.removeprefix(OPENENV)
        return openenv.find_server(address, call_seconds=settings.call_seconds, setting=SETTING)
    return load_function(settings.factory, setting=SETTING, expected=EXPECTED)


def name_of(factory: Callable[[], object] | None) -> str:
    """Return what the factory is called in errors."""
    if factory is None:
        return "environment.tools"
    return getattr(factory, "__qualname__", None) or type(factory).__name__


def find_location(factory: Callable[[], object]) -> str:
    """Return `python:module.name` where another process finds this; nothing where only this process has it."""
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier():
        return ""
    return f"{PREFIX}{module}.{name}" if getattr(sys.modules.get(module), name, None) is factory else ""


def is_here_alone(settings: EnvironmentSettings) -> bool:
    """Tell whether something that environments are made of is an object of this process."""
    return any(is_object(location) for location in (settings.factory, *settings.tools))
