"""The routes of feedback: `POST /v1/feedback`, `GET /v1/feedback/{completion_id}`, and OpenTelemetry's `/v1/logs`."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from klimb.experience.feedback import Feedback
from klimb.web.serve.bodies import parse_body
from klimb.web.serve.feedback_intake import FeedbackIntake, Taken
from klimb.web.serve.feedback_rows import evaluation_row, is_evaluation, is_event, records_in
from klimb.web.serve.group_commit import Closed
from klimb.web.serve.openai_errors import RequestRefused, error_body

RETRY_SECONDS = 5.0


MOST_ROWS = 1_000
"""Of feedback in one request."""


def feedback_routes(intake: FeedbackIntake) -> APIRouter:
    """Return the routes over an intake. What is answered with 200 is on the disk."""
    router = APIRouter()

    @router.post("/v1/feedback")
    async def post_feedback(request: Request) -> JSONResponse:
        try:
            return await _post(intake, parse_body(await request.body()))
        except RequestRefused as refused:
            return JSONResponse(error_body(refused), status_code=refused.status)

    @router.get("/v1/feedback/{completion_id:path}")
    async def get_feedback(completion_id: str) -> JSONResponse:
        try:
            rows = await asyncio.to_thread(intake.history, completion_id)
        except RequestRefused as refused:
            return JSONResponse(error_body(refused), status_code=refused.status)
        return JSONResponse({"object": "list", "data": _history(rows, intake.quarantined())})

    @router.post("/v1/logs")
    async def post_logs(request: Request) -> JSONResponse:
        try:
            return JSONResponse(await _export(intake, parse_body(await request.body())))
        except RequestRefused as refused:
            return JSONResponse(error_body(refused), status_code=refused.status)

    return router


async def _post(intake: FeedbackIntake, parsed: object) -> JSONResponse:
    if isinstance(parsed, list):
        rows = cast(list[object], parsed)
        if not 0 < len(rows) <= MOST_ROWS:
            raise RequestRefused(f"a list of feedback has 1 to {MOST_ROWS:,} rows, got {len(rows):,}", code="bad_list")
        taken = await _take(intake, rows)
        return JSONResponse({"object": "list", "data": [_taken(each) for each in taken]})
    (taken,) = await _take(intake, [parsed])
    return JSONResponse(_taken(taken))


async def _take(intake: FeedbackIntake, rows: list[object]) -> list[Taken]:
    """Return what came of the rows, once they are on the disk.

    Raises:
        RequestRefused: one of them cannot be taken, or none could be written.
    """
    try:
        future = await asyncio.to_thread(intake.submit, rows)
        return await asyncio.wrap_future(future)
    except (OSError, Closed) as error:  # why is in the log, with the names of files
        raise RequestRefused(
            "the feedback could not be written, and nothing of it was kept: send it again later",
            status=503,
            kind="server_error",
            code="not_recorded",
            retry_after=RETRY_SECONDS,
        ) from error


async def _export(intake: FeedbackIntake, parsed: object) -> dict[str, Any]:
    """Take the evaluations of an OTLP export one by one, and say how many records were none or could not be taken.

    Source: OTLP 1.8, "Partial success".
    """
    if not isinstance(parsed, dict) or not is_event(export := cast(dict[str, object], parsed)):
        raise RequestRefused("expected OTLP/JSON with resourceLogs", code="invalid_export")
    records = records_in(export)
    if len(records) > MOST_ROWS:
        raise RequestRefused(f"an export has at most {MOST_ROWS:,} records here, got {len(records):,}", code="bad_list")
    answers = await asyncio.gather(*(_take_record(intake, record) for record in records))
    reasons = [answer for answer in answers if answer]
    if not reasons:
        return {}
    said = "; ".join(dict.fromkeys(reasons))[:1_000]
    return {"partialSuccess": {"rejectedLogRecords": str(len(reasons)), "errorMessage": said}}


async def _take_record(intake: FeedbackIntake, record: Mapping[str, object]) -> str:
    """Return why the record was not taken; empty where it was."""
    if not is_evaluation(record):
        return "only gen_ai.evaluation.result is kept here"
    try:
        await _take(intake, [evaluation_row(record)])
    except RequestRefused as refused:
        return str(refused)
    return ""


def _taken(taken: Taken) -> dict[str, Any]:
    return {**_shown(taken.feedback), "status": taken.status}


def _shown(row: Feedback) -> dict[str, Any]:
    """Return a row as programs see it: without the form in which it came, and with the rater's hash alone."""
    return {
        "object": "feedback",
        "feedback_id": row.feedback_id,
        "completion_id": row.sample_id,
        "score": row.value,
        "name": row.name,
        "comment": row.comment,
        "correction": row.correction,
        "over": row.over or None,
        "rater": row.user,
        "created_at": row.created_at,
    }


def _history(rows: list[Feedback], quarantined: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows, each with whether it counts: the latest rating of its rater under its name does."""
    rated = [row for row in rows if row.value is not None and row.user not in quarantined]
    counting = {(row.sample_id, row.user, row.name): row.feedback_id for row in rated}
    ids = set(counting.values())
    return [{**_shown(row), "counts": row.feedback_id in ids} for row in rows]
