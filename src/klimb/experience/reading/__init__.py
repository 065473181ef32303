"""Files of any kind to rows with their place, in a stream: one reader for logs, data sets and tasks."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.experience.reading.records import Columns, CutOff, ReadLimits, Record, Reject, Row, RowError
    from klimb.experience.reading.sources import Source, find_source, read_records

__all__ = [
    "Columns",
    "CutOff",
    "ReadLimits",
    "Record",
    "Reject",
    "Row",
    "RowError",
    "Source",
    "find_source",
    "read_records",
]

open_lazily(__name__)
