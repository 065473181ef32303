"""Lines of a file that grows, is cut back, or holds what no run writes."""

import json
from pathlib import Path

import pytest

from klimb.training import json_lines
from klimb.training.json_lines import START, NewLines, Place, last_line, read_lines, read_on


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, *steps: float, **values: float) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps({"step": step, **values}) + "\n" for step in steps)


def new(path: Path, place: Place = START) -> NewLines:
    with path.open("rb") as file:
        return read_on(file.fileno(), place)


def steps(found: NewLines) -> list[float]:
    return [line["step"] for line in found.lines]


def test_reading_goes_on_where_it_ended(path: Path):
    write(path, 1, 2)
    first = new(path)
    assert (steps(first), first.is_from_start, first.has_more) == ([1, 2], True, False)
    write(path, 3)
    second = new(path, first.place)
    assert (steps(second), second.is_from_start) == ([3], False)
    third = new(path, second.place)
    assert (steps(third), third.place) == ([], second.place)


def test_half_a_line_is_read_once_it_is_whole(path: Path):
    write(path, 1)
    with path.open("a") as file:
        file.write('{"step": 2, "rewa')
        file.flush()
        first = new(path)
        assert (steps(first), first.has_more, len(read_lines(path))) == ([1], True, 1)
        assert (steps(new(path, first.place)), new(path, first.place).has_more) == ([], False)
        file.write('rd_mean": 0.5}\n')
    assert new(path, first.place).lines == [{"step": 2, "reward_mean": 0.5}]


@pytest.mark.parametrize("num_kept", [0, 2])
def test_a_file_that_was_cut_back_and_written_on_is_read_from_its_start(path: Path, num_kept: int):
    write(path, 1, 2, 3, 4)
    first = new(path)
    path.write_text("")
    write(path, *range(1, num_kept + 1))
    write(path, *range(num_kept + 1, 10), loss=7.0)
    second = new(path, first.place)
    assert second.is_from_start
    assert [line.get("loss") for line in second.lines] == [None] * num_kept + [7.0] * (9 - num_kept)


def test_a_long_file_comes_in_portions_and_is_read_whole_all_the_same(path: Path, monkeypatch):
    monkeypatch.setattr(json_lines, "PORTION_BYTES", 1_000)
    write(path, *range(500))
    seen, place, has_more = [], START, True
    while has_more:
        found = new(path, place)
        seen += steps(found)
        place, has_more = found.place, found.has_more
    assert seen == list(range(500)) == [line["step"] for line in read_lines(path)]
    assert len(new(path).lines) < 100


def test_a_line_longer_than_a_portion_is_read_and_one_longer_than_any_of_ours_is_skipped(path: Path, monkeypatch):
    monkeypatch.setattr(json_lines, "PORTION_BYTES", 100)
    path.write_text(json.dumps({"step": 1, "text": "x" * 900}) + "\n")
    assert steps(new(path)) == [1]
    monkeypatch.setattr(json_lines, "LONGEST_LINE_BYTES", 500)
    write(path, 2)
    seen, faults, place = [], [], START
    for _ in range(10):
        found = new(path, place)
        seen, faults, place = seen + steps(found), faults + found.faults, found.place
    assert (seen, len(faults)) == ([2], 1)


def test_what_is_no_object_is_left_out_and_named(path: Path):
    path.write_text('{"step": 1}\n[1, 2]\n{broken\n' + "[" * 100_000 + '\n\n{"step": 9}\n')
    found = new(path)
    assert steps(found) == [1, 9]
    assert len(found.faults) == 3
    assert found.faults[0] == "a line must hold an object, got a list"
    with pytest.raises(ValueError, match="must hold an object, got a list"):
        read_lines(path)


@pytest.mark.parametrize(
    ("content", "row"),
    [("", {}), ('{"a"', {}), ("nonsense\n", {}), ('{"a": 1}\n', {"a": 1}), ('{"a": 1}\n{"a": 2}\n{"a"', {"a": 2})],
)
def test_the_last_line_is_the_last_whole_object(path: Path, content: str, row: dict[str, int]):
    path.write_text(content)
    with path.open("rb") as file:
        assert last_line(file.fileno()) == row
