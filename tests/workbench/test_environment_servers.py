"""Runs of the command line whose environment, or tools, are a server of others."""

import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
from tests.benchmarks.test_environments import TEMPLATE, save_model

from klimb.experience import open_store
from klimb.training import read_metrics

RUN = """
[model]
path = {model!r}
dtype = "float32"
device = "cpu"

[task]
kind = "file"
path = "rows.jsonl"
answer = ""
reward = {reward!r}
held_out_fraction = 0.0

[environment]
{environment}
max_turns = 3
call_seconds = 60

[sampling]
num_prompts = 2
num_samples = 2
max_new_tokens = 150
sampler = "python:actors.make_sampler"

[evaluation]
at_ends = false

[training]
num_steps = 2

[run]
name = "served"
loggers = []
report = false
"""

SAMPLER = """
from benchmarks.environments.acting import ActingSampler, Actor, call, results_of

OPENINGS = {openings!r}

def go_on(history):
    return "It said: " + results_of(history)[-1]

def make_sampler(policy, max_batch):
    return ActingSampler(policy, Actor(policy.tokenizer, OPENINGS, go_on))
"""


@pytest.fixture
def train(workplace, monkeypatch):
    """Train with these first turns and this environment, from a run file; returns what was printed, and the samples."""
    monkeypatch.syspath_prepend(str(workplace.path))
    model = workplace.path / "roomy"
    save_model(model, TEMPLATE.read_text())

    def run(environment, openings, *, reward="none", settings=()):
        workplace.write("actors.py", SAMPLER.format(openings=openings))
        sys.modules.pop("actors", None)
        workplace.write("rows.jsonl", '{"question": "Say a word."}\n{"question": "Say another."}\n')
        workplace.write("served.toml", RUN.format(model=str(model), environment=environment, reward=reward))
        outcome = workplace.klimb("train", "served.toml", *(("--set", *settings) if settings else ()))
        folder = workplace.path / "runs" / "served"
        return outcome, list(open_store(folder / "rollouts").samples()) if outcome.status == 0 else []

    return run


def tool_call(name, arguments):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def wait_for(url, server, seconds=180):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not come up")


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory):
    """The example that OpenEnv ships, as it is but for the number of its sessions; its address."""
    pytest.importorskip("openenv")
    folder = tmp_path_factory.mktemp("openenv")
    subprocess.run([sys.executable, "-m", "openenv.cli", "init", "echo_env"], cwd=folder, check=True)
    program = folder / "echo_env" / "server" / "app.py"
    program.write_text(program.read_text().replace("max_concurrent_envs=1,", "max_concurrent_envs=8,"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "server.app:app", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder / "echo_env")
    try:
        wait_for(f"http://127.0.0.1:{port}/schema", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_an_environment_of_openenv_is_trained_on(train, echo_server):
    # Its reward is a tenth for each character, and at most one.
    openings = [tool_call("step", '{"message": "hey"}'), tool_call("step", '{"message": "a long message"}')]
    outcome, samples = train(f'factory = "openenv:{echo_server}"', openings)
    assert outcome.status == 0, outcome.err
    assert "step 2/2" in outcome.out
    assert sorted(round(sample.reward, 6) for sample in samples) == [0.3] * 4 + [1.0] * 4
    turns = next(sample.turns for sample in samples if round(sample.reward, 6) == 0.3)
    assert [turn.role for turn in turns] == ["assistant", "tool", "assistant"]
    assert (turns[1].name, turns[1].text) == ("step", '{"echoed_message": "hey", "message_length": 3}')


MCP_SERVER = '''
from mcp.server.mcpserver import MCPServer

server = MCPServer("words")

@server.tool()
def turn_around(word: str) -> str:
    """Write a word backwards."""
    return word[::-1]

server.run("stdio")
'''


REWARD = """
def says_god(prompt, response, answer, metadata):
    return float("god" in response)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mcp") is None, reason="the package mcp is not installed: klimb[mcp]")
def test_tools_of_an_mcp_server_are_trained_with(train, workplace):
    workplace.write("server.py", MCP_SERVER)
    workplace.write(
        "rewards.py", "def says_god(prompt, response, answer, metadata):\n    return float('god' in response)\n"
    )
    openings = [tool_call("turn_around", '{"word": "dog"}'), tool_call("turn_around", '{"word": 3}')]
    environment = f'tools = ["mcp:{sys.executable} server.py"]'
    outcome, samples = train(environment, openings, reward="python:rewards.says_god")
    assert outcome.status == 0, outcome.err
    assert "step 2/2" in outcome.out
    right, wrong = sorted((sample for sample in samples), key=lambda sample: -sample.reward)[:: len(samples) - 1]
    assert (right.reward, [turn.text for turn in right.turns if turn.role == "tool"]) == (1.0, ["god"])
    assert (wrong.reward, "must be string" in wrong.turns[1].error) == (0.0, True)
    assert [row["reward_mean"] for row in read_metrics(workplace.path / "runs/served/metrics.jsonl")] == [0.5, 0.5]
