"""What a run's own numbers say in words: diseases with their evidence and the next thing to try, and what went well."""

from klimb.workbench.findings.finding import SEVERITIES, Finding, Severity
from klimb.workbench.findings.table import RULES, Rule, find
from klimb.workbench.findings.terminal import print_findings
from klimb.workbench.findings.thresholds import THRESHOLDS, Thresholds

__all__ = ["RULES", "SEVERITIES", "THRESHOLDS", "Finding", "Rule", "Severity", "Thresholds", "find", "print_findings"]
