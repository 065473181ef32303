import functools
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jaxtyping
import pytest
import torch

from klimb.policies import load_policy


class TwinScheduleFree:
    """Schedule-Free AdamW with x, y and z as three plain arrays, from arXiv 2405.15682, algorithm 1.

    y = (1 − β1)·z + β1·x; g = ∇f(y); v ← β2·v + (1 − β2)·g²
    z ← z − γ·(g / (sqrt(v / (1 − β2^k)) + ε) + λ·y); x ← (1 − c)·x + c·z, c = γmax² / Σ γmax²
    """

    def __init__(
        self, start: torch.Tensor, *, rate: float, beta1: float, beta2: float, decay: float, warmup_steps: int
    ) -> None:
        self.x, self.z, self.v = start.clone(), start.clone(), torch.zeros_like(start)
        self.rate, self.beta1, self.beta2 = rate, beta1, beta2
        self.decay, self.warmup_steps = decay, warmup_steps
        self.k, self.weight_sum, self.highest_rate = 0, 0.0, 0.0

    @property
    def y(self) -> torch.Tensor:
        return (1 - self.beta1) * self.z + self.beta1 * self.x

    def step(self, gradient: torch.Tensor) -> None:
        y, self.k = self.y, self.k + 1
        rate = self.rate * min(1.0, self.k / self.warmup_steps)
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        direction = gradient / ((self.v / (1 - self.beta2**self.k)).sqrt() + 1e-8) + self.decay * y
        self.z = self.z - rate * direction
        self.highest_rate = max(self.highest_rate, rate)
        self.weight_sum += self.highest_rate**2
        share = self.highest_rate**2 / self.weight_sum
        self.x = (1 - share) * self.x + share * self.z


@pytest.fixture
def twin() -> type[TwinScheduleFree]:
    """Schedule-Free AdamW by hand, to be stepped side by side with the optimizer."""
    return TwinScheduleFree


@pytest.fixture(scope="session")
def tiny_run_path() -> Path:
    """The program of a whole run of seconds."""
    return Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session")
def tiny_run(tiny_run_path: Path) -> ModuleType:
    """The same, as a module."""
    spec = importlib.util.spec_from_file_location("tiny_run", tiny_run_path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def undisturbed(
    tiny_run: ModuleType, tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Variant and number of steps -> the folder of a run that nothing disturbed, made once for all who read it.

    Its shapes are checked, whether or not those of the test are.
    """

    @functools.cache
    def folder_of(variant: str, num_steps: int = 6) -> Path:
        folder = tmp_path_factory.mktemp("undisturbed")
        policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jaxtyping.config, "jaxtyping_disable", False)
            tiny_run.run(
                policy,
                folder,
                replace(
                    tiny_run.VARIANTS[variant],
                    training=replace(tiny_run.VARIANTS[variant].training, num_steps=num_steps),
                ),
            )
        return folder

    return folder_of
