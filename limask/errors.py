"""The one exception that limask shows to its users as a message."""

from sacred.utils import SacredError


class LimaskError(SacredError):
    """A problem the user can solve, told on one line and shown without a traceback.

    A host's run is a sacred experiment: sacred prints a ``SacredError`` of this kind as its message alone and
    exits with status 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, print_traceback=False)
