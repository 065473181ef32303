"""Where the programs of a run call its policy: OpenAI's chat completions on this machine alone, a key for each sample.

Requests are read, and answers written, as the server of policies does it. Who answers is whoever opened the key: the
rollout, which draws a turn. Settings of the draws are the run's, whatever a request asks for.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from klimb.experience.samples import SamplingSettings
from klimb.policies import Policy
from klimb.samplers.service.requests import DrawnToken
from klimb.training.agents.calls import Call, CallRefused, Said
from klimb.web.serve.app import answer_errors
from klimb.web.serve.completions import event
from klimb.web.serve.exchange import Answer, Ask, Piece, Prompt
from klimb.web.serve.growing_text import GrowingText
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.payloads import Wanted, Writer, json_response
from klimb.web.serve.policies import spellings_of
from klimb.web.serve.schemas import NEUTRAL, ChatRequest, check_chat, check_text, messages_of, tools_offered
from klimb.web.serve.settings import ServeSettings

HOST = "127.0.0.1"


START_SECONDS = 30.0
"""The server listens in so long, or something is wrong."""


OF_THE_RUN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
)
"""Settings of a request that the run decides instead."""


FURTHER = ("frequency_penalty", "presence_penalty", "logit_bias", "ignore_eos", "stop_token_ids", "reasoning_effort")
"""Those that the schema of requests does not know by name."""


Take = Callable[[Call], None]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A turn as one who writes answers reads it: what is asked, and the one answer."""

    ask: Ask
    answers: list[Answer]
    policy: Policy

    @property
    def model(self) -> str:
        """The policy's name."""
        return self.policy.name

    @property
    def fingerprint(self) -> str:
        """The policy's name: it has no version of its own while it is trained."""
        return self.policy.name

    @property
    def spellings(self) -> Mapping[int, bytes]:
        """What each token stands for, by its id."""
        return spellings_of(self.policy)


@dataclass
class AgentEndpoint:
    """An `Endpoint` in a thread of its own; a context manager. At its end nothing listens any more.

    Attributes:
        policy: whose turns are the answers.
    """

    policy: Policy
    _takes: dict[str, Take] = field(default_factory=dict[str, Take])
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None
    _port: int = 0

    @property
    def base_url(self) -> str:
        """Address that an OpenAI client takes, on this machine."""
        return f"http://{HOST}:{self._port}/v1"

    def __enter__(self) -> AgentEndpoint:
        """Listen on a free port of this machine."""
        listener = socket.create_server((HOST, 0), backlog=1024)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            _make_app(self),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="klimb-agents", daemon=True
        )
        self._thread.start()
        until = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise RuntimeError(f"the endpoint of environment.command does not listen on {HOST} port {self._port}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answer nobody any more."""
        self._takes.clear()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._server = self._thread = None

    def open(self, take: Take) -> str:
        """Return a new key; `take` is called, in the server's thread, with each call that is made with it."""
        key = f"sk-klimb-{secrets.token_urlsafe(32)}"
        self._takes[_digest(key)] = take
        return key

    def close(self, key: str) -> None:
        """Let the key be worth nothing from now on."""
        self._takes.pop(_digest(key), None)

    def taker(self, request: Request) -> Take:
        """Return who answers a request.

        Raises:
            RequestRefused: it has no key, or one of no sample that is being drawn.
        """
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        take = self._takes.get(_digest(key.strip())) if kind.lower() == "bearer" else None
        if take is None:
            raise RequestRefused(
                "this key is of no sample that is being drawn: a program calls with its own OPENAI_API_KEY, and only "
                "while it runs",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
            )
        return take


def _digest(key: str) -> str:
    """Return what keys are compared by: how long that takes says nothing of them."""
    return hashlib.sha256(key.encode()).hexdigest()


def _make_app(endpoint: AgentEndpoint) -> FastAPI:
    app = FastAPI(title="klimb agents", docs_url=None, redoc_url=None, openapi_url=None)
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(endpoint, body, endpoint.taker(request))

    @router.get("/v1/models")
    async def models(request: Request) -> Response:
        endpoint.taker(request)
        model = {"id": endpoint.policy.name, "object": "model", "owned_by": "klimb"}
        return json_response({"object": "list", "data": [model]})

    app.include_router(router)
    answer_errors(app)
    return app


async def _answer(endpoint: AgentEndpoint, body: ChatRequest, take: Take) -> Response:
    call = read_call(body)
    take(call)
    try:
        said = await asyncio.wrap_future(call.answer)
    except CallRefused as refused:
        raise RequestRefused(str(refused), code=refused.code, param="messages") from refused
    writer = Writer(
        exchange=_drawn(endpoint, call, said),
        wanted=Wanted(
            log_probs=bool(body.logprobs),
            token_ids=bool(body.return_token_ids),
            sampling_mask=bool(body.return_sampling_mask),
        ),
    )
    if not body.stream:
        return json_response(writer.whole())
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    return StreamingResponse(_events(writer, with_usage=with_usage), media_type="text/event-stream")


def read_call(body: ChatRequest) -> Call:
    """Return a request as a call.

    Raises:
        RequestRefused: it asks for something that cannot be had: several answers, alternatives of tokens, a form.
    """
    overruled = tuple(name for name in (*OF_THE_RUN, *FURTHER) if _asks(body, name))
    extra = body.model_extra or {}
    for name in FURTHER:
        extra.pop(name, None)
    check_chat(body, ServeSettings())
    check_text(body)
    for name, value, most in (("n", body.n, 1), ("top_logprobs", body.top_logprobs, 0)):
        if value is not None and value > most:
            raise RequestRefused(
                f"{name} must be at most {most} where the answers are rollouts, got {value}",
                param=name,
                code="unsupported_parameter",
            )
    return Call(messages=messages_of(body), tools=tools_offered(body), overruled=overruled)


def _asks(body: ChatRequest, name: str) -> bool:
    """Tell whether the request asks for something by this name."""
    value = getattr(body, name) if name in OF_THE_RUN else (body.model_extra or {}).get(name)
    return value not in (None, [], ()) and value not in NEUTRAL.get(name, ())


def _drawn(endpoint: AgentEndpoint, call: Call, said: Said) -> Drawn:
    """Return the turn with its request, as answers are written of them."""
    name, completion = f"chatcmpl-{secrets.token_hex(12)}", said.completion
    prompt = Prompt(messages=call.messages, ids=said.prompt_ids)
    supports = completion.support or (None,) * len(completion.response_ids)
    columns = zip(completion.response_ids, completion.log_mu, completion.log_model, supports, strict=True)
    answer = Answer(
        number=0,
        prompt=prompt,
        sample_id=name,
        group_id=name,
        text=GrowingText(lambda _: "", ()),
        tokens=[
            DrawnToken(token_id=token_id, log_mu=log_mu, log_model=log_model, support=support)
            for token_id, log_mu, log_model, support in columns
        ],
        finish_reason=completion.finish_reason,
        content=said.content,
        parsed=said.parsed,
        completion=completion,
    )
    # How it was drawn is the run's affair: nothing of it stands in an answer.
    ask = Ask(request_id=name, prompts=(prompt,), num_choices=1, sampling=SamplingSettings(), tools=call.tools)
    return Drawn(ask=ask, answers=[answer], policy=endpoint.policy)


def _events(writer: Writer, *, with_usage: bool) -> Generator[str]:
    """Yield the whole turn as a stream."""
    (answer,) = writer.exchange.answers
    piece = Piece(answer=answer, text=answer.content, tokens=tuple(answer.tokens), is_end=True)
    for chunk in writer.chunks(piece):
        yield event(chunk | ({"usage": None} if with_usage else {}))
    if with_usage:
        yield event(writer.usage_chunk())
    yield "data: [DONE]\n\n"
