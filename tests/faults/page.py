"""The tables of docs/reliability.md: `python -m tests.faults.page docs/reliability.md` makes the promises anew."""

import sys
from pathlib import Path

from benchmarks.page import fill_page, table_of
from tests.faults.promises import PROMISES, Promise

IN_WORDS = {
    "survived": "the same run",
    "refused": "refused",
    "told": "goes on, and says what is missing",
    "unseen": "goes on, unnoticed",
}


def promises_table() -> str:
    """Return one row for each kind of fault."""
    return table_of(
        ("fault", "what is promised", "done again, at most", "comes of it", "in words such as"),
        [_row(kind, promise) for kind, promise in PROMISES.items()],
    )


def _row(kind: str, promise: Promise) -> tuple[str, ...]:
    outcomes = ", or ".join(words for verdict, words in IN_WORDS.items() if verdict in promise.verdicts)
    words = f"`{promise.words}`".replace("|", "\\|") if promise.words else ""
    return kind, promise.promise, promise.loses, outcomes, words


if __name__ == "__main__":
    fill_page(Path(sys.argv[1]), "promises", promises_table())
