"""The kinds of rows there are, and which one a row looks like.

One row to samples or ratings: users hashed, columns renamed, read by its kind, checked. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from klimb.experience.feedback import Feedback
from klimb.experience.importing.cells import first_of, listed, mapping
from klimb.experience.importing.kind import Importer, ReadRow
from klimb.experience.importing.kinds.feedback import SAMPLE_NAMES, VALUE_NAMES, rating_in, read_feedback
from klimb.experience.importing.kinds.kto import label_in, read_kto
from klimb.experience.importing.kinds.langfuse import read_langfuse
from klimb.experience.importing.kinds.openai import read_openai
from klimb.experience.importing.kinds.preference import read_preference
from klimb.experience.importing.kinds.prompt_completion import read_prompt_completion
from klimb.experience.importing.kinds.table import COLUMNS, NEEDED, read_table
from klimb.experience.importing.kinds.verl import read_verl
from klimb.experience.importing.kinds.vllm import read_vllm
from klimb.experience.importing.own_importer import load_importer
from klimb.experience.importing.parsed_row import ParsedRow, as_sample
from klimb.experience.importing.rows import Row, RowError
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.users import without_users
from klimb.experience.samples import Sample
from klimb.own_parts import PREFIX, is_own


def _parts(values: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """Return the row, its response, the response's body and its first choice."""
    response = mapping(first_of(values, "response", "completion"))
    body = mapping(response.get("body")) or response or values
    choices = listed(body.get("choices"))
    return values, response, body, mapping(choices[0]) if choices else {}


def _has_choices(values: Mapping[str, object]) -> bool:
    return any("choices" in part or "meta_info" in part for part in _parts(values))


def _has_token_ids(values: Mapping[str, object]) -> bool:
    names = ("token_ids", "prompt_token_ids", "meta_info", "output_ids")
    return _has_choices(values) and any(part.get(name) is not None for part in _parts(values) for name in names)


def _has(*names: str) -> Callable[[Mapping[str, object]], bool]:
    return lambda values: all(name in values for name in names)


def _is_kto(values: Mapping[str, object]) -> bool:
    return _has("prompt", "completion", "label")(values)


def _is_observation(values: Mapping[str, object]) -> bool:
    has_trace = "traceId" in values or "trace_id" in values
    return has_trace and "input" in values and "output" in values


def _is_dialogue(values: Mapping[str, object]) -> bool:
    return _has("prompt", "completion")(values) or "messages" in values


def _is_feedback(values: Mapping[str, object]) -> bool:
    is_named = any(name in values for name in (*SAMPLE_NAMES, "id"))
    return is_named and any(name in values for name in VALUE_NAMES)


_KINDS = (
    Importer(
        name="vllm",
        read=read_vllm,
        summary="requests and responses of vLLM or SGLang, with token ids",
        looks_alike=_has_token_ids,
        because="it has choices with token ids",
    ),
    Importer(
        name="openai",
        read=read_openai,
        summary="requests and responses of OpenAI's chat completions",
        looks_alike=_has_choices,
        because="it has choices, without token ids",
    ),
    Importer(
        name="kto",
        read=read_kto,
        summary="prompt, completion and a label: good or bad",
        looks_alike=_is_kto,
        because="it has prompt, completion and label",
        rating_in=label_in,
    ),
    Importer(
        name="preference",
        read=read_preference,
        summary="a chosen and a rejected response",
        looks_alike=_has("chosen", "rejected"),
        because="it has chosen and rejected",
    ),
    Importer(
        name="verl",
        read=read_verl,
        summary="verl's rows, once they have responses",
        looks_alike=_has("data_source", "prompt", "reward_model"),
        because="it has data_source, prompt and reward_model",
    ),
    Importer(
        name="langfuse",
        read=read_langfuse,
        summary="Langfuse's observations, with --scores its scores",
        looks_alike=_is_observation,
        because="it has a trace id, input and output",
    ),
    Importer(
        name="table",
        read=read_table,
        summary="columns prompt, response, reward, ...; --columns maps other names",
        looks_alike=_has("prompt", "response"),
        because="it has prompt and response",
        needed=NEEDED,
    ),
    Importer(
        name="prompt-completion",
        read=read_prompt_completion,
        summary="prompt and completion, or messages; no rewards",
        looks_alike=_is_dialogue,
        because="it has prompt and completion, or messages",
    ),
    Importer(
        name="feedback",
        read=read_feedback,
        summary="ratings of responses by their id",
        looks_alike=_is_feedback,
        because="it has an id and a rating, and no response",
        rating_in=rating_in,
    ),
)


IMPORTERS: Mapping[str, Importer] = MappingProxyType({importer.name: importer for importer in _KINDS})
"""By name, in the order in which a row is compared with them: the more telling first."""


def importer_named(name: str) -> Importer:
    """Return the importer of this name, or the user's own that `python:module.name` names.

    Raises:
        ValueError: there is none; the message has the names there are.
    """
    if is_own(name):
        return load_importer(name)
    if name not in IMPORTERS:
        raise ValueError(f"--as must be one of {', '.join(IMPORTERS)} or {PREFIX}module.name, got {name!r}")
    return IMPORTERS[name]


def guess_importer(row: Row) -> Importer:
    """Return the first importer whose rows look like this one; raises ValueError if none does."""
    for importer in IMPORTERS.values():
        if importer.looks_alike(row.values):
            return importer
    names = ", ".join(str(name) for name in row.values)
    raise ValueError(
        f"{row.place}: no kind of row has the columns {names}; say which it is with --as ({', '.join(IMPORTERS)}), "
        "and map the columns of a table: --columns prompt=NAME response=NAME"
    )


def anonymise(row: Row, rules: ImportRules, *, salt: Callable[[], bytes] | None = None) -> Row:
    """Return the row as it may be kept, among the rejects too: without user ids, unless the user keeps them.

    Args:
        row: as it was read.
        rules: what the user states.
        salt: asked for at each user id; None for the salt of `rules`.

    Raises:
        RowError: nested too deep to be looked through.
    """
    if rules.keep_users:
        return row
    return without_users(row, salt or (lambda: rules.salt), also=rules.columns.get("user", ""))


def convert_row(row: Row, read: ReadRow, rules: ImportRules, *, kind: str) -> Sequence[Sample | Feedback]:
    """Return what an anonymous row becomes; nothing for a row that holds no response by design.

    Raises:
        RowError: it cannot be imported; then nothing of it is.
    """
    row = rename_columns(row, rules)
    found = read(row, rules)
    return [as_sample(part, row, rules, kind=kind) if isinstance(part, ParsedRow) else part for part in found]


def check_columns(rules: ImportRules) -> None:
    """Raise ValueError for a mapping of a column that no importer reads."""
    unknown = [name for name in rules.columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"--columns maps {', '.join(unknown)}, and our columns are {', '.join(COLUMNS)}")


def rename_columns(row: Row, rules: ImportRules) -> Row:
    """Return the row with the columns that the user maps under our names too.

    Raises:
        RowError: it has no such column.
    """
    if not rules.columns:
        return row
    values = dict(row.values)
    for ours, theirs in rules.columns.items():
        if theirs not in row.values:
            names = ", ".join(str(name) for name in row.values)
            raise RowError(f"no column {theirs!r}", f"the columns are {names}")
        values[ours] = row.values[theirs]
    return Row(row.place, values, row.raw, row.is_text)
