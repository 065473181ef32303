"""Lazy doors: what a package exports is loaded when it is asked for, so that settings and names need no torch.

A package's `__init__.py` lists its exports as imports under `if TYPE_CHECKING:`, where editors and type checkers see
them, and ends with `open_lazily(__name__)`.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package that imports each of its exports from where it is declared, at the first use."""

    def __getattr__(self, name: str) -> Any:
        """Return the export of this name, and keep it."""
        exports: dict[str, str] = self.__dict__["_exports"]
        if name not in exports:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(exports[name]), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a submodule does not hide the export of its name."""
        if not (isinstance(value, ModuleType) and name in self.__dict__["_exports"]):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """Return what there is, loaded or not."""
        return sorted({*super().__dir__(), *self.__dict__["_exports"]})


def open_lazily(name: str) -> None:
    """Make the package of this name load what it lists under `if TYPE_CHECKING:` when it is asked for."""
    package = sys.modules[name]
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    package.__dict__["_exports"] = {
        alias.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
    package.__class__ = LazyPackage
