"""The report in Markdown: the page's words and tables, and the pictures as links to PNG files."""

from __future__ import annotations

from collections.abc import Iterable

from limask.experiments.display import markdown_table, plain_markdown
from limask.experiments.report import tables, text
from limask.experiments.report.data import Report


def markdown(report: Report, pictures: Iterable[str]) -> str:
    """The text of the file; ``pictures`` are the names of the PNG files beside it, without their ending."""
    first, *others = text.headlines(report)
    images = {name: f"![{name.replace('_', ' ')}]({name}.png)" for name in pictures}
    commands = "\n".join(run.command for run in report.runs)
    parts = [
        f"# {report.title}",
        f"**{plain_markdown(first)}**",
        _list(others),
        plain_markdown(text.counted(report)),
        _list(text.cautions(report)),
        "## Learning curves",
        images.get("learning_curves", ""),
        images.get("survival", ""),
        _list(text.never_reached(report)),
        "## Arms and maps",
        markdown_table(tables.ablation(report)),
        *_comparison(report, images),
        *_robustness(report),
        "## Time and updates",
        markdown_table(tables.costs(report)),
        plain_markdown(text.updates(report)),
        "## How to read this",
        _list(text.how_to_read(report)),
        "## Arms",
        markdown_table(tables.arms(report)),
        "## Runs",
        markdown_table(tables.runs(report)),
        "## Commands" if report.is_planned else "## Folders",
        f"```bash\n{commands}\n```",
        "## Versions and machine",
        markdown_table(tables.made_with(report)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _comparison(report: Report, images: dict[str, str]) -> list[str]:
    numbers = report.numbers
    if not numbers.improvements:
        return []
    ratios = (
        ["## Ratios", images.get("forest", ""), markdown_table(tables.ratios(report))]
        if numbers.ratios
        else []
    )
    return [
        *ratios,
        "## Probability of improvement",
        markdown_table(tables.improvements(report)),
        images.get("profile", ""),
    ]


def _robustness(report: Report) -> list[str]:
    if not report.robustness:
        return []
    found = map(markdown_table, report.robustness)
    return ["## When something goes wrong", plain_markdown(text.ROBUSTNESS), *found]


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {plain_markdown(line)}" for line in lines)
