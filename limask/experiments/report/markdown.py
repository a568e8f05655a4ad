"""The report in Markdown: the page's words and tables, and the pictures as links to PNG files."""

from __future__ import annotations

from collections.abc import Iterable

from limask.experiments.report import tables, text
from limask.experiments.report.data import Report
from limask.experiments.report.tables import Table


def markdown(report: Report, pictures: Iterable[str]) -> str:
    """The text of the file; ``pictures`` are the names of the PNG files beside it, without their ending."""
    first, *others = text.headlines(report)
    images = {name: f"![{name.replace('_', ' ')}]({name}.png)" for name in pictures}
    commands = "\n".join(run.command for run in report.runs)
    parts = [
        f"# {report.title}",
        f"**{_plain(first)}**",
        _list(others),
        _plain(text.counted(report)),
        _list(text.cautions(report)),
        "## Learning curves",
        images.get("learning_curves", ""),
        images.get("survival", ""),
        _list(text.never_reached(report)),
        "## Arms and maps",
        _table(tables.ablation(report)),
        *_comparison(report, images),
        "## Time and updates",
        _table(tables.costs(report)),
        _plain(text.updates(report)),
        "## How to read this",
        _list(text.how_to_read(report)),
        "## Arms",
        _table(tables.arms(report)),
        "## Runs",
        _table(tables.runs(report)),
        "## Commands" if report.is_planned else "## Folders",
        f"```bash\n{commands}\n```",
        "## Versions and machine",
        _table(tables.made_with(report)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _comparison(report: Report, images: dict[str, str]) -> list[str]:
    numbers = report.numbers
    if not numbers.improvements:
        return []
    ratios = ["## Ratios", images.get("forest", ""), _table(tables.ratios(report))] if numbers.ratios else []
    return [
        *ratios,
        "## Probability of improvement",
        _table(tables.improvements(report)),
        images.get("profile", ""),
    ]


def _table(table: Table) -> str:
    rule = ["---" if i in table.words else "---:" for i in range(len(table.header))]
    rows = [[_plain(cell) for cell in row] for row in (table.header, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _plain(line: str) -> str:
    """Text of which Markdown makes nothing else."""
    for sign in "\\|*<":
        line = line.replace(sign, f"\\{sign}")
    return " ".join(line.split())
