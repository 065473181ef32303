"""Settings and the registries of names are read without the libraries that compute."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "pyarrow", "duckdb", "matplotlib", "scipy", "numpy", "jaxtyping", "rich")


def loaded_by(code: str) -> list[str]:
    """Return which of the heavy libraries a fresh process has loaded after this code."""
    ends = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{code}; {ends}"], capture_output=True, text=True, check=True)
    return eval(done.stdout)


@pytest.mark.parametrize(
    "code",
    [
        "import klimb.workbench.config",
        "from klimb.workbench.config import build_config; build_config({}, source='')",
        "from klimb.workbench.config import build_config; build_config({'objective': {'recipe': 'kto'}}, source='')",
        "from klimb.losses import CLIPS, DualClip",
        "from klimb.training import RECIPES",
        "from klimb.experience import ADVANTAGES",
        "from klimb.policies import ModelSettings; from klimb.tasks import TASKS, ArithmeticSettings, ScoringSettings",
        "import klimb; klimb.__version__",
        "from klimb.training import Callback, RunningRun",
        "import klimb.training, klimb.policies, klimb.tasks, klimb.samplers",
    ],
)
def test_settings_and_names_are_read_without_what_computes(code):
    assert loaded_by(code) == []


def test_what_is_heavy_would_be_seen():
    assert loaded_by("import numpy") == ["numpy"]


@pytest.mark.parametrize(
    ("package", "name"),
    [("klimb.tasks", "arithmetic"), pytest.param("klimb.training", "update", marks=pytest.mark.slow)],
)
def test_a_package_gives_what_it_exports_and_not_a_module_of_that_name(package: str, name: str):
    code = f"import {package}.{name}; from {package} import {name}; assert callable({name})"
    assert ("torch" in loaded_by(code)) == (package == "klimb.training")
