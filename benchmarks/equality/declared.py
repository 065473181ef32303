"""What may differ between the two states, each with its reason. Whoever changes a number on purpose adds a row here."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A difference that is wanted.

    Attributes:
        case: pattern of the case's name, as in file names.
        aspect: pattern of the aspect's name.
        path: pattern of the value's place in the aspect.
        old: pattern of the value in the old state, as text.
        is_gone: only where the new state has no such value.
        reason: why it differs.
    """

    case: str
    aspect: str
    path: str = "*"
    old: str = "*"
    is_gone: bool = False
    reason: str

    def covers(self, case: str, aspect: str, path: str, *, old: object, is_gone: bool) -> bool:
        """Tell whether a difference at this place is meant; `is_gone`: the new state has no value there."""
        pairs = ((case, self.case), (aspect, self.aspect), (path, self.path), (str(old), self.old))
        return (is_gone or not self.is_gone) and all(fnmatchcase(name, pattern) for name, pattern in pairs)


TEMPERED = "the policy has the temperature of its samples"


CENTRED = "a clip is centred on the policy before the batch where a share comes from a log"


EXPECTED: tuple[Expected, ...] = (
    Expected(case="*", aspect="sample ids", reason="an id begins with a hash of all that the run is"),
    *(
        Expected(case="*", aspect="settings", path=f"*{key}", reason=reason)
        for key, reason in (
            ("correction.kind", "auto is the default; at temperature 1 without a log it is none"),
            ("model.temperature", "a new setting"),
            ("scoring.truncated", "a new setting"),
            ("cloning.template", "a new setting"),
            ("cloning.system_prompt", "a new setting"),
        )
    ),
    *(
        Expected(case="*", aspect="evaluations", path=f"*.{name}", reason="a new field")
        for name in ("temperature", "num_problems_unscored")
    ),
    *(
        Expected(case="*", aspect="metrics", path=f"*{name}", reason=reason)
        for name, reason in (
            ("clip_at_start_fraction", "a new metric"),
            ("num_uncompared", "a new metric"),
            ("num_groups_missing", "a new metric"),
            ("replay/num_samples", "a share that gives nothing is counted"),
            ("replay/num_groups", "a share that gives nothing is counted"),
            ("evaluation_num_problems_unscored", "a new metric"),
            ("clip_*_fraction", "counts the units whose gradient the clip changed"),
            ("zero_advantage_fraction", "over responses, not over tokens"),
        )
    ),
    Expected(case="study", aspect="metrics", path="*.evaluations*.temperature", reason="a new field"),
    Expected(case="study", aspect="metrics", path="*.evaluations*.num_problems_unscored", reason="a new field"),
    *(
        Expected(case="study", aspect=aspect, reason="intervals that hold at few seeds; looks share the 5 %")
        for aspect in ("tables*", "text*", "page text")
    ),
    Expected(case="report-*", aspect="text", old="*what is cut may count as wrong*", reason="it is said which do"),
    Expected(case="lag-*", aspect="metrics", path="[[]0].*", reason="over all that a step with a lag drew"),
    Expected(case="tempered-*", aspect="*", reason=TEMPERED),
    Expected(case="mixed-sources", aspect="*", reason=CENTRED),
)
"""Differences from the old state that are wanted."""

RENAMED_METRICS: Mapping[str, str] = {}
"""Old name -> new name of a metric that is the same number."""

RENAMED_SETTINGS: Mapping[str, str] = {}
"""Old name -> new name of a key of the configuration, with its section: `section.key`."""

RENAMED_VALUES: Mapping[tuple[str, str], str] = {}
"""(new key, old value) -> new value of a setting: `("advantages.kind", "thumbs"): "binary-feedback"`."""

RENAMED_FIELDS: Mapping[str, str] = {}
"""Old name -> new name of a field of samples and of evaluation records."""

OF_THE_MACHINE: Mapping[str, str] = {
    "*_seconds": "the clock",
    "seconds": "the clock",
    "*tokens_per_second": "the clock",
}
"""Pattern of a metric, or of a field of an evaluation, that two runs of one state do not share -> why."""


def is_of_the_machine(name: str) -> bool:
    """Tell whether two runs of one state differ here."""
    return any(fnmatchcase(name, pattern) for pattern in OF_THE_MACHINE)
