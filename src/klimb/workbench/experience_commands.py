"""`klimb experience`: what is in a store, one sample in full, and a store as one file."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from klimb.experience import Sample
from klimb.experience.store import open_store
from klimb.policies import Policy, load_policy, with_token_ids
from klimb.training import score_samples
from klimb.workbench.experience_export import export_samples
from klimb.workbench.experience_summary import summarise
from klimb.workbench.experience_tokens import TokenRows, token_rows
from klimb.workbench.experience_view import print_sample, print_summary, print_tokens
from klimb.workbench.runs import relative_to_working_directory

experience = App(name="experience", help="Recorded samples: what there is, one in full, all of it as a file.")
console = Console()

Where = Annotated[str, Parameter(show_default=False)]


@experience.command(name="ls")
def ls(path: Path, /, *, where: Where = "") -> None:
    """Show what a store holds: samples by source, provenance and policy, rewards, age, size.

    Args:
        path: A store's folder, a run's folder, or one segment.
        where: Count only these, a DuckDB condition such as `reward >= 0.5 and source = 'rollout'`.
    """
    store = open_store(path)
    title = relative_to_working_directory(store.folder if path.is_dir() else path)
    print_summary(console, summarise(store, where=where), title=f"{title} · {where}" if where.strip() else title)


@experience.command(name="show")
def show(
    path: Path, sample_id: str, /, *, model: Annotated[str, Parameter(show_default=False)] = "", tokens: int = 60
) -> None:
    """Show one sample in full, and its tokens with their log-probabilities.

    Args:
        path: A store's folder, a run's folder, or one segment.
        sample_id: The sample's id.
        model: Also show log_pi under this model (at temperature 1) and where it differs most from log_mu.
        tokens: Show this many tokens at most, besides those that differ most.
    """
    sample = open_store(path).sample(sample_id)
    print_sample(console, sample)
    rows = token_rows(sample) if not model else _scored(load_policy(model), sample)
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
    where: Where = "",
    force: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Write the samples to one file, with people's ratings as their rewards.

    Args:
        path: A store's folder, a run's folder, or one segment.
        to: A .jsonl, .csv or .parquet file.
        where: Write only these, a DuckDB condition such as `reward >= 0.5`.
        force: Replace the file if it is there.
    """
    number = export_samples(open_store(path), to, where=where, force=force)
    console.print(Text(f"{number:,} samples in {relative_to_working_directory(to)}"), soft_wrap=True)


def _scored(policy: Policy, sample: Sample) -> TokenRows:
    """The token view under a policy, which must have the sample's tokenizer."""
    whole = with_token_ids(policy, sample)
    # What is recorded plays no part in scoring, and a damaged log_mu is what one wants to look at here.
    bare = replace(whole, log_mu=None, log_mu_provenance="absent", log_ref=None)
    num_tokens = len(bare.prompt_ids) + len(bare.response_ids)
    (log_pi,) = score_samples(policy, [bare], max_tokens=num_tokens)
    texts = [
        str(policy.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for token in whole.response_ids
    ]
    return token_rows(whole, log_pi=log_pi, texts=texts)
