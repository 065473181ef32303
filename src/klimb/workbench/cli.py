"""The command line: one module for each command in `commands/`, and how a command ends."""

import logging
import os
import signal
import sys
import warnings
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from cyclopts import App
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from klimb import __version__
from klimb.errors import Interrupted, RunFailed, is_ours
from klimb.tasks.shown_text import shown_text
from klimb.workbench import commands
from klimb.workbench.streams import protect_streams

app = App(
    name="klimb",
    help="Off-policy, KL-regularised reinforcement learning for language models.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)


def add_commands(app: App, package: ModuleType) -> None:
    """Add the command of each module of the package: what bears the module's name, called so or by its `NAME`."""
    for found in iter_modules(package.__path__):
        module = import_module(f"{package.__name__}.{found.name}")
        command = getattr(module, found.name)
        name = None if isinstance(command, App) else getattr(module, "NAME", found.name)
        app.command(command, name=name)


add_commands(app, commands)

USAGE_STATUS = 2
TRACEBACK_VARIABLE = "KLIMB_TRACEBACK"


def main() -> None:
    """Run the command line.

    The process ends with 0; 2: what was asked can't be done; 3: an error ended a run, whose last complete step is
    saved; 4: the same, and it could not be saved; or 128 + signal.
    """
    protect_streams()
    handler = RichHandler(console=Console(), show_time=False, show_path=False)
    handler.addFilter(show_what_cannot_be_seen)
    logging.basicConfig(handlers=[handler], format="%(message)s")
    logging.captureWarnings(True)
    # Before transformers is imported, which reads it then.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # The message is for people; the source line that raised it is not.
    warnings.formatwarning = lambda message, *_, **__: str(message)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and returns the exit status. Our own errors are printed as one red paragraph."""
    try:
        app(arguments, result_action="return_value")
    except Interrupted as error:
        return error.status
    except RunFailed as error:
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        return error.status
    except KeyboardInterrupt as error:
        Console().print(
            Text("stopped; if it had made a run's folder, klimb train --resume FOLDER goes on with it", style="yellow")
        )
        return 128 + getattr(error, "signal_number", signal.SIGINT)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get(TRACEBACK_VARIABLE) or not is_ours(error):
            raise
        Console(stderr=True).print(Text(shown_text(f"{error}"), style="red"), soft_wrap=True)
        return USAGE_STATUS
    return 0


def show_what_cannot_be_seen(record: logging.LogRecord) -> bool:
    """Write out control characters in a message: an error of a reward or a name in a log may have brought them."""
    record.msg, record.args = shown_text(record.getMessage()), None
    return True
