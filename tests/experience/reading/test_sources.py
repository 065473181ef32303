"""Several files, folders and globs: which are read, in which order, and what they are called."""

import gzip
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pytest

from klimb.experience.importing import import_rows, read_records
from klimb.experience.reading.sources import find_source, is_there
from klimb.experience.store import Store
from klimb.tasks import from_file


def write(path: Path, *numbers: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        json.dumps({"prompt": f"p{n}", "response": "x", "question": f"q{n}", "answer": n}) + "\n" for n in numbers
    )
    content = text.encode()
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(content)
        return path
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Parts in several folders, and beside them what is no data."""
    root = tmp_path / "data"
    write(root / "b.jsonl", 3)
    write(root / "a" / "2.jsonl.gz", 1, 2)
    write(root / "a" / "10.jsonl", 0)
    write(root / "c" / "b.jsonl.zst", 4)
    (root / "README.md").write_text("rows")
    (root / "c" / "LICENSE").write_text("mine")
    for hidden in ("_SUCCESS", ".part.jsonl", ".git/b.jsonl", "_temporary/0.jsonl"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_text("not read")
    return root


def places(source: object) -> list[str]:
    return [record.place for record in read_records(source)]


def test_a_folder_is_read_in_sorted_order_with_its_folders_and_names_what_it_passes_over(folder: Path):
    assert places(folder) == ["a/10.jsonl:1", "a/2.jsonl.gz:1", "a/2.jsonl.gz:2", "b.jsonl:1", "c/b.jsonl.zst:1"]
    assert places(str(folder)) == places(folder)
    assert find_source(folder).passed_over == ("README.md", "c/LICENSE")


def test_several_files_are_called_by_what_tells_them_apart(folder: Path):
    assert places([folder / "c" / "b.jsonl.zst", folder / "b.jsonl"]) == ["c/b.jsonl.zst:1", "b.jsonl:1"]
    assert places([folder / "a", str(folder / "b.jsonl")])[-1] == "b.jsonl:1"
    assert places([folder / "b.jsonl"]) == ["b.jsonl:1"]


def test_a_glob_is_read_in_sorted_order(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert places(folder / "[abc]" / "*.jsonl*") == [
        "a/10.jsonl:1",
        "a/2.jsonl.gz:1",
        "a/2.jsonl.gz:2",
        "c/b.jsonl.zst:1",
    ]
    monkeypatch.chdir(folder)
    assert places("**/b.jsonl*") == ["b.jsonl:1", "c/b.jsonl.zst:1"]
    assert places(Path("[ab].jsonl")) == ["b.jsonl:1"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path):
    assert places(write(tmp_path / "run[1].jsonl", 1)) == ["run[1].jsonl:1"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("*.csv", FileNotFoundError, "fits no file"),
        ("nothing.jsonl", FileNotFoundError, "nothing.jsonl does not exist"),
        (
            "README.md",
            ValueError,
            "README.md: a data file ends in .jsonl, .ndjson, .json, .csv.*export the data itself",
        ),
        ("*.md", ValueError, "README.md: a data file ends in"),
        ("empty", ValueError, "is a folder without data files, .*; it holds nothing"),
        ("c/notes", ValueError, "is a folder without data files, .*; it holds a.txt"),
    ],
)
def test_what_holds_no_data_is_one_error(folder: Path, given: str, error: type[Exception], message: str):
    (folder / "empty").mkdir()
    (folder / "c" / "notes").mkdir()
    (folder / "c" / "notes" / "a.txt").write_text("x")
    with pytest.raises(error, match=message):
        read_records(folder / given)


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.arrow.zst", "a.jsonl.bz2", "a.xlsx", "jsonl", "a.gz"])
def test_other_endings_are_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="a data file ends in"):
        read_records(tmp_path / name)


def test_a_file_named_twice_is_refused(folder: Path):
    with pytest.raises(ValueError, match=r"b.jsonl is named twice; name each file once"):
        read_records([folder / "b.jsonl", folder])


def test_a_folder_of_a_saved_data_set_holds_its_rows_alone(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    given = datasets.Dataset.from_list([{"prompt": "a", "response": "x"}])
    given.save_to_disk(tmp_path / "saved")
    assert places(tmp_path / "saved") == ["data-00000-of-00001.arrow:row 1"]
    datasets.DatasetDict(train=given, test=given).save_to_disk(tmp_path / "split")
    with pytest.raises(ValueError, match="holds several data sets; give one of them: test, train"):
        read_records(tmp_path / "split")


def test_an_import_of_a_folder_reads_all_and_says_what_it_passed_over(folder: Path, tmp_path: Path):
    report = import_rows(Store(tmp_path / "store"), folder, kind="table")
    assert (report.tally.num_rows, report.tally.num_added) == (5, 5)
    assert report.passed_over == ("README.md", "c/LICENSE")


def test_a_task_reads_a_folder_or_a_glob_and_names_the_file_of_each_problem(folder: Path):
    with pytest.warns(UserWarning, match=r"passed over README.md, c/LICENSE: they are no data files"):
        task = from_file(folder, held_out_fraction=0)
    assert sorted(problem.problem_id for problem in task.train) == sorted(places(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = from_file(folder / "[abc]" / "*.jsonl", held_out_fraction=0)
    assert [problem.problem_id for problem in task.train] == ["10.jsonl:1"]


def test_text_is_read_without_waiting_for_the_import_of_pyarrow_or_pandas(folder: Path):
    program = (
        "import sys; from klimb.tasks.file import read_rows; rows = read_rows('a/2.jsonl.gz')\n"
        "print(len(rows), {'pyarrow', 'pandas', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 set()", done.stderr


def test_whether_something_is_there_is_asked_of_a_directory(folder: Path):
    assert is_there("b.jsonl", folder) and is_there("a/*.jsonl", folder) and is_there("a", folder)
    assert not is_there("*.csv", folder) and not is_there("d.jsonl", folder)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("a.xlsx", "save the sheet as CSV UTF-8"),
        ("a.ZIP", "unpack it and name what is in it"),
        ("a.tar.gz", "unpack it and name what is in it"),
        ("a.txt", "let its name say so"),
        ("a", "let its name say so"),
        ("a.docx", "export the data itself as CSV or JSON"),
    ],
)
def test_a_file_of_another_ending_says_what_to_do_with_it(tmp_path: Path, name: str, way_out: str):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=f"a data file ends in .*; .*{way_out}"):
        read_records(tmp_path / name)
