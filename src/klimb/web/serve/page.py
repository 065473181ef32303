"""The page for people: to chat with the policy, and to say what they think of its answers.

The page is one document with scripts and a style sheet of its own; what it shows comes as JSON from here, and what
people say goes to `/v1/feedback`. Nothing is loaded from another machine.
"""

import json
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Header, HTTPException, Query, Response

from klimb.experience.answer_index import AnswerIndex, AnswerText, JudgedAnswers, read_texts
from klimb.training.deployment import Deployment, ServedPolicy
from klimb.ui.pages.frame import render
from klimb.web.serve.people_counts import people_counts

MOST_IN_PAGE = 50
"""Answers of the queue that are sent at once."""


STATIC = {
    "style.css": ("style.css", "text/css"),
    "chat.css": ("chat/chat.css", "text/css"),
    "answer.js": ("chat/answer.js", "text/javascript"),
    "chat.js": ("chat/chat.js", "text/javascript"),
    "conversation.js": ("chat/conversation.js", "text/javascript"),
    "counts.js": ("chat/counts.js", "text/javascript"),
    "queue.js": ("chat/queue.js", "text/javascript"),
    "server.js": ("chat/server.js", "text/javascript"),
    "text.js": ("chat/text.js", "text/javascript"),
}
"""Files of the page: where each is in `klimb.ui.pages`, and its type."""


CANCELLED = "cancelled"
"""In the metadata of an answer that somebody stopped."""


PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Only the page's own files run, and no text can become markup: without a trusted type `innerHTML` is an error."""


def page_routes(
    index: AnswerIndex,
    *,
    deployment: Callable[[], Deployment],
    hash_user: Callable[[str], str],
    model: str,
    title: str = "klimb",
) -> APIRouter:
    """Return the routes of the page and of what it shows; they read only.

    Args:
        index: over the store that completions and feedback are written to.
        deployment: returns who answers now.
        hash_user: makes of a rater's name what the store has of it.
        model: what the page asks `/v1/chat/completions` for.
        title: of the page.
    """
    routes = APIRouter()
    people = People(index, deployment, hash_user)
    html = render("chat.html", title=title, model=model).encode()

    def page() -> Response:
        return _answer(html, "text/html; charset=utf-8")

    routes.get("/")(page)
    routes.get("/static/{name}")(static)
    routes.get("/people/policy")(people.policy)
    routes.get("/people/queue")(people.queue)
    routes.get("/people/counts")(people.counts)
    return routes


def static(name: str) -> Response:
    """Return a style sheet or script of the page."""
    if name not in STATIC:
        raise HTTPException(404, "no such file")
    path, kind = STATIC[name]
    return _answer(files("klimb.ui.pages").joinpath(path).read_bytes(), f"{kind}; charset=utf-8")


class People:
    """What the page shows. Its methods read files, so they run in a worker's thread and not in the event loop.

    Args:
        index: over the store.
        deployment: returns who answers now.
        hash_user: makes of a rater's name what the store has of it.
    """

    def __init__(
        self, index: AnswerIndex, deployment: Callable[[], Deployment], hash_user: Callable[[str], str]
    ) -> None:
        self._index = index
        self._deployment = deployment
        self._hash_user = hash_user
        self._counted: tuple[JudgedAnswers, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def policy(self) -> Response:
        """Return which policy answers now, and which is tried out."""
        now = self._deployment()
        candidate = None if now.candidate is None else {**_told(now.candidate), "fraction": now.candidate_fraction}
        return _json({"policy": _told(now.current), "candidate": candidate})

    def queue(
        self,
        before: Annotated[str, Query(max_length=300)] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_IN_PAGE)] = 20,
        second: bool = False,
        rater: Annotated[str, Header(alias="X-Klimb-Rater", max_length=400)] = "",
    ) -> Response:
        """Return answers that wait for a rating, the newest first.

        Args:
            before: the last answer that was seen.
            limit: how many at most.
            second: those that others rated and this rater did not.
            rater: whose ratings count as theirs; percent-encoded, since headers are ASCII.
        """
        user = self._hash_user(unquote(rater)) if rater else ""
        judged = self._look()
        found = judged.waiting(before=before, limit=limit + 1, user=user if second else None)
        try:
            texts = read_texts(found[:limit])
        except FileNotFoundError:  # files were put together between the two looks
            again = self._look().answers
            texts = read_texts(again[answer.sample_id] for answer in found[:limit] if answer.sample_id in again)
        return _json({"answers": [_shown(text) for text in texts], "is_last": len(found) <= limit})

    def counts(self) -> Response:
        """Return how many answers there are, how many of them rated, and how far raters agree."""
        judged = self._look()
        with self._lock:
            if self._counted is None or self._counted[0] is not judged:
                self._counted = judged, people_counts(judged)
            return _json(self._counted[1])

    def _look(self) -> JudgedAnswers:
        try:
            return self._index.look()
        except ValueError as error:
            raise HTTPException(503, f"the store cannot be read: {error}") from error


def _told(policy: ServedPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "version": policy.policy_version,
        "since": policy.since,
        "reason": policy.reason,
    }


def _shown(text: AnswerText) -> dict[str, Any]:
    return {
        "id": text.answer.sample_id,
        "policy": text.answer.model,
        "version": text.answer.policy_version,
        "created_at": text.answer.created_at,
        "prompt": [{"role": message["role"], "content": message["content"]} for message in text.prompt],
        "response": text.response,
        "is_cut": text.finish_reason == "length",
        "is_stopped": CANCELLED in text.metadata,
    }


def _json(content: Any) -> Response:
    dumped = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return _answer(dumped, "application/json", policy="default-src 'none'")


def _answer(content: bytes, kind: str, *, policy: str = PAGE_POLICY) -> Response:
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=kind, headers=headers)
