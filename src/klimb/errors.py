"""How a command ends early: something given to klimb cannot be used, or a signal stopped the run."""


class ConfigError(ValueError):
    """Something that was given cannot be used; the message says what came, what was expected and what to do."""


class Interrupted(Exception):
    """A signal ended the run after its state was saved.

    Attributes:
        status: what the process should exit with: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.status = 128 + signal_number
