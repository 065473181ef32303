from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from klimb.workbench.cli import run_command

RUN = """
seed = 1

[model]
path = {model!r}
dtype = "float32"
device = "cpu"

[task]
kind = "arithmetic"
reward = {reward!r}

[sampling]
num_prompts = 2
num_samples = 4
max_new_tokens = 6

[advantages]
group_filter = false

[optimizer]
learning_rate = 1e-3
warmup_steps = 0

[training]
num_steps = 3

[checkpoints]
every_steps = 2

[evaluation]
num_problems = 2
num_samples = 4

[run]
loggers = []
report = false  # drawing takes longer than these runs do; tests of what is drawn set it
"""

REWARD = '''
def digits(prompt, response, answer, metadata):
    """Share of digits: a reward that a random model earns now and then."""
    return sum(character.isdigit() for character in response) / max(1, len(response))
'''


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Workplace:
    """A working directory with a run file for a tiny model, and a command line in it."""

    path: Path
    capture: pytest.CaptureFixture[str]
    model: Path

    def klimb(self, *arguments: str) -> Outcome:
        status = run_command(list(arguments))
        captured = self.capture.readouterr()
        return Outcome(status, captured.out, captured.err)

    def write(self, name: str, content: str) -> Path:
        path = self.path / name
        path.write_text(content, encoding="utf-8")
        return path


@pytest.fixture
def workplace(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workplace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    place = Workplace(tmp_path, capsys, tiny_model_path)
    place.write("run.toml", RUN.format(model=str(tiny_model_path), reward="python:my_reward.digits"))
    place.write("my_reward.py", REWARD)
    return place


@pytest.fixture
def without_reward(workplace: Workplace) -> Callable[[str], Workplace]:
    """The same with the reward function's body replaced."""

    def with_body(body: str) -> Workplace:
        workplace.write("my_reward.py", f"import time\n\ndef digits(prompt, response, answer, metadata):\n    {body}\n")
        return workplace

    return with_body
