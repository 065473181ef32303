"""In front of another server: requests are passed on, and its answers are recorded as our own would be."""

import json
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from klimb.experience.importing.served_answers import MESSAGE_ID
from klimb.experience.importing.users import user_hash, user_salt
from klimb.experience.samples import Message, Sample
from klimb.web.serve.client_headers import message_id_of, with_headers
from klimb.web.serve.completions import conversation_of
from klimb.web.serve.exchange import API, CANCELLED, SERVED_BY, USER, record
from klimb.web.serve.history import Histories, Remembered
from klimb.web.serve.meters import Meters
from klimb.web.serve.openai_errors import RequestRefused, error_body
from klimb.web.serve.payloads import json_response
from klimb.web.serve.recording import Recorder
from klimb.web.serve.schemas import ChatRequest, CompletionRequest, SamplingRequest, check_text, messages_of
from klimb.web.serve.settings import ServeSettings
from klimb.web.serve.upstream_answers import Drawn, Sent, read_choices, said_by, sample_of

logger = logging.getLogger(__name__)


LogProbs = Literal["raw", "processed"]


KEY_VARIABLE = "KLIMB_UPSTREAM_KEY"
"""Environment variable with the key that the other server wants. Clients' own keys are never passed on."""


EXTRAS: Mapping[str, Any] = {"return_token_ids": True, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Parameters of vLLM's that are sent where a request does not have them, so that it is known what is drawn."""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A request that is passed on.

    Attributes:
        path: of the route.
        body: as it came.
        sent: as it is sent.
        messages: that are answered.
        user: a hash of whoever asks.
        episode: id of the conversation.
        message_id: what a program in front calls the answer; empty where it does not say.
        has_extras: vLLM's parameters are in `sent`.
        created: seconds since the epoch.
    """

    path: str
    body: Mapping[str, Any]
    sent: Mapping[str, Any]
    messages: tuple[Message, ...]
    user: str
    episode: str
    message_id: str
    has_extras: bool
    created: float


class Upstream:
    """Answers with another server, and records what it says.

    Args:
        url: of its API, such as `http://127.0.0.1:8000/v1`.
        recorder: stores the answers.
        settings: of this server.
        meters: count.
        log_probs: what the server's log-probabilities are of: `processed` of the distribution drawn from, `raw` of the
            model at temperature 1 with nothing cut (vLLM's --logprobs-mode).
        client: to ask with.
    """

    def __init__(
        self,
        url: str,
        recorder: Recorder,
        settings: ServeSettings,
        meters: Meters,
        *,
        log_probs: LogProbs = "raw",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        key = os.environ.get(KEY_VARIABLE, "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.url = url.rstrip("/")
        self._client = client or httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(600.0, connect=10.0))
        self._recorder, self._settings, self._meters, self._log_probs = recorder, settings, meters, log_probs
        self._histories = Histories(settings.max_conversations)
        self._salt = user_salt(recorder.folder)
        self._takes_extras = True
        self._error, self._model = "", ""

    def routes(self) -> APIRouter:
        """Return the routes of completions and models."""
        router = APIRouter()
        router.post("/v1/chat/completions")(self.chat)
        router.post("/v1/completions")(self.complete)
        router.get("/v1/models")(self.models)
        return router

    def health(self) -> Mapping[str, Any]:
        """Return whom we stand in front of."""
        return {"upstream": self.url, "error": self._error}

    def gauges(self) -> Sequence[tuple[str, Mapping[str, str], float]]:
        """Return nothing: the other server has metrics of its own."""
        return ()

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Pass on a conversation."""
        body = with_headers(body, request.headers)
        check_text(body)
        return await self._pass(body, await request.json(), "/chat/completions", messages_of(body))

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        """Pass on a text."""
        body = with_headers(body, request.headers)
        check_text(body)
        if not isinstance(body.prompt, str):
            raise RequestRefused(
                "in front of another server the prompt is one text: what several, or token ids, would be answered with "
                "could not be recorded with its prompt",
                param="prompt",
            )
        return await self._pass(body, await request.json(), "/completions", ({"role": "user", "content": body.prompt},))

    async def models(self) -> Response:
        """List the other server's models."""
        answer = await self._ask("GET", "/models")
        return Response(answer.content, status_code=answer.status_code, media_type="application/json")

    async def _pass(
        self, body: SamplingRequest, raw: Mapping[str, Any], path: str, messages: tuple[Message, ...]
    ) -> Response:
        if raw.get("model") in (None, "", self._settings.name):
            raw = {**raw, "model": await self._find_model()}
        user = body.safety_identifier or body.user or ""
        user = user_hash(user, self._salt) if user else ""
        earlier = self._histories.find(messages, user=user)
        passed = Passed(
            path=path,
            body=raw,
            sent=self._sent(raw, path, with_extras=self._takes_extras),
            messages=messages,
            user=user,
            episode=conversation_of(body) or (earlier[1].episode if earlier else f"conv-{secrets.token_hex(12)}"),
            message_id=message_id_of(body),
            has_extras=self._takes_extras,
            created=time.time(),
        )
        answer = await self._ask("POST", path, passed.sent)
        if answer.status_code == 400 and passed.has_extras and not any(name in raw for name in EXTRAS):
            await answer.aread()
            passed = replace(passed, sent=self._sent(raw, path, with_extras=False), has_extras=False)
            answer = await self._ask("POST", path, passed.sent)
            if answer.status_code == 200:
                self._takes_extras = False
                logger.warning("%s does not take vLLM's parameters: token ids are not recorded", self.url)
        if answer.status_code != 200:
            content = await answer.aread()
            return Response(content, status_code=answer.status_code, media_type="application/json")
        if passed.sent.get("stream"):
            return StreamingResponse(self._events(passed, answer), media_type="text/event-stream")
        return await self._whole(passed, await answer.aread())

    async def _find_model(self) -> str:
        """Return the model that our own name stands for: the first of the other server's."""
        if not self._model:
            listed = _object((await self._ask("GET", "/models")).content).get("data") or [{}]
            self._model = str(listed[0].get("id") or "")
        return self._model

    def _sent(self, raw: Mapping[str, Any], path: str, *, with_extras: bool) -> dict[str, Any]:
        """Return the request with all that decides what is drawn, and with what is to be recorded."""
        defaults: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, **(EXTRAS if with_extras else {})}
        given = {name: value for name, value in raw.items() if value is not None}
        wanted: dict[str, Any] = {"logprobs": True} if path == "/chat/completions" else {"logprobs": 0}
        sent = {**defaults, **wanted, **given}
        if path == "/chat/completions":
            sent["logprobs"] = True
        if with_extras:
            sent["return_token_ids"] = True
        return sent

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Return the answer, whose content is still to be read.

        Raises:
            RequestRefused: the server cannot be reached.
        """
        request = self._client.build_request(method, f"{self.url}{path}", json=body)
        try:
            answer = await self._client.send(request, stream=body is not None)
        except httpx.HTTPError as error:
            self._error = f"{self.url} cannot be reached: {error}"
            raise self._unreachable(error) from error
        self._error = ""
        return answer

    def _unreachable(self, error: httpx.HTTPError) -> RequestRefused:
        return RequestRefused(
            f"the server behind this one did not answer: {type(error).__name__}",
            status=502,
            kind="server_error",
            code="upstream_failed",
        )

    async def _whole(self, passed: Passed, content: bytes) -> Response:
        body = _object(content)
        drawn: dict[int, Drawn] = {}
        read_choices(drawn, body)
        await self._record(passed, body, drawn)
        return json_response(_as_asked(body, passed))

    async def _events(self, passed: Passed, answer: httpx.Response) -> AsyncGenerator[str]:
        """Yield the server's events; the last one when the answers are stored."""
        drawn: dict[int, Drawn] = {}
        frame: dict[str, Any] = {}
        is_stored = False
        try:
            async for line in answer.aiter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or not data:
                    continue
                if data == "[DONE]":
                    is_stored = True
                    await self._record(passed, frame, drawn)
                    yield "data: [DONE]\n\n"
                    break
                chunk = _object(data.encode())
                frame = frame or chunk
                read_choices(drawn, chunk)
                yield f"data: {json.dumps(_as_asked(chunk, passed))}\n\n"
        except httpx.HTTPError as error:
            yield f"data: {json.dumps(error_body(self._unreachable(error)))}\n\n"
        except RequestRefused as refused:
            yield f"data: {json.dumps(error_body(refused))}\n\n"
        finally:
            await answer.aclose()
            if not is_stored:
                self._store_cancelled(passed, frame, drawn)

    async def _record(self, passed: Passed, frame: Mapping[str, Any], drawn: Mapping[int, Drawn]) -> None:
        samples = self._samples(passed, frame, drawn)
        for each in drawn.values():
            self._meters.count("klimb_drawn_tokens_total", len(each.token_ids), policy=str(frame.get("model", "")))
        await record(self._recorder, samples, self._settings, self._meters)
        for sample, each in zip(samples, drawn.values(), strict=True):
            said = (*passed.messages, said_by(each))
            remembered = Remembered(episode=passed.episode, messages=said, ids=sample.response_ids, tokenizer="")
            self._histories.remember(said, remembered, user=passed.user)

    def _samples(self, passed: Passed, frame: Mapping[str, Any], drawn: Mapping[int, Drawn]) -> list[Sample]:
        named = {USER: passed.user, MESSAGE_ID: passed.message_id}
        metadata = {SERVED_BY: self._settings.name, **{name: text for name, text in named.items() if text}}
        if passed.path == "/completions":
            metadata[API] = "completions"
        sent = Sent(
            request_id=str(frame.get("id") or f"chatcmpl-{secrets.token_hex(12)}"),
            values=passed.sent,
            messages=passed.messages,
            is_known=passed.has_extras,
            are_processed=self._log_probs == "processed",
            prompt_ids=tuple(frame.get("prompt_token_ids") or ()),
            model=str(frame.get("model") or ""),
            episode=passed.episode,
            created=passed.created,
            metadata=metadata,
        )
        return [sample_of(sent, each, is_alone=len(drawn) == 1) for each in drawn.values()]

    def _store_cancelled(self, passed: Passed, frame: Mapping[str, Any], drawn: Mapping[int, Drawn]) -> None:
        self._meters.count("klimb_cancelled_total")
        samples = self._samples(passed, frame, {key: each for key, each in drawn.items() if each.text})
        if samples:
            self._recorder.record([replace(each, metadata={**each.metadata, CANCELLED: "yes"}) for each in samples])


def _object(content: bytes) -> dict[str, Any]:
    """Return the JSON object.

    Raises:
        RequestRefused: the other server said something else.
    """
    try:
        found: object = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestRefused("the server behind this one answered with no JSON object", status=502, kind="server_error")
    return found  # pyright: ignore[reportUnknownVariableType]


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _as_asked(body: Mapping[str, Any], passed: Passed) -> dict[str, Any]:
    """Return an answer, or a chunk of one, without what the request did not ask for."""
    asked = passed.body
    kept = dict(body)
    if not asked.get("return_token_ids"):
        kept.pop("prompt_token_ids", None)
    choices: list[dict[str, Any]] = []
    for choice in body.get("choices") or ():
        own = dict(choice)
        if not asked.get("return_token_ids"):
            own.pop("token_ids", None)
            own.pop("prompt_token_ids", None)
        if asked.get("logprobs") in (None, False):
            own["logprobs"] = None
        choices.append(own)
    return {**kept, "choices": choices}
