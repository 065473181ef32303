"""Built-in verifiers by name: response text and reference answer in, right or wrong out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from klimb.tasks.answers import Verdict
from klimb.tasks.protocol import Problem, Response, Score, right_or_wrong

Verify = Callable[[str, str], Verdict]

VERIFIERS = {
    "math-verify": "klimb.tasks.math_answers:verify_math",
    "exact": "klimb.tasks.answers:verify_exact",
    "integer": "klimb.tasks.answers:verify_integer",
}
"""Name -> where its function is. Strings, because math-verify is imported only where it is used."""

TRUSTED_VERIFIERS = frozenset({"exact", "integer"})


@dataclass(frozen=True)
class VerifierScore:
    """Scores 1 when the named verifier finds the answer right, else 0."""

    verifier: str

    def prepare(self) -> None:
        """Imports what the verifier needs."""
        load_verifier(self.verifier)

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Returns the score of a response."""
        verdict = load_verifier(self.verifier)(response.text, problem.answer)
        return right_or_wrong(verdict.correct, verdict.reason)


@cache
def load_verifier(name: str) -> Verify:
    """Returns the function of a verifier in `VERIFIERS`."""
    module, _, function = VERIFIERS[name].partition(":")
    return getattr(import_module(module), function)
