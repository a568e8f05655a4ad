"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import yaml

from limask.experiments.display import Table
from limask.experiments.evaluation.evaluate_output import CSV, FOLDER
from limask.experiments.report import tables, text
from limask.experiments.report.data import Report
from limask.experiments.report.plots import Panel, pictures, style, svg

_CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2126; --soft: #56606a; --rule: #d9dee3; --card: #f5f7f9; --mark: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e6eaee; --soft: #9aa5b0; --rule: #333b43; --card: #1c2228; --mark: #56b4e9;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: break-word;
}
h1 { font-size: 1.1rem; font-weight: 600; color: var(--soft); margin: 0 0 .75rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.75rem 0 .75rem; }
p, ul { margin: .5rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
.headline { font-size: 1.4rem; line-height: 1.4; font-weight: 600; margin: 0 0 1rem; }
.soft, figcaption, summary { color: var(--soft); }
.cautions { border-left: 3px solid var(--mark); padding: .1rem 0 .1rem .9rem; margin: 1rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .75rem 0; padding: 0;
          list-style: none; }
.legend i { display: inline-block; width: 1.1rem; height: .3rem; border-radius: 2px;
            margin: 0 .4rem .2rem 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem .6rem .3rem; background: var(--card); border-radius: .5rem; min-width: 0; }
figcaption { font-size: .9rem; margin-bottom: .3rem; }
svg { display: block; width: 100%; height: auto; }
img { display: block; max-width: 100%; height: auto; }
svg text { font-family: inherit !important; }
.wide figure { grid-column: 1 / -1; }
.wide .narrow { display: none; }
nav { columns: 14rem; font-size: .9rem; margin: 1.25rem 0; max-width: 46rem; }
nav a { display: block; padding: .1rem 0; }
a { color: var(--mark); }
/* A shadow where there is more: it stays at the box's edges, and is covered there by what scrolls with it. */
.scroll { overflow-x: auto; margin: .75rem 0;
  background: linear-gradient(to right, var(--paper) 40%, transparent) left / 3rem 100% no-repeat local,
              linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
              linear-gradient(to right, var(--rule), transparent) left / 1rem 100% no-repeat scroll,
              linear-gradient(to left, var(--rule), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: right; white-space: nowrap; vertical-align: top;
         border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; }
.words { text-align: left; }
.long { text-align: left; white-space: normal; min-width: 18rem; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: .4rem; padding: .6rem .75rem; margin: .4rem 0; font-size: .8rem;
      white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; }
summary { cursor: pointer; padding: .3rem 0; }
@media (max-width: 40rem) {
  .wide .narrow { display: block; }
  .wide .broad { display: none; }
  th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper);
                                   padding-right: .6rem; }
}
"""

#: Text in a cell that is longer is wrapped.
_LONG = 48

#: Bytes of all films that play in the page.
_FILMS = 2**22


def page(report: Report, films: Sequence[Path] = ()) -> str:
    """The page's HTML.

    Args:
        report: what is reported.
        films: moving pictures of battles (GIF). They play in it, as many as 4 MiB hold.
    """
    drawn = {name: _panels(name, panels) for name, panels in pictures(report.numbers).items()}
    sections = [*_results(report, drawn), *_battles(films), *_record(report), _files(report, drawn)]
    contents = "".join(
        f'<a href="#{anchor}">{_html(title)}</a>'
        for anchor, title in re.findall('<section id="(.+?)">\n<h2>(.+?)</h2>', "\n".join(sections))
    )
    title = report.title
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An empty icon: browsers ask the server for one otherwise.
        '<link rel="icon" href="data:,">\n'
        f"<title>{_html(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"<h1>{_html(title)}</h1>\n{_headline(report)}\n<nav>{contents}</nav>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _headline(report: Report) -> str:
    first, *others = text.headlines(report)
    cautions = text.cautions(report)
    box = f'<div class="cautions">{_paragraphs(cautions)}</div>' if cautions else ""
    return f'<p class="headline">{_html(first)}</p>{_list(others)}<p>{_html(text.counted(report))}</p>{box}'


def _results(report: Report, drawn: dict[str, str]) -> list[str]:
    numbers = report.numbers
    legend = "".join(
        f'<li><i style="background:{style(numbers, arm)[0]}"></i>{_html(arm)}</li>' for arm in numbers.arms
    )
    legend = f'<ul class="legend">{legend}</ul>'
    band = (
        "Interquartile mean over seeds; the band is its 95 % bootstrap interval at each step by itself. "
        "Faint lines are single runs, dotted ones the thresholds."
    )
    sections = [_section("Learning curves", _soft(band), legend, drawn["learning_curves"])]
    never = _list(text.never_reached(report))
    if "survival" in drawn:
        what = "Share of runs that have not reached the win rate yet (Kaplan–Meier); lower is faster."
        sections.append(_section("Survival", _soft(what), legend, drawn["survival"], never))
    elif never:
        sections.append(_section("Survival", never))
    sections.append(_section("Arms and maps", _table(tables.ablation(report))))
    if numbers.ratios:
        what = "Steps of one arm over those of another; 1 is no difference, a diamond is over several maps."
        sections.append(
            _section("Ratios", _soft(what), drawn.get("forest", ""), _table(tables.ratios(report)))
        )
    if numbers.improvements:
        what = "Chance that a run of the first arm ends above one of the second on the same map; 0.5 is even."
        sections.append(
            _section("Probability of improvement", _soft(what), _table(tables.improvements(report)))
        )
    if report.robustness:
        found = map(_table, report.robustness)
        sections.append(_section("When something goes wrong", _soft(text.ROBUSTNESS), *found))
    if "profile" in drawn:
        sections.append(_section("Performance profile", legend, drawn["profile"]))
    what = "Means over finished runs; the time to a win rate is what the steps to it take at that speed."
    cost = _soft(what), _table(tables.costs(report)), _soft(text.updates(report))
    return [
        *sections,
        _section("Time and updates", *cost),
        _section("How to read this", _list(text.how_to_read(report))),
    ]


def _battles(films: Sequence[Path]) -> list[str]:
    figures, n_bytes = [], 0
    for film in films:
        if (n_bytes := n_bytes + film.stat().st_size) > _FILMS:
            break
        data = base64.b64encode(film.read_bytes()).decode()
        figures.append(
            f'<figure><figcaption>{_html(film.stem)}</figcaption><img alt="{_html(film.stem)}" '
            f'src="data:image/gif;base64,{data}"></figure>'
        )
    what = "Battles of trained agents, and what one of them sees, believes and values (`limask watch`)."
    return [_section("Battles", _soft(what), *figures)] if figures else []


def _record(report: Report) -> list[str]:
    return [
        _section("Arms", _table(tables.arms(report))),
        _section("Runs", _table(tables.runs(report))),
        _commands(report),
        _section("Versions and machine", _table(tables.made_with(report))),
    ]


def _commands(report: Report) -> str:
    commands = "".join(f"<p>{_html(run.id)}</p><pre>{escape(run.command)}</pre>" for run in report.runs)
    if not report.is_planned:
        each = f"<details><summary>the folder of each run</summary>{commands}</details>"
        return _section("Folders", each)
    campaign = yaml.safe_dump(report.campaign.to_block(), sort_keys=False, allow_unicode=True)
    return _section(
        "Commands",
        f"<pre>limask campaign run campaign.yaml --output {_html(report.name)}</pre>",
        f"<details><summary>campaign.yaml</summary><pre>{escape(campaign)}</pre></details>",
        f"<details><summary>the command of each run</summary>{commands}</details>",
    )


def _files(report: Report, drawn: Iterable[str]) -> str:
    """Links to what lies beside the page."""
    beside = ["../curves.csv", "../runs.csv"] if report.is_planned else []
    beside += [f"../{FOLDER}/{CSV}"] if report.robustness else []
    names = [*beside, *(f"{name}.png" for name in drawn), "report.json", "marl_eval.json"]
    links = "".join(f'<li><a href="{name}">{name.removeprefix("../")}</a></li>' for name in names)
    return _section("Files", f"<ul>{links}</ul>")


def _html(line: str) -> str:
    """Text as HTML, in which a number stays with its percent sign."""
    return escape(line).replace(" %", "\u00a0%")


def _section(title: str, *parts: str) -> str:
    anchor = title.lower().replace(" ", "-")
    return (
        f'<section id="{anchor}">\n<h2>{_html(title)}</h2>\n'
        + "\n".join(filter(None, parts))
        + "\n</section>"
    )


def _panels(name: str, panels: list[Panel]) -> str:
    figures = (_figure(panel, svg(panel, f"{name}-{i}")) for i, panel in enumerate(panels))
    if not panels[0].is_wide:
        return f'<div class="panels">{"".join(figures)}</div>'
    (panel,) = panels
    broad = _figure(panel, svg(panel, f"{name}-wide", width=8.4), "broad")
    return f'<div class="panels wide">{broad}{_figure(panel, svg(panel, name), "narrow")}</div>'


def _figure(panel: Panel, picture: str, kind: str = "panel") -> str:
    return f'<figure class="{kind}"><figcaption>{_html(panel.title)}</figcaption>{picture}</figure>'


def _table(table: Table) -> str:
    header = "".join(f"<th{_class(i, table, name)}>{_html(name)}</th>" for i, name in enumerate(table.header))
    rows = (
        "<tr>"
        + "".join(f"<td{_class(i, table, cell)}>{_html(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in table.rows
    )
    # Reached by keyboard too, as it scrolls by itself.
    return f'<div class="scroll" tabindex="0"><table><tr>{header}</tr>{"".join(rows)}</table></div>'


def _class(column: int, table: Table, cell: str) -> str:
    if len(cell) > _LONG:
        return ' class="long"'
    return ' class="words"' if column in table.words else ""


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{_html(line)}</li>' for line in lines)}</ul>" if lines else ""


def _paragraphs(lines: list[str]) -> str:
    return "".join(f"<p>{_html(line)}</p>" for line in lines)


def _soft(line: str) -> str:
    return f'<p class="soft">{_html(line)}</p>'
