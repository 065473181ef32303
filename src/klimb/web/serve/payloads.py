"""Answers in OpenAI's words, with vLLM's fields for token ids."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fastapi import Response

from klimb.samplers.service.requests import DrawnToken
from klimb.web.serve.exchange import Answer, Ask, Piece

LEAST_LOG_PROB = -9999.0
"""What stands for a log-probability of minus infinity, which JSON cannot say."""


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the content as JSON in ASCII, which any text can be written in."""
    return Response(
        json.dumps(content, allow_nan=False), status_code=status, media_type="application/json", headers=headers
    )


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request wants to see beside the text.

    Attributes:
        log_probs: of the tokens.
        token_ids: of prompt and answer.
        sampling_mask: ids that could be drawn.
    """

    log_probs: bool = False
    token_ids: bool = False
    sampling_mask: bool = False


@runtime_checkable
class Answered(Protocol):
    """A request with its answers, which grow or are whole."""

    @property
    def ask(self) -> Ask:
        """What is answered."""
        ...

    @property
    def answers(self) -> list[Answer]:
        """In the order of the request."""
        ...

    @property
    def model(self) -> str:
        """Who answers."""
        ...

    @property
    def fingerprint(self) -> str:
        """Who answers, and in which version."""
        ...

    @property
    def spellings(self) -> Mapping[int, bytes]:
        """What each token stands for, by its id."""
        ...


@dataclass(kw_only=True)
class Writer:
    """Writes the answers of one exchange.

    Attributes:
        exchange: whose answers they are.
        wanted: what stands beside the text.
    """

    exchange: Answered
    wanted: Wanted
    _begun: set[int] = field(default_factory=set[int])
    _lengths: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def is_chat(self) -> bool:
        """Whether it is a conversation."""
        return self.exchange.ask.is_chat

    def whole(self) -> dict[str, Any]:
        """Return all answers, which have ended."""
        choices = [self._choice(answer) for answer in self.exchange.answers]
        body = self._frame("chat.completion" if self.is_chat else "text_completion", choices)
        return {**body, "usage": self.usage(), **self._prompt_ids(self.is_chat)}

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """Return what a stream says of a piece."""
        number = piece.answer.number
        if not self.is_chat:
            return [self._text_chunk(piece)]
        chunks: list[dict[str, Any]] = []
        if number not in self._begun:
            opening = {"index": number, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
            chunks.append({**self._chunk({**opening, "finish_reason": None}), **self._prompt_ids(not self._begun)})
            self._begun.add(number)
        delta: dict[str, Any] = {"content": piece.text} if piece.text or not piece.is_end else {}
        calls = self._calls(piece.answer) if piece.is_end else []
        if calls:
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
        if delta or piece.tokens:
            choice = {"index": number, "delta": delta, "finish_reason": None, **self._beside(piece.tokens)}
            chunks.append(self._chunk(choice))
        if piece.is_end:
            reason = _finish_reason(piece.answer)
            chunks.append(self._chunk({"index": number, "delta": {}, "logprobs": None, "finish_reason": reason}))
        return chunks

    def usage(self) -> dict[str, int]:
        """Return how many tokens there were; a prompt counts once for all its answers."""
        num_prompt = sum(len(prompt.ids) for prompt in self.exchange.ask.prompts)
        num_drawn = sum(len(answer.tokens) for answer in self.exchange.answers)
        return {"prompt_tokens": num_prompt, "completion_tokens": num_drawn, "total_tokens": num_prompt + num_drawn}

    def usage_chunk(self) -> dict[str, Any]:
        """Return the last chunk of a stream that says how many tokens there were."""
        return {**self._frame(self._chunk_kind, []), "usage": self.usage()}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _frame(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ask = self.exchange.ask
        return {
            "id": ask.request_id,
            "object": kind,
            "created": int(ask.created),
            "model": self.exchange.model,
            "system_fingerprint": self.exchange.fingerprint,
            "choices": list(choices),
        }

    def _chunk(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        return self._frame(self._chunk_kind, [choice])

    def _prompt_ids(self, is_wanted: bool) -> dict[str, Any]:
        wants = is_wanted and self.wanted.token_ids
        return {"prompt_token_ids": list(self.exchange.ask.prompts[0].ids)} if wants else {}

    def _choice(self, answer: Answer) -> dict[str, Any]:
        tokens = tuple(answer.tokens)
        choice: dict[str, Any] = {"index": answer.number, "finish_reason": _finish_reason(answer)}
        if self.is_chat:
            calls = self._calls(answer)
            message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
            if calls:
                message |= {"content": answer.content or None, "tool_calls": calls}
            return {**choice, "message": message, **self._beside(tokens)}
        return {**choice, "text": answer.content, **self._beside(tokens, begin=0), **self._own_prompt_ids(answer)}

    def _text_chunk(self, piece: Piece) -> dict[str, Any]:
        answer = piece.answer
        begin = self._lengths.get(answer.number, 0)
        self._lengths[answer.number] = begin + len(piece.text)
        own = self._own_prompt_ids(answer) if answer.number not in self._begun else {}
        self._begun.add(answer.number)
        reason = _finish_reason(answer) if piece.is_end else None
        beside = self._beside(piece.tokens, begin=begin)
        return self._chunk({"index": answer.number, "text": piece.text, "finish_reason": reason, **beside, **own})

    def _own_prompt_ids(self, answer: Answer) -> dict[str, Any]:
        return {"prompt_token_ids": list(answer.prompt.ids)} if self.wanted.token_ids else {}

    def _beside(self, tokens: Sequence[DrawnToken], *, begin: int | None = None) -> dict[str, Any]:
        """Return what stands beside a text of these tokens; `begin` is where a bare text has come to."""
        beside: dict[str, Any] = {"logprobs": None}
        if self.wanted.log_probs:
            beside["logprobs"] = self._log_probs(tokens) if begin is None else self._flat_log_probs(tokens, begin)
        if self.wanted.token_ids:
            beside["token_ids"] = [token.token_id for token in tokens]
        if self.wanted.sampling_mask:
            cut = any(token.support is not None for token in tokens)
            beside["sampling_mask"] = [list(token.support or ()) for token in tokens] if cut else None
        return beside

    def _log_probs(self, tokens: Sequence[DrawnToken]) -> dict[str, Any]:
        content = [
            {
                **self._entry(token.token_id, token.log_model),
                "top_logprobs": [self._entry(token_id, value) for token_id, value in token.top],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _flat_log_probs(self, tokens: Sequence[DrawnToken], begin: int) -> dict[str, Any]:
        texts = [self._spelled(token.token_id).decode(errors="replace") for token in tokens]
        offsets = [begin + sum(map(len, texts[:place])) for place in range(len(texts))]
        tops = [{self._spelled(i).decode(errors="replace"): _finite(v) for i, v in token.top} for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(token.log_model) for token in tokens],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _entry(self, token_id: int, value: float) -> dict[str, Any]:
        spelled = self._spelled(token_id)
        return {"token": spelled.decode(errors="replace"), "logprob": _finite(value), "bytes": list(spelled)}

    def _spelled(self, token_id: int) -> bytes:
        return self.exchange.spellings.get(token_id, b"")

    def _calls(self, answer: Answer) -> list[dict[str, Any]]:
        calls = () if answer.parsed is None else answer.parsed.calls
        return [
            {
                "id": f"call_{answer.sample_id.partition('-')[2]}_{place}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for place, call in enumerate(calls)
        ]


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.parsed is not None and answer.parsed.calls else answer.finish_reason


def _finite(value: float) -> float:
    return max(value, LEAST_LOG_PROB)
