"""What the tests of environments share: a call format of one line, problems, and conversations."""

import contextlib
import time
from dataclasses import dataclass

from klimb.experience.samples import ToolCall
from klimb.tasks.environments import Environments, EnvironmentSettings
from klimb.tasks.protocol import Problem, chat
from klimb.tasks.tools import ParsedTurn

GAMES = "python:tests.tasks.environments.games"


@dataclass(frozen=True)
class LineFormat:
    """`CALL name {arguments}` on a line of its own is a call; `CALL` alone cannot be read."""

    name: str = "lines"

    def parse(self, text, tools=()):
        calls, said, error = [], [], ""
        for line in text.splitlines():
            if line.strip() == "CALL":
                error = "a call needs a name"
            elif line.startswith("CALL "):
                name, _, arguments = line.removeprefix("CALL ").partition(" ")
                calls.append(ToolCall(name=name, arguments=arguments or "{}"))
            else:
                said.append(line)
        return ParsedTurn(content="\n".join(said), calls=tuple(calls), error=error)

    def render(self, calls):
        return "\n".join(f"CALL {call.name} {call.arguments}" for call in calls)


def problem(answer="7", **metadata):
    return Problem(problem_id="p1", messages=chat("Play."), answer=answer, metadata=metadata)


def environments(name, **settings):
    told = EnvironmentSettings(factory=f"{GAMES}.{name}" if name else "", **settings)
    return Environments(told, call_format=LineFormat())


@contextlib.contextmanager
def opened(name, *answers, **settings):
    """Open one conversation for each answer, with seeds 0, 1, …"""
    with environments(name, **settings) as running:
        yield running.open([problem(answer) for answer in answers], range(len(answers)))


def contents(reply):
    return [message["content"] for message in reply.messages]


def tell(episode, text):
    return episode.respond(text).result(timeout=60)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(is_true, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
