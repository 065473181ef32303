"""`klimb import`: a log or a data set into a store, and what came of it."""

import shlex

from rich.console import Console

from klimb.errors import ConfigError
from klimb.workbench.import_rules import MEGABYTE, UNASKED, check_files, check_no_file, rules_of
from klimb.workbench.open_webui import fetch_feedback, is_address
from klimb.workbench.options import ImportOptions, PathOrNone, check_model

NAME = "import"


OPEN_WEBUI = "open-webui"


def import_rows(*files: str, into: PathOrNone = None, options: ImportOptions = UNASKED) -> None:
    """Import a log or a data set into a store. The same file twice adds nothing.

    Args:
        files: .jsonl, .json or .csv (each also packed), .parquet, a folder of them, or a pattern such as "*.jsonl"; or
            the address of an Open WebUI, whose feedback is fetched.
        into: The store's folder, which has to be named; it is made if it is not there.
        options: How they are read.
    """
    is_fetched = len(files) == 1 and is_address(files[0])
    if not is_fetched:
        check_files(files, "klimb import log.jsonl --into store")
    elif options.kind not in ("", OPEN_WEBUI):
        raise ConfigError(
            f"only the feedback of an Open WebUI is fetched from an address, and --as says {options.kind}"
        )
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
        fetch_feedback(files[0]) if is_fetched else files[0] if len(files) == 1 else list(files),
        kind=OPEN_WEBUI if is_fetched else options.kind,
        rules=rules,
        limits=importing.ReadLimits(max_line_bytes=options.max_line_megabytes * MEGABYTE),
        scores=options.scores,
        is_strict=options.strict,
    )
    print_import(Console(), report, rules, into, model=options.model)
