"""Does a chat template keep the history of a conversation? Found out before a run, on conversations made for it.

A template is prefix-stable if it renders the longer conversation so that it begins with the history as it was drawn,
and `ids_between`. Some drop the thoughts of earlier turns, move the system message or the tools to the last question,
number calls anew, trim. Each conversation here has one such thing more than another, so that the one that changes says
what the template does.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message
from klimb.policies.call_forms import call_form_of
from klimb.policies.tokenizer import (
    PromptError,
    TemplateText,
    decode_ids,
    encode_template_text,
    find_control_tokens,
    id_of,
    render_chat,
    render_template,
)
from klimb.policies.turns import (
    Schemas,
    end_of_turn,
    ids_between,
    message_of_turn,
    num_common,
    opened_thought,
    parts_of,
    rendered_history,
    split_at_turn_end,
)

Verdict = Literal["stable", "rewrites", "refuses"]

ANSWER, BESIDE, THOUGHT, SYSTEM = (
    "It is five.",
    "I will look that up.",
    "Let me sum two and three.",
    "Answer in few words.",
)


SYSTEM = "Answer in few words."


QUESTION, NEXT_QUESTION, LAST_QUESTION = "What is two and three?", "And twice that?", "And half of it?"


RESULT = "The result is five."


OWN_ID = "drawn000"
"""Beginning of the ids that drawn calls have: nine letters and digits in all, which the strictest templates ask for."""


OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"


THOUGHT_CHANNELS = (
    ("<|channel|>analysis", "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
    ("<|channel>thought", "<|channel>thought\n", "\n<channel|>"),
)
"""What a template holds if its policies think in a channel instead of in tags -> how such a thought begins and ends."""


LONGEST_EXCERPT = 80
"""Characters of an example on either side."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One drawn turn and what comes in behind it.

    Attributes:
        answer: what the turn says beside its calls.
        num_calls: calls of the first tool on offer.
        thought: what it thinks before, in `<think>` tags; empty for none.
        question: the user's turn that follows; empty if only the tools' results do.
    """

    answer: str = ""
    num_calls: int = 0
    thought: str = ""
    question: str = ""


CONVERSATIONS: Mapping[str, tuple[Step, ...]] = {
    "user's turns": (Step(answer=ANSWER, question=NEXT_QUESTION), Step(answer="Ten.", question=LAST_QUESTION)),
    "system message": (Step(answer=ANSWER, question=NEXT_QUESTION), Step(answer="Ten.", question=LAST_QUESTION)),
    "white space around an answer": (Step(answer=f"  {ANSWER} \n", question=NEXT_QUESTION),),
    "thoughts, then a user's turn": (Step(answer=ANSWER, thought=THOUGHT, question=NEXT_QUESTION),),
    "tool calls": (Step(num_calls=1), Step(num_calls=1)),
    "tool calls, then a user's turn": (Step(num_calls=1), Step(answer=ANSWER, question=NEXT_QUESTION)),
    "two calls in one turn": (Step(num_calls=2), Step(num_calls=1)),
    "text beside a call": (Step(answer=BESIDE, num_calls=1),),
    "thoughts and tool calls": (Step(num_calls=1, thought=THOUGHT), Step(num_calls=1, thought=THOUGHT)),
    "thoughts, tool calls, then a user's turn": (
        Step(num_calls=1, thought=THOUGHT),
        Step(answer=ANSWER, thought=THOUGHT, question=NEXT_QUESTION),
    ),
}
"""Kind of conversation -> its drawn turns. Each begins with a user's question, or with a system message before it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a template does with one kind of conversation.

    Attributes:
        conversation: its name in `CONVERSATIONS`.
        verdict: `stable`: it keeps the history. `rewrites`: it renders it otherwise than it was drawn. `refuses`: it
            renders no such conversation.
        what: what it rewrites, or its words of refusal; empty if it keeps the history.
        history: from where the two differ, the history as it was drawn and given.
        rendered: the same place as the template renders it.
    """

    conversation: str
    verdict: Verdict
    what: str = ""
    history: str = ""
    rendered: str = ""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What a chat template does with the history of conversations.

    Attributes:
        trials: one for each kind of conversation that was tried.
        end_of_turn: control token with which it ends an answer; None if it has none, and then the text that follows
            a turn is encoded by itself, which may cut it otherwise than the template's whole text.
        offers_tools: it tells the model of the tools; None if no tools were given.
        writes_calls: it writes calls that a message has as `tool_calls`. Where it does not, calls belong into the
            message's content as they were drawn.
    """

    trials: tuple[Trial, ...]
    end_of_turn: str | None
    offers_tools: bool | None = None
    writes_calls: bool = True

    @property
    def kind(self) -> Verdict:
        """`rewrites` if it rewrites any, `refuses` if it refuses all, `stable` otherwise."""
        verdicts = {trial.verdict for trial in self.trials}
        if "rewrites" in verdicts:
            return "rewrites"
        return "stable" if "stable" in verdicts else "refuses"

    @property
    def rewritten(self) -> tuple[Trial, ...]:
        """Kinds of conversation whose history it rewrites."""
        return tuple(trial for trial in self.trials if trial.verdict == "rewrites")

    @property
    def refused(self) -> tuple[Trial, ...]:
        """Kinds of conversation that it does not render."""
        return tuple(trial for trial in self.trials if trial.verdict == "refuses")

    def trial_of(self, conversation: str) -> Trial | None:
        """Return what it does with a kind of conversation; None if that was not tried."""
        return next((trial for trial in self.trials if trial.conversation == conversation), None)

    def describe(self) -> str:
        """One line: what it keeps, what it rewrites and when, what it refuses."""
        rewritten = [f"{what} ({names})" for what, names in _by_what(self.rewritten).items()]
        refused = [f"{names} ({what})" for what, names in _by_what(self.refused).items()]
        if self.kind == "refuses":
            return f"the chat template refuses {'; '.join(refused)}"
        told = f"rewrites the history: it {'; '.join(rewritten)}" if rewritten else "keeps the history"
        return f"the chat template {told}" + (f"; it refuses {'; '.join(refused)}" if refused else "")


def _by_what(trials: Sequence[Trial]) -> dict[str, str]:
    """Return the names of conversations, together, for each thing that is done to them."""
    kinds: dict[str, list[str]] = {}
    for trial in trials:
        kinds.setdefault(trial.what, []).append(trial.conversation)
    return {what: _names(names) for what, names in kinds.items()}


def _names(names: Sequence[str]) -> str:
    """Return the names in a row, those of all conversations with calls as one."""
    with_calls = [name for name, steps in CONVERSATIONS.items() if any(step.num_calls for step in steps)]
    if not set(with_calls) <= set(names):
        return ", ".join(names)
    return ", ".join([*(name for name in names if name not in with_calls), "all with tool calls"])


def check_history(tokenizer: PreTrainedTokenizerBase, *, tools: Schemas = (), end_ids: Sequence[int] = ()) -> Stability:
    """Find out whether the chat template keeps the history of conversations, and of which it does not.

    Args:
        tokenizer: with a chat template.
        tools: schemas of the tools on offer; without any, conversations with calls are not tried.
        end_ids: tokens that end what the policy draws, its own first; the template's if empty. A policy that ends
            its turns with a token that the template does not write there has its history rewritten.

    Raises:
        ValueError: there is no chat template.
    """
    trials: list[Trial] = []
    for name, steps in CONVERSATIONS.items():
        if tools or not any(step.num_calls for step in steps):
            trials.append(_try(tokenizer, name, steps, tools, end_ids))
    return Stability(
        trials=tuple(trials),
        end_of_turn=end_of_turn(tokenizer),
        offers_tools=_offers_tools(tokenizer, tools) if tools else None,
        writes_calls=call_form_of(tokenizer).is_rendered,
    )


def _offers_tools(tokenizer: PreTrainedTokenizerBase, tools: Schemas) -> bool:
    question = [Message(role="user", content=QUESTION)]
    try:
        text = render_template(tokenizer, question, tools).text
    except PromptError:
        return False
    return all(tool["function"]["name"] in text for tool in tools)


def _try(
    tokenizer: PreTrainedTokenizerBase, name: str, steps: Sequence[Step], tools: Schemas, end_ids: Sequence[int]
) -> Trial:
    system = [Message(role="system", content=SYSTEM)] if name == "system message" else []
    messages = [*system, Message(role="user", content=QUESTION)]
    try:
        ids = list(render_chat(tokenizer, messages, tools))
        for step in steps:
            drawn = _draw(tokenizer, messages, step, tools, end_ids)
            opened = opened_thought(tokenizer, messages, tools)
            new = _what_comes_in(step, tools)
            messages.append(_turn_of(tokenizer, step, tools, opened=opened))
            ids += [*drawn, *ids_between(tokenizer, messages, new, tools=tools, last_id=drawn[-1])]
            messages += new
            rendered = rendered_history(tokenizer, messages, tools)
            if parts_of(tokenizer, rendered) != parts_of(tokenizer, ids):
                return _describe_change(tokenizer, name, ids, rendered, tools)
    except PromptError as refusal:
        return Trial(conversation=name, verdict="refuses", what=_reason(refusal))
    return Trial(conversation=name, verdict="stable")


def _reason(refusal: PromptError) -> str:
    """Return the template's own words, without which tokenizer it belongs to."""
    return str(refusal).partition("refuses messages of ")[2].partition(": ")[2] or str(refusal).partition("' ")[2]


def _turn_of(tokenizer: PreTrainedTokenizerBase, step: Step, tools: Schemas, *, opened: str) -> Message:
    """Return the turn as the conversation has it: its text as it was drawn, without control tokens, and its calls.

    In front of it is the thought that the template has `opened`.
    """
    said = f"{opened}{_thought_of(tokenizer, step, is_open=bool(opened))}{step.answer}"
    for token, _ in find_control_tokens(tokenizer, said):
        said = said.replace(token, "")
    calls = [
        {"type": "function", "function": {"name": _name_of(tools), "arguments": _arguments(tools, place)}}
        for place in range(step.num_calls)
    ]
    text = said + "".join(_call_text(tools, place) for place in range(step.num_calls))
    return message_of_turn(tokenizer, text, content=said, calls=calls)


def _thought_of(tokenizer: PreTrainedTokenizerBase, step: Step, *, is_open: bool) -> str:
    """Return the text of the step's thought as its policy draws it, where the template may have begun one already."""
    template = str(tokenizer.chat_template)
    if not step.thought:
        return f"{CLOSE_THOUGHT}\n\n" if is_open else ""
    for mark, opening, closing in THOUGHT_CHANNELS:
        if mark in template:
            return f"{opening}{step.thought}{closing}"
    opening = "" if is_open else f"{OPEN_THOUGHT}\n"
    return f"{opening}{step.thought}\n{CLOSE_THOUGHT}\n\n"


def _name_of(tools: Schemas) -> str:
    return str(tools[0]["function"]["name"])


def _arguments(tools: Schemas, place: int) -> dict[str, Any]:
    """Return arguments of the first tool, one of each parameter that it has."""
    examples = {"integer": 2 + place, "number": 2.5 + place, "boolean": True, "array": [2, 3], "object": {}}
    parameters = cast(Mapping[str, Any], tools[0]["function"].get("parameters") or {})
    properties = cast(Mapping[str, Mapping[str, Any]], parameters.get("properties") or {})
    return {name: examples.get(str(schema.get("type")), "two") for name, schema in properties.items()}


def _what_comes_in(step: Step, tools: Schemas) -> list[Message]:
    results = [{"role": "tool", "name": _name_of(tools), "content": RESULT} for _ in range(step.num_calls)]
    questions = [{"role": "user", "content": step.question}] if step.question else []
    return cast(list[Message], [*results, *questions])


def _draw(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    step: Step,
    tools: Schemas,
    end_ids: Sequence[int],
) -> list[int]:
    """Return the ids of what a policy that follows the template would draw for the step, with its end token."""
    text, rest = _text_drawn(tokenizer, messages, step, tools)
    ids = list(encode_template_text(tokenizer, TemplateText(text=text)))
    if not end_ids or (ids and ids[-1] in end_ids):
        return ids
    if (end := end_of_turn(tokenizer)) and text.endswith(end):
        ids.pop()
    follows = [id_of(tokenizer, token) for token, _ in find_control_tokens(tokenizer, rest)[:1]]
    return [*ids, next((token_id for token_id in follows if token_id in end_ids), end_ids[0])]


def _text_drawn(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], step: Step, tools: Schemas
) -> tuple[str, str]:
    """Return the drawn text, and the template's text behind it.

    It is what the template itself writes where that has all that was said. Else it is what the template writes of the
    answer alone, with the thought, the white space or the calls that it leaves out put in.
    """
    prompt = render_template(tokenizer, messages, tools).text
    opened = opened_thought(tokenizer, messages, tools)
    thought, new = _thought_of(tokenizer, step, is_open=bool(opened)), _what_comes_in(step, tools)
    turn = _with_own_ids(_turn_of(tokenizer, step, tools, opened=opened))
    until_end, rest = split_at_turn_end(tokenizer, [*messages, turn], new, tools)
    said = until_end.removeprefix(prompt)
    has_calls = not step.num_calls or said.count(_name_of(tools)) >= step.num_calls
    if until_end.startswith(prompt) and thought.strip() in said and step.answer in said and has_calls:
        return said, rest
    # What is said beside calls comes before them.
    answer = "" if turn.get("tool_calls") else step.answer.strip()
    bare = _with_own_ids(_turn_of(tokenizer, replace(step, thought="", answer=answer), tools, opened=""))
    until_end, rest = split_at_turn_end(tokenizer, [*messages, bare], new, tools)
    begun = prompt.removesuffix(opened)
    said = re.sub(rf"^{OPEN_THOUGHT}\s*{CLOSE_THOUGHT}\s*", "", until_end[num_common(begun, until_end) :])
    lead, _, after = said.rpartition(answer) if answer else ("", "", said)
    if not until_end.startswith(begun):
        # Where the history has moved, what is before the answer is no turn's beginning.
        lead = ""
    before = f"{thought}{lead}" if find_control_tokens(tokenizer, lead) else f"{lead}{thought}"
    return f"{before}{step.answer}{_calls_left_out(step, tools, after)}{after}", rest


def _calls_left_out(step: Step, tools: Schemas, text: str) -> str:
    """Return the calls of the step that a text lacks, in a format that many policies draw."""
    num_there = text.count(_name_of(tools)) if step.num_calls else 0
    return "".join(_call_text(tools, place) for place in range(num_there, step.num_calls))


def _call_text(tools: Schemas, place: int) -> str:
    call = {"name": _name_of(tools), "arguments": _arguments(tools, place)}
    return f"\n<tool_call>{json.dumps(call)}</tool_call>"


def _with_own_ids(turn: Message) -> Message:
    """Return the turn with ids of calls as a policy would draw them, which are not those that the history gives."""
    calls = cast(Sequence[Mapping[str, Any]], turn.get("tool_calls") or ())
    if not calls:
        return turn
    return cast(Message, {**turn, "tool_calls": [{**call, "id": f"{OWN_ID}{at}"} for at, call in enumerate(calls)]})


def _describe_change(
    tokenizer: PreTrainedTokenizerBase, name: str, ids: Sequence[int], rendered: Sequence[int], tools: Schemas
) -> Trial:
    history, now = (decode_ids(tokenizer, some, skip_special_tokens=False) for some in (ids, rendered))
    start = max(num_common(history, now) - 10, 0)
    return Trial(
        conversation=name,
        verdict="rewrites",
        what=_what_changes(history, now, tools),
        history=history[start : start + LONGEST_EXCERPT],
        rendered=now[start : start + LONGEST_EXCERPT],
    )


def _what_changes(history: str, now: str, tools: Schemas) -> str:
    """Return what a template has done to a history, from what is no longer where it was."""
    if history.find(SYSTEM) != now.find(SYSTEM):
        return "moves the system message"
    if _place_of_offer(history, tools) != _place_of_offer(now, tools):
        return "moves the tools"
    if history.count(THOUGHT) > now.count(THOUGHT):
        return "drops thoughts"
    if history.count(BESIDE) > now.count(BESIDE):
        return "drops text beside calls"
    if history.count(OWN_ID) > now.count(OWN_ID):
        return "gives calls ids of its own"
    if "".join(history.split()) == "".join(now.split()):
        return "changes white space"
    if now.count(CLOSE_THOUGHT) != history.count(CLOSE_THOUGHT):
        return "changes empty thoughts"
    if tools and history.count(_name_of(tools)) != now.count(_name_of(tools)):
        return "drops calls" if history.count(_name_of(tools)) > now.count(_name_of(tools)) else "adds to calls"
    return "renders thoughts otherwise" if THOUGHT in history else "renders turns otherwise"


def _place_of_offer(text: str, tools: Schemas) -> int | None:
    """Return where a conversation offers its tools; None if that is not before the first question."""
    place = text.find(_name_of(tools)) if tools else -1
    return place if 0 <= place < text.find(QUESTION) else None
