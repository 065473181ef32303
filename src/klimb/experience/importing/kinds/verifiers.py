"""Rollouts of verifiers: the traces of an episode with their graph of messages, and the older results with steps."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from klimb.experience.importing.cells import (
    first_of,
    from_json_cell,
    listed,
    mapping,
    messages,
    name_of,
    number,
    seconds,
    token_ids,
    tool_schemas,
    whole_number,
)
from klimb.experience.importing.chat import finish_reason_of
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.kinds.klimb import read_klimb
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.paths import Part, Piece, cut_into_parts, read_piece
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import FinishReason

OWN = "klimb"
"""In the `info` of a trace that klimb exported: the fields of the sample that a trace has no place for."""


def read_verifiers(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response per path of a trace, or per rollout; log-probabilities and ids are of drawn tokens alone.

    Traces of agents that are not trained hold none. Where two paths share turns, these are of the first and history to
    the other. Of the older results, steps go on in one response as long as each prompt begins with what was there.

    Source: verifiers 0.4, `v1/trace.py`, `v1/graph.py` and `v1/episode.py` (traces.jsonl); verifiers 0.1, `types.py`
    and `utils/save_utils.py` (results.jsonl, with `trajectory` if that column was saved).
    """
    values = row.values
    if "nodes" in values:
        return _read_trace(values, {}, row, rules)
    if "traces" in values:
        traces = [mapping(trace) for trace in listed(values["traces"]) or ()]
        return [found for trace in traces for found in _read_trace(trace, values, row, rules)]
    return _read_rollout(row, rules)


def _read_trace(
    trace: Mapping[str, object], episode: Mapping[str, object], row: Row, rules: ImportRules
) -> Sequence[ParsedRow]:
    agent = mapping(trace.get("agent"))
    if agent.get("trainable") is False:
        return []
    if own := mapping(mapping(trace.get("info")).get(OWN)):
        return _read_own(own, trace, row, rules)
    nodes = [mapping(node) for node in listed(trace.get("nodes")) or ()]
    calls = {call.get("node"): call for call in map(mapping, listed(trace.get("calls")) or ())}
    parts: list[tuple[Part, list[int]]] = []
    for path in _new_turns(nodes):
        found = cut_into_parts([_piece_of(nodes, place, is_new, calls) for place, is_new in path], rules)
        drawn = iter([place for place, is_new in path if is_new])
        parts += [(part, [next(drawn) for turn in part.turns if turn.is_drawn]) for part in found]
    value, shares = _rewards_of(trace, row)
    return [
        replace(
            _parsed(part, row, rules, name=name_of(trace.get("id")), number=place, num_parts=len(parts)),
            opening=parts[0][0].prompt,
            reward=None if value is None else reward(value, rules, row),
            reward_parts=shares if rules.scale is None and not rules.value_map else {},
            request=_settings_of([calls.get(node, {}) for node in drawn]),
            model=_model_of(calls.values(), agent),
            policy_version=_version_of(episode, row),
            created_at=seconds(mapping(trace.get("timing")).get("start"), row),
            tools=tool_schemas(first_of(trace, "tools") or nodes[0].get("tools"), row),
            metadata=_metadata_of(trace, episode),
        )
        for place, (part, drawn) in enumerate(parts)
    ]


def _new_turns(nodes: Sequence[Mapping[str, object]]) -> Sequence[Sequence[tuple[int, bool]]]:
    """Return each path from a root to a leaf: the places of its nodes, and whether the policy said it there first."""
    parents = [node.get("parent") for node in nodes]
    told: set[int] = set()
    paths: list[list[tuple[int, bool]]] = []
    for leaf in range(len(nodes)):
        if leaf in parents:
            continue
        path: list[int] = []
        place: object = leaf
        while place is not None:
            if not isinstance(place, int) or not 0 <= place < len(nodes) or place in path:
                raise RowError("nodes that are no graph of messages", f"node {leaf} leads to {place!r}")
            path.append(place)
            place = parents[place]
        path.reverse()
        said = {each for each in path if nodes[each].get("sampled") is True}
        paths.append([(each, each in said - told) for each in path])
        told |= said
    if nodes and not paths:
        raise RowError("nodes that are no graph of messages", "each is followed by another, so there is no last one")
    return paths


def _piece_of(
    nodes: Sequence[Mapping[str, object]], place: int, is_drawn: bool, calls: Mapping[object, Mapping[str, object]]
) -> Piece:
    node = nodes[place]
    entry = mapping(node.get("message"))
    mask = node.get("mask") if is_drawn else None
    piece = read_piece(
        entry,
        is_drawn=is_drawn,
        ids=node.get("token_ids"),
        mask=mask,
        log_probs=node.get("logprobs"),
        finish_reason=finish_reason_of(calls.get(place, {}).get("finish_reason")),
        tool=_tool_answering(nodes, place, entry.get("tool_call_id")),
    )
    return piece


def _tool_answering(nodes: Sequence[Mapping[str, object]], place: int, call_id: object) -> str:
    """Return the name of the tool whose call a message answers, from the messages before it."""
    parent = nodes[place].get("parent")
    while call_id is not None and isinstance(parent, int) and 0 <= parent < place:
        for call in listed(mapping(nodes[parent].get("message")).get("tool_calls")) or ():
            if mapping(call).get("id") == call_id:
                return name_of(mapping(call).get("name"))
        place, parent = parent, nodes[parent].get("parent")
    return ""


def _parsed(part: Part, row: Row, rules: ImportRules, *, name: str, number: int, num_parts: int) -> ParsedRow:
    return ParsedRow(
        prompt=part.prompt,
        response="",
        finish_reason=part.finish_reason,
        row_id=name,
        part=number,
        prompt_ids=part.prompt_ids,
        response_ids=tuple(part.response_ids),
        log_probs=part.log_probs if part.response_ids else None,
        turns=tuple(part.turns),
        episode=(name or row.place) if num_parts > 1 else "",
    )


def _rewards_of(trace: Mapping[str, object], row: Row) -> tuple[float | None, dict[str, float]]:
    """Return the sum of the weighted rewards, and each; None where not all were computed."""
    given = mapping(trace.get("rewards"))
    if not given or any(each is None for each in given.values()):
        return None, {}
    parts = {
        name: number(mapping(each).get("score"), what="a reward", row=row)
        * number(mapping(each).get("weight", 1.0), what="a reward's weight", row=row)
        for name, each in given.items()
    }
    return math.fsum(parts.values()), parts


def _settings_of(calls: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    """Return the settings of a response's calls; none if they differ, as one sample has one μ."""
    settings = [mapping(call.get("sampling")) for call in calls]
    return settings[0] if settings and all(each == settings[0] for each in settings) else {}


def _model_of(calls: object, agent: Mapping[str, object]) -> str:
    named = [name_of(call.get("model")) for call in cast(Sequence[Mapping[str, object]], calls)]
    return next(filter(None, named), "") or name_of(mapping(agent.get("config")).get("model"))


def _version_of(episode: Mapping[str, object], row: Row) -> int:
    work = mapping(mapping(episode.get("run")).get("work"))
    version = first_of(mapping(work.get("policy")), "start")
    return whole_number(work.get("step") or 0 if version is None else version, what="policy version", row=row)


def _metadata_of(trace: Mapping[str, object], episode: Mapping[str, object]) -> dict[str, str]:
    errors = listed(trace.get("errors")) or ()
    data = mapping(mapping(trace.get("task")).get("data"))
    named = {
        "environment": mapping(episode.get("env")).get("id"),
        "agent": mapping(trace.get("agent")).get("name"),
        "answer": data.get("answer"),
        "stop_condition": trace.get("stop_condition"),
        "environment_error": mapping(errors[-1]).get("message") if errors else None,
    }
    return _texts({**named, **_metrics(trace)})


def _metrics(values: Mapping[str, object]) -> dict[str, object]:
    return {f"metric {name}": value for name, value in mapping(values.get("metrics")).items()}


def _texts(named: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in named.items()
        if value is not None and value != ""
    }


def _read_own(
    own: Mapping[str, object], trace: Mapping[str, object], row: Row, rules: ImportRules
) -> Sequence[ParsedRow]:
    """Return the sample that klimb exported; another reward than it had then is the one that the trace has now."""
    nodes = [mapping(node) for node in listed(trace.get("nodes")) or ()]
    ids = token_ids(_joined(nodes, "token_ids"), what="token ids")
    turns = [mapping(turn) for turn in listed(own.get("turns")) or ()]
    lengths = [turn.get("num_tokens") for turn in turns] if turns else [bool(flag) for flag in _joined(nodes, "mask")]
    start = len(ids) - sum(length for length in lengths if isinstance(length, int))
    values = {
        **own,
        "prompt_ids": ids[:start],
        "response_ids": ids[start:],
        "log_mu": _joined(nodes, "logprobs") if own.get("log_mu_provenance") != "absent" else None,
        "log_ref": _joined(nodes, "reference_logprobs") or None,
    }
    total, shares = _rewards_of(trace, row)
    if total != own.get("reward"):
        values |= {"reward": total, "reward_parts": shares}
    return read_klimb(Row(row.place, values, row.raw), rules)


def _joined(nodes: Sequence[Mapping[str, object]], name: str) -> list[object]:
    return [value for node in nodes for value in listed(node.get(name)) or ()]


def _read_rollout(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    values = row.values
    error = from_json_cell(values.get("error"), row)
    steps = [mapping(step) for step in listed(from_json_cell(values.get("trajectory"), row)) or ()]
    info = mapping(from_json_cell(values.get("info"), row))
    made = _parts_of_steps(steps, values, rules) if steps else []
    name = name_of(steps[0].get("trajectory_id")) if steps else ""
    found = [
        replace(
            _parsed(part, row, rules, name=name, number=place, num_parts=len(made)),
            opening=made[0].prompt,
        )
        for place, part in enumerate(made)
    ] or [_read_texts(row)]
    shared = {
        "reward": None if error else reward(values.get("reward"), rules, row),
        "reward_reason": "the rollout failed" if error else "",
        "request": mapping(from_json_cell(values.get("sampling_args"), row)),
        "model": name_of(values.get("model")),
        "tools": tool_schemas(first_of(values, "tool_defs", "oai_tools", "tools") or info.get("oai_tools"), row),
        "metadata": _texts(
            {
                "environment": values.get("task"),
                "problem_id": values.get("example_id"),
                "answer": values.get("answer"),
                "stop_condition": values.get("stop_condition"),
                "environment_error": first_of(mapping(error), "error_chain_str", "error") or error,
                **_metrics({"metrics": from_json_cell(values.get("metrics"), row)}),
            }
        ),
    }
    return [replace(each, **shared) for each in found]


def _read_texts(row: Row) -> ParsedRow:
    """Return a rollout without its steps: what was asked and said, as text."""
    said = read_response(from_json_cell(row.values.get("completion"), row), what="completion")
    is_cut = row.values.get("is_truncated") is True
    return ParsedRow(
        prompt=messages(from_json_cell(row.values.get("prompt"), row), what="prompt"),
        response=said.text,
        turns=said.turns,
        finish_reason="length" if is_cut else "unknown",
    )


def _parts_of_steps(
    steps: Sequence[Mapping[str, object]], values: Mapping[str, object], rules: ImportRules
) -> list[Part]:
    # verifiers writes the rollout's reward into each step that has none of its own.
    own_rewards = [step.get("reward") for step in steps]
    is_shared = all(value is None or value == values.get("reward") for value in own_rewards)
    stretches: list[list[Piece]] = []
    num_seen, ids = 0, ()
    for step in steps:
        asked, said = _entries(step.get("prompt")), _entries(step.get("completion"))
        tokens = mapping(step.get("tokens"))
        prompt_ids = tuple(cast(Sequence[int], listed(tokens.get("prompt_ids")) or ()))
        if not stretches or len(asked) < num_seen or prompt_ids[: len(ids)] != ids:
            stretches.append([])
            num_seen, ids = 0, ()
        put_in = [
            read_piece(entry, is_drawn=False, tool=_tool_named(asked, entry.get("tool_call_id")))
            for entry in asked[num_seen:]
        ]
        drawn = _drawn_piece(said, tokens, step)
        between = prompt_ids[len(ids) :]
        scaffold = (False,) * len(between)
        if put_in:
            put_in[0] = replace(put_in[0], ids=between, mask=scaffold)
        else:
            drawn = replace(drawn, ids=(*between, *drawn.ids), mask=(*scaffold, *drawn.mask))
        share = None if is_shared else cast("float | None", step.get("reward"))
        stretches[-1] += [*put_in, replace(drawn, reward=share)]
        num_seen, ids = len(asked) + len(said), (*ids, *between, *drawn.ids[len(drawn.ids) - _num_said(tokens) :])
    return [part for stretch in stretches for part in cut_into_parts(stretch, rules)]


def _num_said(tokens: Mapping[str, object]) -> int:
    return len(listed(tokens.get("completion_ids")) or ())


def _entries(value: object) -> Sequence[Mapping[str, object]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    return [mapping(entry) for entry in listed(value) or ()]


def _tool_named(entries: Sequence[Mapping[str, object]], call_id: object) -> str:
    """Return the name of the tool whose call a message answers."""
    spoken = messages(entries, what="prompt") if call_id is not None else ()
    for entry, each in zip(entries, spoken, strict=False):
        if entry.get("tool_call_id") == call_id:
            return each.get("name", "")
    return ""


def _drawn_piece(
    said: Sequence[Mapping[str, object]], tokens: Mapping[str, object], step: Mapping[str, object]
) -> Piece:
    if len(said) != 1:
        raise RowError("a step that is not one turn", f"its completion has {len(said)} messages")
    mask = listed(tokens.get("completion_mask"))
    values = listed(tokens.get("completion_logprobs"))
    if mask and values and len(values) == len(mask):
        values = [value for value, flag in zip(values, mask, strict=True) if flag]
    return read_piece(
        {"role": "assistant", **said[0]},
        is_drawn=True,
        ids=tokens.get("completion_ids"),
        mask=mask,
        log_probs=values,
        finish_reason=_ended(step, tokens),
    )


def _ended(step: Mapping[str, object], tokens: Mapping[str, object]) -> FinishReason:
    if step.get("is_truncated") is True or tokens.get("is_truncated") is True:
        return "length"
    response = mapping(step.get("response"))
    choices = listed(response.get("choices")) or ()
    place = mapping(choices[0]) if choices else mapping(response.get("message"))
    return finish_reason_of(place.get("finish_reason"))


def _looks_alike(values: Mapping[str, object]) -> bool:
    has_graph = ("nodes" in values or "traces" in values) and "task" in values
    is_rollout = "trajectory" in values or "example_id" in values
    return has_graph or (is_rollout and "prompt" in values and "completion" in values)


IMPORTER = Importer(
    name="verifiers",
    read=read_verifiers,
    summary="verifiers' traces.jsonl, or its older results.jsonl",
    looks_alike=_looks_alike,
    rank=15,
    because="it has the nodes of a trace, or prompt, completion and example_id",
    nothing="traces of agents that are not trained",
)
