"""A server of the page with a policy that says what it is told to, and feedback that is written as it comes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from klimb.experience.answer_index import AnswerIndex
from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.experience.store import Store
from klimb.training.deployment import Deployment, ServedPolicy
from klimb.web.serve.page import page_routes

FIRST = ServedPolicy(name="policy-0001", model="x", policy_version=0, since=1_790_000_000.0)


def hashed(rater: str) -> str:
    return f"hash of {rater}"


def answer(sample_id: str, *, question: str = "why?", response: str = "because", **values: Any) -> Sample:
    return Sample(
        **{
            "sample_id": sample_id,
            "group_id": sample_id,
            "prompt": ({"role": "user", "content": question},),
            "prompt_ids": (),
            "response": response,
            "response_ids": (),
            "finish_reason": "stop",
            "model": FIRST.name,
            "created_at": 1_790_000_000.0,
        }
        | values
    )


def echo(messages: Sequence[dict[str, str]], index: int) -> str:
    return f"answer {index} to {messages[-1]['content']}"


@dataclass
class PeopleApp:
    """The app, with what tests look at and change.

    Attributes:
        folder: of the store.
        say: the answer to messages, of each choice.
        deployment: who answers.
        key: that is asked for; empty for none.
        pause: seconds between two words of an answer.
        requests: bodies of what was asked for.
        is_full: whether feedback is refused.
    """

    folder: Path
    say: Callable[[Sequence[dict[str, str]], int], str] = echo
    deployment: Deployment = field(default_factory=lambda: Deployment(current=FIRST))
    key: str = ""
    pause: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    is_full: bool = False

    @property
    def store(self) -> Store:
        return Store(self.folder)

    def build(self) -> FastAPI:
        app = FastAPI()
        routes = page_routes(
            AnswerIndex(self.folder), deployment=lambda: self.deployment, hash_user=hashed, model="klimb"
        )
        app.include_router(routes)
        app.post("/v1/chat/completions")(self.complete)
        app.post("/v1/feedback")(self.take)
        return app

    def check_key(self, request: Request) -> None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            raise HTTPException(401, "no key")

    async def complete(self, request: Request) -> StreamingResponse:
        self.check_key(request)
        asked = await request.json()
        self.requests.append(asked)
        return StreamingResponse(self.stream(asked), media_type="text/event-stream")

    async def stream(self, asked: dict[str, Any]) -> AsyncIterator[str]:
        name, number = f"chatcmpl-{len(self.requests)}-{time.time_ns()}", asked.get("n", 1)
        texts = [self.say(asked["messages"], index) for index in range(number)]
        chunk = {"id": name, "object": "chat.completion.chunk", "model": self.deployment.current.name}
        for place in range(max(len(text.split(" ")) for text in texts)):
            for index, text in enumerate(texts):
                words = text.split(" ")
                if place < len(words):
                    delta = {"content": words[place] + (" " if place < len(words) - 1 else "")}
                    yield event({**chunk, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
            if self.pause:
                await asyncio.sleep(self.pause)
        for index, text in enumerate(texts):
            sample_id = name if number == 1 else f"{name}-{index}"
            messages = tuple(asked["messages"])
            stored = answer(sample_id, group_id=name, prompt=messages, response=text, created_at=time.time())
            await asyncio.to_thread(self.store.append, [stored])
            yield event({**chunk, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
        yield "data: [DONE]\n\n"

    async def take(self, request: Request) -> JSONResponse:
        self.check_key(request)
        if self.is_full:
            raise HTTPException(503, "the disk is full")
        said = await request.json()
        row = Feedback(
            feedback_id=f"f{time.time_ns()}",
            sample_id=said["completion_id"],
            value=said.get("score"),
            comment=said.get("comment", ""),
            correction=said.get("correction", ""),
            over=said.get("over", ""),
            user=hashed(said["rater"]) if said.get("rater") else "",
            created_at=time.time(),
        )
        await asyncio.to_thread(self.store.append_feedback, [row])
        return JSONResponse({"feedback_id": row.feedback_id})

    def said(self) -> list[Feedback]:
        table = self.store.query("select * from feedback order by created_at").to_pylist()
        return [Feedback(**{key: row[key] for key in Feedback.__dataclass_fields__}) for row in table]


def event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
