"""What the policy of a run talks to: its environments, how it calls tools, and what its chat template does to them."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from klimb.errors import ConfigError
from klimb.own_parts import hash_file
from klimb.policies import Policy
from klimb.policies.stability import check_history
from klimb.samplers import Sampler
from klimb.tasks import ProblemSet
from klimb.tasks.environments import Environments, EnvironmentSettings
from klimb.tasks.environments.factories import name_of
from klimb.tasks.programs.program import words_of
from klimb.tasks.tools import NO_CALLS, CallFormat, get_format
from klimb.training.agents import Agents, Endpoint
from klimb.training.dialogues import Dialogues
from klimb.ui.text import printable
from klimb.workbench.listening import import_server


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the environments of a run offer, as one of them that was made to be looked at says.

    Attributes:
        tools: their schemas.
        has_reward: whether they give rewards themselves.
    """

    tools: tuple[Mapping[str, Any], ...]
    has_reward: bool


def has_environment(settings: EnvironmentSettings | None, task: ProblemSet) -> bool:
    """Return whether answers are conversations."""
    return settings is not None or task.environment is not None


def check_environment(settings: EnvironmentSettings | None, task: ProblemSet) -> None:
    """Return if what the run talks to is named, or if it talks to nothing.

    Raises:
        ConfigError: `[environment]` names nothing, and the task has no environment.
    """
    if settings is None or settings.factory or settings.tools or task.environment is not None:
        return
    if settings.command:
        return
    raise ConfigError(
        f"[environment] names nothing to talk to, and the task {task.name} has no environment of its own: set "
        "environment.factory, environment.tools or environment.command, take a task that has one (calculator, "
        "guessing, sql), or leave "
        "[environment] out"
    )


def find_offer(settings: EnvironmentSettings | None, task: ProblemSet) -> Offer | None:
    """Return what the environments offer; None where each answer is one turn. An environment is made, and closed.

    Raises:
        ConfigError: there is nothing to talk to, or it cannot be loaded or made, or is no environment.
    """
    if not has_environment(settings, task):
        return None
    check_environment(settings, task)
    if settings is not None and settings.command:
        check_program(settings.command)
        return Offer(tools=(), has_reward=True)
    try:
        # Nothing is said to this one, so that any format will do.
        with Environments(
            settings or EnvironmentSettings(), call_format=get_format("hermes"), factory=task.environment
        ) as environments:
            return Offer(tools=environments.tools, has_reward=environments.has_reward)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_program(command: str) -> None:
    """Return if there is such a program.

    Raises:
        ConfigError: there is none.
    """
    first = words_of(command)[0]
    if shutil.which(first) is None:
        raise ConfigError(
            f"environment.command = {command!r}: there is no program {first!r}; give its path, from "
            f"{Path.cwd()}, or one that the shell finds"
        )


def files_of(command: str) -> dict[str, str]:
    """Return the files that the command names, with 16 digits of what is in each: another file is another experiment.

    Of a Python file, the modules beside it that it imports are in the digits.
    """
    files = [word for word in (words_of(command)[1:] if command else ()) if Path(word).is_file()]
    return {f"{word}, in environment.command": hash_file(Path(word)) for word in files}


class OpenEndpoint(Endpoint, AbstractContextManager["OpenEndpoint"], Protocol):
    """Where programs call, which listens while it is entered."""


def make_environments(
    settings: EnvironmentSettings | None, policy: Policy, task: ProblemSet, *, tools: Sequence[Mapping[str, Any]]
) -> Environments | OpenEndpoint | None:
    """Return the environments of a run, or where its programs call, not yet entered. `tools` are on offer.

    None where each answer is one turn.

    Raises:
        ConfigError: there is nothing to talk to, or it cannot be said how the model writes its calls.
    """
    if not has_environment(settings, task):
        return None
    check_environment(settings, task)
    if settings is not None and settings.command:
        _, server = import_server("klimb.web.serve.agents", what="environment.command")
        return server.AgentEndpoint(policy)
    chosen = settings or EnvironmentSettings()
    try:
        return Environments(chosen, call_format=find_format(chosen, policy, tools), factory=task.environment)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def find_format(settings: EnvironmentSettings, policy: Policy, tools: Sequence[Mapping[str, Any]]) -> CallFormat:
    """Return how the model writes its calls, as stated or as its chat template shows.

    Raises:
        ValueError: there is no such format, or the template shows none that is known and there are tools to call.
    """
    try:
        return settings.find_format(str(policy.tokenizer.chat_template))
    except ValueError:
        if tools:
            raise
        return NO_CALLS


def describe_environment(
    settings: EnvironmentSettings | None, task: ProblemSet, offer: Offer, *, max_new_tokens: int
) -> str:
    """Return what the policy talks to, with what it may call and for how long, in one line."""
    chosen = settings or EnvironmentSettings()
    if chosen.command:
        return f"{chosen.command}, a program for each sample · {limits_of(chosen, max_new_tokens)}"
    called = chosen.factory or ("" if task.environment is None else f"{name_of(task.environment)}, the task's own")
    names = ", ".join(str(cast(Mapping[str, Any], schema["function"])["name"]) for schema in offer.tools)
    parts = [called or "tools alone", f"tools {names}" if names else "no tools", limits_of(chosen, max_new_tokens)]
    return " · ".join(parts)


def limits_of(settings: EnvironmentSettings, max_new_tokens: int) -> str:
    """Return how far a conversation may go: turns, tokens, seconds."""
    turns = "1 turn" if settings.max_turns == 1 else f"{settings.max_turns} turns"
    whole = "" if settings.max_tokens is None else f", {settings.max_tokens} in all with what is put in"
    sample = "" if settings.sample_seconds is None else f", {settings.sample_seconds:g} s for all of a sample"
    return f"at most {turns} of {max_new_tokens} tokens{whole} · {settings.call_seconds:g} s a call{sample}"


def describe_dialogues(settings: EnvironmentSettings | None, dialogues: Dialogues | Agents) -> list[tuple[str, str]]:
    """Return how the policy calls its tools, what these are, and what its chat template does to histories."""
    chosen = settings or EnvironmentSettings()
    if isinstance(dialogues, Agents):
        return [("calls", f"{dialogues.endpoint.base_url}/chat/completions, with a key for each sample")]
    form = find_format(chosen, dialogues.policy, dialogues.environments.tools)
    why = "which the chat template shows" if chosen.call_format == "auto" else "as environment.call_format says"
    why = "as there are no tools" if form is NO_CALLS else why
    stability, rewritten = dialogues.stability, ""
    if stability.kind == "rewrites":
        rewritten = "; where it does, each turn is a sample of its own (environment.rewritten_history = 'split')"
    return [
        ("calls", f"{form.name}, {why}"),
        *(("tool", words) for words in tools_in_words(dialogues.environments.tools)),
        ("history", f"{stability.describe()}{rewritten}"),
    ]


def tools_in_words(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each tool with its parameters as a function is written: `guess(number: integer)`."""
    return [_tool_in_words(cast(Mapping[str, Any], schema["function"])) for schema in tools]


def _tool_in_words(told: Mapping[str, Any]) -> str:
    parameters = cast(Mapping[str, Any], told.get("parameters") or {})
    known = cast(Mapping[str, Mapping[str, Any]], parameters.get("properties") or {})
    needed = cast(Sequence[str], parameters.get("required") or ())
    written = [f"{name}: {_type_in_words(of)}{'' if name in needed else ' (optional)'}" for name, of in known.items()]
    first_line = str(told.get("description") or "").strip().partition("\n")[0]
    return printable(f"{told['name']}({', '.join(written)})" + (f": {first_line}" if first_line else ""))


def _type_in_words(schema: Mapping[str, Any]) -> str:
    found = schema.get("type", "any")
    return " or ".join(map(str, cast(Sequence[object], found))) if isinstance(found, list) else str(found)


def make_talks(
    policy: Policy, sampler: Sampler, environments: Environments | OpenEndpoint, settings: EnvironmentSettings | None
) -> Dialogues | Agents:
    """Return the policy with its environments, which are running, or with the programs that will call it.

    Raises:
        ConfigError: the chat template does not go with the environments.
    """
    if isinstance(environments, Environments):
        return make_dialogues(policy, sampler, environments)
    return Agents(
        policy=policy,
        sampler=sampler,
        endpoint=environments,
        settings=settings or EnvironmentSettings(),
        is_stable=check_history(policy.tokenizer, end_ids=policy.end_ids).kind == "stable",
    )


def make_dialogues(policy: Policy, sampler: Sampler, environments: Environments) -> Dialogues:
    """Return the policy with its environments, which are running.

    Raises:
        ConfigError: the chat template refuses such conversations, tells the model of no tools though there are some,
            or rewrites histories though that is to be refused.
    """
    stability = check_history(policy.tokenizer, tools=environments.tools, end_ids=policy.end_ids)
    if stability.kind == "refuses":
        raise ConfigError(f"the model cannot talk to an environment: {stability.describe()}")
    if environments.tools and not stability.offers_tools:
        raise ConfigError(
            "the environment has tools, and the model's chat template tells the model of none; set model.chat_template "
            "to one that does (examples/templates has one), or take a model that was made for tools"
        )
    if stability.kind == "rewrites" and environments.settings.rewritten_history == "refuse":
        raise ConfigError(
            f"environment.rewritten_history = 'refuse', and {stability.describe()}; set it to 'split', or take a "
            "template that keeps what was said"
        )
    return Dialogues(policy=policy, sampler=sampler, environments=environments, stability=stability)
