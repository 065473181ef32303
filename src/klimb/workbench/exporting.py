"""A store's samples as one file for other programs, and one sample's tokens under a model."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

from klimb.errors import ConfigError
from klimb.experience import Message, Sample, replace_atomically, write_samples
from klimb.experience.store import Store
from klimb.policies import Policy, fit_sample
from klimb.policies.tokenizer import decode_ids
from klimb.training import score_samples
from klimb.ui.csv_export import as_cell
from klimb.ui.terminal.store import TokenRows, token_rows
from klimb.workbench.verifiers_rows import as_episode

Form = Literal["klimb", "verifiers"]
"""Whose program reads what is exported."""


def export_samples(store: Store, path: Path, *, where: str = "", force: bool = False, form: Form = "klimb") -> int:
    """Write the samples, people's ratings joined, to `path` and returns how many there were.

    `.parquet` is a segment that klimb reads again; `.jsonl` has one object a line; `.csv` has lists and tables as JSON
    in their cells. In the form `verifiers`, each line of a `.jsonl` is an episode that verifiers reads, and `klimb
    import` too. The file appears whole or not at all.

    Raises:
        ConfigError: the suffix is none of the form's, the file is there already, or it would be a part of the store.
        ValueError: `where` is not a condition on samples, or a number cannot be written as JSON.
    """
    writers = FORMS[form]
    writer = writers.get(path.suffix.lower())
    if writer is None:
        told = "the ending says the format" if form == "klimb" else f"in the form {form}"
        raise ConfigError(f"--to {path}: {told}; use {', '.join(writers)}")
    if path.absolute().parent.resolve() == store.folder.resolve():
        raise ConfigError(f"--to {path}: this is inside the store, whose files are its samples; choose another folder")
    if path.exists() and not force:
        raise ConfigError(f"{path} already exists; choose another name, or replace it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    count = Counter()
    with replace_atomically(path) as aside:
        writer(aside, count.counted(store.samples(where=where)))
    return count.number


class Counter:
    """Counts what passes through."""

    def __init__(self) -> None:
        self.number = 0

    def counted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Return the same samples; `number` says how many went by."""
        for sample in samples:
            self.number += 1
            yield sample


def write_json_lines(path: Path, samples: Iterable[Sample]) -> None:
    """One object a line, its keys the fields of a sample.

    A conversation has its `messages` besides, those of the prompt and of its turns, for programs that read chats.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            file.write(_json(sample.sample_id, _row(sample)) + "\n")


def _row(sample: Sample) -> dict[str, Any]:
    row = asdict(sample)
    if not sample.turns:
        return row
    said: list[Message] = []
    for turn in sample.turns:
        message = Message(role=turn.role, content=turn.text)
        said.append({**message, "name": turn.name} if turn.name else message)
    return {**row, "messages": [*sample.prompt, *said]}


def write_csv(path: Path, samples: Iterable[Sample]) -> None:
    """One row a sample; what is not text or number is JSON, and what is absent is empty.

    A text that a spreadsheet would run as a formula begins with an apostrophe; `klimb import` takes it off.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(FIELD_NAMES)
        for sample in samples:
            rows.writerow([_cell(sample.sample_id, value) for value in asdict(sample).values()])


WRITERS: Mapping[str, Callable[[Path, Iterable[Sample]], None]] = {
    ".jsonl": write_json_lines,
    ".csv": write_csv,
    ".parquet": write_samples,
}


def write_verifiers(path: Path, samples: Iterable[Sample]) -> None:
    """One episode of verifiers a line, as in its `traces.jsonl`."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            file.write(_json(sample.sample_id, as_episode(sample)) + "\n")


FORMS: Mapping[Form, Mapping[str, Callable[[Path, Iterable[Sample]], None]]] = {
    "klimb": WRITERS,
    "verifiers": {".jsonl": write_verifiers},
}


FIELD_NAMES = tuple(field.name for field in fields(Sample))


def _cell(sample_id: str, value: Any) -> Any:
    if isinstance(value, str):
        # One apostrophe more where there are some already, so that the text can be told from a marked one.
        bare = value.lstrip("'")
        return f"'{value}" if as_cell(bare) != bare else value
    if value is None:
        return value
    return repr(value) if isinstance(value, float) else _json(sample_id, value)


def _json(sample_id: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"sample {sample_id}: a number is NaN or infinite, which JSON cannot write; export to .parquet, "
            "or leave such samples out with --where"
        ) from error


def score_tokens(policy: Policy, sample: Sample) -> TokenRows:
    """Return the token view under a policy of the sample's temperature, which must have its tokenizer."""
    policy.temperature = 1.0 if sample.sampling is None else sample.sampling.scoring_temperature
    whole = fit_sample(policy, sample)
    # What is recorded plays no part in scoring, and a damaged log_mu is what one wants to look at here.
    bare = replace(whole, log_mu=None, log_mu_provenance="absent", log_ref=None)
    num_tokens = len(bare.prompt_ids) + len(bare.response_ids)
    (log_pi,) = score_samples(policy, [bare], max_tokens=num_tokens)
    texts = [decode_ids(policy.tokenizer, [token], skip_special_tokens=False) for token in whole.drawn_ids]
    return token_rows(whole, log_pi=log_pi, texts=texts)
