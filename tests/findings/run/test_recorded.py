"""The rules on real runs of the embedded model that have one disease each: `benchmarks/diseases.py --record`."""

import json
import re
from pathlib import Path

import pytest

from klimb.findings.finding import Finding
from klimb.findings.run.rules import find
from klimb.training.run_folder import read_run

RECORDINGS = Path(__file__).parents[2] / "recorded" / "diseases"
NAMES = sorted(path.name for path in RECORDINGS.iterdir())
PAGE = (Path(__file__).parents[3] / "docs" / "findings.md").read_text(encoding="utf-8")
MOST_BYTES = 150_000

FOLLOWS = {
    "forgetting": {"zero-variance-waste"},
    "zero-variance-waste": {"truncated-answers"},
}
"""What else asks for attention in a run, since it follows from the disease or is true beside it."""

HEALTHY = [name for name in NAMES if name.startswith("healthy")]
DISEASED = [name for name in NAMES if name not in HEALTHY]


def findings_of(name: str) -> tuple[Finding, ...]:
    return find(read_run(RECORDINGS / name))


def ailments(name: str) -> list[str]:
    return [finding.name for finding in findings_of(name) if finding.status in ("bad", "warning")]


def test_every_disease_of_the_list_is_recorded():
    assert set(DISEASED) == {
        "entropy-collapse",
        "forgetting",
        "inert-clip",
        "kl-blow-up",
        "length-hacking",
        "reward-saturation",
        "sampler-gap",
        "too-little-data",
        "zero-variance-waste",
    }


@pytest.mark.parametrize("name", DISEASED)
def test_a_disease_is_found_first_and_no_other_one_is_claimed(name: str):
    first, *others = ailments(name)
    assert first == name
    assert set(others) == FOLLOWS.get(name, set())


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_warning_and_is_said_to_have_learned(name: str):
    assert ailments(name) == []
    assert "learned" in [finding.name for finding in findings_of(name)]


@pytest.mark.parametrize("name", NAMES)
def test_what_asks_for_attention_says_what_to_try(name: str):
    for finding in findings_of(name):
        assert bool(finding.advice) == (finding.status != "good")
        assert re.search(r"\d", finding.evidence)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_is_found_in_a_recording(name: str):
    found = ", ".join(f"`{key}`" for key in ailments(name)) or "none"
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | "))
    assert row.endswith(f"| {found} |")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_slim_and_knows_no_machine(name: str):
    files = list((RECORDINGS / name).iterdir())
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    config = json.loads((RECORDINGS / name / "config.json").read_text(encoding="utf-8"))
    assert not any(value.startswith("/") for value in texts(config))


def texts(content: object) -> list[str]:
    if isinstance(content, dict):
        return [text for value in content.values() for text in texts(value)]
    if isinstance(content, list):
        return [text for value in content for text in texts(value)]
    return [content] if isinstance(content, str) else []
