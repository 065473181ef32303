"""The comparison of two states can fail: one bit, one metric or one refusal that differs is seen and named."""

import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.equality import __main__ as command
from benchmarks.equality import declared, outcomes
from benchmarks.equality.case import Case
from benchmarks.equality.comparing import NotCompared, compare_outcomes, find_differences
from benchmarks.equality.declared import Expected
from benchmarks.equality.instrument_cases import NUMBER, read_findings
from benchmarks.equality.table import markdown

WEIGHTS = (1.0, -2.5, 3e-5)
ROWS = ({"step": 1.0, "loss": 0.25, "update_seconds": 0.5}, {"step": 2.0, "loss": None, "update_seconds": 0.7})
REFUSED = ({"place": "rows.jsonl:3", "reason": "no prompt"}, {"place": "rows.jsonl:9", "reason": "no prompt"})


def recorded(folder: Path, *, weights=WEIGHTS, rows=ROWS, refused=REFUSED) -> dict[str, object]:
    """What is read from a run and an import that left these files."""
    (folder / "model").mkdir(parents=True)
    save_file(
        {"head": np.array(weights, dtype=np.float32), "norm": np.ones(2, dtype=np.float32)},
        folder / "model" / "model.safetensors",
    )
    for name, lines in (("metrics", rows), ("refused", refused)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {
        "model": outcomes.read_tensors(folder / "model"),
        "metrics": outcomes.read_metrics(folder / "metrics.jsonl", is_old=folder.name == "old"),
        "refused": outcomes.read_lines(folder / "refused.jsonl"),
    }


def statuses(results) -> dict[str, str]:
    return {result.aspect: result.status for result in results}


def with_last_bit_flipped(value: float) -> float:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return struct.unpack("<f", struct.pack("<I", bits ^ 1))[0]


def test_equal_outcomes_are_equal_whatever_the_clock_said(tmp_path: Path):
    slower = tuple({**row, "update_seconds": 9.0} for row in ROWS)
    results = compare_outcomes("case", recorded(tmp_path / "old"), recorded(tmp_path / "new", rows=slower))
    assert statuses(results) == {"model": "equal", "metrics": "equal", "refused": "equal"}


def test_one_bit_of_one_tensor_is_a_difference_that_names_the_tensor(tmp_path: Path):
    weights = (*WEIGHTS[:2], with_last_bit_flipped(WEIGHTS[2]))
    assert weights[2] != WEIGHTS[2] and abs(weights[2] - WEIGHTS[2]) < 1e-11
    results = compare_outcomes("case", recorded(tmp_path / "old"), recorded(tmp_path / "new", weights=weights))
    assert statuses(results) == {"model": "differs", "metrics": "equal", "refused": "equal"}
    assert results[0].note.startswith("1 values; the first: model.safetensors:head: ")


def test_minus_zero_is_another_weight_than_zero(tmp_path: Path):
    old, new = recorded(tmp_path / "old", weights=(0.0,)), recorded(tmp_path / "new", weights=(-0.0,))
    assert statuses(compare_outcomes("case", old, new))["model"] == "differs"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step": 2.0, "loss": 0.0, "update_seconds": 0.7}, "[1].loss: None → 0.0"),
        ({"step": 2.0, "update_seconds": 0.7}, "[1].loss: None → '(absent)'"),
        ({"step": 2.0, "loss": None, "w_max": 1.0, "update_seconds": 0.7}, "[1].w_max: '(absent)' → 1.0"),
    ],
)
def test_one_metric_of_one_step_is_a_difference_that_says_old_and_new(tmp_path: Path, changed, said: str):
    new = recorded(tmp_path / "new", rows=(ROWS[0], changed))
    results = compare_outcomes("case", recorded(tmp_path / "old"), new)
    assert statuses(results) == {"model": "equal", "metrics": "differs", "refused": "equal"}
    assert said in results[1].note


def test_one_refusal_less_is_a_difference(tmp_path: Path):
    new = recorded(tmp_path / "new", refused=REFUSED[:1])
    results = compare_outcomes("case", recorded(tmp_path / "old"), new)
    assert statuses(results) == {"model": "equal", "metrics": "equal", "refused": "differs"}
    assert "length: 2 → 1" in results[2].note


def test_a_declared_difference_is_expected_with_its_reason_and_hides_no_other(tmp_path: Path):
    moved = ({**ROWS[0], "loss": 0.5}, ROWS[1])
    old, new = recorded(tmp_path / "old"), recorded(tmp_path / "new", rows=moved)
    declared_row = Expected(case="ca*", aspect="metrics", path="*.loss", reason="the loss counts twice")
    results = compare_outcomes("case", old, new, expected=(declared_row,))
    assert statuses(results)["metrics"] == "expected"
    assert "the loss counts twice" in results[1].note
    other = recorded(tmp_path / "other", rows=({**moved[0], "step": 7.0}, ROWS[1]))
    results = compare_outcomes("case", old, other, expected=(declared_row,))
    assert statuses(results)["metrics"] == "differs"
    assert "[0].step: 1.0 → 7.0" in results[1].note
    assert statuses(compare_outcomes("another", old, new, expected=(declared_row,)))["metrics"] == "differs"


def test_a_renamed_metric_is_equal_by_its_new_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    renamed = tuple({("objective" if name == "loss" else name): value for name, value in row.items()} for row in ROWS)
    new = recorded(tmp_path / "new", rows=renamed)
    assert statuses(compare_outcomes("case", recorded(tmp_path / "was" / "old"), new))["metrics"] == "differs"
    monkeypatch.setattr(outcomes, "RENAMED_METRICS", {"loss": "objective"})
    assert statuses(compare_outcomes("case", recorded(tmp_path / "old"), new))["metrics"] == "equal"


def test_an_aspect_that_one_state_lacks_is_a_difference_and_one_not_measured_says_why():
    assert statuses(compare_outcomes("case", {"text": ["a"]}, {})) == {"text": "differs"}
    results = compare_outcomes("case", {"text": NotCompared("no model here")}, {"text": ["a"]})
    assert [(result.status, result.note) for result in results] == [("not compared", "no model here")]


def test_what_is_empty_in_both_states_is_not_called_equal():
    results = compare_outcomes(
        "case", {"model": {}, "models": {"a": {}, "b": []}}, {"model": {}, "models": {"a": {}, "b": []}}
    )
    assert [(result.status, result.note) for result in results] == 2 * [("not compared", "empty in both states")]


@pytest.mark.parametrize(("old", "new"), [(1, True), (0.1, 0.1 + 2**-56), ("1", 1), ([], {}), ([[1], []], [[], [1]])])
def test_values_that_are_alike_are_not_the_same(old, new):
    assert find_differences({"value": old}, {"value": new})


def test_not_a_number_is_itself():
    assert not find_differences([float("nan")], [float("nan")])


def test_every_difference_from_the_old_state_has_a_reason():
    assert all(row.reason.strip() for row in declared.EXPECTED)
    assert all(reason.strip() for reason in declared.OF_THE_MACHINE.values())


def test_findings_are_read_with_their_numbers():
    lines = (
        "  bad     Worse  forgetting",
        "   perplexity 23.4 → 60.5 (2.58 times).",
        "  note  Little  too-little  ",
        "  -3.2%",
    )
    found = read_findings("\n".join(lines))
    assert [finding[:2] for finding in found] == [("bad", "forgetting"), ("note", "too-little")]
    assert [NUMBER.findall(finding[2]) for finding in found] == [["23.4", "60.5", "2.58"], ["-3.2%"]]


@pytest.mark.parametrize(("is_equal", "status"), [(True, 0), (False, 1)])
def test_the_command_ends_with_1_on_an_undeclared_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_equal: bool, status: int
):
    (tmp_path / "src" / "klimb").mkdir(parents=True)
    case = Case(name="made", about="", measure=lambda place: {"loss": 1.0 if is_equal else place.side.name})
    monkeypatch.setattr(command, "CASES", (case,))
    monkeypatch.setattr(command, "make_material", lambda folder: None)
    monkeypatch.setattr(command, "Side", FakeSide)
    monkeypatch.setattr(sys, "argv", ["equality", str(tmp_path), "--markdown", str(tmp_path / "table.md")])
    with pytest.raises(SystemExit) as ending:
        command.main()
    assert int(ending.value.code or 0) == status
    row = "| made | loss | equal | 1 values |" if is_equal else "| made | loss | **differs** |"
    assert row in (tmp_path / "table.md").read_text(encoding="utf-8")


class FakeSide(SimpleNamespace):
    """A state without a process."""

    def __init__(self, name: str, checkout: Path) -> None:
        super().__init__(name=name, checkout=checkout)

    def __enter__(self) -> "FakeSide":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_a_command_that_fails_in_both_states_is_no_equality(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def measure(place):
        raise command.CommandFailed("no such option")

    case = Case(name="made", about="", measure=measure)
    results = command.run_case(case, (FakeSide("old", tmp_path), FakeSide("new", tmp_path)), tmp_path)
    assert [result.status for result in results] == ["differs", "differs"]
    assert "no such option" in capsys.readouterr().out


def test_the_page_keeps_its_columns_whatever_a_value_holds():
    results = compare_outcomes("case", {"text": "a|b\nc"}, {"text": "a|d"})
    rows = markdown(results, title="t", summary="s").splitlines()
    assert rows[-1].startswith("| case | text | **differs** | 1 values; the first: ")
    assert rows[-1].replace("\\|", "").count("|") == 5
