"""The failures a user can meet: each says in one sentence what is wrong, where, and what to do."""


def first_line(error: object) -> str:
    """What an error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class LatentSyncError(Exception):
    """A failure with a sentence for the user; a command prints it and ends with `exit_code`."""

    exit_code = 1


class InputError(LatentSyncError):
    """What the user handed in cannot be used: a file, an argument, a picture without a face."""

    exit_code = 2


class StalledError(InputError):
    """A file gave no answer (a stalled or failing disk): nothing is known of what is in it."""


class ConfigError(InputError):
    """A configuration holds an unknown key or a value that this code cannot honour."""


class WeightsError(InputError):
    """A weight file is missing, is no checkpoint, or belongs to another network than the configuration names."""


class OutputError(LatentSyncError):
    """A result could not be written: a full disk, a folder without permission, an encoder that gave up."""


class OutOfMemoryError(LatentSyncError):
    """The device ran out of memory even at the smallest batch."""


def reason_of(error: Exception) -> str:
    """Why one of many could not be done, in one sentence."""
    return str(error) if isinstance(error, LatentSyncError) else f"unexpected failure ({type(error).__name__}: {first_line(error)})"
