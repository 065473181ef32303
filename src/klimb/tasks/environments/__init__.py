"""Environments: what the policy talks to in a conversation, each in a process that can be ended."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.tasks.environments.environments import Environments
    from klimb.tasks.environments.episode import Episode, Outcome, Reply
    from klimb.tasks.environments.settings import EnvironmentSettings
    from klimb.tasks.environments.view import EnvironmentView, PartialEnvironment

__all__ = [
    "EnvironmentSettings",
    "EnvironmentView",
    "Environments",
    "Episode",
    "Outcome",
    "PartialEnvironment",
    "Reply",
]

open_lazily(__name__)
