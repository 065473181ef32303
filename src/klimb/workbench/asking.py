"""How a run asks: the prompts of its warm-up, its training and its evaluations, and where they differ."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from klimb.errors import ConfigError
from klimb.experience import Message
from klimb.tasks import chat
from klimb.tasks.arithmetic import ArithmeticSettings
from klimb.tasks.catalogue import TaskSettings
from klimb.tasks.conversations import has_system
from klimb.tasks.file import Row, read_rows
from klimb.tasks.protocol import QUESTION_SLOT
from klimb.training.cloning import Pair
from klimb.training.demonstrations import read_demonstration
from klimb.ui.text import printable
from klimb.workbench.config import CloningConfig

Prompt = tuple[Message, ...]


AS_THE_TASK = "task"
"""The word of a run file for what the task has."""


NO_MESSAGE = "none"
"""The word of a run file for no system message."""


NUM_LOOKED_AT = 200
"""Prompts of a source that are compared."""


_EXPRESSION = re.compile(r"[\s\d+*()-]+")


def read_pairs(section: CloningConfig, *, task: TaskSettings | None, asked: Sequence[Prompt]) -> list[Pair]:
    """Return the pairs of `read_placed_pairs`, without their places."""
    return [pair for _, pair in read_placed_pairs(section, task=task, asked=asked)]


def read_placed_pairs(
    section: CloningConfig, *, task: TaskSettings | None, asked: Sequence[Prompt]
) -> list[tuple[str, Pair]]:
    """Return the pairs to imitate with their place in the file, asked as the run asks unless the section says not to.

    Rows without that column that have `messages` are whole conversations, which stay as they are. Else the question
    stands in the task's template, behind the messages that all prompts of the run begin with, such as a
    system message. Questions that all have the template's words already stay as they are.

    Args:
        section: `[cloning]`.
        task: that the run draws answers to; None where it draws none.
        asked: prompts that the run trains on.

    Raises:
        ConfigError: a row has no text in one of the two columns.
    """
    rows = read_rows(Path(section.path))
    if all(section.prompt not in row.values and "messages" in row.values for row in rows):
        return [(row.place, read_demonstration(row.values, row.place)) for row in rows]
    places, questions, responses = _columns(section, rows)
    template = section.template
    if template == AS_THE_TASK:
        template = QUESTION_SLOT if task is None else template_of(task, questions)
        if all(_fits(question, template) for question in questions):
            template = QUESTION_SLOT
    lead = _lead_of(section, asked)
    return [
        (place, ((*lead, *chat(question, template=template)), response))
        for place, question, response in zip(places, questions, responses, strict=True)
    ]


def _columns(section: CloningConfig, rows: Sequence[Row]) -> tuple[list[str], list[str], list[str]]:
    for row in rows:
        for column in (section.prompt, section.response):
            if not isinstance(row.values.get(column), str):
                raise ConfigError(f"{row.place}: column {column!r} must hold a text; see cloning.prompt and .response")
    questions, responses = ([str(row.values[column]) for row in rows] for column in (section.prompt, section.response))
    return [row.place for row in rows], questions, responses


def template_of(task: TaskSettings, questions: Sequence[str]) -> str:
    """Return what the task puts around these questions: a text with `{question}` in it.

    A task of the user's own has a bare slot. An arithmetic task words expressions, and nothing else.
    """
    if not isinstance(task, ArithmeticSettings):
        return getattr(task, "template", QUESTION_SLOT)
    if all(_EXPRESSION.fullmatch(question) or _fits(question, task.question_template) for question in questions):
        return task.question_template
    return QUESTION_SLOT


def _lead_of(section: CloningConfig, asked: Sequence[Prompt]) -> Prompt:
    if section.system_prompt == AS_THE_TASK:
        cut = _lead_cutter(asked)
        leads = {_as_key(cut(prompt)): cut(prompt) for prompt in asked}
        return next(iter(leads.values())) if len(leads) == 1 else ()
    return () if section.system_prompt == NO_MESSAGE else chat("", system_prompt=section.system_prompt)[:-1]


def _fits(text: str, template: str) -> bool:
    before, _, after = template.partition(QUESTION_SLOT)
    return len(text) > len(before) + len(after) and text.startswith(before) and text.endswith(after)


def _lead_cutter(prompts: Sequence[Prompt]) -> Callable[[Prompt], Prompt]:
    """Return what cuts from a prompt the messages that stand before each question, such as a system message.

    Where the prompts are conversations, each with turns of its own, that is the system message alone.
    """
    leads = {_as_key(prompt[:-1]) for prompt in prompts}
    are_conversations = len(leads) > 1 and any(role == "assistant" for lead in leads for role, _ in lead)
    return _system_of if are_conversations else lambda prompt: prompt[:-1]


def _system_of(prompt: Prompt) -> Prompt:
    return prompt[: int(has_system(prompt))]


def _as_key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)


def find_differences(sources: Mapping[str, Sequence[Prompt]], *, template: str | None) -> tuple[str, ...]:
    """Return one sentence for each two sources of prompts of which one asks in another way than the other.

    Compared are the messages before the last, which is where a system message stands, and the words that stand around
    every question; of conversations with turns of their own the system message alone.

    Args:
        sources: name -> prompts, the one that counts first.
        template: what stands around the question in the first source; None where that is not known, and found out.
    """
    (wanted, first), *others = [(name, prompts[:NUM_LOOKED_AT]) for name, prompts in sources.items() if prompts] or [
        ("", ())
    ]
    around = template or _words_around([prompt[-1]["content"] for prompt in first])
    cut = _lead_cutter(first)
    leads = {_as_key(cut(prompt)) for prompt in first}
    found: list[str] = []
    for name, prompts in others:
        num_led = sum(_as_key(cut(prompt)) not in leads for prompt in prompts)
        num_worded = sum(not _fits(prompt[-1]["content"], around) for prompt in prompts)
        if num_led:
            words = _lead_in_words(next(prompt for prompt in prompts if _as_key(cut(prompt)) not in leads))
            found.append(
                f"{num_led} of {len(prompts)} prompts of {name} have {words}, those of {wanted} "
                f"{_lead_in_words(first[0])}"
            )
        if num_worded:
            text = next(prompt[-1]["content"] for prompt in prompts if not _fits(prompt[-1]["content"], around))
            found.append(
                f"{num_worded} of {len(prompts)} prompts of {name} are worded otherwise than those of {wanted}: "
                f"{_quoted(text)}, and there {_quoted(first[0][-1]['content'])}"
            )
    return tuple(found)


def _lead_in_words(prompt: Prompt) -> str:
    if len(prompt) == 1:
        return "no system message"
    if len(prompt) == 2 and prompt[0]["role"] == "system":
        return f"the system message {_quoted(prompt[0]['content'])}"
    return f"{len(prompt) - 1} messages before the question"


def _quoted(text: str) -> str:
    return repr(printable(text, limit=60))


def _words_around(texts: Sequence[str]) -> str:
    """Return what all the texts begin and end with, in whole words, around the slot of the question."""
    distinct = sorted(set(texts))
    if len(distinct) < 3:
        return QUESTION_SLOT
    before = _common_start(distinct)
    after = _common_start([text[len(before) :][::-1] for text in distinct])[::-1]
    return re.sub(r"\w+$", "", before) + QUESTION_SLOT + re.sub(r"^\w+", "", after)


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    differs = (index for index, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differs, len(first))]
