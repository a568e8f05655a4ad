"""``limask compare``: arms against each other when something goes wrong, over their seeds.

It reads what ``limask evaluate`` wrote, in as many files as that took, and plays nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from limask.errors import LimaskError, nearest
from limask.experiments.display import Table, markdown_table
from limask.experiments.evaluation.evaluate_output import Row, read_csv
from limask.experiments.statistics import Interval, mean_difference, mean_score
from limask.files import check_free, make_folder, write_text

MARKDOWN = "compare.md"

#: What goes wrong, and how strongly; nothing is ``("nothing", 0)``.
Fault = tuple[str, float]
NOTHING: Fault = ("nothing", 0.0)


class Matrix(NamedTuple):
    """Scores on a map: by arm, seed and fault, in the order in which they were found, but nothing first."""

    map_name: str
    faults: list[Fault]
    scores: Mapping[str, Mapping[int, Mapping[Fault, float]]]

    @property
    def is_perturbed(self) -> bool:
        """Whether anything ever goes wrong."""
        return self.faults != [NOTHING]

    def under(self, arm: str, fault: Fault) -> list[float]:
        """The arm's scores under a fault, one for each seed."""
        return [of_run[fault] for of_run in self.scores[arm].values()]

    def means(self, arm: str, weights: Mapping[str, float]) -> list[float]:
        """The arm's means over all that goes wrong, one for each seed; ``weights`` by name, else 1."""
        faults = [fault for fault in self.faults if fault != NOTHING]
        by_fault = [weights.get(name, 1.0) for name, _ in faults]
        return [
            float(np.average([of_run[fault] for fault in faults], weights=by_fault))
            for of_run in self.scores[arm].values()
        ]


def compare(
    files: Sequence[Path],
    *,
    against: str | None = None,
    weights: Mapping[str, float] | None = None,
    measure: str | None = None,
    output: Path | None = None,
    force: bool = False,
) -> str:
    """Print each arm's scores under each fault and their mean, and how much more each scores than another.

    Scores are win rates, or returns where any of the environments knows no wins. Intervals are drawn over
    seeds, within each map.

    Args:
        files: CSV files of ``limask evaluate``.
        against: the arm that the others are compared with; None = the first.
        weights: how often a kind of fault counts in the mean, 1 for those that are not named, 0 for never.
        measure: a column of ``units.MEASURES`` to compare in place of scores.
        output: folder for ``compare.md``, or None for no file.
        force: whether that is written anew.

    Returns:
        The tables, in Markdown.

    Raises:
        LimaskError: a file is none of ``limask evaluate``'s, a run is there twice or lacks a fault that
            others met, or an argument names nothing in them; nothing has been printed or written then.
    """
    tables = compared(files, against=against, weights=weights, measure=measure)
    if output:
        check_free(output, (MARKDOWN,), force=force)
    text = "\n\n".join(map(markdown_table, tables))
    print(text)
    if output:
        make_folder(output)
        write_text(output / MARKDOWN, f"{text}\n")
        print(f"Written: {output / MARKDOWN}")
    return text


def compared(
    files: Sequence[Path],
    *,
    against: str | None = None,
    weights: Mapping[str, float] | None = None,
    measure: str | None = None,
) -> list[Table]:
    """The tables that ``compare`` prints: one for each map, and one of the arms against ``against``, where
    there are others.

    Raises:
        LimaskError: see ``compare``.
    """
    rows = [row for file in files for row in read_csv(file)]
    if not rows:
        raise LimaskError(f"{', '.join(map(str, files))}: not a row in it: nothing was evaluated")
    arms, weights = list(dict.fromkeys(row.arm for row in rows)), weights or {}
    scores, text = scores_of(rows, measure)
    matrices = read_matrices(rows, scores)
    _check_names("--against", [against] if against else [], arms)
    _check_names("--weight", weights, dict.fromkeys(name for of in matrices for name, _ in of.faults))
    for matrix in matrices:
        wrong = [name for name, _ in matrix.faults if name != NOTHING[0]]
        if wrong and not any(weights.get(name, 1) for name in wrong):
            raise LimaskError(
                f"--weight: every kind that goes wrong on {matrix.map_name} has 0: leave one its 1"
            )
    tables = [_scores(matrix, arms, weights, text) for matrix in matrices]
    return tables + ([_differences(matrices, arms, against or arms[0], weights, text)] if arms[1:] else [])


def scores_of(rows: Sequence[Row], measure: str | None = None) -> tuple[list[float], Callable[[float], str]]:
    """What is compared, for each row, and how it is written: see ``compare``.

    Raises:
        LimaskError: ``measure`` was not measured, or a row has no number of it.
    """
    if measure is None and all(row.has_wins for row in rows):
        return [row.win_rate.value for row in rows], _share
    if measure is None:
        return [row.mean_return for row in rows], _plain
    _check_names("--measure", [measure], dict.fromkeys(name for row in rows for name in row.measures))
    for row in rows:
        if math.isnan(row.measures.get(measure, math.nan)):
            raise LimaskError(
                f"--measure {measure}: {row.arm}, seed {row.seed}, under {row.fault} on {row.map_name} has "
                "none; leave that run out, or evaluate it with as many columns"
            )
    return [row.measures[measure] for row in rows], _plain


def read_matrices(rows: Sequence[Row], scores: Sequence[float]) -> list[Matrix]:
    """One for each map that was fought on, of the ``scores`` of the rows.

    Raises:
        LimaskError: a run is there twice with other numbers, or lacks a fault that others met.
    """
    found: dict[str, dict[str, dict[int, dict[Fault, float]]]] = {}
    for row, score in zip(rows, scores, strict=True):
        fault = row.perturbation, row.severity
        of_run = found.setdefault(row.map_name, {}).setdefault(row.arm, {}).setdefault(row.seed, {})
        if of_run.setdefault(fault, score) != score:
            raise LimaskError(
                f"{row.arm}, seed {row.seed}, under {_told(fault)} on {row.map_name} is there twice, with "
                "different numbers: give only one of the files"
            )
    return [
        _matrix(
            map_name,
            {arm: {seed: _merged(of) for seed, of in of_arm.items()} for arm, of_arm in by_arm.items()},
        )
        for map_name, by_arm in found.items()
    ]


def _merged(of_run: Mapping[Fault, float]) -> dict[Fault, float]:
    """A run's scores with one for nothing: severity 0 of one kind is that of any other. Where an environment
    draws by itself, these are several samples of the same."""
    nothing = [score for (_, severity), score in of_run.items() if severity == 0]
    others = {fault: score for fault, score in of_run.items() if fault[1] != 0}
    return ({NOTHING: float(np.mean(nothing))} if nothing else {}) | others


def _matrix(map_name: str, scores: Mapping[str, Mapping[int, Mapping[Fault, float]]]) -> Matrix:
    met = [fault for of_arm in scores.values() for of_run in of_arm.values() for fault in of_run]
    faults = sorted(dict.fromkeys(met), key=lambda fault: fault != NOTHING)
    for arm, of_arm in scores.items():
        for seed, of_run in of_arm.items():
            if lacking := [fault for fault in faults if fault not in of_run]:
                raise LimaskError(
                    f"{arm}, seed {seed}, was not evaluated under {_told(lacking[0])} on {map_name}, and "
                    "others were: evaluate all runs alike"
                )
    return Matrix(map_name, faults, scores)


def _told(fault: Fault) -> str:
    return fault[0] if fault == NOTHING else f"{fault[0]} {fault[1]:g}"


def _check_names(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            raise LimaskError(f"{option} {name}: not there{nearest(name, names)} (known: {', '.join(names)})")


def _scores(
    matrix: Matrix, arms: Sequence[str], weights: Mapping[str, float], text: Callable[[float], str]
) -> Table:
    there = [arm for arm in arms if arm in matrix.scores]
    rows = [
        [_told(fault), *(_seeds(matrix.under(arm, fault), text) for arm in there)] for fault in matrix.faults
    ]
    if matrix.is_perturbed:
        means = [{matrix.map_name: matrix.means(arm, weights)} for arm in there]
        rows.append([_mean(weights), *(_interval(mean_score(of, _generator()), text, of) for of in means)])
    return Table([f"{matrix.map_name}: what goes wrong", *there], rows, (0,))


def _differences(
    matrices: Sequence[Matrix],
    arms: Sequence[str],
    against: str,
    weights: Mapping[str, float],
    text: Callable[[float], str],
) -> Table:
    rows = []
    for arm in arms:
        both = [matrix for matrix in matrices if {arm, against} <= matrix.scores.keys()]
        measures: list[tuple[bool, Callable[[Matrix, str], list[float]]]] = [
            (all(NOTHING in matrix.faults for matrix in both), lambda of, name: of.under(name, NOTHING)),
            (all(matrix.is_perturbed for matrix in both), lambda of, name: of.means(name, weights)),
        ]
        cells = ["–", "–"]
        for i, (is_there, measure) in enumerate(measures):
            if both and is_there:
                ours, theirs = ({of.map_name: measure(of, name) for of in both} for name in (arm, against))
                cells[i] = _interval(mean_difference(ours, theirs, _generator()), text, ours, theirs)
        if arm != against:
            rows.append([arm, ", ".join(matrix.map_name for matrix in both) or "–", *cells])
    return Table([f"more than {against}", "on", "nothing wrong", _mean(weights)], rows, (0, 1))


def _mean(weights: Mapping[str, float]) -> str:
    counted = (f"{name} × {weight:g}" if weight else f"without {name}" for name, weight in weights.items())
    return ", ".join(["mean of what goes wrong", *counted])


def _seeds(scores: Sequence[float], text: Callable[[float], str]) -> str:
    """``66 (64, 69, 65)``: the mean, and each seed's."""
    mean = text(float(np.mean(scores)))
    return mean if len(scores) == 1 else f"{mean} ({', '.join(map(text, scores))})"


def _interval(interval: Interval, text: Callable[[float], str], *of: Mapping[str, Sequence[float]]) -> str:
    """``66 (64 to 69)``, or the value alone where a map has one seed, which gives no interval."""
    value, low, high = map(text, interval)
    is_single = any(len(scores) == 1 for by_map in of for scores in by_map.values())
    return f"{value} (one seed)" if is_single else f"{value} ({low} to {high})"


def _share(value: float) -> str:
    """In percent, without the sign."""
    return f"{round(100 * value) + 0:d}"


def _plain(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}"


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)
