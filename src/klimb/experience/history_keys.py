"""Keys of what a client sends back of a conversation: by them a request is known to go on from an earlier one."""

import hashlib
import json
from collections.abc import Iterator, Sequence

from klimb.experience.samples import Message


def history_keys(messages: Sequence[Message], *, user: str = "") -> Iterator[bytes]:
    """Yield a hash of each beginning of the conversation. White space around a message does not tell it from another.

    Clients trim what they show and send back.

    Args:
        messages: of the conversation.
        user: whose it is; the same words of another have other keys.
    """
    state = hashlib.sha256(user.encode())
    for message in messages:
        calls = [[call["function"]["name"], call["function"]["arguments"]] for call in message.get("tool_calls") or ()]
        entry = [message["role"], message["content"].strip(), message.get("name", ""), calls]
        state.update(json.dumps(entry, sort_keys=True).encode())
        yield state.digest()
