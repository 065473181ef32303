"""What stands between klimb and a program of the user's: it ends with the run, and its memory has a limit."""

import os
import sys

from klimb.tasks.worker import end_with_parent, limit_memory


def main(memory_limit_bytes: int, words: list[str]) -> None:
    """Become the program."""
    end_with_parent()
    limit_memory(memory_limit_bytes or None)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.exit(f"{words[0]} cannot be started: {error.strerror}")
