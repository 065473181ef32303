"""The command line: train, eval, demo, recipes, and what is done with experience."""

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from transformers.utils import logging as transformers_logging

from klimb import __version__
from klimb.errors import ConfigError
from klimb.losses import recipe_named
from klimb.training import Interrupted
from klimb.training.run_folder import RunFolder, check_is_free, free_folder, is_run
from klimb.ui.terminal.run import print_run
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.commands.audit import AuditRequest, run_audit
from klimb.workbench.commands.board import DEFAULT_PORT, run_board
from klimb.workbench.commands.compare import compare
from klimb.workbench.commands.config import config as show_settings
from klimb.workbench.commands.demo import demo_config, run_demo
from klimb.workbench.commands.estimate import estimate
from klimb.workbench.commands.evaluate import evaluation_config, run_evaluation
from klimb.workbench.commands.experience import experience
from klimb.workbench.commands.import_rows import import_rows
from klimb.workbench.commands.recipes import list_recipes, show_recipe
from klimb.workbench.commands.report import report
from klimb.workbench.commands.score import score
from klimb.workbench.config import RunConfig, build_config, read_tables, with_overrides
from klimb.workbench.dry_run import run_dry
from klimb.workbench.provenance import new_run_folder
from klimb.workbench.run import run_training
from klimb.workbench.session import make_session

app = App(
    name="klimb",
    help="Off-policy, KL-regularised reinforcement learning for language models.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)


recipes = App(name="recipes", help="The algorithms there are; `klimb recipes show NAME` for one in full.")


app.command(recipes)


experience.command(score)


app.command(experience)


app.command(estimate)


app.command(compare)


app.command(report)


app.command(import_rows, name="import")


app.command(show_settings, name="config")


SETTINGS = Parameter(name="--set", consume_multiple=True, negative="", show_default=False)


Overrides = Annotated[tuple[str, ...], SETTINGS]


USAGE_STATUS = 2


INTERRUPT_STATUS = 130


TRACEBACK_VARIABLE = "KLIMB_TRACEBACK"


console = Console()


@app.command
def train(
    config: Path | None = None,
    /,
    *,
    settings: Overrides = (),
    folder: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    resume: Path | None = None,
) -> None:
    """Train a model as a TOML file says.

    Args:
        config: The run's TOML file.
        settings: Overrides such as `objective.beta=1e-3`; values are TOML.
        folder: Where the results go; without it, a new folder under `run.folder`.
        dry_run: Load, take one group (of a run on logs, one step) through everything, print estimates, and stop.
        resume: A run's folder: go on from its newest checkpoint.
    """
    if config is not None and resume is not None:
        raise ConfigError("give a TOML file or --resume, not both: a resumed run has its configuration in its folder")
    if config is None and resume is None:
        raise ConfigError("give a TOML file (before any --set), or --resume with the folder of a run")
    if resume is not None:
        _resume(resume, list(settings), is_alone=folder is None and not dry_run)
        return
    assert config is not None
    run = _name_after(config, list(settings))
    if dry_run:
        run_dry(run, console=console)
        return
    path = folder or free_folder(Path(run.run.folder) / run.run.name)
    check_is_free(path)
    _run(run, path, lambda: new_run_folder(path, run), resume=False)


@app.command(name="eval")
def evaluate(
    model: str,
    /,
    *,
    task: Annotated[str, Parameter(show_default=False)] = "",
    config: Path | None = None,
    settings: Overrides = (),
    output: Path | None = None,
) -> None:
    """Evaluate a model: Mean@k and pass@k with intervals, and greedy.

    Args:
        model: A Hugging Face folder, a .gguf file, `smollm2-135m`, or a run's folder.
        task: `arithmetic`, `reasoning-gym:NAME` or `file:PATH`.
        config: Instead of a task: a run's TOML or config.json, whose held-out problems are taken.
        settings: Overrides such as `task.digits=2` or `evaluation.num_samples=32`.
        output: Also write the result to this JSON file.
    """
    run = evaluation_config(model, task=task, config=config, overrides=list(settings))
    run_evaluation(run, console=console, output=output)


@app.command
def demo(
    *,
    divergence: str | None = None,
    seed: int = 0,
    folder: Path = Path("runs/demo"),
    settings: Overrides = (),
) -> None:
    """Watch a small language model learn to add, in minutes on two CPU cores.

    Args:
        divergence: Divergence from the reference: fkl, rkl, ufkl, urkl, jeffreys, ...
        seed: Seed of all random numbers.
        folder: Where the results go; an earlier run there is moved aside.
        settings: Overrides such as `training.num_steps=10`.
    """
    chosen = [] if divergence is None else [f"objective.divergence={divergence!r}"]
    run_demo(demo_config([f"seed={seed}", *chosen, *settings]), folder, console=console)


@app.command(name="audit")
def audit_data(
    data: Path,
    /,
    *,
    model: Annotated[str, Parameter(show_default=False)] = "",
    evaluation: Annotated[str, Parameter(name="--eval", show_default=False)] = "",
    where: Annotated[str, Parameter(show_default=False)] = "",
    html: Path | None = None,
    config: Path | None = None,
    max_samples: int = 2000,
    max_rows: int = 100_000,
    fresh: int = 0,
    hoped_gain: float = 0.1,
    is_logging_model: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    seed: int = 0,
) -> None:
    """Say what logged data is good for: findings, a verdict, a page, and a run file to start from.

    Args:
        data: A store's folder, a run's folder, or one Parquet segment.
        model: The model to train: scores the logged answers. What `eval` takes.
        evaluation: `arithmetic`, `reasoning-gym:NAME` or `file:PATH`: prompts that must not be in the data.
        where: A DuckDB condition on samples, such as "reward is not null".
        html: Where the page goes; without it, DATA-audit.html here.
        config: Where the run file goes; without it, DATA-audit.toml here.
        max_samples: Score at most this many samples, of whole groups at random.
        max_rows: Read at most this many samples, of whole groups at random.
        fresh: Draw this many answers from the model to see whether the data holds what it would do.
        hoped_gain: The improvement of the mean reward that should be visible.
        is_logging_model: The model is the one that drew the data.
        seed: Of every random choice.
    """
    request = AuditRequest(
        data=data,
        model=model,
        evaluation=evaluation,
        where=where,
        page=html,
        config=config,
        max_samples=max_samples,
        max_rows=max_rows,
        num_fresh=fresh,
        hoped_gain=hoped_gain,
        is_logging_model=is_logging_model,
        seed=seed,
    )
    run_audit(request, console=console)


@app.command
def board(folder: Path = Path("."), /, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
    """Serve a page over the runs beneath a folder: curves that update, settings side by side, reports.

    Args:
        folder: Holds runs and studies at any depth, or is a run.
        host: Address to listen on; another than this machine's own lets others read the runs.
        port: Where to listen; 0 takes any port that is free.
    """
    run_board(folder, host=host, port=port, console=console)


@recipes.default
def recipes_list() -> None:
    """List all recipes."""
    list_recipes(console)


@recipes.command(name="show")
def recipes_show(name: str, /) -> None:
    """Show a recipe's formula, source, settings and where it departs from its source.

    Args:
        name: As `klimb recipes` lists it.
    """
    show_recipe(console, recipe_named(name))


def main() -> None:
    """Run the command line; the process ends with 0, 2 (what was asked can't be done), or 128 + signal."""
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(handlers=[handler], format="%(message)s")
    logging.captureWarnings(True)
    # The message is for people; the source line that raised it is not.
    warnings.formatwarning = lambda message, *_, **__: str(message)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers_logging.set_verbosity_error()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and returns the exit status. Our own errors are printed as one red paragraph."""
    try:
        app(arguments, result_action="return_value")
    except Interrupted as error:
        return error.status
    except KeyboardInterrupt:
        console.print(
            Text("stopped; if it had made a run's folder, klimb train --resume FOLDER goes on with it", style="yellow")
        )
        return INTERRUPT_STATUS
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get(TRACEBACK_VARIABLE) or not is_ours(error):
            raise
        Console(stderr=True).print(Text(f"{error}", style="red"), soft_wrap=True)
        return USAGE_STATUS
    return 0


def is_ours(error: BaseException) -> bool:
    """Tell whether our own code raised it, with a message for people; an error inside a library is a defect."""
    if isinstance(error, OSError | ImportError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent.parent)


def _name_after(path: Path, overrides: list[str]) -> RunConfig:
    """Return the configuration, named after its file unless it names itself."""
    tables = with_overrides(read_tables(path), overrides)
    section = tables.setdefault("run", {})
    if isinstance(section, dict):
        section.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:100].lstrip(".") or "run")
    return build_config(tables, source=str(path))


def _resume(path: Path, overrides: list[str], *, is_alone: bool) -> None:
    if not is_alone:
        raise ConfigError("--resume takes a run as it is; only --set may go with it")
    if not is_run(path):
        raise ConfigError(f"{path} holds no run: there is no {RunFolder(path).config}")
    folder = RunFolder(path)
    run = build_config(with_overrides(read_tables(folder.config), overrides), source=str(folder.config))
    _run(run, path, lambda: folder, resume=True)


def _run(run: RunConfig, path: Path, open_folder: Callable[[], RunFolder], *, resume: bool) -> None:
    title = f"{relative_to_working_directory(path)} · {run.objective.recipe}"
    finished = run_training(make_session(run), open_folder, console=console, title=title, resume=resume)
    print_run(console, finished)
