import json
import math
from pathlib import Path

import pytest
from tests.ui.pages.folders import AFTER, BEFORE, evaluation, problem, write_run

from klimb.errors import ConfigError
from klimb.findings.run.record import is_number
from klimb.training.run_folder import read_run


def test_a_finished_run_is_read_back_whole(tmp_path: Path):
    record = read_run(write_run(tmp_path / "run", num_steps=3, seed=7, guard={"events": [{"step": 2}]}))
    assert (record.name, record.seed, record.num_steps, record.is_finished) == ("run", 7, 3, True)
    assert record.evaluations == (BEFORE, AFTER)
    assert (record.before, record.last) == (BEFORE, AFTER)
    assert record.guard == {"events": [{"step": 2}]}
    assert record.setting("objective.clip.low") == 0.2
    assert record.setting("objective.clip.low.deeper", "none") == "none"


def test_a_curve_has_only_the_steps_at_which_the_metric_was_a_number(tmp_path: Path):
    record = read_run(write_run(tmp_path / "run", num_steps=3))
    assert record.curve("grad_norm")[0] == [1.0, 3.0]
    assert record.curve("accuracy", over="num_tokens_generated") == ([1000.0, 2000.0, 3000.0], [1 / 3, 2 / 3, 1.0])
    assert record.curve("absent") == ([], [])


def test_a_run_that_goes_on_is_read_up_to_its_last_whole_line(tmp_path: Path):
    path = write_run(tmp_path / "run", num_steps=3, is_finished=False)
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        file = path / name
        file.write_bytes(file.read_bytes()[:-20])
    record = read_run(path)
    assert (record.num_steps, record.is_finished, record.evaluations) == (2, False, (BEFORE,))
    assert record.last is None


def test_a_run_that_has_only_begun_has_nothing_yet(tmp_path: Path):
    (tmp_path / "provenance.json").write_text("{}")
    record = read_run(tmp_path)
    assert (record.rows, record.evaluations, record.config, record.before) == ((), (), {}, None)


def test_evaluations_are_those_of_one_file_whatever_the_others_say(tmp_path: Path):
    path = write_run(tmp_path / "run", num_steps=2, evaluations=())
    held_out = {"after": {"mean": 0.75, "low": 0.6, "high": 0.9, "greedy": 1.0, "pass_at": {"1": 0.75}}}
    (path / "summary.json").write_text(json.dumps({"num_steps": 2, "held_out": held_out}))
    assert read_run(path).evaluations == ()


@pytest.mark.parametrize("name", ["config.json", "summary.json", "metrics.jsonl", "evaluations.jsonl", "guard.json"])
def test_a_file_that_no_run_writes_is_named_and_the_rest_is_read(tmp_path: Path, name: str, caplog):
    path = write_run(tmp_path / "run", guard={})
    whole = read_run(path)
    (path / name).write_text("[1, 2\n")
    record = read_run(path)
    (note,) = record.damage
    assert note.startswith(f"{name}: ") and note in caplog.text
    assert record.provenance == whole.provenance and record.num_steps == (0 if name == "metrics.jsonl" else 8)


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"holds no run.*give a run's folder"):
        read_run(tmp_path)


def test_the_newest_evaluation_of_a_stopped_run_is_one_on_the_way(tmp_path: Path):
    during = evaluation("during", 4, [problem("1+1", [1])])
    assert read_run(write_run(tmp_path / "run", evaluations=(BEFORE, during))).last == during


@pytest.mark.parametrize(
    ("value", "expected"), [(1, True), (0.5, True), (True, False), (math.nan, False), ("1", False), (None, False)]
)
def test_only_finite_ints_and_floats_are_numbers(value: object, expected: bool):
    assert is_number(value) is expected
