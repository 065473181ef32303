"""Tools are named by where they are; one that cannot be used is refused with the setting, the value and the way out."""

from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.tasks.tools import Tool, close_tools, load_tools

MODULE = '''
def search(query: str, most: int = 3) -> str:
    """Search.

    Args:
        query: what for
        most: how many
    """
    return query * most

def bare(query):
    """Search."""

class Notes:
    def __init__(self):
        self.lines = []

    def write(self, line: str) -> int:
        """Write a line.

        Args:
            line: the line
        """
        self.lines.append(line)
        return len(self.lines)

    def search(self) -> str:
        """Search the notes."""
        return ""

class Wants:
    def __init__(self, place):
        pass

NUMBER = 3
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools_of_this_test.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_a_function_is_a_tool():
    (tool,) = load_tools(["python:tools_of_this_test.search"])
    assert tool.name == "search"
    assert tool.parameters["required"] == ["query"]
    assert tool.function(query="a") == "aaa"


def test_the_methods_of_a_class_are_tools_of_one_instance():
    tools = load_tools(["python:tools_of_this_test.Notes"])
    assert [tool.name for tool in tools] == ["search", "write"]
    assert [tools[1].function(line="a"), tools[1].function(line="b")] == [1, 2]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("python:tools_of_this_test.nothing", "has no 'nothing'"),
        ("python:no_such_module_here.f", "there is no module 'no_such_module_here'"),
        ("python:tools_of_this_test.NUMBER", "expected a function, or a class whose methods are tools, got int"),
        ("python:tools_of_this_test.bare", "tool bare: parameter 'query' has no type"),
        ("python:tools_of_this_test.Wants", "Wants() raised TypeError: "),
        ("tools_of_this_test.search", "expected 'python:module.function', 'mcp:http://127.0.0.1:8000/mcp'"),
        ("mcp:http://example.org/mcp", "an MCP server has an address on this machine"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_the_setting(location: str, message: str):
    with pytest.raises(ConfigError, match=r"environment\.tools = ") as caught:
        load_tools([location])
    assert message in str(caught.value)
    assert repr(location) in str(caught.value)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two tools are named 'search'"):
        load_tools(["python:tools_of_this_test.search", "python:tools_of_this_test.Notes"])


def test_what_several_tools_share_is_closed_once():
    closed: list[str] = []

    def close() -> None:
        closed.append("server")

    tools = [Tool(name=name, description="", parameters={}, function=print, close=close) for name in "ab"]
    close_tools([*tools, Tool(name="c", description="", parameters={}, function=print)])
    assert closed == ["server"]
