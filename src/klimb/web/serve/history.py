"""Which earlier answer a request goes on from: found by what the request's messages say."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from klimb.experience.history_keys import history_keys
from klimb.experience.samples import POLICY_ROLE, Message


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """An answer, with all that came before it.

    Attributes:
        episode: id of the conversation.
        messages: as the chat template reads them; the last is what was drawn.
        ids: of the prompt and of what was drawn.
        tokenizer: fingerprint of the tokenizer of these ids.
        policy: name of the one that drew.
    """

    episode: str
    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    tokenizer: str
    policy: str = ""


class Histories:
    """Remembers the latest answers by what a client would send back of them.

    Args:
        most: answers that are remembered; the ones not asked for the longest go first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[bytes, Remembered] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, said: Sequence[Message], remembered: Remembered, *, user: str = "") -> None:
        """Keep an answer.

        Args:
            said: the request's messages, and the answer as the client has it.
            remembered: what is known of it.
            user: whose conversation it is; others do not go on with it.
        """
        *_, key = history_keys(said, user=user)
        with self._lock:
            self._known[key] = remembered
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def find(self, messages: Sequence[Message], *, user: str = "") -> tuple[int, Remembered] | None:
        """Return the latest answer that the messages hold, and how many of them it covers; None if there is none."""
        keys = list(history_keys(messages, user=user))
        with self._lock:
            for place in reversed(range(len(messages))):
                if messages[place]["role"] != POLICY_ROLE:
                    continue
                if (found := self._known.get(keys[place])) is not None:
                    self._known.move_to_end(keys[place])
                    return place + 1, found
        return None
