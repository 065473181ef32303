"""All cases, in the order in which they run."""

from benchmarks.equality.case import Case
from benchmarks.equality.training_cases import TRAINING_CASES

CASES: tuple[Case, ...] = (*TRAINING_CASES,)
