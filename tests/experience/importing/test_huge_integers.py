"""Integers that a store cannot keep reject their row, with the reason, and no other row."""

import json
from pathlib import Path

import pytest
from tests.experience.importing.importing_rows import openai_row

from klimb.experience.importing import import_rows
from klimb.experience.store import Store

GOOD = {"prompt": "a", "response": "y", "reward": 1}
BEYOND = 2**63


def imported(folder: Path, *rows: object):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_rows(Store(folder / "store"), path)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"policy_version": BEYOND}, "policy_version is beyond 64 bits"),
        ({"policy_version": -(2**80)}, "policy_version is beyond 64 bits"),
        ({"policy_version": 1e30}, "policy_version is beyond 64 bits"),
        ({"top_k": BEYOND, "temperature": 1, "token_ids": [1], "log_probs": [-0.1]}, "top_k is beyond 64 bits"),
        ({"token_ids": [BEYOND]}, "token_ids that are no token ids"),
        ({"prompt_token_ids": [1, 2**70], "token_ids": [1]}, "prompt_token_ids that are no token ids"),
    ],
    ids=repr,
)
def test_an_integer_beyond_64_bits_rejects_its_row_alone(tmp_path: Path, cells: dict[str, object], reason: str):
    report = imported(tmp_path, {**GOOD, "response": "x", **cells}, GOOD)
    assert dict(report.rejected) == {reason: 1}
    assert report.tally.num_added == 1 and report.examples[reason].startswith("a.jsonl:1: ")


def test_the_largest_integers_come_in_as_they_are(tmp_path: Path):
    row = {**GOOD, "policy_version": BEYOND - 1, "token_ids": [BEYOND - 1], "id": 10**30}
    imported(tmp_path, row)
    (sample,) = Store(tmp_path / "store").samples()
    assert (sample.policy_version, sample.response_ids) == (BEYOND - 1, (BEYOND - 1,))
    assert sample.sample_id == str(10**30)


def test_a_setting_on_which_nothing_depends_costs_no_row(tmp_path: Path):
    report = imported(tmp_path, {**GOOD, "top_k": BEYOND, "temperature": 1})
    assert report.tally.num_added == 1 and not report.rejected


def test_a_limit_of_a_server_beyond_64_bits_ends_no_import(tmp_path: Path):
    report = imported(tmp_path, openai_row(request={"max_tokens": 10**30}), GOOD)
    assert report.tally.num_rows == 2
