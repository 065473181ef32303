"""An OpenEnv server as an environment: with a session that plays the server, and with a real server."""

import os
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from klimb.tasks.environments import Environments, EnvironmentSettings
from klimb.tasks.environments.openenv import OpenEnvironment
from tests.tasks.environments.scenes import LineFormat, contents, problem, tell, wait_until

MOVE = {
    "type": "object",
    "description": "Where to go.",
    "additionalProperties": False,
    "properties": {"metadata": {"type": "object"}, "direction": {"type": "string"}, "steps": {"type": "integer"}},
    "required": ["direction"],
    "title": "Move",
}

CALL_TOOL = {"type": "object", "properties": {"type": {"const": "call_tool"}, "tool_name": {}, "arguments": {}}}

ECHO = {"name": "echo", "description": "Echo.", "input_schema": {"type": "object", "properties": {"text": {}}}}


class FakeSession:
    def __init__(self):
        self.asked, self.is_closed, self.slow = [], False, False

    def reset(self, **row):
        self.asked.append(row)
        return SimpleNamespace(observation={"text": "a maze"}, reward=None, done=False)

    def step(self, action):
        self.asked.append(action)
        if self.slow:
            raise KeyboardInterrupt
        if action.get("type") == "list_tools":
            return SimpleNamespace(observation={"tools": [ECHO]}, reward=None, done=False)
        if action.get("type") == "call_tool":
            text = action["arguments"]["text"]
            failed = {"error": {"message": "no such tool"}, "result": None}
            result = {"result": {"content": [{"type": "text", "text": text}]}}
            return SimpleNamespace(observation=failed if text == "bad" else result, reward=0.5, done=False)
        return SimpleNamespace(observation={"place": [1, 2], "wall": True}, reward=0.25, done=True)

    def close(self):
        self.is_closed = True


def test_a_server_of_actions_has_the_tool_step_with_their_fields():
    session = FakeSession()
    environment = OpenEnvironment(session, MOVE)
    (tool,) = environment._offer_tools()
    assert (tool.name, tool.description) == ("step", "Where to go.")
    assert list(tool.parameters["properties"]) == ["direction", "steps"]
    assert tool.parameters["required"] == ["direction"]
    assert environment.reset(seed=3, answer="7") == "a maze"
    assert (environment.done, environment.get_reward()) == (False, None)
    assert tool.function(direction="up") == '{"place": [1, 2], "wall": true}'
    assert (environment.done, environment.get_reward()) == (True, 0.25)
    assert session.asked == [{"seed": 3, "answer": "7"}, {"direction": "up"}]
    environment.close()
    assert session.is_closed


def test_a_server_of_mcp_tools_has_those():
    environment = OpenEnvironment(FakeSession(), CALL_TOOL)
    (tool,) = environment._offer_tools()
    assert (tool.name, tool.description, tool.parameters) == ("echo", "Echo.", ECHO["input_schema"])
    assert tool.function(text="hello") == "hello"
    with pytest.raises(RuntimeError, match="no such tool"):
        tool.function(text="bad")
    assert environment.get_reward() == 1.0


def test_after_an_interrupt_no_answer_is_taken_for_another():
    session = FakeSession()
    environment = OpenEnvironment(session, MOVE)
    (tool,) = environment._offer_tools()
    session.slow = True
    with pytest.raises(KeyboardInterrupt):
        tool.function(direction="up")
    session.slow = False
    with pytest.raises(RuntimeError, match="was given up when a call took too long"):
        tool.function(direction="up")


@pytest.mark.skipif(find_spec("openenv") is not None, reason="it is installed")
def test_without_the_client_the_extra_is_named():
    settings = EnvironmentSettings(factory="openenv:http://127.0.0.1:9")
    with (
        pytest.raises(ValueError, match=r"needs OpenEnv's client: pip install 'klimb\[openenv\]'"),
        Environments(settings, call_format=LineFormat()),
    ):
        pass


SERVER = '''
from openenv.core.env_server import Action, Environment, Observation, create_app

class Guess(Action):
    """Guess the number."""
    number: int

class Hint(Observation):
    hint: str

class Game(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, answer="0", **kwargs):
        self.target = int(answer)
        return Hint(hint=f"I think of a number; seed {seed}")

    def step(self, action, timeout_s=None, **kwargs):
        right = action.number == self.target
        hint = "right" if right else "higher" if action.number < self.target else "lower"
        return Hint(hint=hint, reward=float(right), done=right)

    @property
    def state(self):
        from openenv.core.env_server import State
        return State()

app = create_app(Game, Guess, Hint, env_name="game", max_concurrent_envs=8)
'''


@pytest.mark.slow
def test_conversations_with_a_real_server_are_apart(tmp_path):
    pytest.importorskip("openenv")
    (tmp_path / "game_server.py").write_text(SERVER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "game_server:app", "--port", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ))
    try:
        wait_until(lambda: _answers(f"{address}/schema"), seconds=180)
        settings = EnvironmentSettings(factory=f"openenv:{address}")
        with Environments(settings, call_format=LineFormat()) as running:
            assert [tool["function"]["name"] for tool in running.tools] == ["step"]
            episodes = running.open([problem("7"), problem("3")], [5, 6])
            assert [each.opening for each in episodes] == [f"I think of a number; seed {seed}" for seed in (5, 6)]
            assert [contents(tell(each, 'CALL step {"number": 5}')) for each in episodes] == [["higher"], ["lower"]]
            last = tell(episodes[0], 'CALL step {"number": 7}')
            assert (contents(last), last.is_over) == (["right"], True)
            assert contents(tell(episodes[1], "CALL step {}")) == [
                "{'error': \"step: missing argument 'number' (integer)\"}"
            ]
            assert [outcome.reward for outcome in running.finish(episodes)] == [1.0, 0.0]
    finally:
        server.kill()
        server.wait()


def _answers(url):
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True
