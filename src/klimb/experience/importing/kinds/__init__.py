"""One file a kind of rows: its `IMPORTER`, named as the file is."""

from pkgutil import iter_modules

NAMES = tuple(module.name.replace("_", "-") for module in iter_modules(__path__))
"""Of the kinds, by their files; none of them is loaded for that."""
