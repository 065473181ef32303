"""A policy that answers requests as they come: many at once, each with settings of its own."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.samplers.service.engine import DecodingEngine
    from klimb.samplers.service.request_lanes import ServiceLimits
    from klimb.samplers.service.requests import (
        MOST_TOP_LOG_PROBS,
        BusyError,
        ClosedError,
        DrawnToken,
        DrawRequest,
        DrawService,
        Ticket,
    )

__all__ = [
    "MOST_TOP_LOG_PROBS",
    "BusyError",
    "ClosedError",
    "DecodingEngine",
    "DrawRequest",
    "DrawService",
    "DrawnToken",
    "ServiceLimits",
    "Ticket",
]

open_lazily(__name__)
