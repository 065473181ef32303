"""The text of tokens that come one by one: what can be sent already, and what may still change."""

from collections.abc import Callable, Sequence

from klimb.samplers.completion import cut_at_stop

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What tokens decode to that end within a character."""


class GrowingText:
    """The text of an answer as it grows.

    Each token is decoded behind a few tokens before it, as decoders treat the first one of all differently. What is
    given out is never taken back: characters that are not whole, and text that may be the beginning of a stop string,
    wait. Text from a stop string on is never given out.

    Args:
        decode: the text of ids.
        stop: texts that end the answer.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._begin, self._read = 0, 0
        self._text = ""
        self._given = 0

    @property
    def text(self) -> str:
        """What was given out so far."""
        return self._text[: self._given]

    def add(self, token_id: int) -> str:
        """Take a token and return the text that is now certain."""
        self._ids.append(token_id)
        before, now = self._window()
        if len(now) > len(before) and not now.endswith(UNFINISHED):
            self._take(before, now)
        return self._give(len(self._text) - self._num_held())

    def finish(self) -> str:
        """Return what is left."""
        self._take(*self._window())
        return self._give(len(self._text))

    def _window(self) -> tuple[str, str]:
        return self._decode(self._ids[self._begin : self._read]), self._decode(self._ids[self._begin :])

    def _take(self, before: str, now: str) -> None:
        self._text += now[len(before) :]
        self._begin, self._read = self._read, len(self._ids)

    def _give(self, until: int) -> str:
        until = max(self._given, min(until, cut_at_stop(self._text, self._stop)))
        given, self._given = self._text[self._given : until], until
        return given

    def _num_held(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._text)), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stop):
                return length
        return 0
