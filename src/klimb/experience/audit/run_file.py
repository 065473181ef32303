"""The configuration of a run that a verdict asks for."""

import json

from klimb.experience.audit.report import AuditReport


def run_file(report: AuditReport, *, store: str, model: str) -> str:
    """TOML of a run that follows the verdict: from the log, or from fresh rollouts where more is to be collected.

    Args:
        report: the audit.
        store: folder or file of the audited data, as `klimb` finds it.
        model: name or folder of the model to train.
    """
    verdict = report.verdict
    recommended, *others = verdict.recipes
    collects = verdict.kind == "collect-more"
    remark = f"  # others that fit: {', '.join(others)}" if others else ""
    lines = [
        f"# Verdict of the audit: {verdict.kind}, decided by: {verdict.decided_by}.",
        "",
        "seed = 0",
        "",
        "[model]",
        f"path = {_text(model)}",
        "",
        "[objective]",
        f"recipe = {_text(recommended)}{remark}",
        "",
        "[sources]",
        f"{'rollout' if collects else 'log'} = 1.0",
        "",
        *([] if collects else ["[log]", f"path = {_text(store)}", ""]),
        "[training]",
        "num_steps = 100",
    ]
    task = '\n# Fresh answers need a task. Say which:\n# [task]\n# kind = "arithmetic"' if collects else ""
    return "\n".join(lines) + task + "\n"


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
