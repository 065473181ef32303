import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from klimb.web.server import make_app


class RunMaker:
    """Writes what a run leaves in its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, name: str, rows: Sequence[Mapping[str, Any]] = (), **config: Any) -> Path:
        path = self.root / name
        path.mkdir(parents=True)
        provenance = {"started_at": f"2026-01-01T00:00:{len(list(self.root.rglob('provenance.json'))):02d}+00:00"}
        (path / "provenance.json").write_text(json.dumps(provenance))
        (path / "config.json").write_text(json.dumps({"seed": 0, "objective": {"recipe": "grpo"}} | config))
        self.append(path, rows)
        return path

    def append(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        with (path / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    @staticmethod
    def rows(first: int, last: int, **values: float) -> list[dict[str, float]]:
        """Rows of steps with `reward_mean` a tenth of the step."""
        return [
            {"step": step, "reward_mean": step / 10, "num_tokens_generated": 100 * step, "elapsed_seconds": 2.0 * step}
            | values
            for step in range(first, last + 1)
        ]


@pytest.fixture
def runs(tmp_path: Path) -> RunMaker:
    folder = tmp_path / "served"
    folder.mkdir()
    return RunMaker(folder)


@pytest.fixture
def board(runs) -> TestClient:
    return TestClient(make_app(runs.root, poll_seconds=0.0), base_url="http://127.0.0.1:6900")
