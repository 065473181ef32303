"""What a run writes down of where it came from: klimb's own code, the user's repository, data and parts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import klimb
from klimb.own_parts import source_hash
from klimb.training import installation
from klimb.training.installation import own_installation
from klimb.workbench.config import build_config
from klimb.workbench.provenance import new_run_folder, provenance

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def config():
    return build_config({"task": {"reward": "python:my_reward.digits"}}, source="run.toml")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the user's with a reward in it, and nothing uncommitted."""
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_reward", None)
    (tmp_path / "my_reward.py").write_text("def digits(prompt, response, answer, metadata):\n    return 1.0\n")
    own_installation.cache_clear()
    return tmp_path


def git(*arguments: str, at: Path) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=at, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(place: Path) -> Path:
    git("init", "-q", at=place)
    git("add", ".", at=place)
    git("commit", "-qm", "begin", at=place)
    return place


@needs_git
def test_the_users_commit_is_not_taken_for_klimbs(repository: Path, config):
    written = provenance(config)
    assert written["repository"] == {"commit": git("rev-parse", "HEAD", at=repository), "uncommitted_changes": False}
    assert written["klimb"]["version"] == klimb.__version__
    assert written["klimb"]["commit"] != written["repository"]["commit"]
    assert written["own_parts"] == {"python:my_reward.digits": source_hash("python:my_reward.digits")}


@needs_git
def test_the_runs_own_folder_is_no_change_of_the_repository_and_a_new_file_beside_it_is(repository: Path, config):
    def is_changed(name: str) -> bool:
        folder = new_run_folder(Path("runs") / name, config)
        return json.loads(folder.provenance.read_text())["repository"]["uncommitted_changes"]

    assert [is_changed("one"), is_changed("two")] == [False, False]
    (repository / "other.py").write_text("")
    assert is_changed("three")
    (repository / "other.py").unlink()
    (repository / "my_reward.py").write_text("")
    assert is_changed("four")


@needs_git
def test_klimb_from_a_checkout_names_its_commit_and_whether_its_code_was_changed(place: Path, monkeypatch):
    package = place / "checkout" / "src" / "klimb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git("init", "-q", at=place / "checkout")
    git("add", ".", at=place / "checkout")
    git("commit", "-qm", "begin", at=place / "checkout")
    monkeypatch.setattr(klimb, "__file__", str(package / "__init__.py"))
    commit = git("rev-parse", "HEAD", at=place / "checkout")
    (place / "checkout" / "notes.txt").write_text("not klimb's code")
    assert own_installation() == {"version": klimb.__version__, "commit": commit, "uncommitted_changes": False}
    own_installation.cache_clear()
    (package / "new.py").write_text("")
    assert own_installation()["uncommitted_changes"] is True


class Installed:
    """A distribution as pip leaves it."""

    def __init__(self, direct_url: str | None) -> None:
        self.direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.direct_url


@pytest.mark.parametrize(
    ("direct_url", "commit"),
    [
        ('{"url": "https://example.org/klimb.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}', "abc123"),
        ('{"url": "file:///wheels/klimb.whl", "archive_info": {}}', None),
        (None, None),
    ],
)
def test_klimb_in_an_environment_inside_the_users_repository_is_told_by_what_pip_wrote(
    repository_or_place: Path, monkeypatch, direct_url, commit
):
    package = repository_or_place / ".venv" / "klimb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(klimb, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(installation, "distribution", lambda name: Installed(direct_url))
    assert own_installation()["commit"] == commit


@pytest.fixture
def repository_or_place(place: Path) -> Path:
    """The user's repository, where there is a git."""
    if shutil.which("git") is not None:
        git("init", "-q", at=place)
    return place


def test_without_git_a_run_begins_all_the_same(place: Path, config, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr(installation, "distribution", lambda name: Installed(None))
    written = json.loads(new_run_folder(Path("runs/one"), config).provenance.read_text())
    assert written["repository"] is None
    assert written["klimb"] == {"version": klimb.__version__, "commit": None, "uncommitted_changes": None}


def test_data_are_told_by_what_is_in_them(place: Path):
    (place / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (place / "store").mkdir()
    (place / "store" / "a.parquet").write_bytes(b"one")
    tables = {
        "task": {"kind": "file", "path": "sums.jsonl", "reward": "exact"},
        "sources": {"log": 0.5},
        "log": {"path": "store"},
        "objective": {"recipe": "asymre"},
    }
    data = [provenance(build_config(tables, source="run.toml"))["data"] for _ in range(2)]
    assert data[0] == data[1] and data[0].keys() == {"task.path", "log.path"}
    (place / "store" / "a.parquet").write_bytes(b"two")
    after = provenance(build_config(tables, source="run.toml"))["data"]
    assert after["task.path"] == data[0]["task.path"] and after["log.path"] != data[0]["log.path"]
