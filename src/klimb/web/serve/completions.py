"""The routes of OpenAI's API: chat completions, completions, models."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from klimb.experience.importing.users import user_hash, user_salt
from klimb.policies.policy import find_foreign
from klimb.policies.tokenizer import PromptError
from klimb.web.serve.client_headers import message_id_of, with_headers
from klimb.web.serve.drawing import DrawFailed
from klimb.web.serve.exchange import Ask, Exchange, Prompt
from klimb.web.serve.history import Histories
from klimb.web.serve.meters import Meters
from klimb.web.serve.openai_errors import RequestRefused, error_body
from klimb.web.serve.payloads import Wanted, Writer, json_response
from klimb.web.serve.policies import LoadedPolicy, Policies
from klimb.web.serve.recording import Recorder
from klimb.web.serve.schemas import (
    ChatRequest,
    CompletionRequest,
    SamplingRequest,
    check_chat,
    check_counts,
    check_others,
    check_text,
    messages_of,
    prompts_of,
    sampling_of,
    tools_offered,
)
from klimb.web.serve.settings import ServeSettings

logger = logging.getLogger(__name__)


T = TypeVar("T")


CONVERSATION = "conversation"
"""Key of a request's metadata that names its conversation."""


CLIENT_GONE = 499
"""Status of a request whose client went away; nobody reads it but the counts."""


@dataclass(kw_only=True)
class Completions:
    """Answers requests with the policies of a deployment.

    Attributes:
        policies: draw.
        recorder: stores.
        settings: what may be asked for.
        meters: count.
        histories: of conversations.
    """

    policies: Policies
    recorder: Recorder
    settings: ServeSettings
    meters: Meters
    histories: Histories = field(init=False)

    def __post_init__(self) -> None:
        self.histories = Histories(self.settings.max_conversations)
        self._salt = user_salt(self.recorder.folder)

    def routes(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        router.post("/v1/chat/completions")(self.chat)
        router.post("/v1/completions")(self.complete)
        router.get("/v1/models")(self.models)
        router.get("/v1/models/{model:path}")(self.model)
        return router

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        body = with_headers(body, request.headers)
        check_chat(body, self.settings)
        check_counts(body, self.settings)
        check_text(body)
        wanted = Wanted(
            log_probs=bool(body.logprobs),
            token_ids=bool(body.return_token_ids),
            sampling_mask=bool(body.return_sampling_mask),
        )
        messages, user = messages_of(body), self._user(body)
        earlier = self.histories.find(messages, user=user)
        episode = conversation_of(body) or (earlier[1].episode if earlier else f"conv-{secrets.token_hex(12)}")
        with ExitStack() as stack:
            loaded = stack.enter_context(self.policies.lease(episode, body.model))
            tools = tools_offered(body)
            call_format = loaded.call_format() if tools else None
            try:
                ids = await asyncio.to_thread(loaded.prompt_ids, messages, tools, earlier)
            except (PromptError, ValueError) as error:
                raise RequestRefused(str(error), param="messages") from error
            ask = Ask(
                request_id=f"chatcmpl-{secrets.token_hex(12)}",
                prompts=(Prompt(messages=messages, ids=ids),),
                num_choices=body.n or 1,
                sampling=self._sampling(body, loaded, len(ids)),
                seed=body.seed,
                tools=tools,
                call_format=call_format,
                user=user,
                episode=episode,
                num_top=body.top_logprobs or 0,
                message_id=message_id_of(body),
                asked_for=self._asked_for(body, loaded),
            )
            return await self._answer(body, request, ask, loaded, wanted, stack)

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        """Go on with a text, or with token ids."""
        body = with_headers(body, request.headers)
        check_others(body)
        check_counts(body, self.settings)
        check_text(body)
        wanted = Wanted(
            log_probs=body.logprobs is not None,
            token_ids=bool(body.return_token_ids),
            sampling_mask=bool(body.return_sampling_mask),
        )
        episode = conversation_of(body) or f"text-{secrets.token_hex(12)}"
        with ExitStack() as stack:
            loaded = stack.enter_context(self.policies.lease(episode, body.model))
            given, num_choices = prompts_of(body), body.n or 1
            if len(given) * num_choices > self.settings.max_choices:
                raise RequestRefused(
                    f"prompts times n must be at most {self.settings.max_choices}, got {len(given) * num_choices}",
                    param="prompt",
                )
            prompts = await asyncio.to_thread(_text_prompts, loaded, given)
            ask = Ask(
                request_id=f"cmpl-{secrets.token_hex(12)}",
                prompts=prompts,
                num_choices=num_choices,
                sampling=self._sampling(body, loaded, max(len(prompt.ids) for prompt in prompts)),
                seed=body.seed,
                user=self._user(body),
                episode=conversation_of(body),
                num_top=body.logprobs or 0,
                message_id=message_id_of(body),
                asked_for=self._asked_for(body, loaded),
                is_chat=False,
            )
            return await self._answer(body, request, ask, loaded, wanted, stack)

    async def models(self) -> Response:
        """List the models that can be asked for."""
        return json_response({"object": "list", "data": self._models()})

    async def model(self, model: str) -> Response:
        """Return one of the models."""
        found = [each for each in self._models() if each["id"] == model]
        if not found:
            raise RequestRefused(f"there is no model {model!r} here", status=404, code="model_not_found")
        return json_response(found[0])

    def _models(self) -> list[dict[str, Any]]:
        loaded = self.policies.loaded
        names = {self.policies.name: loaded[0], **{each.served.name: each for each in loaded}}
        return [
            {
                "id": name,
                "object": "model",
                "created": int(each.served.since),
                "owned_by": "klimb",
                "root": each.served.name,
                "policy_version": each.served.policy_version,
                "max_model_len": each.max_positions,
            }
            for name, each in names.items()
        ]

    def _asked_for(self, body: SamplingRequest, loaded: LoadedPolicy) -> str:
        """Return the policy's name where the request named it; empty where chance chose."""
        name = loaded.served.name
        return name if body.model == name != self.policies.name else ""

    def _user(self, body: SamplingRequest) -> str:
        user = body.safety_identifier or body.user or ""
        return user_hash(user, self._salt) if user else ""

    def _sampling(self, body: SamplingRequest, loaded: LoadedPolicy, num_prompt: int) -> Any:
        return sampling_of(
            body,
            self.settings,
            temperature=loaded.policy.temperature,
            num_prompt=num_prompt,
            max_positions=loaded.max_positions,
        )

    async def _answer(
        self, body: SamplingRequest, request: Request, ask: Ask, loaded: LoadedPolicy, wanted: Wanted, stack: ExitStack
    ) -> Response:
        """Draw, and answer at once or as a stream; the policy stays leased as long as that takes."""
        exchange = Exchange(
            ask=ask,
            loaded=loaded,
            recorder=self.recorder,
            histories=self.histories,
            meters=self.meters,
            settings=self.settings,
        )
        writer = Writer(exchange=exchange, wanted=wanted)
        if body.stream:
            begun = await _while_there(request, _begin(exchange.pieces()))
            if begun is None:
                return Response(status_code=CLIENT_GONE)
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = self._events(exchange, writer, begun, stack.pop_all(), with_usage=with_usage)
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        is_whole = await _while_there(request, _exhaust(exchange))
        self._log(exchange)
        return json_response(writer.whole()) if is_whole else Response(status_code=CLIENT_GONE)

    async def _events(
        self,
        exchange: Exchange,
        writer: Writer,
        pieces: AsyncGenerator[Any],
        lease: ExitStack,
        *,
        with_usage: bool,
    ) -> AsyncGenerator[str]:
        with lease:
            try:
                async with aclosing(pieces) as open_pieces:
                    async for piece in open_pieces:
                        for chunk in writer.chunks(piece):
                            yield event(chunk | ({"usage": None} if with_usage else {}))
                if with_usage:
                    yield event(writer.usage_chunk())
                yield "data: [DONE]\n\n"
            except (RequestRefused, DrawFailed) as error:
                yield event(error_body(as_refusal(error)))
            finally:
                self._log(exchange)

    def _log(self, exchange: Exchange) -> None:
        """Write a line for the request; what was said only where somebody asked for it."""
        ask = exchange.ask
        logger.info("%s: %s, %d answers", ask.request_id, exchange.loaded.served.name, len(exchange.answers))
        if self.settings.log_requests:
            for answer in exchange.answers:
                logger.info("%s: %s -> %s", ask.request_id, json.dumps(answer.prompt.messages), answer.text.text)


def as_refusal(error: RequestRefused | DrawFailed) -> RequestRefused:
    """Return what a client is told of an error."""
    if isinstance(error, RequestRefused):
        return error
    logger.error("%s", error, exc_info=error)
    return RequestRefused("the answer could not be drawn", status=500, kind="server_error", code="draw_failed")


def conversation_of(body: SamplingRequest) -> str:
    """Return the conversation's id that the request's metadata names; empty if it names none.

    Raises:
        RequestRefused: it is no short text.
    """
    named = (body.metadata or {}).get(CONVERSATION, "")
    if not isinstance(named, str) or len(named) > 200:
        raise RequestRefused(
            "metadata.conversation must be a text of at most 200 characters", param="metadata.conversation"
        )
    return named


def _text_prompts(loaded: LoadedPolicy, prompts: Sequence[str | list[int]]) -> tuple[Prompt, ...]:
    return tuple(_text_prompt(loaded, prompt) for prompt in prompts)


def _text_prompt(loaded: LoadedPolicy, prompt: str | list[int]) -> Prompt:
    """Return a text or ids as a prompt: the text stands as a user's message beside the ids that count.

    Raises:
        RequestRefused: it is empty, or has ids that are none of the model's.
    """
    ids = loaded.encode(prompt) if isinstance(prompt, str) else tuple(prompt)
    if not ids:
        raise RequestRefused("the prompt is empty: the first token needs one before it", param="prompt")
    place = find_foreign(ids, loaded.policy.num_vocab)
    if place is not None:
        raise RequestRefused(
            f"token id {ids[place]} at place {place} is none of the model's {loaded.policy.num_vocab}", param="prompt"
        )
    text = prompt if isinstance(prompt, str) else loaded.policy.decode(ids)
    return Prompt(messages=({"role": "user", "content": text},), ids=ids)


async def _exhaust(exchange: Exchange) -> bool:
    async with aclosing(exchange.pieces()) as pieces:
        async for _ in pieces:
            pass
    return True


async def _begin(pieces: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Return the pieces once the first is there, so that what is refused at once is no stream."""
    first = await anext(pieces)

    async def all_pieces() -> AsyncGenerator[T]:
        async with aclosing(pieces) as rest:  # pyright: ignore[reportArgumentType]
            yield first
            async for piece in rest:
                yield piece

    return all_pieces()


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work gives; None, with the work cancelled, if the client goes away before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event(content: Mapping[str, Any]) -> str:
    """Return an event of a stream."""
    return f"data: {json.dumps(content, allow_nan=False)}\n\n"
