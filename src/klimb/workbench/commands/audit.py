"""`klimb audit`: what logged data is good for, in the terminal, as a page, and as a run file to start from."""

from pathlib import Path

from rich.console import Console

from klimb.workbench.options import AuditOptions, check_is_there, check_model

UNASKED = AuditOptions()


def audit(data: Path, /, *, options: AuditOptions = UNASKED) -> None:
    """Say what logged data is good for: findings, a verdict, a page, and a run file to start from.

    Args:
        data: A store's folder, a run's folder, or one Parquet segment.
        options: What it is asked.
    """
    check_is_there(data, "a store's folder, a run's folder, or one Parquet segment")
    check_model(options.model)
    from klimb.workbench.auditing import run_audit

    run_audit(data, options, console=Console())
