from pathlib import Path

import pytest
from tests.workbench.conftest import Workplace
from tests.workbench.learn.people import RUN


@pytest.fixture
def place(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workplace:
    """A working directory with a run file that trains the tiny model on ratings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    found = Workplace(tmp_path, capsys, tiny_model_path)
    found.write("learn.toml", RUN.format(model=str(tiny_model_path)))
    return found
