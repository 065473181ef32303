"""Fixtures shared by all tests: a tiny random language model with a character tokenizer and a chat template.

The libraries that take seconds to import are imported inside the fixtures, so that the folders that need no model
(divergences, losses, experience, tasks) start at once.
"""

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

from tests.long_cases import LONG

# Machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("klimb", deadline=None)
hypothesis.settings.load_profile("klimb")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads than one would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark long cases as slow."""
    for item in items:
        if any(fnmatch(item.nodeid, pattern) for pattern in LONG):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer Llama (hidden 32, 4 heads, 2 key-value heads, tied head) and its tokenizer.

    Every printable ASCII character and the newline is one token; pad == eos == `<|im_end|>`, as in SmolLM2.
    """
    from tests.tiny_model import save_tiny_model

    folder = tmp_path_factory.mktemp("tiny-model")
    save_tiny_model(folder)
    return folder


@pytest.fixture
def tiny_policy(tiny_model_path: Path):
    """A fresh float32 policy on the CPU; tests may change its weights."""
    from klimb.policies import load_policy

    return load_policy(str(tiny_model_path), dtype="float32", device="cpu")


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the jaxtyping checker, which only tests have, so that klimb's own errors are what is raised."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
