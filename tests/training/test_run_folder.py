import json
from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.training.run_folder import check_is_free, free_folder, is_run, move_aside, write_json
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.config import build_config, read_config
from klimb.workbench.provenance import new_run_folder


@pytest.fixture
def config():
    return build_config({"seed": 7}, source="")


def test_a_new_run_folder_says_what_it_takes_to_repeat_the_run(config, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    folder = new_run_folder(tmp_path / "run", config)
    provenance = json.loads(folder.provenance.read_text())
    assert provenance["seed"] == 7
    assert provenance["packages"]["torch"]
    assert read_config(folder.config) == config
    assert "hunter2" not in folder.provenance.read_text() + folder.config.read_text()
    assert is_run(folder.path)


def test_nothing_is_written_over(config, tmp_path: Path):
    new_run_folder(tmp_path / "run", config)
    with pytest.raises(ConfigError, match="--resume"):
        check_is_free(tmp_path / "run")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        new_run_folder(tmp_path / "notes.txt", config)


def test_an_empty_folder_is_free(tmp_path: Path):
    check_is_free(tmp_path)


def test_moving_aside_keeps_every_earlier_run(tmp_path: Path):
    for number in range(3):
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo" / "number").write_text(str(number))
        move_aside(tmp_path / "demo")
    kept = [(tmp_path / f"demo-{number}" / "number").read_text() for number in (1, 2, 3)]
    assert kept == ["0", "1", "2"]
    assert move_aside(tmp_path / "demo") is None


def test_a_free_folder_is_numbered_behind_those_that_are_there(tmp_path: Path):
    assert free_folder(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run-3"


def test_paths_are_told_from_the_working_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative_to_working_directory(tmp_path / "runs" / "demo") == "runs/demo"


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
