"""`klimb import`: a log or a data set into a store, and what came of it."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from klimb.experience.importing.registry import IMPORTERS
from klimb.workbench.options import Pairs, PathOrNone, Switch, TextOrNone, check_is_there, check_model

if TYPE_CHECKING:
    from klimb.experience.importing import ImportRules

NAME = "import"

MEGABYTE = 1024**2


KINDS = f"{', '.join(IMPORTERS)}, or `python:module.name` of your own; guessed without it."


def import_rows(
    file: Path,
    /,
    *,
    into: Path,
    kind: Annotated[str, Parameter(name="--as", show_default=False, help=KINDS)] = "",
    columns: Pairs = (),
    scale: Annotated[tuple[float, float] | None, Parameter(negative="")] = None,
    value_map: Annotated[Pairs, Parameter(name="--map")] = (),
    sampling: Pairs = (),
    log_probs: Literal["raw", "processed"] = "raw",
    model: TextOrNone = "",
    max_reward: float = math.inf,
    max_tokens: int | None = None,
    scores: PathOrNone = None,
    score_name: TextOrNone = "",
    keep_users: Switch = False,
    max_line_megabytes: int = 16,
    strict: Switch = False,
) -> None:
    """Import a log or a data set into a store. The same file twice adds nothing.

    Args:
        file: .jsonl, .json or .csv (each also with .gz), or .parquet.
        into: The store's folder; it is made if it is not there.
        kind: What its rows are; guessed without it.
        columns: Names of the file's columns, such as `prompt=question response=answer`.
        scale: Lowest and highest rating that can be given; ratings become 0 to 1.
        value_map: What texts stand for, such as `good=1 bad=0`.
        sampling: Settings that the requests do not say and you know, such as `temperature=1 top_p=1`.
        log_probs: What the recorded log-probabilities are of: the model itself, or its distribution after temperature
            and truncation.
        model: Whose tokenizer turns logged token strings into ids, and bounds ids and lengths; log_mu stays the logged
            model's.
        max_reward: Reject rewards of larger magnitude.
        max_tokens: Reject rows with more prompt and response tokens; without it, as many as the model takes.
        scores: Langfuse's scores of these observations.
        score_name: Import the ratings of this name alone.
        keep_users: Keep user ids as they are; else they are hashed.
        max_line_megabytes: Reject longer lines.
        strict: Stop at the first row that cannot be imported.
    """
    check_is_there(file, "a log or a data set")
    check_model(model)
    from klimb.experience.importing import ImportRules, ReadLimits, import_file
    from klimb.experience.store import Store
    from klimb.ui.terminal.imports import print_import

    rules = ImportRules(
        columns=_texts(columns, "--columns"),
        scale=scale,
        value_map=_numbers(value_map, "--map"),
        sampling=_numbers(sampling, "--sampling"),
        log_probs=log_probs,
        max_reward=max_reward,
        max_tokens=max_tokens,
        keep_users=keep_users,
        score_name=score_name,
        now=time.time(),
    )
    rules = _with_model(rules, model) if model else rules
    limits = ReadLimits(max_line_bytes=max_line_megabytes * MEGABYTE)
    report = import_file(Store(into), file, kind=kind, rules=rules, limits=limits, scores=scores, is_strict=strict)
    print_import(Console(), report, rules, into, model=model)


def _with_model(rules: "ImportRules", name: str) -> "ImportRules":
    """Return the rules with the model's tokenizer and bounds."""
    from klimb.policies import load_policy
    from klimb.policies.tokenizing import ids_of_tokens

    policy = load_policy(name)
    return replace(
        rules,
        resolve=lambda tokens: ids_of_tokens(policy, tokens),
        tokenizer=policy.fingerprint,
        num_vocab=policy.num_vocab,
        max_tokens=rules.max_tokens or policy.max_positions,
    )


def _texts(pairs: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes NAME=VALUE, got {pair!r}")
        if name in mapping:
            raise ValueError(f"{option} names {name!r} twice")
        mapping[name] = value
    return mapping


def _numbers(pairs: Sequence[str], option: str) -> dict[str, float]:
    """`NAME=NUMBER` texts as a mapping."""
    numbers: dict[str, float] = {}
    for name, text in _texts(pairs, option).items():
        try:
            numbers[name] = float(text)
        except ValueError as error:
            raise ValueError(f"{option} {name}={text}: expected a number behind the equals sign") from error
        if not math.isfinite(numbers[name]):
            raise ValueError(f"{option} {name}={text}: expected a finite number")
    return numbers
