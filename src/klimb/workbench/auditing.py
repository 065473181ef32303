"""Audit logged data: what it is good for, in the terminal, as a page, and as a run file to start from.

A check that lacked a piece names the option that gives it: findings know no command line, this module does.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from klimb.errors import ConfigError
from klimb.experience import Feedback, Sample, Store
from klimb.experience.importing.history import count_added, count_rejected, read_history
from klimb.experience.store import open_store
from klimb.findings.audit import AuditReport, Rounding, Thresholds, audit, measure_rounding
from klimb.findings.finding import Finding
from klimb.policies import Policy, load_policy
from klimb.training.run_folder import RunFolder, is_run
from klimb.ui.pages.audit import audit_page
from klimb.ui.pages.files import chosen_path, stamped, write_text
from klimb.ui.terminal.audit import print_audit
from klimb.ui.terminal.run import print_facts
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.audit_run_file import logged, run_file
from klimb.workbench.config import RunConfig, build_config, read_config
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.evaluation_config import evaluated_task
from klimb.workbench.log_scoring import (
    Rows,
    Scored,
    draw_fresh,
    foreign_ids,
    note_unfit,
    read_rows,
    recorded_temperature,
    score_again,
    score_rows,
)
from klimb.workbench.model_path import model_path
from klimb.workbench.options import AuditOptions
from klimb.workbench.run_directory import in_directory_of
from klimb.workbench.session import make_task

EVALUATION = "--eval TASK, one of arithmetic, reasoning-gym:NAME, file:PATH and python:module.function"


MODEL = "--model MODEL"


LOGGING_MODEL = "--model MODEL --is-logging-model, with the model that drew the data"


NEEDS_EVALUATION = (
    "evaluation prompts not in the data",
    "evaluation prompts in the data",
    "evaluation prompts in part in the data",
)


NEEDS_TOKENIZER = ("token ids decode to the text",)


NEEDS_SCORES = (
    "log-probabilities moved by one place",
    "effective share of token weights",
    "tokens outside the band",
)


NEEDS_LOGGING_MODEL = ("k3 against the logging model",)


UNKNOWN_TEMPERATURE = (
    "The samples were drawn at several temperatures, greedily, or do not say at which: the policy is taken at "
    "temperature 1; --temperature names another."
)


NEEDS_FRESH = ("the policy's own answers look like logged ones",)


def hints(
    samples: Sequence[Sample], *, has_model: bool, has_questions: bool, is_logging_model: bool, num_fresh: int
) -> Mapping[str, str]:
    """Name of a finding -> the option that gives it what it lacks; only options that were not given and would help."""
    found: dict[str, str] = {}
    has_ids = any(sample.response_ids for sample in samples)
    has_log_mu = any(sample.log_mu is not None and sample.response_ids for sample in samples)
    if not has_questions:
        found |= dict.fromkeys(NEEDS_EVALUATION, EVALUATION)
    if not has_model and has_ids:
        found |= dict.fromkeys(NEEDS_TOKENIZER, MODEL)
    if not has_model and has_log_mu:
        found |= dict.fromkeys(NEEDS_SCORES, MODEL)
    if not is_logging_model and has_log_mu:
        found |= dict.fromkeys(NEEDS_LOGGING_MODEL, LOGGING_MODEL)
    if not num_fresh:
        found |= dict.fromkeys(NEEDS_FRESH, "--fresh 100" if has_model else f"{MODEL} --fresh 100")
    return found


def with_hints(report: AuditReport, options: Mapping[str, str]) -> AuditReport:
    """Return the report whose unknown findings say what to type."""
    blocks = tuple(
        replace(block, findings=tuple(_with_hint(finding, options) for finding in block.findings))
        for block in report.blocks
    )
    return replace(report, blocks=blocks)


def _with_hint(finding: Finding, options: Mapping[str, str]) -> Finding:
    option = options.get(finding.name)
    if option is None or finding.status != "unknown":
        return finding
    return replace(finding, title=f"{finding.title} (type {option})")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the audit is told besides the samples.

    Attributes:
        run: the configuration of the audited run; None if the data is not a run's folder.
        questions: evaluation prompts.
        evaluation: whose they are, for people; empty without any.
        notes: what could not be found out.
    """

    run: RunConfig | None = None
    questions: tuple[str, ...] = ()
    evaluation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the model said, and what a reader must know about it."""

    log_pi: tuple[tuple[float, ...] | None, ...] | None = None
    fresh: tuple[Sample, ...] | None = None
    knows_tokens: bool = False
    rounding: Rounding | None = None
    notes: tuple[str, ...] = ()


def run_audit(
    path: Path,
    request: AuditOptions,
    *,
    console: Console,
    train_model: str = "",
    held_out_fraction: float = 0.0,
    is_brief: bool = False,
) -> AuditReport:
    """Read, score, audit, print, and write the page and the run file.

    Args:
        path: of the data.
        request: what is asked.
        console: where it is shown.
        train_model: the run file's, where the audit itself asks none.
        held_out_fraction: as `run_file` takes it.
        is_brief: print the first screen alone.

    Raises:
        ConfigError: the request cannot be met; nothing is written then.
    """
    # What can be wrong without a model is found before one is loaded.
    page = chosen_path(request.html, data=path, suffix=".html")
    config = chosen_path(request.config, data=path, suffix=".toml")
    thresholds = Thresholds(hoped_gain=request.hoped_gain)
    if request.trust_ratings:
        thresholds = replace(thresholds, max_shuffled_chance=1.0)
    known = what_is_known(path, request)
    store = open_store(path)
    with console.status("reading"):
        rows = read_rows(store, where=request.where, max_rows=request.max_rows, seed=request.seed)
    model = model_path(request.model)
    policy = load_policy(model) if model else None
    recorded = recorded_temperature(rows.samples)
    temperature = request.temperature or recorded or 1.0
    if policy is not None:
        policy.temperature = temperature
    asked = _Asked() if policy is None else _ask(policy, rows.samples, request, thresholds, console=console)
    with console.status(f"auditing {len(rows.samples):,} samples"):
        report = audit(
            rows.samples,
            data=relative_to_working_directory(path),
            log_pi=asked.log_pi,
            log_same=asked.log_pi if request.is_logging_model else None,
            fresh=asked.fresh,
            ratings=read_ratings(store),
            files=count_added(read_history(store.folder)),
            left_out=count_rejected(store.folder),
            evaluation_prompts=known.questions,
            thresholds=thresholds,
            decode=policy.decode if policy is not None and asked.knows_tokens else None,
            has_token=policy.has_token if policy is not None and asked.knows_tokens else None,
            is_logging_model=request.is_logging_model,
            temperature=temperature,
            rounding=asked.rounding,
        )
    names = {"RUN.toml": str(config), "DATA": relative_to_working_directory(path)}
    names |= {"MODEL": request.model} if request.model else {}
    report = _with_commands(report, rows, request, known, names, is_on_log=held_out_fraction > 0)
    is_unsettled = request.temperature is None and recorded is None and _has_log_mu(rows.samples)
    run = run_file(
        report,
        store=relative_to_working_directory(path),
        data=logged(rows.samples, num_stored=rows.num_stored),
        model=model or train_model,
        where=request.where,
        run=known.run,
        held_out_fraction=held_out_fraction,
        temperature=temperature if request.temperature or (is_unsettled and known.run is None) else None,
    )
    unsettled = [UNKNOWN_TEMPERATURE] if is_unsettled else []
    notes = [*_reading_notes(rows, request, asks_model=not train_model), *known.notes, *asked.notes, *unsettled]
    facts = _facts(request, asked, known)
    run = stamped(run)
    write_text(page, audit_page(report, run_file=run, run_path=str(config), facts=facts, notes=notes))
    write_text(config, run)
    if request.json is not None:
        write_text(request.json, json.dumps(plain_values(report), indent=2, ensure_ascii=False) + "\n")
    print_audit(console, report, run_path=str(config), is_brief=is_brief)
    print_facts(console, [*(("note", note) for note in notes), ("page", str(page)), ("run file", str(config))])
    return report


def plain_values(report: AuditReport) -> dict[str, Any]:
    """Return the report as JSON has it: names and values, what is not finite as null."""
    return _plain(asdict(report))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _has_log_mu(samples: Sequence[Sample]) -> bool:
    return any(sample.log_mu is not None for sample in samples)


def what_is_known(path: Path, request: AuditOptions) -> Known:
    """Return the configuration of the audited run, and the evaluation prompts that were named or are that run's.

    A run whose configuration or task cannot be read is audited all the same, and the notes say so.

    Raises:
        ConfigError: the task that was named has no evaluation prompts.
    """
    named = evaluation_prompts(request.evaluation) if request.evaluation else ()
    if not is_run(path):
        return Known(questions=named, evaluation=request.evaluation)
    try:
        run = read_config(RunFolder(path).config)
    except ConfigError as error:
        note = f"What the audited run was is not known, and the run file does not say it: {error}"
        return Known(questions=named, evaluation=request.evaluation, notes=(note,))
    if named:
        return Known(run=run, questions=named, evaluation=request.evaluation)
    try:
        with in_directory_of(path, resolved_tables(run)):
            questions = held_out_questions(run)
    except (ValueError, ImportError) as error:
        return Known(run=run, notes=(f"The held-out problems of the audited run could not be read: {error}",))
    return Known(run=run, questions=questions, evaluation="held out by the audited run" if questions else "")


def _with_commands(
    report: AuditReport, rows: Rows, request: AuditOptions, known: Known, names: Mapping[str, str], *, is_on_log: bool
) -> AuditReport:
    """Return the report with this audit's files in the next action, and with what to type for what is not known."""
    report = with_names(report, names, is_on_log=is_on_log)
    options = hints(
        rows.samples,
        has_model=bool(request.model),
        has_questions=bool(known.questions),
        is_logging_model=request.is_logging_model,
        num_fresh=request.fresh,
    )
    return with_hints(report, options)


def with_names(report: AuditReport, names: Mapping[str, str], *, is_on_log: bool = False) -> AuditReport:
    """Return the report whose next steps name this audit's files in place of RUN.toml and DATA.

    Args:
        report: of the audit.
        names: word -> what stands in its place.
        is_on_log: the run file learns from the log whatever the verdict is.
    """
    words = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in names))

    def named(text: str) -> str:
        return words.sub(lambda found: names[found.group()], text)

    draws = report.verdict.kind == "collect-more" and not is_on_log
    steps = [_on_the_log(use.next_step) if draws else use.next_step for use in report.uses]
    uses = tuple(replace(use, next_step=named(step)) for use, step in zip(report.uses, steps, strict=True))
    return replace(report, uses=uses, verdict=replace(report.verdict, next_action=named(report.verdict.next_action)))


def _on_the_log(step: str) -> str:
    """Return a command that trains with what takes the log, where the run file would draw fresh answers."""
    if not step.startswith("klimb train "):
        return step
    return f"{step} task=default sources.rollout=0.0 sources.log=1.0 log.path=DATA"


def evaluation_prompts(task: str) -> tuple[str, ...]:
    """Return the question of each held-out problem of a task: its last message, whatever stands before it.

    Raises:
        ConfigError: there is no such task, or it holds no problem out.
    """
    questions = held_out_questions(build_config({"task": evaluated_task(task, option="--eval")}, source="--eval"))
    if not questions:
        raise ConfigError(f"--eval {task}: the task has no held-out problems to compare with")
    return questions


def held_out_questions(config: RunConfig) -> tuple[str, ...]:
    """Return the last message of each held-out problem of a run's task; none if it holds no problem out."""
    return tuple(problem.messages[-1]["content"] for problem in make_task(config).held_out)


def _ask(
    policy: Policy, samples: Sequence[Sample], request: AuditOptions, thresholds: Thresholds, *, console: Console
) -> _Asked:
    """Scores logged responses and, if asked to, draws fresh ones."""
    notes: list[str] = []
    num_foreign = foreign_ids(policy, samples)
    if num_foreign:
        notes.append(
            f"{num_foreign:,} of {len(samples):,} samples say that their token ids belong to another tokenizer than "
            f"that of {policy.name}: ids were not compared with texts, and these samples not scored."
        )
    with console.status(f"scoring with {policy.name}"):
        scored = score_rows(policy, samples, max_samples=request.max_samples, seed=request.seed)
        notes += note_unfit(policy, samples, max_samples=request.max_samples, seed=request.seed)
        rounding = _rounding(policy, samples, scored, thresholds) if request.is_logging_model else None
    fresh = None
    if request.fresh:
        with console.status(f"drawing {request.fresh} answers"):
            fresh = draw_fresh(policy, samples, num_answers=request.fresh, seed=request.seed)
    return _Asked(
        log_pi=scored.log_pi if any(score is not None for score in scored.log_pi) else None,
        fresh=None if fresh is None or not fresh.samples else fresh.samples,
        knows_tokens=num_foreign == 0,
        rounding=rounding,
        notes=(*notes, *scored.notes, *(fresh.notes if fresh else ())),
    )


def _rounding(policy: Policy, samples: Sequence[Sample], scored: Scored, thresholds: Thresholds) -> Rounding | None:
    """Return how far the model is from itself in another precision: so far apart are its own two logs."""
    first, again, name = score_again(policy, samples, scored)
    return measure_rounding(first, again, thresholds, name=name)


def read_ratings(store: Store) -> tuple[Feedback, ...]:
    """Return the ratings of a store's samples, one by one; comments without a rating are left out."""
    columns = ("feedback_id", "sample_id", "value", "name", "user", "created_at")
    sql = f"select {', '.join(f'''feedback.{column}''' for column in columns)} from feedback where value is not null"
    return tuple(Feedback(**row) for row in store.query(sql).to_pylist())


def _reading_notes(rows: Rows, request: AuditOptions, *, asks_model: bool) -> list[str]:
    """Return what was left unread, and what could not be asked of a model that nobody named."""
    notes: list[str] = []
    if len(rows.samples) < rows.num_stored:
        notes.append(
            f"Read are {len(rows.samples):,} of {rows.num_stored:,} samples: whole groups at random "
            f"(--max-rows {request.max_rows})."
        )
    if asks_model and not request.model:
        notes.append("No --model was given: how far the data is from a policy to train is not known.")
    return notes


def _facts(request: AuditOptions, asked: _Asked, known: Known) -> list[tuple[str, str]]:
    """How the audit was made, for the foot of the page."""
    num_scored = sum(score is not None for score in asked.log_pi or ())
    return [
        ("model", request.model or "none"),
        ("scored", f"{num_scored:,} samples"),
        ("fresh answers", f"{len(asked.fresh or ()):,}"),
        ("evaluation", f"{known.evaluation}, {len(known.questions):,} prompts" if known.questions else "none"),
        ("where", request.where or "all samples"),
        ("hoped gain", f"{request.hoped_gain:g}"),
        ("seed", str(request.seed)),
    ]
