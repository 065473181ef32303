"""Rows of a log that are held out: never trained on, and scored before and after."""

import json
from pathlib import Path

import pytest
from tests.workbench.logged import drawn, store_of, text_only

from klimb.findings.run.rules import find
from klimb.policies import load_policy
from klimb.training.held_out_log import read_held_out
from klimb.training.run_folder import read_run
from klimb.training.sources.offline import OfflineSource

LOG = (
    *("--set", "sources.log=1.0", "--set", "log.path=log", "--set", "log.held_out_fraction=0.3"),
    *("--set", "evaluation.at_ends=false", "--set", "run.save_model=false", "--set", "objective.recipe=dro"),
    *("--set", "sampling.num_prompts=4"),
)


@pytest.fixture
def log(workplace) -> Path:
    policy = load_policy(str(workplace.model))
    samples = [text_only(sample) for sample in drawn(policy, num_prompts=20, num_samples=2) if sample.response]
    return store_of(workplace.path / "log", samples)


def test_what_is_held_out_is_never_taken_and_the_rest_is(workplace, log):
    from klimb.experience.store import open_store

    policy = load_policy(str(workplace.model))
    source = OfflineSource(open_store(log), policy, source="log", held_out_fraction=0.3)
    assert source.held_out is not None
    aside = set(source.held_out.group_ids)
    taken = {sample.group_id for _ in range(5) for group in source.take(8) for sample in group}
    assert len(aside) == 6 and source.num_groups == 14
    assert taken.isdisjoint(aside) and len(taken) == 14
    assert {sample.group_id for sample, _ in read_held_out([source])} == aside


def test_a_run_ends_with_what_the_held_out_rows_say(workplace, log):
    ended = workplace.klimb("train", "run.toml", "--folder", "r", *LOG, "--set", "training.num_steps=3")
    assert ended.status == 0, ended.err
    content = json.loads(Path("r/held_out_log.json").read_text())
    assert content["verdict"] in ("better", "worse", "unknown")
    assert {row["sample_id"].split("-")[0] for row in content["rows"]}
    assert any(row["before"] != row["after"] for row in content["rows"])
    summary = json.loads(Path("r/summary.json").read_text())
    assert summary["held_out_log"]["sentence"] == content["sentence"]
    assert content["sentence"] in " ".join(ended.out.split())
    findings = find(read_run(Path("r")))
    assert content["sentence"] in [finding.evidence for finding in findings if finding.name == "held-out-log"]


def test_a_null_update_is_not_called_better(workplace, log):
    settings = ("--set", "training.num_steps=1", "--set", "optimizer.learning_rate=1e-30")
    assert workplace.klimb("train", "run.toml", "--folder", "null", *LOG, *settings).status == 0
    content = json.loads(Path("null/held_out_log.json").read_text())
    assert content["verdict"] == "unknown"


def test_a_resumed_run_keeps_what_was_measured_before_training(workplace, log):
    assert workplace.klimb("train", "run.toml", "--folder", "r", *LOG, "--set", "training.num_steps=2").status == 0
    first = json.loads(Path("r/held_out_log.json").read_text())["before"]
    more = workplace.klimb("train", "--resume", "r", "--set", "training.num_steps=4")
    assert more.status == 0, more.err
    content = json.loads(Path("r/held_out_log.json").read_text())
    assert content["before"] == first
    assert any(row["before"] != row["after"] for row in content["rows"])
