"""The application: completions, models, health and metrics, and what others put beside them."""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from klimb.web.serve.completions import Completions, as_refusal
from klimb.web.serve.drawing import DrawFailed
from klimb.web.serve.meters import CONTENT_TYPE, Meters
from klimb.web.serve.openai_errors import RequestRefused, error_body
from klimb.web.serve.payloads import json_response
from klimb.web.serve.policies import Policies
from klimb.web.serve.recording import Recorder
from klimb.web.serve.settings import ServeSettings

logger = logging.getLogger(__name__)


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


FEEDBACK_ROUTE = "/v1/feedback"


class Answerer(Protocol):
    """What answers: policies of our own, or a server that we stand in front of."""

    def routes(self) -> APIRouter:
        """Return the routes of completions and models."""
        ...

    def health(self) -> Mapping[str, Any]:
        """Return what answers, and under `error` what is wrong with it; an empty text for nothing."""
        ...

    def gauges(self) -> Sequence[tuple[str, Mapping[str, str], float]]:
        """Return what is so at this moment, see `GAUGES`."""
        ...


@dataclass(kw_only=True)
class OwnPolicies:
    """The policies of a deployment behind the routes.

    Attributes:
        policies: which answer.
        completions: the routes.
    """

    policies: Policies
    completions: Completions

    def routes(self) -> APIRouter:
        """Return the routes of completions and models."""
        return self.completions.routes()

    def health(self) -> Mapping[str, Any]:
        """Return who answers."""
        deployment = self.policies.deployment
        candidate = deployment.candidate
        return {
            "policy": deployment.current.name,
            "policy_version": deployment.current.policy_version,
            "candidate": None if candidate is None else candidate.name,
            "candidate_fraction": deployment.candidate_fraction,
            "error": self.policies.error,
        }

    def gauges(self) -> Sequence[tuple[str, Mapping[str, str], float]]:
        """Return how much each policy has to do."""
        found: list[tuple[str, Mapping[str, str], float]] = []
        for each in self.policies.loaded:
            labels = {"policy": each.served.name}
            found.append(("klimb_running", labels, each.engine.num_running))
            found.append(("klimb_waiting", labels, each.engine.num_waiting))
            found.append(("klimb_policy_version", labels, each.served.policy_version))
        return found


def make_serve_app(
    answerer: "Policies | Answerer",
    recorder: Recorder,
    settings: ServeSettings,
    *,
    meters: Meters | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the application, without keys and limits: `Secured` goes around it.

    Args:
        answerer: the policies that answer, or a server that does.
        recorder: stores the answers.
        settings: what requests may ask for.
        meters: counts; others may count there too.
        routers: further routes, such as those of feedback and of the page.
    """
    meters = meters or Meters()
    if isinstance(answerer, Policies):
        completions = Completions(policies=answerer, recorder=recorder, settings=settings, meters=meters)
        answerer = OwnPolicies(policies=answerer, completions=completions)
    app = FastAPI(title="klimb", docs_url=None, redoc_url=None)
    app.include_router(answerer.routes())
    app.include_router(_own_routes(answerer, recorder, settings, meters))
    for router in routers:
        app.include_router(router)
    answer_errors(app)
    app.add_middleware(Counted, meters=meters)
    return app


def _own_routes(answerer: Answerer, recorder: Recorder, settings: ServeSettings, meters: Meters) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        found = dict(answerer.health())
        wrong = [error for error in (found.pop("error", ""), recorder.error) if error]
        body = {"status": "degraded" if wrong else "ok", "name": settings.name, **found, "errors": wrong}
        return json_response(body, 503 if recorder.error and settings.on_store_error == "refuse" else 200)

    @router.get("/metrics")
    async def metrics() -> Response:
        gauges = [*answerer.gauges(), ("klimb_store_is_writable", {}, float(not recorder.error))]
        return Response(meters.write(gauges), headers={"content-type": CONTENT_TYPE})

    return router


def answer_errors(app: FastAPI) -> None:
    """Let every error be one of OpenAI's."""

    @app.exception_handler(RequestRefused)
    @app.exception_handler(DrawFailed)
    async def refused(request: Request, error: RequestRefused | DrawFailed) -> Response:
        return _error(as_refusal(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])
        return _error(RequestRefused(f"{param or 'the body'}: {first['msg']}", param=param))

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "")
        refused = RequestRefused(
            f"{error.detail}: {request.method} {request.url.path}", status=error.status_code, code=code
        )
        return _error(refused, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return _error(RequestRefused("an error of the server; its log says which", status=500, kind="server_error"))


def _error(refused: RequestRefused, headers: Mapping[str, str] | None = None) -> Response:
    after = {} if refused.retry_after is None else {"retry-after": f"{refused.retry_after:g}"}
    return json_response(error_body(refused), refused.status, {**(headers or {}), **after})


@dataclass
class Counted:
    """Counts requests by route and status.

    Attributes:
        app: what answers.
        meters: where they are counted.
    """

    app: App
    meters: Meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it when its answer begins."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A path that is no route is anybody's to invent, and would be a label of its own.
                route = getattr(scope.get("route"), "path", "other")
                self.meters.count("klimb_requests_total", route=route, status=str(message["status"]))
                if route == FEEDBACK_ROUTE and scope["method"] == "POST" and message["status"] == 200:
                    self.meters.count("klimb_feedback_total")
            await send(message)

        await self.app(scope, receive, sending)
