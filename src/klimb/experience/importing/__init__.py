"""Foreign logs and data sets to samples: one reader a format, one small module a kind of row, one gate for all."""

from klimb.experience.importing.importer import ImportReport, Tally, import_file
from klimb.experience.importing.readers import read_records
from klimb.experience.importing.registry import IMPORTERS, Importer, guess_importer, importer_named
from klimb.experience.importing.rows import CutOff, ReadLimits, Reject, Row, RowError
from klimb.experience.importing.rules import ImportRules

__all__ = [
    "IMPORTERS",
    "CutOff",
    "ImportReport",
    "ImportRules",
    "Importer",
    "ReadLimits",
    "Reject",
    "Row",
    "RowError",
    "Tally",
    "guess_importer",
    "import_file",
    "importer_named",
    "read_records",
]
