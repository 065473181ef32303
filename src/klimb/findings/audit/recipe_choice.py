"""Which recipes fit which data: the one list that verdicts, uses and docs/audit.md name them from."""

from collections.abc import Mapping
from types import MappingProxyType

CLONING = "behaviour-cloning"


FRESH = "collect-more"


SINGLE = "kto-or-dro, single answers of two ratings"


GROUPED_PAIRS = "kto-or-dro, groups of answers of two ratings"


GRADED = "kto-or-dro, ratings of more values"


RATIO_FREE = "ratio-free-rl"


WITH_RATIOS = "rl-with-correction"


RECIPES_FOR: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        CLONING: ("bc",),
        FRESH: ("rpg-reinforce-urkl",),
        SINGLE: ("kto", "dro", "asymre"),
        GROUPED_PAIRS: ("dro", "asymre", "kto"),
        GRADED: ("dro", "asymre"),
        RATIO_FREE: ("topr", "oapl", "kimi-pmd", "asymre"),
        WITH_RATIOS: ("topr", "rpg-reinforce-urkl"),
    }
)
"""Data -> objectives that can use it, the recommended one first.

KTO takes single responses with two values of reward; DRO takes any, and groups if there are some. On logs alone a clip
around μ ends the way that one may go from it; a weight that cannot exceed 1 does not (docs/studies.md).
"""


CLONING_THE_GOOD = ("bc-filtered", "bc")
"""Of rated answers: the good ones alone, or all that a condition selects."""


WITHOUT_LOG_MU = ("dro", "asymre")
"""Of `RATIO_FREE` and its neighbours: those that ask for no log-probabilities."""
