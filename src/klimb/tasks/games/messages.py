"""Messages of a demonstrated conversation: a call, what the tool answered, and the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for annotations only: klimb.experience imports torch, which a scoring process must not wait for
    from klimb.experience.samples import Message


def call(name: str, **arguments: Any) -> Message:
    """Return an assistant's turn that calls a tool and says nothing."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def result(name: str, content: str) -> Message:
    """Return what a tool of this name answered."""
    return {"role": "tool", "name": name, "content": content}


def say(content: str) -> Message:
    """Return an assistant's turn without a call."""
    return {"role": "assistant", "content": content}
