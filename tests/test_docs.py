"""The documents say what the code does: their Python runs, their links lead somewhere, their tables are complete."""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from klimb.divergences import DIVERGENCES
from klimb.experience import Sample, open_store
from klimb.findings.metrics import METRICS, metric_named
from klimb.findings.metrics.of_conversations import CONVERSATIONS
from klimb.findings.metrics.of_data import COMMENTS
from klimb.findings.metrics.of_losses import CORRECTIONS, OBJECTIVE, WITHOUT_RATIO
from klimb.losses import Corrected, Inputs, Loss, MaskedCorrection, Objective
from klimb.policies import Policy
from klimb.tasks import Problem, Response, Score
from klimb.training import (
    RECIPES,
    BaseMetrics,
    CreditSettings,
    EvaluationSettings,
    Flags,
    GuardSettings,
    OfflineSource,
    SourceSettings,
    read_metrics,
    recipe_named,
)
from klimb.workbench.config import build_config
from klimb.workbench.recipe_table import with_tables
from tests.training.tiny_run import BASE, PROBLEMS, LetterCounter, run

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NOT_HERE = (ROOT / "docs" / "not-here.md").read_text(encoding="utf-8")
TOOLS = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")

_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TOML = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_MAKE = re.compile(r"(?:`|^    )make ([a-z-]+)", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")
_FILE = re.compile(r"\b((?:src|tests|benchmarks|examples)/[\w/-]+(?:\.\w+)?)")
_MODULE = re.compile(r"\b((?:klimb|benchmarks)(?:\.[a-z_]+)+)\b(?!\()")
_NO_PROSE = re.compile(r"^(\||#|!\[|<| {4}|\s*$)")


def python_blocks(page: Path) -> list[str]:
    return _PYTHON.findall(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Heading anchors as GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def prose(text: str) -> list[str]:
    """The lines of a page that are neither code nor table, heading, picture or comment."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in without_code.splitlines() if not _NO_PROSE.match(line)]


def relative_links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")):
                yield page, target


@pytest.fixture
def beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let modules of `examples/` be imported; they are forgotten afterwards, as other tests have such names too."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "examples")
    yield
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    for name in names & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.mark.usefixtures("beside_the_examples")
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_python_on_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    with torch.random.fork_rng():
        for number, block in enumerate(python_blocks(page), start=1):
            exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("text", _TOML.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")))
def test_configurations_in_the_tutorial_are_valid(text: str):
    build_config(tomllib.loads(text), source="docs/tutorial.md")


@pytest.mark.parametrize("text", _TOML.findall((ROOT / "docs" / "environments.md").read_text(encoding="utf-8")))
def test_configurations_of_environments_are_valid(text: str):
    build_config(tomllib.loads(text), source="docs/environments.md")


@pytest.mark.parametrize("text", _TOML.findall((ROOT / "docs" / "guard.md").read_text(encoding="utf-8")))
def test_configurations_of_the_guard_are_valid(text: str):
    build_config(tomllib.loads(text), source="docs/guard.md")


@pytest.mark.parametrize("text", _TOML.findall((ROOT / "docs" / "judge.md").read_text(encoding="utf-8")))
def test_configurations_of_judges_are_valid(text: str):
    build_config(tomllib.loads(text), source="docs/judge.md")


@pytest.mark.parametrize(
    "name",
    ["sums.toml", "logs.toml", "my_divergences.py", "my_rewards.py", "my_tasks.py", "capitals.toml", "python_run.py"],
)
def test_examples_are_what_the_tutorial_shows(name: str):
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert f"\n{example}```" in tutorial


@pytest.mark.parametrize("name", ["my_tools.py", "my_games.py"])
def test_examples_are_what_the_page_of_tools_shows(name: str):
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert f"\n{example}```" in TOOLS


@pytest.mark.parametrize(("text", "name"), list(zip(_TOML.findall(TOOLS), ["prices.toml", "number.toml"], strict=True)))
def test_configurations_of_the_page_of_tools_are_valid_and_of_the_examples(text: str, name: str):
    build_config(tomllib.loads(text), source="docs/tools.md")
    whole = tomllib.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))
    shown = tomllib.loads(text)
    assert {key: whole[key] | part for key, part in shown.items()} == {key: whole[key] for key in shown}


@pytest.mark.usefixtures("beside_the_examples")
def test_what_the_page_of_tools_writes_is_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(next(block for block in python_blocks(ROOT / "docs" / "tools.md") if "write_text" in block), {})
    assert Path("prices_shown.jsonl").read_bytes() == (ROOT / "examples" / "prices_shown.jsonl").read_bytes()


@pytest.mark.usefixtures("beside_the_examples")
def test_rewards_of_the_page_of_tools_see_the_game_and_the_calls():
    names: dict[str, Any] = {}
    exec(next(block for block in python_blocks(ROOT / "docs" / "tools.md") if "right_and_brief" in block), names)
    game = import_module("my_games").Guess()
    game.reset()
    assert names["quickly_found"]("", "", "", {}, game) == 0.0 and names["from_trl"]([[]], [game]) == [0.0]
    assert game.guess(game.number - 1) == "higher" and game.guess(game.number + 1) == "lower" and not game.done
    assert game.guess(game.number) == "right" and game.done and game.get_reward() == 1 / 3
    assert names["quickly_found"]("", "", "", {}, game) == 1.0
    assert names["from_trl"]([[], []], [game, None]) == [1.0, 0.0]
    calls = [{"role": "assistant", "content": "", "tool_calls": [{}, {}]}, {"role": "assistant", "content": "17"}]
    assert names["right_and_brief"]("", "17", "17", {}, calls) == {"correct": 1.0, "calls": -0.1}


def test_every_example_is_in_the_tutorial():
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples").glob("*.*") if f"`{path.name}`" not in tutorial] == []


@pytest.mark.parametrize(("page", "target"), list(relative_links()), ids=lambda value: getattr(value, "name", value))
def test_links_lead_somewhere(page: Path, target: str):
    path, _, anchor = target.partition("#")
    linked = (page.parent / path).resolve() if path else page
    assert linked.exists(), f"{page.name} links to {target}"
    if anchor:
        assert anchor in anchors(linked), f"{linked.name} has no heading for #{anchor}"


OBJECTIVES = (
    Objective(),
    Objective(ratio="none", clip="none"),
    recipe_named("dro").make_objective(),
    recipe_named("kimi-pmd").make_objective(),
    recipe_named("kto").make_objective(),
    recipe_named("dpo").make_objective(),
    Corrected(objective=Objective(), correction=MaskedCorrection(off_policy_mask=0.5)),
)
"""Together they log every metric that an objective can."""


def metrics_of(objective: Loss) -> dict[str, float]:
    """Of two responses to one prompt, one good and one bad."""
    log_mu, mask, signs = -torch.ones(2, 3), torch.ones(2, 3).bool(), torch.tensor([1.0, -1.0])
    groups = torch.zeros(2, dtype=torch.int64)
    inputs = Inputs(log_mu, log_mu, log_mu, signs, mask, entropy=torch.ones(2, 3), log_prox=log_mu, groups=groups)
    prepared, inputs = objective.prepare(inputs)
    return dict(prepared(inputs).metrics)


OF_OBJECTIVES = {metric.name for metric in (*OBJECTIVE, *CORRECTIONS, *WITHOUT_RATIO)}


def test_every_metric_of_an_objective_has_a_row_and_no_row_claims_another():
    emitted = {name for objective in OBJECTIVES for name in metrics_of(objective)}
    assert emitted == OF_OBJECTIVES


class ScorerOfParts(LetterCounter):
    """Names the one part of its reward."""

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        scores = super().score_many(problems, responses)
        parts = [{"letters": score.reward or 0.0} for score in scores]
        return [replace(score, parts=each, values=each) for score, each in zip(scores, parts, strict=True)]


class Forgetful:
    """Base metrics that break a limit after the first measurement; every flag is known."""

    def __init__(self) -> None:
        self.perplexity = 1.0

    def measure(self) -> BaseMetrics:
        self.perplexity *= 10
        flags = Flags(refusal=(False,), empty=(False,), repetition=(False,))
        checks = {"never:refund": (False,)}
        return BaseMetrics(perplexity=self.perplexity, general={"sums": (1.0,)}, answers=flags, checks=checks)

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        no = (False,) * len(rollouts)
        return Flags(refusal=no, empty=no, repetition=no, format_valid=no)


def test_every_metric_of_a_run_has_a_row_and_no_row_claims_another(tiny_policy: Policy, tmp_path: Path):
    evaluation = EvaluationSettings(every_steps=2, num_samples=2)
    guard = GuardSettings(every_steps=1, action="rollback", rollback_learning_rate_factor=0.5)
    settings = replace(
        BASE, training=replace(BASE.training, num_steps=2, log_mu="auto"), evaluation=evaluation, guard=guard
    )
    watched = {"scorer": ScorerOfParts(), "held_out": PROBLEMS[:5], "base_metrics": Forgetful()}
    run(tiny_policy, tmp_path / "run", settings, **watched)
    log = OfflineSource(open_store(tmp_path / "run"), tiny_policy, source="log")
    mixed = SourceSettings(replay=0.25, log=0.25)
    run(
        tiny_policy,
        tmp_path / "mixed",
        replace(BASE, training=replace(BASE.training, num_steps=2), sources=mixed),
        logs=[log],
    )
    with_a_critic = replace(
        BASE,
        training=replace(BASE.training, num_steps=1),
        advantages=replace(BASE.advantages, kind="no-baseline"),
        credit=CreditSettings(kind="gae"),
    )
    run(tiny_policy, tmp_path / "critic", with_a_critic)
    folders = (tmp_path / "run", tmp_path / "mixed", tmp_path / "critic")
    emitted = {name for folder in folders for row in read_metrics(folder / "metrics.jsonl") for name in row}
    emitted |= {name for objective in OBJECTIVES for name in metrics_of(objective)}
    emitted |= {metric.name for metric in CONVERSATIONS}  # tests/findings/test_conversations.py has these
    emitted |= {metric.name for metric in COMMENTS}  # tests/training/test_comments.py has these
    assert {"replay/ess_token", "log/w_p99"} <= emitted
    assert [name for name in sorted(emitted) if metric_named(name) is None] == []
    claimed = [metric.name for metric in METRICS]
    assert [pattern for pattern in claimed if not any(fnmatch(name, pattern) for name in emitted)] == []


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_in_the_readme(name: str):
    assert f"`{name}`" in section((ROOT / "README.md").read_text(encoding="utf-8"), "Recipes")


def test_the_tables_of_recipes_are_those_of_the_code():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m klimb.workbench.recipe_table docs/recipes.md"


def test_a_page_without_the_markers_of_the_tables_is_an_error():
    with pytest.raises(ValueError, match="the page has no lines"):
        with_tables("# Recipes")


@pytest.mark.parametrize("text", _TOML.findall((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")))
def test_configurations_on_the_page_of_recipes_are_valid(text: str):
    build_config(tomllib.loads(text), source="docs/recipes.md")


@pytest.mark.parametrize("name", DIVERGENCES)
def test_every_divergence_is_in_the_notation(name: str):
    assert f"| `{name}` |" in (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(_TEST.findall(NOT_HERE))))
def test_a_test_that_shows_what_klimb_does_instead_exists(name: str):
    path, _, test = name.partition("::")
    assert f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("trouble", NOT_HERE.split("\n## Not there yet")[0].split("\n### ")[1:], ids=first_line)
def test_each_trouble_has_a_report_and_a_test(trouble: str):
    assert "https://github.com/" in trouble or "published code of RPG" in trouble
    assert _TEST.search(trouble)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path):
    named = set(_FILE.findall(page.read_text(encoding="utf-8")))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_what_is_in_them_exist_where_a_page_names_them(page: Path):
    for module in sorted(set(_MODULE.findall(page.read_text(encoding="utf-8")))):
        parent, _, name = module.rpartition(".")
        exists = find_spec(module) is not None or hasattr(import_module(parent), name)
        assert exists, f"{page.name} names {module}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_lines_of_prose_are_at_most_120_characters(page: Path):
    long = [line for line in prose(page.read_text(encoding="utf-8")) if len(line) > 120]
    assert [line for line in long if " " in line.removeprefix("- ")] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_documents_name_only_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for page in PAGES for target in _MAKE.findall(page.read_text(encoding="utf-8"))}
    assert named <= targets
