"""What a user states on the command line about files to import."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from klimb.errors import ConfigError
from klimb.workbench.options import ImportOptions, check_is_there

if TYPE_CHECKING:
    from klimb.experience.importing import ImportRules

MEGABYTE = 1024**2


UNASKED = ImportOptions()


_PATTERN = "*?["
"""In the name of a file, one of these makes it a pattern of several."""


def check_files(files: Sequence[str], example: str) -> None:
    """Return if there is a file, and each that is no pattern is there."""
    if not files:
        raise ConfigError(f"give a file to import: a log or a data set, such as {example}")
    for file in files:
        if not any(mark in file for mark in _PATTERN):
            check_is_there(Path(file), "a log or a data set")


def check_no_file(into: Path) -> None:
    """Return if a store can be at the path: nothing is there yet, or a folder."""
    if into.is_file():
        raise ConfigError(f"--into {into} is a file, and a store is a folder: name another, such as --into store")


def rules_of(options: ImportOptions) -> "ImportRules":
    """Return what the user states about the file, with the model's tokenizer and bounds if one is named."""
    from klimb.experience.importing import ImportRules

    rules = ImportRules(
        columns=_texts(options.columns, "--columns"),
        scale=options.scale,
        value_map=_numbers(options.value_map, "--map"),
        dates=options.dates,
        sampling=_numbers(options.sampling, "--sampling"),
        log_probs=options.log_probs,
        max_reward=options.max_reward,
        max_tokens=options.max_tokens,
        keep_users=options.keep_users,
        score_name=options.score_name,
        ignore=options.ignore,
        ids=options.ids,
        redact=_redact() if options.redact else None,
        turns=options.turns,
        now=time.time(),
    )
    return _with_model(rules, options.model) if options.model else rules


def _redact() -> Callable[[str], str]:
    from klimb.experience.personal_data import redact

    return redact


def _with_model(rules: "ImportRules", name: str) -> "ImportRules":
    """Return the rules with the model's tokenizer and bounds."""
    from klimb.policies import load_policy
    from klimb.policies.tokenizing import encode_turns, ids_of_tokens

    policy = load_policy(name)
    return replace(
        rules,
        resolve=lambda tokens: ids_of_tokens(policy, tokens),
        decode=policy.decode_turn,
        encode=lambda sample: encode_turns(policy, sample),
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
