"""How numbers and arms are shown: to people, in a terminal and in pictures."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any, NamedTuple, TypeAlias

#: matplotlib is an extra, and looked at without its types.
Axes: TypeAlias = Any


class Table(NamedTuple):
    """Rows of text; the columns in ``words`` are words and the others numbers."""

    header: list[str]
    rows: list[list[str]]
    words: Collection[int]


def markdown_table(table: Table) -> str:
    """The table in Markdown, with columns of numbers to the right."""
    rule = ["---" if i in table.words else "---:" for i in range(len(table.header))]
    rows = [[plain_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def plain_markdown(line: str) -> str:
    """Text of which Markdown makes nothing else."""
    for sign in "\\|*<":
        line = line.replace(sign, f"\\{sign}")
    return " ".join(line.split())


def percent(rate: float) -> str:
    """A rate in [0, 1] as a percentage: ``81 %``."""
    return f"{100 * rate:.0f} %"


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: ``1:02:03``, ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def say(word: str) -> None:
    """Tell whoever waits what is being done, beside what a command prints."""
    print(word, file=sys.stderr, flush=True)


# Okabe and Ito's colours, which the colour-blind can tell apart; first those that stand out on white as well
# as on black. Markers tell apart what is printed grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F", "#E69F00", "#56B4E9")


_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def nth_style(i: int) -> tuple[str, str]:
    """Colour and marker of the arm that comes after ``i`` others."""
    return COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
