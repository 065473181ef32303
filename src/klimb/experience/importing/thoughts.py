"""Thoughts beside the words of a message: a server or an export cut them out of its text."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from klimb.experience.importing.cells import content_of, is_thought, listed, mapping

_NAME = re.compile(
    r"(?:.*_)?(?:reasoning(?:_(?:content|details|text|items|traces?|summary|process|chain|steps))?"
    r"|think(?:ing)?(?:_(?:blocks|content|text|process|traces?|trajector(?:y|ies)))?"
    r"|(?:chain_?of_?)?thoughts?(?:_process)?|cot|scratchpad)",
    re.IGNORECASE,
)
"""What servers, exports and data sets call them: DeepSeek's and vLLM's `reasoning_content`, OpenRouter's `reasoning`
and `reasoning_details`, LiteLLM's `thinking_blocks`, `thinking` of gpt-oss and Ollama, …"""


_OUTER = ("provider_specific_fields", "additional_kwargs", "model_extra", "response_metadata")
"""Where LiteLLM, LangChain and OpenAI's client keep what they do not know."""


_TEXTS = ("text", "thinking", "reasoning", "summary", "content", "data", "encrypted_content", "signature")
"""Where an object holds thoughts, encrypted ones among them."""


_SETTINGS = (
    *("on", "off", "true", "false", "yes", "no", "none", "null", "auto", "enabled", "disabled", "adaptive"),
    *("minimal", "low", "medium", "high", "concise", "detailed"),
)
"""Texts that say whether, or how much, a model is to think."""


REASON = "thoughts kept apart from the response"


ADVICE = "log the text as it was drawn, thoughts and all: a server without a reasoning parser does"


@lru_cache(maxsize=10_000)
def may_hold_thoughts(name: str) -> bool:
    """Tell whether thoughts stand under names like this one."""
    return _NAME.fullmatch(name) is not None


def has_thoughts(entry: Mapping[str, object]) -> bool:
    """Tell whether thoughts stand beside the words of a message, in a field or as parts of its content."""
    return bool(thoughts_of(entry))


def thoughts_of(entry: Mapping[str, object]) -> Sequence[str]:
    """Return the thoughts beside the words of a message, as far as they are text; encrypted ones as they are."""
    found: list[str] = []
    for place in (entry, *(mapping(entry[name]) for name in _OUTER if name in entry)):
        for name, value in place.items():
            if may_hold_thoughts(name):
                found += words_in(value)
    for part in listed(content_of(entry)) or ():
        if is_thought(mapping(part)):
            found += words_in(part)
    return found


def words_in(value: object) -> Sequence[str]:
    """Return the texts in a value that holds thoughts; none for a setting, such as `{"effort": "low"}` or `on`."""
    if isinstance(value, str):
        return [value] if value.strip() and value.strip().lower() not in _SETTINGS else []
    if (parts := listed(value)) is not None:
        return [text for part in parts for text in words_in(part)]
    inner = mapping(value)
    return [text for name in _TEXTS if name in inner for text in words_in(inner[name])]
