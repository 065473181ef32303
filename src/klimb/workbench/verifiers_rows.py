"""A sample as verifiers reads it: an episode with one trace, whose nodes hold what was said with its tokens.

A trace has no place for some of what a sample says; that is in its `info` under `klimb`, from where `klimb import`
takes it, so that the same sample comes back.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from klimb.experience import Message, Sample, Turn
from klimb.experience.importing.kinds.verifiers import OWN
from klimb.tasks.tools import FORMATS

TRACE_VERSION = 1
"""Of verifiers' traces, as of its version 0.4."""


IN_NODES = ("prompt_ids", "response_ids", "log_mu", "log_ref")
"""Fields of a sample that the nodes hold."""


def as_episode(sample: Sample) -> dict[str, Any]:
    """Return the sample as one line of a `traces.jsonl`.

    Source: verifiers 0.4, `v1/episode.py`, `v1/trace.py`, `v1/graph.py`.
    """
    task = {
        "type": "Task",
        "data": {"idx": 0, "name": sample.group_id, "prompt": None},
        "key": sample.group_id,
    }
    nodes = _nodes_of(sample)
    own = {name: value for name, value in asdict(sample).items() if name not in IN_NODES}
    trace = {
        "version": TRACE_VERSION,
        "id": sample.sample_id,
        "verifiers": {"version": "0.4.0"},
        "task": task,
        "agent": {"config": {"model": sample.model} if sample.model else {}, "name": "agent", "trainable": True},
        "tools": _tools_of(sample),
        "nodes": nodes,
        "calls": _calls_of(sample, nodes),
        "rewards": _rewards_of(sample),
        "metrics": {},
        "info": {OWN: own},
        "is_completed": True,
        "ok": sample.reward is not None,
        "stop_condition": sample.metadata.get("ended") or "agent_completed",
        "timing": {"start": sample.created_at},
    }
    return {
        "id": sample.sample_id,
        "env": {"id": sample.metadata.get("task", "")},
        "task": task,
        "group": {"id": sample.group_id},
        "ok": sample.reward is not None,
        "traces": [trace],
    }


def _rewards_of(sample: Sample) -> dict[str, Any]:
    """Return the parts of the reward if they add up to it, as verifiers' reward is the sum; else the whole."""
    if sample.reward is None:
        return {"reward": None}
    parts = sample.reward_parts
    if parts and math.fsum(parts.values()) == sample.reward:
        return {name: {"score": value, "weight": 1.0} for name, value in parts.items()}
    return {"reward": {"score": sample.reward, "weight": 1.0}}


def _tools_of(sample: Sample) -> list[dict[str, Any]]:
    schemas: list[Mapping[str, Any]] = json.loads(sample.tools) if sample.tools else []
    return [{"type": "function", **schema["function"]} for schema in schemas]


def _nodes_of(sample: Sample) -> list[dict[str, Any]]:
    """Return a node a message, each with what it adds to the sequence; the last of the prompt has all of the prompt."""
    ids = _CallIds()
    nodes = [_node(_as_message(message, ids), ids=(), sampled=False) for message in sample.prompt]
    if nodes:
        nodes[-1] |= _tokens(sample.prompt_ids, is_drawn=False)
        nodes[0]["tools"] = _tools_of(sample)
    begin, drawn = 0, 0
    for turn in sample.conversation:
        end, stop = begin + turn.num_tokens, drawn + turn.num_tokens * turn.is_drawn
        node = _node(_turn_as_message(turn, ids), ids=sample.response_ids[begin:end], sampled=turn.is_drawn)
        if turn.is_drawn:
            node["logprobs"] = list(sample.log_mu[drawn:stop]) if sample.log_mu is not None else []
            node["reference_logprobs"] = list(sample.log_ref[drawn:stop]) if sample.log_ref is not None else None
        if not nodes:  # a prompt of which the ids alone were recorded
            node["token_ids"], node["mask"] = (
                [*sample.prompt_ids, *node["token_ids"]],
                [False] * len(sample.prompt_ids) + node["mask"],
            )
        nodes.append(node)
        begin, drawn = end, stop
    for place, node in enumerate(nodes):
        node["parent"] = place - 1 if place else None
        node["timestamp"] = sample.created_at
    return nodes


def _node(message: Mapping[str, Any], *, ids: Sequence[int], sampled: bool) -> dict[str, Any]:
    return {"message": message, "sampled": sampled, **_tokens(ids, is_drawn=sampled)}


def _tokens(ids: Sequence[int], *, is_drawn: bool) -> dict[str, Any]:
    return {"token_ids": list(ids), "mask": [is_drawn] * len(ids)}


class _CallIds:
    """Ids that tie results to calls: in the order of the calls, as they were answered."""

    def __init__(self) -> None:
        self._number = 0
        self._open: list[str] = []

    def of_calls(self, count: int) -> list[str]:
        """Return ids of calls that are made now."""
        self._open = [f"call{self._number + place:05}" for place in range(count)]
        self._number += count
        return list(self._open)

    def of_result(self) -> str:
        """Return the id of the call that is answered next."""
        return self._open.pop(0) if self._open else f"call{self._number:05}"


def _as_message(message: Message, ids: _CallIds) -> dict[str, Any]:
    calls = message.get("tool_calls", ())
    found: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if calls:
        functions = [call["function"] for call in calls]
        found["tool_calls"] = [
            {"id": call_id, "type": "function", "name": each["name"], "arguments": _as_text(each["arguments"])}
            for call_id, each in zip(ids.of_calls(len(calls)), functions, strict=True)
        ]
    if message["role"] == "tool":
        found["tool_call_id"] = ids.of_result()
        if name := message.get("name"):
            found["name"] = name
    return found


def _as_text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _turn_as_message(turn: Turn, ids: _CallIds) -> dict[str, Any]:
    calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in turn.calls]
    message = Message(role=turn.role, content=_said_beside_calls(turn))
    if calls:
        message["tool_calls"] = calls
    if turn.name:
        message["name"] = turn.name
    return _as_message(message, ids)


def _said_beside_calls(turn: Turn) -> str:
    """Return the text without the calls, where they stand in a format that is known."""
    if not turn.calls:
        return turn.text
    parsed = (each.parse(turn.text) for each in FORMATS.values())
    return next((found.content for found in parsed if _are_same(found.calls, turn.calls)), turn.text)


def _are_same(found: Sequence[Any], calls: Sequence[Any]) -> bool:
    def plain(each: Sequence[Any]) -> list[tuple[str, Any]]:
        return [(call.name, json.loads(call.arguments)) for call in each]

    return bool(found) and plain(found) == plain(calls)


def _calls_of(sample: Sample, nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    turns = [turn for turn, _ in sample.drawn_turns]
    places = [place for place, node in enumerate(nodes) if node["sampled"]]
    return [
        {
            "node": place,
            "model": sample.model or None,
            "sampling": _sampling_of(sample),
            "finish_reason": None if turn.finish_reason == "unknown" else turn.finish_reason,
        }
        for place, turn in zip(places, turns, strict=True)
    ]


def _sampling_of(sample: Sample) -> dict[str, Any] | None:
    if sample.sampling is None:
        return None
    settings = asdict(sample.sampling)
    return {**settings, "max_tokens": settings.pop("max_new_tokens"), "min_tokens": settings.pop("min_new_tokens")}
