"""The evaluation of the untrained model, made once for all runs that begin with it.

Every run of a task starts from the same model, is asked the same held-out problems and draws its answers from the same
seed, so all of these evaluations would come out the same.
"""

import hashlib
import json
import shutil
from pathlib import Path

from klimb.training import Progress, append_evaluation, evaluation_record
from klimb.workbench.config import RunConfig
from klimb.workbench.held_out import measure, save_measured
from klimb.workbench.runs import RunFolder
from klimb.workbench.session import Session

BEFORE = "before.json"
INTERVALS = {"every_steps", "every_tokens", "every_seconds"}


def start_key(config: RunConfig) -> str:
    """A name for all that this evaluation depends on; a fresh adapter changes nothing, so the run's seed is no part."""
    parts = {
        "model": config.model.model_dump(mode="json"),
        "task": config.task.model_dump(mode="json"),
        "scoring": config.scoring.model_dump(mode="json"),
        "evaluation": config.evaluation.model_dump(mode="json", exclude=INTERVALS),
        "max_new_tokens": config.sampling.max_new_tokens,
        "max_batch": config.sampling.max_batch,
        "num_threads": config.training.num_threads,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def start_folder(study_folder: Path, config: RunConfig) -> Path:
    """Where the evaluation is kept."""
    return study_folder / "starts" / start_key(config)


def is_measured(folder: Path) -> bool:
    """True if the evaluation is there; before.json is written last."""
    return (folder / BEFORE).is_file()


def measure_start(session: Session, folder: Path) -> None:
    """Evaluates the session's model, not yet trained, and keeps the result in the folder."""
    files = RunFolder(folder)
    with session.scorer:
        measured, sampled = measure(session.policy, session.sampler, session.scorer, session.held_out, session.config)
    record = evaluation_record(
        sampled,
        session.held_out,
        when="before",
        progress=Progress(),
        num_samples=measured.num_samples,
        greedy=measured.greedy,
    )
    files.evaluations.unlink(missing_ok=True)
    append_evaluation(files.evaluations, record)
    save_measured(folder / BEFORE, measured)


def copy_start(source: Path, run: Path) -> None:
    """Gives a run that has not begun the evaluation it would make itself."""
    if is_measured(source):
        shutil.copyfile(RunFolder(source).evaluations, RunFolder(run).evaluations)
        shutil.copyfile(source / BEFORE, run / BEFORE)
