"""One run of a cell in this process: made as a run file's is, trained, and measured."""

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.noise_control.cells import NUM_PROMPTS, NUM_SAMPLES, TEMPERATURES, TOP_PS, Cell, run_tables
from benchmarks.noise_control.drift import Contexts, Drift, draw_contexts
from benchmarks.noise_control.logs import make_log
from benchmarks.noise_control.material import make_tiny_model
from benchmarks.noise_control.rewards import InProcessScorer, RewardFunction, noise
from benchmarks.noise_control.touched import first_samples, touched_share
from klimb.declarations import narrow
from klimb.experience import SamplingSettings
from klimb.policies import load_policy
from klimb.tasks.arithmetic import ArithmeticSettings
from klimb.training import train
from klimb.workbench.config import build_config
from klimb.workbench.session import Session, make_loop_settings, make_session


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder with what all runs share: the model, and a log for each way to draw."""

    folder: Path

    @property
    def model(self) -> str:
        """The model's folder."""
        return str(self.folder / "tiny")

    def log(self, temperature: float, top_p: float) -> Path:
        """Return the store that was drawn like this."""
        return self.folder / f"log-{temperature:g}-{top_p:g}"

    def make(self, temperatures: Sequence[float] = TEMPERATURES, top_ps: Sequence[float] = TOP_PS) -> None:
        """Write the model, and logs at these temperatures and top-p."""
        make_tiny_model(Path(self.model))
        for temperature in temperatures:
            for top_p in top_ps:
                folder = self.log(temperature, top_p)
                make_log(folder, model=self.model, temperature=temperature, top_p=top_p, reward=noise)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a cell.

    Attributes:
        drift: None where the run was refused.
        touched: share of tokens whose gradient the clip changes before the first step; None without a clip.
        refused: why the cell does not exist, in klimb's own words; empty if it does.
    """

    cell: Cell
    drift: Drift | None
    touched: float | None
    seconds: float
    refused: str = ""


@lru_cache(maxsize=1)
def contexts_of(model: str) -> Contexts:
    """Return the fixed contexts, drawn from the model as it is before any training."""
    problems = ArithmeticSettings(digits=1, held_out_fraction=0.1).make_task().train
    return draw_contexts(load_policy(model, dtype="float32", device="cpu"), problems)


def be_quiet() -> None:
    """Leave out the warnings of the runs: noise at another temperature is what they warn of."""
    logging.disable(logging.WARNING)


def run_cell(cell: Cell, place: Place, overrides: Sequence[str] = ()) -> Result:
    """Train and measure; `overrides` are not for the yardstick. What klimb refuses is a result too."""
    started = time.monotonic()
    try:
        drift, touched = train_and_measure(cell, place, overrides if cell.role == "cell" else ())
    except ValueError as error:
        return Result(cell=cell, drift=None, touched=None, seconds=0.0, refused=" ".join(str(error).split()))
    return Result(cell=cell, drift=drift, touched=touched, seconds=time.monotonic() - started)


def train_and_measure(cell: Cell, place: Place, overrides: Sequence[str]) -> tuple[Drift, float | None]:
    """Return how far the policy went, and what the clip did before the first step.

    Raises:
        ValueError: klimb refuses the run.
    """
    log = place.log(cell.temperature, cell.top_p)
    tables = run_tables(cell, model=place.model, log=str(log))
    config = build_config(tables, overrides, source="the noise control")
    contexts = contexts_of(place.model)
    session = make_session(config)
    samples = first_samples(
        cell,
        session.policy,
        session.task.train,
        narrow(config.sampling, SamplingSettings),
        log=log,
        num_groups=NUM_PROMPTS,
        num_samples=NUM_SAMPLES,
        reward=noise,
    )
    touched = touched_share(session.objective, session.policy, samples)
    train_in_place(session, noise)
    return contexts.drift(session.policy), touched


def train_in_place(session: Session, reward: RewardFunction) -> list[Mapping[str, float]]:
    """Train the session's policy, and return the metrics of each step; the run's folder is thrown away."""
    steps: list[Mapping[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            session.policy,
            session.sampler,
            InProcessScorer(reward),
            session.objective,
            problems=session.task.train,
            settings=make_loop_settings(session.config),
            folder=Path(folder) / "run",
            logs=session.logs,
            on_step=lambda metrics, _: steps.append(metrics),
        )
    return steps
