"""A case: what a state is asked to do, and what is kept of the answer."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.equality.comparing import Outcome
from benchmarks.equality.sides import Place


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that both states do.

    Attributes:
        name: what `--only` takes.
        about: what it covers, in few words.
        measure: does it in a place and returns what is compared, by aspect.
        is_long: takes a minute or more; run if asked for.
    """

    name: str
    about: str
    measure: Callable[[Place], Outcome]
    is_long: bool = False
