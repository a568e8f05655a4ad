"""The one exception that limask shows to its users as a message."""

import difflib
import warnings
from collections.abc import Iterable

with warnings.catch_warnings():
    # sacred 0.8.7 imports pkg_resources, which warns of its own end: not a user's concern.
    warnings.simplefilter("ignore", UserWarning)
    from sacred.utils import SacredError


class LimaskError(SacredError):
    """A problem the user can solve, told on one line and shown without a traceback.

    A host's run is a sacred experiment: sacred prints a ``SacredError`` of this kind as its message alone and
    exits with status 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, print_traceback=False)


class DivergedError(LimaskError):
    """Training was stopped because a loss is not finite: a result, not a mistake of the user's."""


#: Exit status of a ``limask run`` whose training diverged, by which campaigns know it, and the file among its
#: results that says what was not finite, and when.
DIVERGED_STATUS, DIVERGED_FILE = 3, "diverged.txt"

#: File among the results of a run that made no SGD step, which says so.
UNTRAINED_FILE = "untrained.txt"


def nearest(name: object, known: Iterable[str]) -> str:
    """Words that point to the nearest of the ``known`` names, or none."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
