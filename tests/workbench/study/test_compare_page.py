"""docs/studies.md says what a study is."""

from dataclasses import replace
from pathlib import Path

import pytest

from klimb.workbench.study.config import StudySection, read_study
from klimb.workbench.study.plan import STUDY_OWNED, make_plan

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "studies" / "divergences.toml"


def test_the_example_is_what_the_page_shows_and_has_as_many_runs_as_it_says():
    assert f"\n```toml\n{EXAMPLE.read_text(encoding='utf-8')}```\n" in PAGE
    study, text = read_study(str(EXAMPLE))
    plan = make_plan(study, Path("place"), source="example", text=text)
    assert f"= {len(plan.cells)}. Each is an ordinary run" in PAGE


def test_the_example_compares_divergences_and_nothing_else():
    study, _ = read_study(str(EXAMPLE))
    configs = {cell.method: cell.config for cell in make_plan(study, Path("x"), source="x").cells}
    divergences = {name: config.objective.divergence for name, config in configs.items()}
    assert divergences == {"reverse": "rkl", "forward": "fkl", "none": "rkl"}
    assert configs["none"].objective.beta == 0
    assert replace(configs["forward"].objective, divergence="rkl") == configs["reverse"].objective


@pytest.mark.parametrize("key", StudySection.model_fields)
def test_every_key_of_the_study_is_on_the_page(key: str):
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize("key", STUDY_OWNED)
def test_every_key_that_a_study_sets_itself_is_on_the_page(key: str):
    assert f"`{key}`" in PAGE
