"""A server of the page, of feedback and of keys, with a policy that says what it is told to."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from klimb.experience.answer_index import AnswerIndex
from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.experience.store import Store
from klimb.training.deployment import Deployment, ServedPolicy
from klimb.web.serve.feedback import feedback_routes
from klimb.web.serve.feedback_intake import FeedbackIntake
from klimb.web.serve.keys import Keys
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.page import page_routes
from klimb.web.serve.security import Secured

FIRST = ServedPolicy(name="policy-0001", model="x", policy_version=0, since=1_790_000_000.0)


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
        keys: file of the keys, one of which is asked for; None for none.
        pause: seconds between two words of an answer.
        requests: bodies of what was asked for.
        is_broken: whether feedback is refused.
        name: of the policy that gives answers; empty for the deployment's.
    """

    folder: Path
    say: Callable[[Sequence[dict[str, str]], int], str] = echo
    deployment: Deployment = field(default_factory=lambda: Deployment(current=FIRST))
    keys: Path | None = None
    pause: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    is_broken: bool = False
    name: str = ""

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @cached_property
    def intake(self) -> FeedbackIntake:
        return FeedbackIntake(self.store, find=self.find)

    def build(self) -> Secured:
        app = FastAPI()
        app.include_router(
            page_routes(
                AnswerIndex(self.folder),
                deployment=lambda: self.deployment,
                hash_user=self.intake.hash_rater,
                model="klimb",
            )
        )
        app.include_router(feedback_routes(self.intake))
        app.post("/v1/chat/completions")(self.complete)
        return Secured(app, keys=Keys(self.keys))

    def find(self, sample_id: str) -> Sample | None:
        if self.is_broken:
            raise RequestRefused("the disk is full", status=503)
        return next(iter(self.store.stored_samples([sample_id])), None)

    def hashed(self, rater: str) -> str:
        return self.intake.hash_rater(rater)

    async def complete(self, request: Request) -> StreamingResponse:
        asked = await request.json()
        self.requests.append(asked)
        return StreamingResponse(self.stream(asked), media_type="text/event-stream")

    async def stream(self, asked: dict[str, Any]) -> AsyncIterator[str]:
        name, number = f"chatcmpl-{secrets.token_hex(12)}", asked.get("n", 1)
        texts = [self.say(asked["messages"], index) for index in range(number)]
        chunk = {"id": name, "object": "chat.completion.chunk", "model": self.name or self.deployment.current.name}
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

    def said(self) -> list[Feedback]:
        table = self.store.query("select * from feedback order by created_at").to_pylist()
        return [Feedback(**{key: row[key] for key in Feedback.__dataclass_fields__}) for row in table]


def event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
