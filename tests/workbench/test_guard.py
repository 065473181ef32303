"""The section `[guard]` of a run file: the settings of the guard, checked, with the file's words for None."""

import re

import pytest

from klimb.errors import ConfigError
from klimb.training.guard.settings import GuardSettings
from klimb.workbench.config import RunConfig, build_config


def configured(**guard: object) -> RunConfig:
    return build_config({"guard": guard}, source="a test")


def test_without_the_section_there_is_no_guard():
    assert build_config({}, source="a test").guard is None


def test_the_empty_section_is_the_settings_by_default():
    assert configured().guard == GuardSettings()


def test_the_words_none_and_stop_stand_for_none_and_are_saved_as_words():
    words = {"max_perplexity_ratio": "none", "min_format_fraction": "none", "rollback_learning_rate_factor": "stop"}
    config = configured(**words)
    assert config.guard == GuardSettings(max_perplexity_ratio=None)
    saved = config.model_dump(mode="json")["guard"]
    assert {key: saved[key] for key in words} == words


def test_what_is_given_is_what_the_guard_is_told():
    given = {
        "max_perplexity_ratio": 1.5,
        "action": "rollback",
        "rollback_learning_rate_factor": 0.5,
        "general": ["gcd"],
    }
    expected = GuardSettings(
        max_perplexity_ratio=1.5, action="rollback", rollback_learning_rate_factor=0.5, general=("gcd",)
    )
    assert configured(**given).guard == expected


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"format": "("}, "is not a regular expression"),
        ({"general": ["everyday", "everyday"]}, "names 'everyday' twice"),
        ({"max_perplexity_ratio": 0.5}, "max_perplexity_ratio"),
        ({"action": "rolback"}, "rollback"),
        ({"every_stepz": 3}, "every_steps"),
    ],
)
def test_a_wrong_key_is_refused_by_name(guard: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        configured(**guard)
