"""Callbacks: the user's own code, called as a run goes on. Read without torch.

A callback is an object with some of the methods of `Callback`, or a class of them that takes no arguments. It sees the
numbers of a run and changes none, unless it changes the policy itself; it may ask the run to stop.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from klimb.errors import ConfigError
from klimb.own_parts import load_part
from klimb.tasks.protocol import did_you_mean

if TYPE_CHECKING:  # for annotations only
    from klimb.experience import Sample
    from klimb.findings.evaluations import EvaluationRecord
    from klimb.policies import Policy


@dataclass(kw_only=True)
class RunningRun:
    """The run as a callback sees it.

    Attributes:
        folder: of the run.
        policy: that is trained, at the point that samples and is evaluated.
        num_steps: after which the run ends at the latest.
        step: the last complete one; 0 before the first.
        advantages: of what this step trained on, by sample_id: the reward less its baseline.
        ending: why a callback stopped the run; empty while none did.
    """

    folder: Path
    policy: Policy
    num_steps: int
    step: int = 0
    advantages: Mapping[str, float] = field(default_factory=dict)
    ending: str = ""

    def stop(self, reason: str) -> None:
        """End the run after this step: it is saved and evaluated as at its last step, and says why it ended."""
        self.ending = self.ending or (str(reason) or "a callback asked for it")


class Callback(Protocol):
    """What a callback may have; it needs one of these methods."""

    def on_start(self, run: RunningRun) -> None:
        """Before the first step of this process; `run.step` is not 0 where the run is resumed."""
        ...

    def on_step(self, run: RunningRun, metrics: Mapping[str, float], samples: Sequence[Sample]) -> None:
        """After each step, with its line of metrics.jsonl and all that it drew; before it is saved."""
        ...

    def on_evaluation(self, run: RunningRun, record: EvaluationRecord) -> None:
        """After each evaluation between the steps; before `on_step` of that step."""
        ...

    def on_checkpoint(self, run: RunningRun, path: Path) -> None:
        """After each checkpoint, with its folder."""
        ...

    def on_end(self, run: RunningRun, metrics: Mapping[str, float]) -> None:
        """After the last step and its checkpoint, with its metrics; not where an error or a signal ends the run."""
        ...


EVENTS: Mapping[str, int] = {"on_start": 1, "on_step": 3, "on_evaluation": 2, "on_checkpoint": 2, "on_end": 2}
"""Method -> how many arguments it is called with, the run first."""


NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass
class Callbacks:
    """All callbacks of a run, called in their order."""

    callbacks: Sequence[object] = ()
    run: RunningRun | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for callback in self.callbacks:
            check_callback(callback)

    def call(self, event: str, *told: Any) -> None:
        """Call the method of this name of all callbacks that have it, with the run and what is told."""
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is not None:
                method(self.run, *told)

    def at_step(self, step: int, advantages: Mapping[str, float] = NOTHING) -> None:
        """Note which step is complete, and what it trained on."""
        if self.run is not None:
            self.run.step, self.run.advantages = step, advantages

    @property
    def ending(self) -> str:
        """Why a callback stopped the run; empty where none did."""
        return "" if self.run is None else self.run.ending


def load_callback(location: str) -> object:
    """Return the callback that `python:module.name` names: an object, or one of the class of that name.

    Raises:
        ConfigError: there is no such module or name, its class takes arguments, or it is no callback.
    """
    found = load_part(location, setting="run.callbacks")
    try:
        callback = found() if isinstance(found, type) else found
    except TypeError as error:
        raise ConfigError(
            f"run.callbacks has {location!r}: the class cannot be made without arguments: {error}"
        ) from error
    check_callback(callback, name=f"run.callbacks has {location!r}: ")
    return callback


def check_callback(callback: object, *, name: str = "") -> None:
    """Return if it has a method of a callback, none that is misspelt, and each can be called with what it is told.

    Raises:
        ConfigError: it doesn't; with the nearest name.
    """
    events = ", ".join(EVENTS)
    has = [event for event in dir(callback) if event.startswith("on_") and callable(getattr(callback, event))]
    unknown = next((event for event in has if event not in EVENTS), None)
    if unknown is not None:
        raise ConfigError(
            f"{name}{type(callback).__name__} has a method {unknown}, and a callback has {events}"
            f"{did_you_mean(unknown, EVENTS)}"
        )
    if not has:
        what = getattr(callback, "__name__", type(callback).__name__)
        raise ConfigError(f"{name}{what} is no callback: expected an object with one of the methods {events}")
    for event in has:
        signature = inspect.signature(getattr(callback, event))
        try:
            signature.bind(*range(EVENTS[event]))
        except TypeError:
            raise ConfigError(
                f"{name}{event} of {type(callback).__name__} is called with {ARGUMENTS[event]}, and its signature is "
                f"{signature}"
            ) from None


ARGUMENTS: Mapping[str, str] = {
    "on_start": "(run)",
    "on_step": "(run, metrics, samples)",
    "on_evaluation": "(run, record)",
    "on_checkpoint": "(run, path)",
    "on_end": "(run, metrics)",
}
