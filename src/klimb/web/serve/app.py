"""The application: completions, models, health and metrics, and what others put beside them."""

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter, FastAPI

from klimb.web.serve.recording import Recorder
from klimb.web.serve.settings import ServeSettings


class Answerer(Protocol):
    """What answers: policies of our own, or a server that we stand in front of."""


def make_serve_app(
    answerer: Answerer, recorder: Recorder, settings: ServeSettings, *, routers: Sequence[APIRouter] = ()
) -> FastAPI:
    """Return the application, without keys and limits: `Secured` goes around it.

    Args:
        answerer: draws the answers.
        recorder: stores them.
        settings: what requests may ask for.
        routers: further routes, such as those of feedback and of the page.
    """
    app = FastAPI(title="klimb", docs_url=None, redoc_url=None)
    for router in routers:
        app.include_router(router)
    return app
