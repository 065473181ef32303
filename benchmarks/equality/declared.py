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


EXPECTED: tuple[Expected, ...] = (
    Expected(
        case="*",
        aspect="sample ids",
        reason="an id begins with a hash of the names of all settings, and some settings are new or have new names",
    ),
    Expected(case="*", aspect="settings", path="cloning.warmup_steps", reason="a new setting"),
    Expected(case="*", aspect="settings", path="*run.findings", reason="a new setting"),
    Expected(case="*", aspect="settings", path="*sampling.sampler", reason="a new setting"),
    *(
        Expected(
            case="*",
            aspect=aspect,
            path="*objective.*",
            is_gone=True,
            reason="[objective] holds what its loss reads, and no key besides",
        )
        for aspect in ("settings", "shown settings")
    ),
    *(
        Expected(
            case="recipe-*",
            aspect="shown settings",
            path=path,
            reason="a recipe holds its advantages, credit and reference with every key",
        )
        for path in ("advantages.max_refills", "advantages.shuffle_rewards", "reference.every_steps", "reference.kl_*")
    ),
    Expected(case="kto", aspect="summary", path="divergence", reason="a loss without a divergence names none"),
    Expected(case="audit-*", aspect="text", old="*(type --eval TASK, one of *", reason="a task may be the user's own"),
    Expected(case="refusals", aspect="text", path="credit.gae_lambda*", reason="the settings themselves refuse it"),
    Expected(
        case="example-*",
        aspect="settings",
        path="optimizer.warmup_steps",
        reason="the default warm-up is a tenth of the run, at most 10 steps",
    ),
    Expected(case="example-*", aspect="metrics", reason="the default warm-up is a tenth of the run, at most 10 steps"),
    *(
        Expected(
            case=case,
            aspect="page text",
            reason="units of charts stand beside their titles; legends are words; a table has each chart's numbers",
        )
        for case in ("audit-*", "report-*", "study")
    ),
    Expected(case="import-refused", aspect="text", path="nothing.jsonl*", reason="a missing file has one wording"),
    Expected(case="import-refused", aspect="text", path="*--as ktoo*", reason="an importer may be the user's own"),
    Expected(case="refusals", aspect="text", path="run.loggers*", reason="a logger may be the user's own"),
    Expected(case="estimate-*", aspect="numbers", path="*.unusable", reason="a new field"),
    Expected(
        case="refusals",
        aspect="text",
        path="advantages.kind*",
        reason="thumbs is binary-feedback, and advantages may be the user's own",
    ),
    Expected(case="refusals", aspect="text", path="objective.clip.kind*", reason="a clip may be the user's own"),
    Expected(
        case="guard-*", aspect="guard", path="events*", reason="an event is a finding: its fields and words are new"
    ),
    Expected(case="study", aspect="page text", reason="a status has the same sign and word on every page"),
    Expected(case="refusals", aspect="text", path="task.kind = 'sums'*", reason="a task may be the user's own"),
    *(
        Expected(case="*", aspect="metrics", path=f"*{name}", reason=reason)
        for name, reason in (
            ("num_uncompared", "a new metric"),
            ("num_groups_missing", "a new metric"),
            ("evaluation_num_problems_unscored", "a new metric"),
            ("clip_*_fraction", "counts the units whose gradient the clip changed"),
            ("zero_advantage_fraction", "over responses, not over tokens"),
        )
    ),
    Expected(case="*", aspect="settings", path="*scoring.truncated", reason="a new setting"),
    Expected(case="lora-ema", aspect="settings", path="model.lora.dropout", reason="a key that must be 0, and says so"),
)
"""Differences from the old state that are wanted."""

RENAMED_METRICS: Mapping[str, str] = {
    "gap_mean_abs": "mismatch_mean_abs",
    "gap_max_abs": "mismatch_max_abs",
    "gap_k3": "mismatch_k3",
}
"""Old name -> new name of a metric that is the same number."""

RENAMED_SETTINGS: Mapping[str, str] = {
    "training.max_gap": "training.max_mismatch",
    "training.num_gap_rows": "training.num_mismatch_rows",
}
"""Old name -> new name of a key of the configuration, with its section: `section.key`."""

RENAMED_VALUES: Mapping[tuple[str, str], str] = {("advantages.kind", "thumbs"): "binary-feedback"}
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
