"""`klimb keys`: a key is shown once, listed without itself, and revoked."""

from pathlib import Path

import pytest

from klimb.web.serve.keys import Keys
from klimb.workbench.cli import run_command


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "keys.json"


def new(path: Path, capsys, *scopes: str) -> str:
    assert run_command(["keys", "new", "--scope", *scopes, "--into", str(path), "--note", "[shop]"]) == 0
    (key,) = capsys.readouterr().out.splitlines()
    return key


def test_the_key_is_the_whole_output_and_works(path, capsys):
    key = new(path, capsys, "serve", "feedback")
    assert Keys(path).find(key).scopes == ("serve", "feedback")


def test_keys_are_listed_without_themselves_and_revoked(path, capsys):
    key = new(path, capsys, "admin")
    key_id = Keys(path).find(key).key_id
    assert run_command(["keys", "ls", str(path)]) == 0
    listed = capsys.readouterr().out
    assert key_id in listed
    assert "[shop]" in listed
    assert key not in listed
    assert run_command(["keys", "revoke", str(path), key_id]) == 0
    assert Keys(path).find(key) is None
    assert run_command(["keys", "revoke", str(path), "nobody"]) == 2


def test_a_scope_that_is_none_is_refused(path):
    with pytest.raises(SystemExit):
        run_command(["keys", "new", "--scope", "everything", "--into", str(path)])
    assert not path.exists()
