"""What a run survives, what it refuses, and in which words: one row for each kind of fault that the campaign does.

`docs/reliability.md` is made from these rows, and the campaign judges by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["survived", "refused", "told", "unseen", "LOST"]
"""What can come of a fault.

survived: resumed as often as needed, the run ends as the undisturbed one, bit for bit. refused: `--resume` ends with
status 2 and the stated words, and changes nothing. told: the run goes on, only the damaged record differs, and that is
said. unseen: the same, and nothing was said. LOST: anything else.
"""


@dataclass(frozen=True)
class Harm:
    """What is damaged.

    Attributes:
        pattern: of files in the run's folder.
        damages: names in `damage.DAMAGES`; with `each ` all files of the pattern, else one; `delete all`.
        when: the run was killed after its fifth step, or is finished.
        shape: that has such files; empty for any.
    """

    pattern: str
    damages: tuple[str, ...]
    when: Literal["killed", "finished"] = "killed"
    shape: str = ""


@dataclass(frozen=True)
class Promise:
    """What is promised of a kind of fault.

    Attributes:
        promise: in words, for the page.
        loses: the work that is done again, at most.
        verdicts: that keep it.
        words: regular expression of what is said with a refusal, or when a run goes on without a part of its record.
        harm: what is damaged, where the fault is to files.
    """

    promise: str
    loses: str
    verdicts: frozenset[Verdict] = frozenset({"survived"})
    words: str = ""
    harm: Harm | None = None


def _refuses(promise: str, words: str, harm: Harm) -> Promise:
    return Promise(promise, "nothing: no file is changed", frozenset({"refused"}), words, harm)


CHECKPOINT = "the steps since the newest checkpoint"
SINCE_OLDER = "the steps since the checkpoint before"
UNDER_WAY = "the step under way"
NOTHING = "nothing"
ANY = ("cut", "flip", "empty", "delete")

PROMISES: Mapping[str, Promise] = {
    "kill at a random moment": Promise("`--resume` gives the same run", CHECKPOINT),
    "kill at a named point": Promise("`--resume` gives the same run", CHECKPOINT),
    "kill in the middle of a file": Promise("`--resume` gives the same run", CHECKPOINT),
    "exception at a named point": Promise(
        "the last complete step is saved, the reason told in one line, status 3; `--resume` gives the same run",
        UNDER_WAY,
    ),
    "one checkpoint damaged": Promise(
        "`--resume` names it, takes the one before, and gives the same run",
        SINCE_OLDER,
        harm=Harm("checkpoints/step-*/*", ANY),
    ),
    "every checkpoint damaged": _refuses(
        "`--resume` refuses", r"none of the checkpoints .* is undamaged", 
        Harm("checkpoints/step-*/weights.*", ("each flip",)),
    ),
    "checkpoints deleted": _refuses(
        "`--resume` refuses and names `--restart`", r"--restart", Harm("checkpoints", ("delete all",))
    ),
    "last line of metrics.jsonl cut": Promise(
        "it is found, named and cut off; `--resume` gives the same run",
        NOTHING,
        harm=Harm("metrics.jsonl", ("cut last line",)),
    ),
    "metrics.jsonl damaged": Promise(
        "what the checkpoint can make again is made again; else `--resume` refuses, or says what is missing. A bit "
        "that leaves a line readable is not seen: no later number depends on it",
        CHECKPOINT,
        frozenset({"survived", "refused", "told", "unseen"}),
        r"metrics\.jsonl",
        Harm("metrics.jsonl", ANY),
    ),
    "last line of evaluations.jsonl cut": Promise(
        "it is found, named and cut off; `--resume` gives the same run",
        NOTHING,
        frozenset({"survived", "told"}),
        r"evaluations\.jsonl",
        Harm("evaluations.jsonl", ("cut last line",)),
    ),
    "evaluations.jsonl damaged": Promise(
        "`--resume` refuses, or goes on and says what is missing; a bit that leaves a line readable is not seen",
        CHECKPOINT,
        frozenset({"survived", "refused", "told", "unseen"}),
        r"evaluations\.jsonl",
        Harm("evaluations.jsonl", ANY),
    ),
    "rollouts damaged": Promise(
        "those that a checkpoint needs are read and checked; others are not",
        CHECKPOINT,
        frozenset({"survived", "refused", "told", "unseen"}),
        r"step-\d+\.parquet",
        Harm("rollouts/*.parquet", ANY),
    ),
    "rollouts damaged that a replay buffer needs": Promise(
        "`--resume` refuses",
        CHECKPOINT,
        frozenset({"survived", "refused", "told"}),
        r"step-\d+\.parquet",
        Harm("rollouts/*.parquet", ("each cut", "delete all", "each empty"), shape="replay"),
    ),
    "config.json damaged": Promise(
        "`--resume` refuses, or the value is not of the run",
        NOTHING,
        frozenset({"survived", "refused"}),
        r"config\.json",
        Harm("config.json", ANY),
    ),
    "identity.json damaged": Promise(
        "`--resume` makes it again from the checkpoint, or refuses: the run that it then names is another",
        NOTHING,
        frozenset({"survived", "refused"}),
        r"identity\.json|had other settings",
        Harm("identity.json", ANY),
    ),
    "provenance.json damaged": Promise(
        "training does not read it: `--resume` gives the same run", NOTHING,
        frozenset({"survived", "refused"}), r"provenance\.json", harm=Harm("provenance.json", ANY)
    ),
    "guard.json damaged": Promise(
        "it is written again", NOTHING, harm=Harm("guard.json", ANY, shape="guard")
    ),
    "lock damaged": Promise("a lock that nobody can hold is taken over", NOTHING, harm=Harm("lock", ANY)),
    "event files damaged": Promise(
        "TensorBoard's own files: the run is the same, its old curves are not promised", NOTHING,
        harm=Harm("tensorboard/*", ANY, shape="reported"),
    ),
    "model of a finished run damaged": Promise(
        "`--resume` writes it again", NOTHING, harm=Harm("model/*", ANY, when="finished")
    ),
    "summary.json of a finished run damaged": Promise(
        "`--resume` writes it again", NOTHING, frozenset({"survived", "refused"}), r"summary\.json",
        harm=Harm("summary.json", ANY, when="finished"),
    ),
    "full disk": Promise(
        "training goes on and tries again; a run whose last step could not be saved ends with status 4. Once there is "
        "room, `--resume` gives the same run",
        CHECKPOINT,
    ),
    "read-only folder": Promise("as with a full disk", CHECKPOINT),
    "limit on the size of files": Promise("as with a full disk", CHECKPOINT),
    "clock jumps": Promise("deadlines and durations are told by a clock that does not jump: the same run", NOTHING),
    "two processes on one folder": Promise(
        "the second is refused while the first lives", NOTHING, frozenset({"refused"}), "in use by process"
    ),
    "two starts with one name": Promise("the second takes `NAME-2`: both are the same run", NOTHING),
    "signal at a random moment": Promise(
        "the step is finished and saved, status 129, 130 or 143; `--resume` gives the same run", UNDER_WAY
    ),
    "second signal at a random moment": Promise("it ends at once, as a kill does", CHECKPOINT),
    "closed standard output": Promise("the display is lost, not the run", NOTHING),
}  # fmt: skip
