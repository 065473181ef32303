"""An application whose policy says what a test wants."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.web.serve.fakes import Script, Served, by_seed


@pytest.fixture(scope="session")
def session_policy(tiny_model_path: Path):
    """The tiny policy, for tests that change nothing of it."""
    from klimb.policies import load_policy

    return load_policy(str(tiny_model_path), dtype="float32", device="cpu")


@pytest.fixture
def serve(session_policy, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start an application: `serve(script, **settings)`; the store is `tmp_path / "store"`."""
    from klimb.web.serve.settings import ServeSettings

    started: list[Served] = []

    def start(script: Script | None = None, *, engine: dict[str, Any] | None = None, **settings: Any) -> Served:
        served = Served(
            session_policy,
            script or by_seed(session_policy),
            tmp_path / "store",
            settings=ServeSettings(**settings),
            **(engine or {}),
        )
        started.append(served)
        return served

    yield start
    for each in started:
        each.close()
