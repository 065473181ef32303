import pytest
from pydantic import TypeAdapter, ValidationError

from klimb.tasks.environments import EnvironmentSettings

READER = TypeAdapter(EnvironmentSettings)


def test_a_table_of_a_file_is_read_with_its_words():
    read = READER.validate_python(
        {"factory": "python:games.Guess", "tools": ["python:tools.search"], "max_tokens": "none", "call_seconds": 2}
    )
    assert read == EnvironmentSettings(
        factory="python:games.Guess", tools=("python:tools.search",), max_tokens=None, call_seconds=2.0
    )
    assert READER.validate_python({}) == EnvironmentSettings()


@pytest.mark.parametrize(
    "table",
    [
        {"factory": "games.Guess"},
        {"factory": "openenv:127.0.0.1"},
        {"tools": ["search"]},
        {"max_turns": 0},
        {"call_seconds": 0},
        {"sample_seconds": -1},
        {"rewritten_history": "join"},
        {"call_format": "hermit"},
        {"max_processes": 0},
        {"max_turn": 3},
    ],
)
def test_a_file_cannot_say_what_has_no_meaning(table):
    with pytest.raises(ValidationError):
        READER.validate_python(table)


@pytest.mark.parametrize("address", ["openenv:http://127.0.0.1:8000", "python:__object__.Local", ""])
def test_where_an_environment_may_be(address):
    assert READER.validate_python({"factory": address}).factory == address


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_turns": 0}, "max_turns must be >= 1, got 0"),
        ({"max_tokens": 0}, "max_tokens must be >= 1, got 0"),
        ({"max_processes": 0}, "max_processes must be >= 1, got 0"),
        ({"call_seconds": 0.0}, "call_seconds must be > 0, got 0"),
        ({"sample_seconds": -1.0}, "sample_seconds must be > 0, got -1"),
        ({"memory_limit_gigabytes": 0.0}, "memory_limit_gigabytes must be > 0"),
        ({"rewritten_history": "join"}, "unknown rewritten_history 'join'"),
        ({"call_format": "hermit"}, "unknown call_format 'hermit'; did you mean 'hermes'"),
        ({"tools": ("python:a.b", "python:a.b")}, "tools must be named once each, got 'python:a.b'"),
    ],
)
def test_callers_are_told_what_was_expected(settings, message):
    with pytest.raises(ValueError, match=message):
        EnvironmentSettings(**settings)


def test_the_format_of_calls_is_the_one_stated_or_the_templates():
    assert EnvironmentSettings(call_format="mistral").find_format("<tool_call>").name == "mistral"
    template = '{% if tools %}<tools></tools> <tool_call>\\n{"name": <function-name>}\\n</tool_call>{% endif %}'
    assert EnvironmentSettings().find_format(template).name == "hermes"
    with pytest.raises(ValueError, match="chat template knows no"):
        EnvironmentSettings().find_format("{{ messages }}")
