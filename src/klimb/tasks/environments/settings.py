"""What a run can be told of its environment and tools, as `[environment]`. Read without what starts processes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, MaxLen

from klimb.declarations import (
    Count,
    FromList,
    Matching,
    OrWord,
    Seconds,
    configurable,
    one_of,
    require,
    require_known,
)
from klimb.own_parts import LOCATION
from klimb.tasks.tools.call_format import CallFormat
from klimb.tasks.tools.formats import FORMATS, choose_format, get_format
from klimb.tasks.tools.loading import ToolLocation

OPENENV = "openenv:"
"""What stands before the address of an OpenEnv server."""


AUTO = "auto"
"""The call format that the chat template shows."""


CallFormatName = Annotated[str, one_of((AUTO, *FORMATS))]


RewrittenHistory = Literal["split", "refuse"]


EnvironmentFactory = Annotated[
    str,
    MaxLen(4_000),
    Matching(
        rf"^$|{LOCATION.pattern}|^{OPENENV}(http|ws)s?://[^\s]+$",
        f"'python:module.name' or '{OPENENV}http://HOST:PORT'",
    ),
]


@configurable
@dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """What the policy talks to: an environment, tools, or both; and how far a conversation may go."""

    factory: EnvironmentFactory = ""
    """`python:module.name`: a class, or a function without parameters, that makes an environment as TRL's
    `environment_factory` does: it has `reset`, and its other public methods are tools. `openenv:http://HOST:PORT` is an
    OpenEnv server. Empty: the task's own environment, or tools alone."""
    command: Annotated[str, MaxLen(4_000)] = ""
    """A program of your own that brings its loop, such as `python my_agent.py`: it is started once for each sample, no
    shell reads the line, and its calls of the chat completions API are the turns. `python` is the one that runs klimb.
    Of the limits, `max_turns` is then of its calls, `max_tokens` of the tokens of a sample's turns with what is put in
    between, `call_seconds` of the time between an answer and what the program does next, `max_processes` of the
    programs that run at once."""
    tools: Annotated[tuple[ToolLocation, ...], FromList(), MaxLen(100)] = ()
    """What is offered as tools besides the environment's: `python:module.name` is a function, or a class whose methods
    are tools; `mcp:http://HOST:PORT/PATH` and `mcp:COMMAND` are MCP servers."""
    max_turns: Count = 10
    """Turns of the policy in a conversation."""
    max_tokens: Annotated[Count | None, OrWord("none", None)] = None
    """Tokens of a response, those of tools and users included; with `none` only the model's positions end it."""
    call_seconds: Seconds = 10.0
    """A call that takes longer is answered with an error, and the conversation goes on. An environment that cannot even
    be interrupted is ended, which costs its sample."""
    sample_seconds: Annotated[Seconds | None, OrWord("none", None)] = None
    """Seconds that the environment and tools may take for a sample, all calls together; then the conversation is over.
    The time in which the policy draws does not count."""
    call_format: CallFormatName = AUTO
    """How the model writes its calls; `auto` reads it from the chat template."""
    rewritten_history: RewrittenHistory = "split"
    """Where the chat template rewrites what was said before (drops earlier thoughts, say): `split` makes each turn a
    sample of its own with that history as its prompt, `refuse` ends the run before its first step."""
    max_processes: Annotated[int, Ge(1), Le(10_000)] = 64
    """Processes in which environments run, one in each. Of more environments than that, some share a process: one call
    after the other, and what ends the process costs all of them their samples."""
    memory_limit_gigabytes: Annotated[Annotated[float, Ge(0.001), Le(100_000)] | None, OrWord("none", None)] = 8.0
    """Memory of such a process and of each that it starts (their address space), or `none`: browsers and Node reserve
    more than they use, and need that."""

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_tokens", "max_processes"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, ">= 1")
        for name in ("call_seconds", "sample_seconds", "memory_limit_gigabytes"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "> 0")
        require_known("call_format", self.call_format, (AUTO, *FORMATS))
        require_known("rewritten_history", self.rewritten_history, get_args(RewrittenHistory))
        repeated = next((each for each in self.tools if self.tools.count(each) > 1), None)
        require(repeated is None, "tools", repr(repeated), "named once each")
        if self.command:
            self._check_command()

    def _check_command(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"command = {self.command!r} cannot be read: {error}") from error
        require(bool(words), "command", repr(self.command), "a program with its arguments")
        for name in ("factory", "tools"):
            found = getattr(self, name)
            require(not found, name, repr(found), "left out beside command: the program brings what it needs")
        refuses = self.rewritten_history == "refuse"
        require(not refuses, "rewritten_history", "'refuse'", "'split' beside command: what it sends is up to it")

    def find_format(self, chat_template: str) -> CallFormat:
        """Return how a model of this chat template writes its calls.

        Raises:
            ValueError: the template shows no format that is known, and none is stated.
        """
        return choose_format(chat_template) if self.call_format == AUTO else get_format(self.call_format)
