"""Errors a user can mend: each names the thing, what came, what was expected and the remedy."""


class MmavlmError(Exception):
    """A mistake in what the user gave; commands print its message alone and exit with code 1."""


class ConfigError(MmavlmError):
    """A setting that does not fit: its key, its value, what is admitted."""


class DataError(MmavlmError):
    """An annotation, folder or item that cannot be used: file, row, key."""


class VideoError(DataError):
    """A video or frame folder that cannot be read: path and reason."""


class CheckpointError(MmavlmError):
    """A checkpoint that is missing, broken, or of another architecture."""


class DivergedError(MmavlmError):
    """A training whose numbers are no longer finite: which steps and items, what to lower."""


class NoMemoryError(MmavlmError):
    """A step that takes more memory than there is: the estimate, and what to lower."""


def first_line(error: Exception) -> str:
    """What an error says, shortened to a line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
