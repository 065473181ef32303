"""`klimb import`: a log or a data set into a store, and what came of it."""

import shlex

from rich.console import Console

from klimb.errors import ConfigError
from klimb.workbench.import_rules import MEGABYTE, UNASKED, check_files, check_no_file, rules_of
from klimb.workbench.options import ImportOptions, PathOrNone, check_model

NAME = "import"


def import_rows(*files: str, into: PathOrNone = None, options: ImportOptions = UNASKED) -> None:
    """Import a log or a data set into a store. The same file twice adds nothing.

    Args:
        files: .jsonl, .json or .csv (each also packed), .parquet, a folder of them, or a pattern such as "*.jsonl".
        into: The store's folder, which has to be named; it is made if it is not there.
        options: How they are read.
    """
    check_files(files, "klimb import log.jsonl --into store")
    if into is None:
        raise ConfigError(f"say where the rows go: klimb import {shlex.join(files)} --into store")
    check_no_file(into)
    check_model(options.model)
    from klimb.experience import importing
    from klimb.experience.store import Store
    from klimb.ui.terminal.imports import print_import

    rules = rules_of(options)
    report = importing.import_rows(
        Store(into),
        files[0] if len(files) == 1 else list(files),
        kind=options.kind,
        rules=rules,
        limits=importing.ReadLimits(max_line_bytes=options.max_line_megabytes * MEGABYTE),
        scores=options.scores,
        is_strict=options.strict,
    )
    print_import(Console(), report, rules, into, model=options.model)
