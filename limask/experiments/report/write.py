"""``limask campaign report`` and ``limask report``: what runs show, as a page, as Markdown, as pictures and
as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from limask.errors import LimaskError
from limask.experiments.campaign.collect import collect
from limask.experiments.campaign.folder import CampaignFolder, RunState
from limask.experiments.display import Table
from limask.experiments.evaluation.runs import read_run
from limask.experiments.report.data import Report
from limask.experiments.report.folders import read_folders
from limask.experiments.report.markdown import markdown
from limask.experiments.report.marl_eval import to_marl_eval
from limask.experiments.report.page import page
from limask.experiments.report.plots import pictures, write_png
from limask.experiments.report.runs import read_report
from limask.experiments.report.tables import ablation
from limask.experiments.report.text import cautions, counted, headlines
from limask.files import check_free, make_folder, write_json, write_text
from limask.protocols import State
from limask.requirements import require

#: The report's folder in the campaign's, and that of the films which play in it.
FOLDER, FILMS = "report", "films"

#: The curves for marl-eval, in a report's folder.
MARL_EVAL = "marl_eval.json"


def report_campaign(root: Path) -> None:
    """Write ``report.html``, ``report.md``, ``report.json``, ``marl_eval.json`` and PNG files into ``report``
    in the folder ``root`` of a campaign, which need not be over, and ``curves.csv`` and ``runs.csv`` beside
    it; print the table of arms, the headline, and what to type to see what its agents do. Films in
    ``report/films`` play in the page.

    Raises:
        LimaskError: matplotlib is missing, the folder holds no campaign, a file of it is damaged, no run can
            be reported on, or the report cannot be written; an earlier report is kept then.
    """
    require("report")
    output = root / FOLDER
    try:
        report = read_report(root)
        folder = CampaignFolder.existing(root.absolute())
        states = folder.states(is_running=folder.is_running())
        collect(folder, states)
    except OSError as error:
        raise LimaskError(f"{error.filename or output}: {error.strerror or error}") from error
    _write(report, output)
    if pair := _trained(states, report.numbers.arms):
        runs = shlex.join(str(root / run.relative_to(folder.root)) for run in pair)
        films = shlex.quote(str(output / FILMS))
        print(f"Watch a battle, which the next report plays: limask watch {runs} --output {films}")
        campaign = shlex.quote(str(root))
        print(f"With sensors that fail: limask evaluate {campaign} --perturb dropout --severity 0 0.4")


def _trained(states: Sequence[RunState], arms: Sequence[str]) -> list[Path]:
    """Runs of the first and the last of the arms, on one map and with one seed, that left checkpoints."""
    found: dict[tuple[str, int], dict[str, Path]] = {}
    for state in states:
        if state.attempt is not None and state.run.arm.id in (arms[0], arms[-1]):
            with suppress(LimaskError, OSError):
                read_run(state.attempt.folder)
                key = state.run.environment.id, state.run.seed
                found.setdefault(key, {})[state.run.arm.id] = state.attempt.folder
    pair = max(found.values(), key=len, default={})
    return [pair[arm] for arm in dict.fromkeys((arms[0], arms[-1])) if arm in pair]


def report_folders(
    folders: Sequence[Path],
    output: Path,
    *,
    budget: int | None = None,
    thresholds: Sequence[float] = (0.5, 0.8),
    force: bool = False,
) -> None:
    """Write the same into the folder ``output`` about runs that no campaign has made; see ``read_folders``.

    Args:
        force: whether files in ``output`` are written anew.

    Raises:
        LimaskError: matplotlib is missing, an argument is out of range, ``output`` holds a report, or no run
            can be reported on; nothing has been written then.
    """
    if budget is not None and budget < 1:
        raise LimaskError(f"--budget={budget}: expected at least 1 environment step")
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise LimaskError(f"--thresholds {threshold:g}: expected win rates above 0, up to 1")
    check_free(output, ("report.html", "report.md", "report.json", MARL_EVAL), force=force)
    require("report")
    report = read_folders(folders, budget=budget, thresholds=sorted(set(thresholds)))
    make_folder(output)
    _write(report, output)


def _write(report: Report, output: Path) -> None:
    try:
        drawn = pictures(report.numbers)
        texts = {
            "report.md": markdown(report, drawn),
            "report.html": page(report, sorted((output / FILMS).glob("*.gif"))),
        }
        output.mkdir(exist_ok=True)
        for name, panels in drawn.items():
            write_png(output / f"{name}.png", panels, report.numbers)
        write_json(output / "report.json", to_json(report))
        write_json(output / MARL_EVAL, to_marl_eval(report))
        for name, text in texts.items():
            write_text(output / name, text)
    except OSError as error:
        raise LimaskError(f"{error.filename or output}: {error.strerror or error}") from error
    print("\n".join(_lines(ablation(report))))
    print(headlines(report)[0])
    print(counted(report))
    print(f"Report: {output / 'report.html'}")


def _lines(table: Table) -> list[str]:
    """The table as lines of text, in columns."""
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if i in table.words else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (table.header, *table.rows)
    ] + [""]


def to_json(report: Report) -> State:
    """All numbers and runs, of JSON's types; learning curves are in ``curves.csv`` beside the runs."""
    numbers = asdict(report.numbers)
    for score in numbers["scores"]:
        del score["curve"]
    runs = [asdict(run) for run in report.runs]
    for run in runs:
        del run["config"]
    return {
        "campaign": report.campaign.to_block(),
        "headlines": headlines(report),
        "counted": counted(report),
        "cautions": cautions(report),
        **numbers,
        "robustness": [table._asdict() for table in report.robustness],
        "runs": runs,
    }
