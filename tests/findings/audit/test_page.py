"""The page on the audit names every check and every threshold."""

from pathlib import Path

import pytest
from tests.findings.audit.fabricated import drawn

from klimb.findings.audit import Thresholds, audit
from klimb.findings.tables import with_tables
from klimb.findings.thresholds import Threshold, rows_of

PATH = Path(__file__).parents[3] / "docs" / "audit.md"
PAGE = PATH.read_text(encoding="utf-8").replace("\\|", "|")


def test_every_check_is_explained():
    samples, log_pi = drawn()
    report = audit(samples, log_pi=log_pi, fresh=samples[:2], evaluation_prompts=["x"], is_logging_model=True)
    names = [finding.name for block in report.blocks for finding in block.findings]
    assert len(names) > 40
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_table_of_thresholds_is_that_of_the_rows():
    page = PATH.read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m klimb.findings.tables docs/audit.md"


@pytest.mark.parametrize(("name", "row"), rows_of(Thresholds).items(), ids=list(rows_of(Thresholds)))
def test_every_threshold_is_named_with_its_source(name: str, row: Threshold):
    assert row.unit and row.source
    assert f"| `{name}` | {row.value:g} | {row.unit} | {row.source} |" in PAGE
