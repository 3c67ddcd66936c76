"""The errors a user can cause: one clear line on the screen and exit code 2, never a traceback."""


class PodiumError(Exception):
    """What is wrong, where (file, key or row), and what would work, in one line."""


class ConfigError(PodiumError):
    """A mistake in an experiment file or an override."""
