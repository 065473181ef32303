"""Agents that bring their own loop: programs whose calls of the policy become the turns of samples."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.training.agents.agents import Agents
    from klimb.training.agents.calls import Call, CallRefused, Endpoint, Said

__all__ = ["Agents", "Call", "CallRefused", "Endpoint", "Said"]

open_lazily(__name__)
