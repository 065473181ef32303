"""Dialogues as one text, with `Human:` and `Assistant:` behind empty lines, as Anthropic's HH-RLHF has them."""

import re

from klimb.experience.samples import POLICY_ROLE, Message

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


_ROLES = {"Human": "user", "Assistant": POLICY_ROLE}


def is_dialogue_text(value: object) -> bool:
    """Tell a text that is a dialogue: it begins with the human."""
    return isinstance(value, str) and re.match(r"\s*Human:", value) is not None and "\n\nAssistant:" in value


def read_dialogue_text(text: str) -> list[Message]:
    """Return the messages. One space behind each speaker's name belongs to the form, all other text is kept.

    A text that ends behind `Assistant:` ends with a message that says nothing: it is a prompt.

    Source: arXiv 2204.05862 and the data set card of Anthropic/hh-rlhf.
    """
    parts = _SPEAKER.split(text)[1:]
    speakers, texts = parts[::2], parts[1::2]
    return [
        Message(role=_ROLES[speaker], content=said.removeprefix(" "))
        for speaker, said in zip(speakers, texts, strict=True)
    ]
