"""Files of any kind to rows with their place, in a stream: one reader for logs, data sets and tasks."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.experience.reading.files import read_records
    from klimb.experience.reading.records import Columns, CutOff, ReadLimits, Record, Reject, Row, RowError

__all__ = ["Columns", "CutOff", "ReadLimits", "Record", "Reject", "Row", "RowError", "read_records"]

open_lazily(__name__)
