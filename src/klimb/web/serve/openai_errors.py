"""Errors as OpenAI's API writes them: clients show `message`, and decide by `type` and `code`."""

from typing import Any


class RequestRefused(ValueError):
    """A request that gets no answer but this.

    Attributes:
        status: of HTTP.
        kind: `type` of the error.
        code: a word that programs compare.
        param: which field of the request it is about; empty for none.
        retry_after: seconds after which the same request may be answered; None for never.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str = "",
        param: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.retry_after = status, kind, code, param, retry_after


def error_body(refused: RequestRefused) -> dict[str, Any]:
    """Return the body of the answer: `{"error": {"message", "type", "param", "code"}}`."""
    error = {
        "message": str(refused),
        "type": refused.kind,
        "param": refused.param or None,
        "code": refused.code or None,
    }
    return {"error": error}
