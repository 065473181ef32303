"""Rows of the columns that a kind reads, with anything in them: each is imported or refused, and none ends the import.

The columns of a kind are found by watching it read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klimb.experience.importing import IMPORTERS, ImportRules, Row, RowError, import_rows
from klimb.experience.importing.registry import SURPRISE, anonymise, convert_row, rename_columns
from klimb.experience.store import Store

NAMES = (
    *(
        "id",
        "prompt",
        "response",
        "completion",
        "messages",
        "chosen",
        "rejected",
        "label",
        "reward",
        "rewards",
        "score",
    ),
    *("reward_model", "thinking", "value"),
    *("request", "body", "choices", "message", "content", "role", "text", "tool_calls", "function", "name"),
    *("arguments", "token_ids", "prompt_token_ids", "logprobs", "log_probs", "temperature", "top_k", "max_tokens"),
    *("user", "user_id", "metadata", "tools", "model", "created_at", "created", "group", "policy_version", "index"),
    *(
        "finish_reason",
        "input",
        "output",
        "type",
        "traceId",
        "trace_id",
        "modelParameters",
        "responses",
        "reward_model",
    ),
    *("data_source", "extra_info", "completion_id", "comment", "dataType", "stringValue", "sample_id", "group_id"),
    *("response_ids", "log_mu", "log_mu_provenance", "turns", "sampling", "raw", "trajectory", "nodes", "task", "info"),
    *(
        "conversations",
        "from",
        "trace",
        "data",
        "annotations",
        "assessments",
        "snapshot",
        "error",
        "weight",
        "thinking",
    ),
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**40, 2**70, -(10**30), 0.5, 1e308, -0.0, 1e-9, float("nan"), float("inf")]),
    st.sampled_from(
        ["", "a", "user", "assistant", "system", "tool", "up", "1", "stop", "GENERATION", "2026-01-02", "x\ud800"]
    ),
    st.sampled_from(['{"role": "user"}', "[1, 2]", '{"a": ', "[[]]", '"x"', "{'user': 'ann'}", '{"messages": [{}]}']),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
        st.builds(
            lambda role, content: [{"role": role, "content": content}], st.sampled_from(["user", "assistant"]), inner
        ),
    ),
    max_leaves=12,
)


class Watched(Mapping[str, object]):
    """Cells that give any column a value, and note the names."""

    def __init__(self, value: object) -> None:
        self.value, self.asked = value, dict[str, None]()

    def __getitem__(self, name: str) -> object:
        self.asked[name] = None
        return self.value

    def __contains__(self, name: object) -> bool:
        self.asked[str(name)] = None
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(("x",))

    def __len__(self) -> int:
        return 1


def columns_of(kind: str) -> Sequence[str]:
    found: dict[str, None] = {}
    for value in (None, "a", 1, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], {"id": "a"}):
        watched = Watched(value)
        with suppress(RowError):
            convert_row(Row("a:1", watched, "{}"), IMPORTERS[kind].read, ImportRules(), kind=kind)
        found |= watched.asked
    return list(found)


def rows_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    columns = columns_of(kind)
    names = st.sampled_from(columns)
    return st.one_of(
        st.dictionaries(names, VALUES, min_size=1, max_size=12),
        st.fixed_dictionaries({name: VALUES for name in columns[:6]}),
        st.fixed_dictionaries({name: SCALARS for name in columns}),
    )


def check_rows(kind: str, rows: Sequence[dict[str, Any]]) -> None:
    for values in rows:
        for is_text in (False, True):
            given = {name: str(value) if is_text else value for name, value in values.items()}
            rules = ImportRules(salt=b"s")
            try:
                row = anonymise(Row("a:1", given, json.dumps(given), is_text), rules, kind=kind)
                convert_row(rename_columns(row, rules), IMPORTERS[kind].read, rules, kind=kind)
            except RowError as error:
                assert error.reason != SURPRISE, error.detail


def check_file(kind: str, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    try:
        report = import_rows(Store(folder / "store"), path, kind=kind, rules=ImportRules(scale=(-3, 3), score_name="a"))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert report.tally.is_balanced and report.tally.num_rows == len(rows)
    assert report.num_rejected == report.tally.num_rows_refused


@pytest.mark.parametrize("kind", IMPORTERS)
def test_any_row_is_read_or_refused(kind: str):
    @settings(max_examples=10, deadline=None)
    @given(rows=st.lists(rows_of(kind), min_size=1, max_size=4))
    def check(rows: Sequence[dict[str, Any]]) -> None:
        check_rows(kind, rows)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMPORTERS)
def test_any_of_very_many_rows_is_read_or_refused(kind: str):
    @settings(max_examples=2000, deadline=None)
    @given(rows=st.lists(rows_of(kind), min_size=1, max_size=4))
    def check(rows: Sequence[dict[str, Any]]) -> None:
        check_rows(kind, rows)

    check()


@pytest.mark.parametrize("kind", IMPORTERS)
def test_any_file_has_each_row_in_one_count(kind: str, tmp_path_factory: pytest.TempPathFactory):
    @settings(max_examples=2, deadline=None)
    @given(rows=st.lists(rows_of(kind), min_size=1, max_size=6))
    def check(rows: Sequence[dict[str, Any]]) -> None:
        check_file(kind, rows, tmp_path_factory.mktemp("any"))

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMPORTERS)
def test_any_of_many_files_has_each_row_in_one_count(kind: str, tmp_path_factory: pytest.TempPathFactory):
    @settings(max_examples=150, deadline=None)
    @given(rows=st.lists(rows_of(kind), min_size=1, max_size=6))
    def check(rows: Sequence[dict[str, Any]]) -> None:
        check_file(kind, rows, tmp_path_factory.mktemp("any"))

    check()
