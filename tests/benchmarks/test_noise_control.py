"""The noise control's own arithmetic: drift is exact, the rule is the one that is stated, noise is never excused."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks.noise_control.cells import (
    NOT_JUDGED_AT_TOP_P,
    ORIGINS,
    TEMPERATURES,
    Cell,
    all_cells,
    has_clip,
    reason_not_judged,
    stand_in,
)
from benchmarks.noise_control.drift import Drift, draw_contexts
from benchmarks.noise_control.judging import ROUNDING, Yardstick, judge
from benchmarks.noise_control.results import as_result, as_row
from benchmarks.noise_control.rewards import noise, vowels
from benchmarks.noise_control.trial import Result
from benchmarks.page import fill_page
from klimb.policies import Policy
from klimb.tasks.arithmetic import ArithmeticSettings
from klimb.training import RECIPES

NO_DRIFT = dict.fromkeys(TEMPERATURES, 0.0)


def result(cell: Cell, *, entropy: float = 0.0, kl: float = 0.0) -> Result:
    """A run whose entropy changed by so much and whose KL is that, at every temperature."""
    drift = Drift(NO_DRIFT, dict.fromkeys(TEMPERATURES, entropy), dict.fromkeys(TEMPERATURES, kl))
    return Result(cell=cell, drift=drift, touched=0.25, seconds=1.0)


def cell(recipe: str = "dapo", *, temperature: float = 0.6, seed: int = 1, **more) -> Cell:
    return Cell(recipe=recipe, temperature=temperature, top_p=more.pop("top_p", 1.0), origin="fresh", seed=seed, **more)


@pytest.fixture
def yardstick() -> Yardstick:
    """Entropies of -0.1, 0 and 0.1 and KLs of 0.1, 0.2 and 0.3: centres 0 and 0.2, spreads 0.2."""
    runs = [
        result(cell(temperature=1.0, seed=seed, role="no-clip"), entropy=0.1 * (seed - 2), kl=0.1 * seed)
        for seed in (1, 2, 3)
    ]
    return Yardstick(runs, "no-clip")


@pytest.mark.parametrize(("entropy", "kl"), [(0.0, 0.2), (0.3, 0.2), (-0.3, 0.2), (0.0, 0.5), (0.0, 0.0)])
def test_what_is_within_one_and_a_half_spreads_is_within(yardstick: Yardstick, entropy: float, kl: float):
    assert judge(result(cell(), entropy=entropy, kl=kl), yardstick).is_within is True


@pytest.mark.parametrize(
    ("entropy", "kl", "named"),
    [(0.32, 0.2, "entropy"), (-0.32, 0.2, "entropy"), (0.0, 0.52, "KL"), (math.nan, 0.2, "entropy")],
)
def test_what_is_further_away_is_outside_and_named(yardstick: Yardstick, entropy: float, kl: float, named: str):
    assert ROUNDING < 0.02
    verdict = judge(result(cell(), entropy=entropy, kl=kl), yardstick)
    assert verdict.is_within is False
    assert verdict.reason == f"{named} at 0.6, {named} at 1"


def test_the_spread_is_the_largest_of_the_kind(yardstick: Yardstick):
    wide = [
        result(cell("grpo", temperature=1.0, seed=seed, role="no-clip"), entropy=1.0 * seed, kl=0.2) for seed in (1, 2)
    ]
    narrow = [
        result(cell(temperature=1.0, seed=seed, role="no-clip"), entropy=0.1 * (seed - 2), kl=0.2) for seed in (1, 2, 3)
    ]
    both = Yardstick([*wide, *narrow], "no-clip")
    assert judge(result(cell(), entropy=1.5, kl=0.2), both).is_within is True
    assert judge(result(cell(), entropy=1.52, kl=0.2), both).is_within is False
    assert judge(result(cell(), entropy=1.5, kl=0.2), yardstick).is_within is False


def test_a_run_that_was_refused_is_not_judged_and_says_why(yardstick: Yardstick):
    refused = Result(cell=cell(), drift=None, touched=None, seconds=0.0, refused="no such thing")
    verdict = judge(refused, yardstick)
    assert verdict.is_within is None
    assert "no such thing" in verdict.reason


def test_temperature_excuses_no_recipe_and_truncation_only_those_that_go_to_mu():
    excused = {each.recipe for each in all_cells() if reason_not_judged(each)}
    assert excused == set(NOT_JUDGED_AT_TOP_P) < set(RECIPES)
    assert not [each for each in all_cells() if reason_not_judged(each) and each.top_p == 1]
    assert not [name for name in NOT_JUDGED_AT_TOP_P if has_clip(name)]


def test_every_recipe_is_run_at_every_setting_from_every_source_and_has_a_yardstick():
    cells = list(all_cells())
    judged = [each for each in cells if each.role == "cell"]
    assert len(set(judged)) == len(judged) == len(RECIPES) * len(TEMPERATURES) * 2 * len(ORIGINS)
    yardsticks = {(each.recipe, each.origin) for each in cells if each.role == "no-clip"}
    assert {(stand_in(each.recipe), each.origin) for each in judged} == yardsticks


def test_a_policy_that_did_not_move_has_no_drift_and_one_that_did_has_what_its_logits_say(tiny_policy: Policy):
    problems = ArithmeticSettings(digits=1).make_task().train
    contexts = draw_contexts(tiny_policy, problems)
    still = contexts.drift(tiny_policy)
    assert still.kl == dict.fromkeys(TEMPERATURES, 0.0)
    assert still.before == still.after
    # Twice the logits at temperature 1.25 are the logits at 0.625: between those of 0.6 and of 0.8.
    with torch.no_grad():
        tiny_policy.causal_lm.get_output_embeddings().weight.mul_(2)
    moved = contexts.drift(tiny_policy)
    assert still.before[0.6] < moved.after[1.25] < still.before[0.8]
    assert moved.before == still.before
    assert all(value > 0 for value in moved.kl.values())


def test_noise_has_no_pattern_and_vowels_have():
    rewards = torch.tensor([noise("What is 1+1?", f"answer {number}") for number in range(2_000)])
    assert abs(float(rewards.mean()) - 0.5) < 0.03
    assert abs(float(rewards.var()) - 1 / 12) < 0.005
    assert vowels("", "aexE") == pytest.approx(3 / 8 + 0.04)


def test_a_result_is_read_back_as_it_was_written():
    there = result(cell(), entropy=0.25, kl=0.5)
    assert as_result({name: str(value) for name, value in as_row(there).items()}) == there


def test_a_page_without_marks_is_an_error(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="has no marks <!-- noise"):
        fill_page(page, "noise", "| |")
    page.write_text("a\n<!-- noise: made so -->\nold\n<!-- /noise -->\nb\n", encoding="utf-8")
    fill_page(page, "noise", "new")
    assert page.read_text(encoding="utf-8") == "a\n<!-- noise: made so -->\n\nnew\n\n<!-- /noise -->\nb\n"
