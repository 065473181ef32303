"""The tools of an MCP server are tools like others, over standard input and output and over HTTP."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.tasks.tools import Tool, check_arguments, close_tools, load_tools, mcp_tools
from klimb.tasks.tools.mcp_server import ToolError

SERVER = '''
import os, sys, time
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests")

@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b

@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)

@server.tool()
def sleep(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "awake"

@server.tool()
async def process() -> str:
    """Say which process this is."""
    return str(os.getpid())

if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run("stdio")
'''


needs_mcp = pytest.mark.skipif(find_spec("mcp") is None, reason="the package mcp is not installed: klimb[mcp]")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER, encoding="utf-8")
    return path


@pytest.fixture
def address(script: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(script), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the server of the test did not come up")


def by_name(tools: tuple[Tool, ...]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def check_tools(tools: dict[str, Tool]) -> None:
    assert list(tools) == ["add", "fail", "process", "sleep"]
    add = tools["add"]
    assert add.description == "Add two numbers."
    assert add.parameters["required"] == ["a"]
    assert check_arguments(add, {"a": "x"}) == "add: 'a' must be integer, got string \"x\""
    assert add.function(a=2, b=3) == "5"
    assert add.function(a=2) == "3"
    with pytest.raises(ToolError, match="for a reason"):
        tools["fail"].function(why="for a reason")
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"the tool sleep did not answer within 3 s"):
        tools["sleep"].function(seconds=8)
    assert time.monotonic() - started < 7


@pytest.mark.slow
@needs_mcp
def test_a_server_that_is_started_here_has_tools_and_ends_when_they_are_closed(script: Path):
    found = mcp_tools(command=f"{sys.executable} {script}", call_seconds=3)
    tools = by_name(found)
    process = int(str(tools["process"].function()))
    assert is_alive(process)
    check_tools(tools)
    close_tools(found)
    assert not is_alive(process)
    with pytest.raises(ToolError, match="is closed"):
        tools["add"].function(a=1)
    close_tools(found)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("MCP")]


@pytest.mark.slow
@needs_mcp
def test_a_server_on_this_machine_has_tools_and_is_behind_no_proxy(address: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    found = load_tools([f"mcp:{address}"], call_seconds=3)
    check_tools(by_name(found))
    close_tools(found)
    with pytest.raises(ToolError, match="is closed"):
        found[0].function(a=1)


@pytest.mark.slow
@needs_mcp
def test_many_calls_wait_at_the_same_time(address: str):
    found = mcp_tools(url=address, call_seconds=20)
    sleep = by_name(found)["sleep"].function
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(sleep(seconds=2))) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close_tools(found)
    assert answers == ["awake"] * 4
    assert time.monotonic() - started < 7  # one after the other it is 8 s


@pytest.mark.slow
@needs_mcp
def test_a_server_that_dies_costs_the_calls_and_nothing_else(script: Path):
    found = mcp_tools(command=f"{sys.executable} {script}", call_seconds=5)
    tools = by_name(found)
    subprocess.run(["kill", "-9", str(tools["process"].function())], check=True)
    with pytest.raises((ToolError, TimeoutError)):
        tools["add"].function(a=1)
    close_tools(found)


@pytest.mark.slow
@needs_mcp
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/no/such/program", "the MCP server /no/such/program cannot be used: .*No such file"),
        (f"{sys.executable} -c pass", "cannot be used: "),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "did not come up within 4 s"),
    ],
)
def test_a_server_that_does_not_come_up_is_said_so(command: str, message: str):
    with pytest.raises(ConfigError, match=message):
        mcp_tools(command=command, start_seconds=4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("MCP")]


@pytest.mark.slow
@needs_mcp
def test_an_address_where_no_server_is_is_said_so():
    with pytest.raises(ConfigError, match=r"environment\.tools = 'mcp:http.*cannot be used"):
        load_tools([f"mcp:http://127.0.0.1:{free_port()}/mcp"])


@pytest.mark.parametrize(
    "url", ["http://example.org/mcp", "ftp://127.0.0.1/", "127.0.0.1:8000", "http://127.0.0.1.example.org", "http://[x"]
)
def test_a_server_elsewhere_is_refused(url: str):
    with pytest.raises(ConfigError, match="address"):
        mcp_tools(url=url)


def test_a_server_is_a_command_or_an_address():
    with pytest.raises(ConfigError, match="either a command or a url"):
        mcp_tools()
    with pytest.raises(ConfigError, match="the command of an MCP server is empty"):
        mcp_tools(command=" ")
    with pytest.raises(ConfigError, match="cannot be read: No closing quotation"):
        mcp_tools(command="python 'server.py")


@pytest.mark.skipif(find_spec("mcp") is not None, reason="the package mcp is installed")
def test_without_the_package_the_way_to_install_it_is_said():
    with pytest.raises(ConfigError, match=r"need the package mcp: pip install 'klimb\[mcp\]'"):
        mcp_tools(command="python server.py")
