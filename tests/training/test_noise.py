"""Rewards that mean nothing move no policy, whatever temperature its rollouts are drawn at."""

import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.noise_control.cells import NUM_PROMPTS, NUM_SAMPLES, YARDSTICK_SEEDS, Cell, roles_of, run_tables
from benchmarks.noise_control.judging import Yardstick, judge
from benchmarks.noise_control.logs import make_log
from benchmarks.noise_control.rewards import noise
from benchmarks.noise_control.touched import first_samples, touched_share
from benchmarks.noise_control.trial import Place, Result, run_cell, train_in_place
from klimb.declarations import narrow
from klimb.experience import SamplingSettings
from klimb.workbench.config import build_config
from klimb.workbench.session import Session, make_session

RECIPES = ("rpg-reinforce-urkl", "dapo", "ppo", "gspo")
LOGGED = ("rpg-reinforce-urkl", "dapo")
NUM_LOGS = 5
TEMPERATURE = 0.6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The tiny model, and logs that it drew at temperature 1 and at the other one."""
    made = Place(folder=tmp_path_factory.mktemp("noise"))
    made.make((TEMPERATURE, 1.0), (1.0,))
    return made


@pytest.fixture(scope="module")
def results(place: Place) -> Mapping[Cell, Result]:
    """The selection, and the yardsticks it is judged by."""
    cells = [
        Cell(recipe=recipe, temperature=1.0, top_p=1.0, origin="fresh", seed=seed, role=role)
        for recipe in RECIPES
        for role in roles_of(recipe, "fresh")
        for seed in YARDSTICK_SEEDS
    ]
    cells += [Cell(recipe=recipe, temperature=TEMPERATURE, top_p=1.0, origin="fresh") for recipe in RECIPES]
    return {cell: run_cell(cell, place) for cell in cells}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_noise_at_another_temperature_stays_within_the_spread_at_one(recipe: str, results: Mapping[Cell, Result]):
    result = results[Cell(recipe=recipe, temperature=TEMPERATURE, top_p=1.0, origin="fresh")]
    for role in ("no-clip", "own-clip"):
        verdict = judge(result, Yardstick(results.values(), role))
        assert verdict.is_within is True, f"by {role}: {verdict.reason}: {result.drift}"


def changes_on_logs(place: Place, recipe: str, temperature: float) -> list[float]:
    """The change of the entropy at temperature 1 on each of several logs drawn at a temperature."""
    found = []
    for seed in range(NUM_LOGS):
        folder = place.log(temperature, 1.0)
        shutil.rmtree(folder, ignore_errors=True)
        make_log(folder, model=place.model, temperature=temperature, top_p=1.0, reward=noise, seed=seed)
        drift = run_cell(Cell(recipe=recipe, temperature=temperature, top_p=1.0, origin="log"), place).drift
        assert drift is not None
        found.append(drift.after[1.0] - drift.before[1.0])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("recipe", LOGGED)
def test_noise_on_logs_of_another_temperature_goes_where_it_goes_at_one(place: Place, recipe: str):
    """One log is one draw of the noise, so several are taken: wandering costs entropy at any temperature."""
    other, at_one = (changes_on_logs(place, recipe, temperature) for temperature in (TEMPERATURE, 1.0))
    spread = max(at_one) - min(at_one)
    assert abs(statistics.fmean(other) - statistics.fmean(at_one)) <= 1.5 * spread + 0.01, (other, at_one)


def open_session(place: Place, recipe: str, temperature: float, num_steps: int) -> Session:
    cell = Cell(recipe=recipe, temperature=temperature, top_p=1.0, origin="fresh")
    tables = run_tables(cell, model=place.model, log="")
    tables["training"]["num_steps"] = num_steps
    return make_session(build_config(tables, source="the test"))


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.parametrize("recipe", ["rpg-reinforce-urkl", "dapo", "gspo", "dppo-tv"])
def test_at_another_temperature_the_clip_touches_nothing_before_the_first_step(
    place: Place, recipe: str, temperature: float
):
    session = open_session(place, recipe, temperature, num_steps=1)
    samples = first_samples(
        Cell(recipe=recipe, temperature=temperature, top_p=1.0, origin="fresh"),
        session.policy,
        session.task.train,
        narrow(session.config.sampling, SamplingSettings),
        log=Path(),
        num_groups=NUM_PROMPTS,
        num_samples=NUM_SAMPLES,
        reward=noise,
    )
    assert touched_share(session.objective, session.policy, samples) == 0


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_at_another_temperature_the_first_weights_are_one(place: Place, temperature: float):
    session = open_session(place, "rpg-reinforce-urkl", temperature, num_steps=1)
    (metrics,) = train_in_place(session, noise)
    assert metrics["w_p01"] == pytest.approx(1, abs=1e-4)
    assert metrics["w_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["clip_low_fraction"] == metrics["clip_high_fraction"] == metrics["clip_ceiling_fraction"] == 0
