"""A service that draws what it is told to, and an application around it."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from klimb.policies import Policy
from klimb.samplers.completion import Completion
from klimb.samplers.service.requests import BusyError, ClosedError, DrawnToken, DrawRequest, OnEnd, OnToken
from klimb.training.deployment import Deployment, ServedPolicy
from klimb.web.serve.app import make_serve_app
from klimb.web.serve.policies import LoadedPolicy, Policies
from klimb.web.serve.recording import Recorder
from klimb.web.serve.settings import ServeSettings

Script = Callable[[DrawRequest], Sequence[int]]


class FakeTicket:
    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.lock = threading.Lock()

    def cancel(self) -> None:
        with self.lock:
            self.cancelled.set()


class FakeService:
    """Draws the script's ids for each request in a thread of its own; log_mu of token t is -(t + 1) / 8."""

    def __init__(self, script: Script, *, end_id: int, seconds: float = 0.0, max_positions: int | None = 256) -> None:
        self.script, self.end_id, self.seconds, self.max_positions = script, end_id, seconds, max_positions
        self.requests: list[DrawRequest] = []
        self.tickets: list[FakeTicket] = []
        self.num_running = 0
        self.num_waiting = 0
        self.is_busy, self.is_closed = False, False
        self.failure: Exception | None = None

    def submit(self, request: DrawRequest, *, on_token: OnToken, on_end: OnEnd) -> FakeTicket:
        if self.is_closed:
            raise ClosedError("the service is closed")
        if self.is_busy:
            raise BusyError("too many requests wait")
        self.requests.append(request)
        ticket = FakeTicket()
        self.tickets.append(ticket)
        threading.Thread(target=self._draw, args=(request, ticket, on_token, on_end), daemon=True).start()
        return ticket

    def close(self, *, finish: bool = True) -> None:
        self.is_closed = True

    def _draw(self, request: DrawRequest, ticket: FakeTicket, on_token: OnToken, on_end: OnEnd) -> None:
        ids = list(self.script(request))[: request.settings.max_new_tokens]
        drawn: list[DrawnToken] = []
        for place, token_id in enumerate(ids):
            if self.seconds:
                time.sleep(self.seconds)
            token = DrawnToken(
                token_id=token_id,
                log_mu=-(place + 1) / 8,
                log_model=-(place + 1) / 4,
                top=tuple((each, -0.5) for each in range(request.num_top_log_probs)),
                support=tuple(sorted({token_id, 5})) if request.settings.cuts and request.keep_support else None,
            )
            with ticket.lock:
                if ticket.cancelled.is_set():
                    return
                drawn.append(token)
                on_token(token)
        with ticket.lock:
            if not ticket.cancelled.is_set():
                on_end(self.failure or self._completion(drawn))

    def _completion(self, drawn: Sequence[DrawnToken]) -> Completion:
        return Completion(
            response_ids=tuple(token.token_id for token in drawn),
            log_mu=tuple(token.log_mu for token in drawn),
            log_model=tuple(token.log_model for token in drawn),
            finish_reason="stop" if drawn and drawn[-1].token_id == self.end_id else "length",
        )


def by_seed(policy: Policy) -> Script:
    """Return a script that draws up to 12 letters by the request's seed."""

    def script(request: DrawRequest) -> list[int]:
        chance = random.Random(request.seed)
        return [*(chance.randrange(10, 60) for _ in range(chance.randrange(1, 12))), policy.end_ids[0]]

    return script


def saying(policy: Policy, *texts: str) -> Script:
    """Return a script that says the texts one after another, and the last one again and again."""
    left = list(texts)
    lock = threading.Lock()

    def script(request: DrawRequest) -> list[int]:
        with lock:
            text = left.pop(0) if len(left) > 1 else left[0]
        return [*policy.tokenizer(text, add_special_tokens=False)["input_ids"], policy.end_ids[0]]

    return script


def fake_policies(
    policy: Policy, script: Script, *, name: str = "policy-0001", alias: str = "klimb", **named: Any
) -> tuple[Policies, FakeService]:
    service = FakeService(script, end_id=policy.end_ids[0], **named)

    def load(served: ServedPolicy) -> LoadedPolicy:
        return LoadedPolicy(served=served, policy=policy, engine=service)

    deployment = Deployment(current=ServedPolicy(name=name, model="tiny", policy_version=3))
    return Policies(load, deployment, name=alias), service


class Served:
    """An application over a fake service, with its store."""

    def __init__(self, policy: Policy, script: Script, folder: Path, *, settings: ServeSettings, **named: Any) -> None:
        self.policies, self.service = fake_policies(policy, script, alias=settings.name, **named)
        self.recorder = Recorder(folder, commit_seconds=0.005)
        self.settings = settings
        self.app = make_serve_app(self.policies, self.recorder, settings)

    def close(self) -> None:
        self.recorder.close()
        self.policies.close()
