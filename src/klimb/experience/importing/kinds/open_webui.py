"""Open WebUI's exports: the feedback on answers, each with a snapshot of its chat, and chats."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from klimb.experience.importing.cells import first_of, listed, mapping, message, name_of, seconds
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.ratings import name_unread
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

THUMBS = "rating"
"""Name of the thumb: 1 is up, -1 is down."""


DETAILS = "details.rating"
"""Name of the number from 1 to 10 that may be given beside the thumb; `--score-name` asks for it."""


_DETAILS_SCALE = (1.0, 10.0)


_MACHINERY = re.compile(r"""<details\s[^>]*\btype=["']?(\w+)""")
"""How a message shows thoughts, calls of tools and code: as text for people, and not as it was drawn."""

Nodes = Mapping[str, Mapping[str, object]]
"""The messages of a chat by their ids."""


def read_open_webui(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One rated answer of the feedback export, or each answer of a chat, those that nobody rated among them.

    Of a chat, answers that cannot be read are left out and named; a chat of such answers alone is refused.

    What was asked is the answer's own line of the chat, from its first message; answers beside it are no part of it.
    The thumb is `data.rating` or a message's `annotation.rating`. In an arena it stands for the same: one answer was
    found good or bad; that says nothing of the answers beside it. The time of a rated answer is that of the rating, so
    that the later of two counts in whichever order they come; a chat says when it changed last.

    Source: Open WebUI 0.12, `models/feedbacks.py` and `models/chats.py`, and what its page sends as feedback (`data`,
    `meta.message_id`, `snapshot.chat`).
    """
    values = row.values
    if _is_chat(values):
        return _read_chat(row, rules)
    kind = name_of(values.get("type")) or "rating"
    if kind != "rating":
        raise RowError("feedback that is no rating", f"its type is {kind!r}")
    chat, meta = mapping(mapping(values.get("snapshot")).get("chat")), mapping(values.get("meta"))
    nodes = _nodes_of(chat)
    if not nodes:
        raise RowError("a rating without its chat", "no messages in `snapshot`; export the feedback with its snapshots")
    name = name_of(meta.get("message_id"))
    if name not in nodes:
        raise RowError("a rating of a message that is not in its chat", f"message {name[:80]!r}; was it deleted?")
    given = mapping(values.get("data"))
    found = _answer(nodes, name, chat, row, user=name_of(values.get("user_id")))
    rated_at = seconds(first_of(values, "updated_at", "created_at"), row) or found.created_at
    return [replace(_rated(found, given, row, rules), created_at=rated_at)]


def _read_chat(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    nodes, user = _nodes_of(row.values), name_of(row.values.get("user_id"))
    names = [name for name, node in nodes.items() if node.get("role") == POLICY_ROLE]
    if not names:
        raise RowError("a chat without an answer", f"it has {len(nodes)} messages")
    seen_at = seconds(row.values.get("updated_at"), row)
    found: list[ParsedRow] = []
    refused: list[RowError] = []
    for name in names:
        try:
            answer = _answer(nodes, name, row.values, row, user=user)
            rated = _rated(answer, mapping(nodes[name].get("annotation")), row, rules)
            found.append(rated if rated.reward is None else replace(rated, created_at=seen_at or rated.created_at))
        except RowError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    for error in refused:
        name_unread(row, f"answers of a chat: {error.reason}")
    return found


def _nodes_of(chat: Mapping[str, object]) -> Nodes:
    """Return the messages of a chat by their ids; older chats have them in a list."""
    inner = mapping(chat.get("chat")) or chat
    by_id = mapping(mapping(inner.get("history")).get("messages"))
    if by_id:
        return {str(name): mapping(node) for name, node in by_id.items()}
    return {name_of(mapping(node).get("id")): mapping(node) for node in listed(inner.get("messages")) or ()}


def _answer(nodes: Nodes, name: str, chat: Mapping[str, object], row: Row, *, user: str) -> ParsedRow:
    """Return an answer with its own line of the chat as what was asked."""
    path = _path_to(nodes, name)
    node = path[-1]
    _check_answer(node)
    for each in path:
        _check_readable(each)
    settings = mapping((mapping(chat.get("chat")) or chat).get("params"))
    system = settings.get("system")
    asked = [Message(role="system", content=system)] if isinstance(system, str) and system else []
    asked += [message(each, what="a message of the chat") for each in path[:-1]]
    named = {"chat_id": name_of(chat.get("id")), "arena": "true" if node.get("arena") else ""}
    return ParsedRow(
        prompt=tuple(asked),
        response=message(node, what="the answer")["content"],
        row_id=name,
        request=settings,
        model=name_of(first_of(node, "selectedModelId", "model")),
        user=user,
        created_at=seconds(node.get("timestamp"), row),
        metadata={key: value for key, value in named.items() if value},
    )


def _path_to(nodes: Nodes, name: str) -> Sequence[Mapping[str, object]]:
    """Return the messages from the chat's first to this one.

    Raises:
        RowError: one of them is missing, or they lead in a circle.
    """
    path: list[Mapping[str, object]] = []
    seen: set[str] = set()
    while name:
        if name in seen:
            raise RowError("a chat whose messages lead in a circle", f"message {name[:80]!r} answers itself")
        if name not in nodes:
            raise RowError("a chat of which a message is missing", f"{name[:80]!r} is answered and not there")
        seen.add(name)
        path.append(nodes[name])
        name = name_of(nodes[name].get("parentId"))
    return path[::-1]


def _check_answer(node: Mapping[str, object]) -> None:
    """Raise RowError for what is no answer as the model gave it."""
    if node.get("role") != POLICY_ROLE:
        raise RowError("a rating of a message that is no answer", f"its role is {node.get('role')!r}")
    if node.get("error"):
        raise RowError("the request failed", str(node["error"])[:200])
    if node.get("done") is False:
        raise RowError("an answer that was not finished", "its message is not done")
    original = node.get("originalContent")
    if original is not None and original != node.get("content"):
        raise RowError("an answer that a person edited", "whether the rating is of the model's words is not known")


def _check_readable(node: Mapping[str, object]) -> None:
    """Raise RowError for a message of which the model read, or drew, something else than its text."""
    if node.get("files") or node.get("sources"):
        raise RowError("a message with files", "what the model read of them is not in the export")
    content = node.get("content")
    if node.get("role") != POLICY_ROLE or not isinstance(content, str):
        return
    kinds = [*_MACHINERY.findall(content), *(mapping(item).get("type") for item in listed(node.get("output")) or ())]
    if "reasoning" in kinds:
        raise RowError("thoughts kept apart from the response", "they are shown for people, and not as they were drawn")
    if other := [str(kind) for kind in kinds if kind != "message"]:
        raise RowError("an answer with calls that are not as they were drawn", f"it shows {', '.join(other)[:80]}")


def _rated(found: ParsedRow, given: Mapping[str, object], row: Row, rules: ImportRules) -> ParsedRow:
    """Return the answer with what its reader said of it: what is not asked for by its name is no rating of it."""
    if rules.score_name not in ("", THUMBS, DETAILS):
        raise RowError("no rating of that name", f"got {rules.score_name!r}; an answer has {THUMBS} and {DETAILS}")
    if rules.score_name == DETAILS:
        value = _value_of_number(mapping(given.get("details")).get("rating"), rules, row)
    else:
        value = _value_of_thumb(given.get("rating"), rules, row)
    tags = ", ".join(str(tag) for tag in listed(given.get("tags")) or ())
    words = [name_of(given.get("reason")), name_of(given.get("comment")), f"tags: {tags}" if tags else ""]
    return replace(found, reward=value, reward_reason="; ".join(word for word in words if word))


def _value_of_thumb(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return 1 for up and 0 for down; it is None, or 0, where a thumb was taken back."""
    if rules.value_map or rules.scale == (-1.0, 1.0):
        return rating(value, rules, row)
    if rules.scale is not None:
        raise RowError("a thumb on another scale", f"it is 1 or -1; for the number beside it: --score-name {DETAILS}")
    if value in (None, "", 0):
        return None
    if isinstance(value, bool) or str(value) not in ("1", "-1"):
        raise RowError("a rating that is no thumb", f"got {str(value)[:40]!r}; expected 1 or -1")
    return 1.0 if str(value) == "1" else 0.0


def _value_of_number(value: object, rules: ImportRules, row: Row) -> float | None:
    return rating(value, rules if rules.scale or rules.value_map else replace(rules, scale=_DETAILS_SCALE), row)


def _is_chat(values: Mapping[str, object]) -> bool:
    inner = mapping(values.get("chat"))
    return "snapshot" not in values and ("history" in inner or "messages" in inner)


def _looks_alike(values: Mapping[str, object]) -> bool:
    is_feedback = {"data", "meta", "version", "type"} <= set(values) and "model_id" in mapping(values["data"])
    return _is_chat(values) or is_feedback or ("snapshot" in values and "data" in values and "meta" in values)


IMPORTER = Importer(
    name="open-webui",
    read=read_open_webui,
    summary="Open WebUI's export of feedback, or of chats",
    looks_alike=_looks_alike,
    rank=6,
    because="it has a rating with the snapshot of its chat, or a chat with its history",
    is_in_front=True,
)
