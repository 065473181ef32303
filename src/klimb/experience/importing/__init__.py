"""Foreign logs and data sets to samples: one reader a format, one small module a kind of row, one gate for all."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.experience.importing.importer import ImportReport, Tally, import_rows
    from klimb.experience.importing.kind import Importer
    from klimb.experience.importing.parsed_row import ParsedRow
    from klimb.experience.importing.registry import IMPORTERS, guess_importer, importer_named
    from klimb.experience.importing.rules import ImportRules
    from klimb.experience.reading.records import CutOff, ReadLimits, Reject, Row, RowError
    from klimb.experience.reading.sources import read_records

__all__ = [
    "IMPORTERS",
    "CutOff",
    "ImportReport",
    "ImportRules",
    "Importer",
    "ParsedRow",
    "ReadLimits",
    "Reject",
    "Row",
    "RowError",
    "Tally",
    "guess_importer",
    "import_rows",
    "importer_named",
    "read_records",
]

open_lazily(__name__)
