"""`klimb experience`: what is in a store, one sample in full, a store as one file, log-probabilities computed anew."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.tasks.judge.settings import JUDGE, JudgeSettings
from klimb.tasks.reward_model import MODEL_PREFIX
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.options import PathOrNone, ScoreOptions, Switch, TextOrNone, check_is_there, check_model

PLACES = "a store's folder, a run's folder, or one segment"

experience = App(name="experience", help="Recorded samples: what there is, one in full, all of it as a file.")


@experience.command(name="ls")
def ls(path: Path, /, *, where: TextOrNone = "") -> None:
    """Show what a store holds: samples by source, provenance and policy, rewards, age, size.

    Args:
        path: A store's folder, a run's folder, or one segment.
        where: Count only these, a DuckDB condition such as `reward >= 0.5 and source = 'rollout'`.
    """
    check_is_there(path, PLACES)
    from klimb.experience.store import open_store
    from klimb.experience.store_summary import summarise
    from klimb.ui.terminal.store import print_summary

    store = open_store(path)
    title = relative_to_working_directory(store.folder if path.is_dir() else path)
    print_summary(Console(), summarise(store, where=where), title=f"{title} · {where}" if where.strip() else title)


@experience.command(name="show")
def show(path: Path, sample_id: str, /, *, model: TextOrNone = "", tokens: int = 60) -> None:
    """Show one sample in full, and its tokens with their log-probabilities.

    Args:
        path: A store's folder, a run's folder, or one segment.
        sample_id: The sample's id.
        model: Also show log_pi under this model at the sample's temperature, and where it differs most from log_mu.
        tokens: Show this many tokens at most, besides those that differ most.
    """
    check_is_there(path, PLACES)
    check_model(model)
    from klimb.experience.store import open_store
    from klimb.ui.terminal.store import print_sample, print_tokens, token_rows

    console = Console()
    sample = open_store(path).sample(sample_id)
    print_sample(console, sample)
    rows = token_rows(sample)
    if model:
        from klimb.policies import load_policy
        from klimb.workbench.exporting import score_tokens

        rows = score_tokens(load_policy(model), sample)
    if rows.tokens:
        console.print()
        print_tokens(console, rows, most=tokens)
    else:
        console.print(Text("only the text was recorded; --model MODEL shows its tokens", style="dim"))


@experience.command(name="export")
def export(
    path: Path,
    /,
    *,
    to: Path,
    where: TextOrNone = "",
    form: Literal["klimb", "verifiers"] = "klimb",
    force: Switch = False,
) -> None:
    """Write the samples to one file, with people's ratings as their rewards.

    Args:
        path: A store's folder, a run's folder, or one segment.
        to: A .jsonl, .csv or .parquet file.
        where: Write only these, a DuckDB condition such as `reward >= 0.5`.
        form: Who reads it: klimb and programs that read its columns, or verifiers, whose traces.jsonl it then is.
        force: Replace the file if it is there.
    """
    check_is_there(path, PLACES)
    from klimb.experience.store import open_store
    from klimb.workbench.exporting import export_samples

    number = export_samples(open_store(path), to, where=where, force=force, form=form)
    Console().print(Text(f"{number:,} samples in {relative_to_working_directory(to)}"), soft_wrap=True)


@experience.command(name="score")
def score(store: Path, /, *, options: ScoreOptions) -> None:
    """Compute the behaviour log-probabilities of logged responses with the model that drew them.

    Args:
        store: A store's folder, a run's folder or one segment; it is not changed.
        options: What it is asked.
    """
    check_is_there(store, PLACES)
    check_model(options.model)
    if options.into.exists():
        raise ConfigError(f"{options.into} already exists; a new store is written, never one changed: name another")
    from klimb.workbench.store_scoring import run_score

    run_score(store, options, console=Console())


@experience.command(name="quarantine")
def quarantine(store: Path, /, *, rater: TextOrNone = "", release: Switch = False, reason: TextOrNone = "") -> None:
    """Leave a rater's feedback out of the count, or let it count again; without --rater, list who is left out.

    Args:
        store: A store's folder.
        rater: The rater's hash, as findings and `every_feedback` of the store have it.
        release: Let it count again.
        reason: For people.
    """
    check_is_there(store, "a store's folder")
    from klimb.experience.quarantine import quarantine_rater, read_quarantine, release_rater
    from klimb.experience.queries import literal
    from klimb.experience.store import open_store

    opened = open_store(store)
    console = Console()
    if not rater:
        left_out = read_quarantine(opened.folder)
        for each, why in left_out.items():
            console.print(Text(f"{each}  {why.reason}"), soft_wrap=True)
        console.print(Text(f"{len(left_out):,} raters are left out of {relative_to_working_directory(store)}"))
        return
    sql = "select count(*) as n, count(distinct sample_id) as samples from every_feedback where user = "
    found = opened.query(sql + literal(rater)).to_pylist()[0]
    if not found["n"] and not release:
        raise ConfigError(f"{store}: nothing is from a rater {rater!r}; --rater takes the hash, not a name")
    changed = release_rater(opened.folder, rater) if release else quarantine_rater(opened.folder, rater, reason=reason)
    state = "counts" if release else "counts no longer"
    console.print(
        Text(
            f"what {rater} said {found['n']:,} times, of {found['samples']:,} samples, {state}"
            if changed
            else f"nothing to change: what {rater} said {state} already"
        ),
        soft_wrap=True,
    )


Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]


@experience.command(name="forget")
def forget(
    folder: Path, /, *more: Path, user: Names = (), id: Names = (), dry_run: Switch = False, yes: Switch = False
) -> None:
    """Remove all of a person from stores, runs, reports, exports and logs; name what cannot be, and models that saw it.

    Args:
        folder: A folder that is searched with all beneath it.
        more: Further ones.
        user: A name, as it was sent, or the hash that a store has of it; several may be given.
        id: Of a sample, a completion or a conversation; several may be given.
        dry_run: Say what would be done, and do nothing.
        yes: Do not ask.
    """
    from klimb.ui.terminal.forgetting import print_plan, print_rest
    from klimb.workbench.forgetting import forget as carry_out
    from klimb.workbench.forgetting import plan_forgetting

    folders = (folder, *more)
    console = Console()
    plan = plan_forgetting(folders, users=user, ids=id)
    print_plan(console, plan)
    if dry_run or not plan.changes:
        return
    if not yes and not _agrees(console):
        raise ConfigError("nothing was changed; answer yes, or give --yes")
    print_rest(console, carry_out(plan, folders))


def _agrees(console: Console) -> bool:
    if not console.is_terminal:
        return False
    return console.input("this cannot be undone. Remove it? Type yes: ").strip().lower() == "yes"


@experience.command(name="rate")
def rate(
    store: Path,
    /,
    *,
    rater: Annotated[str, Parameter(name="--with")],
    where: TextOrNone = "",
    into: PathOrNone = None,
    timeout_seconds: float = 60.0,
    max_concurrent: int = 8,
    judge: Annotated[JudgeSettings | None, Parameter(name="*")] = None,
) -> None:
    """Rate the samples of a store with a reward model or a judge, beside people's ratings.

    Args:
        store: A store's folder or a run's folder; it gets the ratings, as feedback that never counts as people's.
        rater: `model:FOLDER` of `klimb reward-model` or another classifier with one label, or `judge`.
        where: Only these samples, a DuckDB condition such as `reward is null`.
        into: Write a new store there instead, whose samples have the ratings as their rewards.
        timeout_seconds: For each answer, where a judge is asked.
        max_concurrent: Answers that a judge is asked about at the same time.
        judge: Who judges, where `--with judge`.
    """
    check_is_there(store, PLACES)
    check_rater(rater, judge)
    if into is not None and into.exists():
        raise ConfigError(f"{into} already exists; a new store is written, never one changed: name another")
    from klimb.tasks.batches import BatchLimits
    from klimb.workbench.store_rating import run_rate

    limits = BatchLimits(timeout_seconds=timeout_seconds, max_concurrent=max_concurrent)
    run_rate(store, rater=rater, judge=judge, where=where, into=into, limits=limits, console=Console())


def check_rater(rater: str, judge: JudgeSettings | None) -> None:
    """Return if there is such a rater, and what it is told is its own.

    Raises:
        ConfigError: there is none, or a judge's options are missing or are given to a model.
    """
    if rater != JUDGE and not rater.startswith(MODEL_PREFIX):
        raise ConfigError(f"--with {rater}: expected {MODEL_PREFIX}FOLDER or {JUDGE}")
    if rater == JUDGE and judge is None:
        raise ConfigError("--with judge needs --url, --model and --rubric or --rubric-file: who judges, and by what")
    if rater != JUDGE and judge is not None:
        raise ConfigError(f"--with {rater} is no judge, and takes none of a judge's options such as --url")
