"""What programs between people and this server say of a request in its headers: whose it is, and of which conversation.

Some cannot add to a request's body and can add headers, Open WebUI among them. What the body says goes before.
"""

from collections.abc import Mapping
from typing import TypeVar

from klimb.experience.importing.served_answers import MESSAGE_ID
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.schemas import SamplingRequest

Body = TypeVar("Body", bound=SamplingRequest)


CONVERSATION, MESSAGE, USER = "x-klimb-conversation", "x-klimb-message", "x-klimb-user"
"""Of a request: the id of its conversation; what the program calls the answer, by which `klimb import` finds it again;
and who asks, which is hashed."""


LONGEST = 200


def with_headers(body: Body, headers: Mapping[str, str]) -> Body:
    """Return the request with what its headers say beside it, where it says nothing itself.

    Raises:
        RequestRefused: a header is no short text.
    """
    said = {name: _text_of(headers, name) for name in (CONVERSATION, MESSAGE, USER)}
    named = {"conversation": said[CONVERSATION], MESSAGE_ID: said[MESSAGE]}
    metadata = {name: text for name, text in named.items() if text} | (body.metadata or {})
    user = body.user or (None if body.safety_identifier else said[USER] or None)
    return body.model_copy(update={"metadata": metadata or None, "user": user})


def message_id_of(body: SamplingRequest) -> str:
    """Return what the program in front calls the answer; empty where it does not say.

    Raises:
        RequestRefused: it is no short text.
    """
    named = (body.metadata or {}).get(MESSAGE_ID, "")
    if not isinstance(named, str) or len(named) > LONGEST:
        raise RequestRefused(
            f"metadata.{MESSAGE_ID} must be a text of at most {LONGEST} characters", param=f"metadata.{MESSAGE_ID}"
        )
    return named


def _text_of(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "").strip()
    if len(value) > LONGEST or not value.isprintable():
        raise RequestRefused(f"the header {name} must be a text of at most {LONGEST} characters", param=name)
    return value
