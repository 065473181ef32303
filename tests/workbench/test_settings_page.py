"""`klimb config` and docs/settings.md say of every key what it takes, its default and its meaning."""

from dataclasses import fields
from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.tasks.environments import EnvironmentSettings
from klimb.workbench.commands.config import config
from klimb.workbench.config.document import fields_of, with_tables

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_of_settings_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m klimb.workbench.config.document docs/settings.md"


def test_every_setting_says_what_it_takes_and_means():
    assert [facts.path for facts in fields_of() if not facts.allowed or not facts.meaning] == []


def test_a_section_a_table_in_it_and_a_key_are_found():
    assert {facts.path for facts in fields_of("replay")} == {"replay.max_age", "replay.rule", "replay.max_groups"}
    assert {facts.path.removeprefix("environment.") for facts in fields_of("environment")} == {
        each.name for each in fields(EnvironmentSettings)
    }
    assert {facts.path for facts in fields_of("beta")} == {"objective.beta"}
    ceilings = {facts.kinds[-1]: facts.default for facts in fields_of("objective.clip.ceiling")}
    assert ceilings == {"dual": "3.0", "total-variation": "20.0"}


def test_a_key_is_printed_with_its_range_default_and_meaning(capsys):
    config("replay.max_age")
    shown = capsys.readouterr().out
    assert "replay.max_age\n    a whole number >= 1 and <= 10000000; default 64\n    In policy versions" in shown


@pytest.mark.parametrize(
    ("key", "message"), [("samplin", "did you mean sampling?"), ("zzz", "the sections are seed, model")]
)
def test_a_key_that_does_not_exist_is_told_with_those_that_do(key, message):
    with pytest.raises(ConfigError, match=message):
        fields_of(key)
