"""The page on the audit names every check and every threshold."""

from dataclasses import fields
from pathlib import Path

import pytest
from tests.findings.audit.fabricated import drawn

from klimb.findings.audit import Thresholds, audit

PAGE = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8").replace("\\|", "|")


def test_every_check_is_explained():
    samples, log_pi = drawn()
    report = audit(samples, log_pi=log_pi, fresh=samples[:2], evaluation_prompts=["x"], is_logging_model=True)
    names = [finding.name for block in report.blocks for finding in block.findings]
    assert len(names) > 40
    assert [name for name in names if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("name", [entry.name for entry in fields(Thresholds)])
def test_every_threshold_is_named_with_its_source(name: str):
    assert f"`{name}`" in PAGE
    assert f"        {name}: " in (Thresholds.__doc__ or "")
