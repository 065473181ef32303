"""The error of a person: something given to klimb cannot be used, and the message says what to do."""


class ConfigError(ValueError):
    """A configuration that can't be run; the message names every key that is wrong."""
