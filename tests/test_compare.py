"""Arms against each other when something goes wrong, from tables of ``limask evaluate``."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from limask.cli import main
from limask.errors import LimaskError
from limask.experiments.evaluation import evaluate_output
from limask.experiments.evaluation.compare import MARKDOWN, compare
from limask.experiments.evaluation.evaluate_output import Row, read_csv, write_csv
from limask.experiments.statistics import Interval

#: Wins by arm, seed and what goes wrong.
WINS = {
    "plain": {1: {("dropout", 0.0): 0.8, ("dropout", 0.4): 0.2, ("nearest", 1.0): 0.1},
              2: {("dropout", 0.0): 0.9, ("dropout", 0.4): 0.4, ("nearest", 1.0): 0.3}},
    "lim": {1: {("dropout", 0.0): 0.9, ("dropout", 0.4): 0.7, ("nearest", 1.0): 0.5},
            2: {("dropout", 0.0): 0.7, ("dropout", 0.4): 0.9, ("nearest", 1.0): 0.7}},
}  # fmt: skip


def row(arm: str, seed: int, kind: str, severity: float, won: float, map_name: str = "3m") -> Row:
    nothing = Interval(won, won / 2, (won + 1) / 2)
    return Row(f"{arm}/{seed}", arm, "3m", seed, 1000, map_name, kind, severity, 128, nothing, 20 * won, 0.5)


ROWS = [
    row(arm, seed, kind, severity, won)
    for arm, seeds in WINS.items()
    for seed, of_run in seeds.items()
    for (kind, severity), won in of_run.items()
]


def table(path: Path, rows: list[Row]) -> Path:
    write_csv(path, rows)
    return path


def cells(text: str, first: str) -> list[str]:
    """Of the only line that begins with ``first``, the other cells."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return line.removeprefix(f"| {first} | ").removesuffix(" |").split(" | ")


def test_tables_by_hand(tmp_path: Path) -> None:
    text = compare([table(tmp_path / "a.csv", ROWS)])
    assert cells(text, "nothing") == ["85 (80, 90)", "80 (90, 70)"]
    assert cells(text, "dropout 0.4") == ["30 (20, 40)", "80 (70, 90)"]
    assert cells(text, "nearest 1") == ["20 (10, 30)", "60 (50, 70)"]
    # Means of seeds: 15 and 35, 60 and 80; drawn anew, both may be the worse or the better one.
    assert cells(text, "mean of what goes wrong") == ["25 (15 to 35)", "70 (60 to 80)"]
    assert cells(text, "lim") == ["3m", "-5 (-20 to 10)", "45 (25 to 65)"]
    assert text.index("nothing") < text.index("dropout 0.4"), "it comes first, whatever its kind was"


def test_a_kind_may_count_more(tmp_path: Path) -> None:
    """(20 + 4 · 10) / 5 and (40 + 4 · 30) / 5; 54 and 74."""
    text = compare([table(tmp_path / "a.csv", ROWS)], weights={"nearest": 4}, against="lim")
    mean = "mean of what goes wrong, nearest × 4"
    assert cells(text, mean) == ["22 (12 to 32)", "64 (54 to 74)"]
    assert cells(text, "plain") == ["3m", "5 (-10 to 20)", "-42 (-62 to -22)"]


def test_a_kind_may_be_left_out(tmp_path: Path) -> None:
    text = compare([table(tmp_path / "a.csv", ROWS)], weights={"nearest": 0})
    assert cells(text, "mean of what goes wrong, without nearest") == ["30 (20 to 40)", "80 (70 to 90)"]


def test_maps_count_alike_in_what_is_compared(tmp_path: Path) -> None:
    """On 8m, one seed: 10 and 20 points more; with 3m's −5 and 45 that is 2.5 and 32.5."""
    more = [row("plain", 1, "dropout", 0.0, 0.5, "8m"), row("plain", 1, "dropout", 0.4, 0.1, "8m"),
            row("lim", 1, "dropout", 0.0, 0.6, "8m"), row("lim", 1, "dropout", 0.4, 0.3, "8m")]  # fmt: skip
    text = compare([table(tmp_path / "a.csv", ROWS), table(tmp_path / "b.csv", more)])
    on, nothing, mean = cells(text, "lim")
    assert (on, nothing.split()[0], mean.split()[0]) == ("3m, 8m", "2", "32")
    assert "| 8m: what goes wrong | plain | lim |" in text
    assert "| dropout 0.4 | 10 | 30 |" in text


def test_without_wins_there_are_returns(tmp_path: Path) -> None:
    nan = float("nan")
    rows = [each._replace(win_rate=Interval(nan, nan, nan)) for each in ROWS]
    text = compare([table(tmp_path / "a.csv", rows)])
    assert cells(text, "nothing") == ["17.00 (16.00, 18.00)", "16.00 (18.00, 14.00)"]


def test_where_nothing_goes_wrong_there_is_no_mean(tmp_path: Path) -> None:
    rows = [each for each in ROWS if each.severity == 0]
    text = compare([table(tmp_path / "a.csv", rows)])
    assert "\n| mean of" not in text
    assert cells(text, "lim") == ["3m", "-5 (-20 to 10)", "–"]
    # And where something always does, nothing is said of when nothing does.
    rows = [each for each in ROWS if each.severity > 0]
    assert cells(compare([table(tmp_path / "b.csv", rows)]), "lim") == ["3m", "–", "45 (25 to 65)"]


def test_nothing_is_the_mean_of_what_was_played_of_it(tmp_path: Path) -> None:
    """Environments that draw by themselves do not repeat their episodes for the next kind."""
    rows = [row("lim", 1, "dropout", 0.0, 0.7), row("lim", 1, "nearest", 0.0, 0.9)]
    assert cells(compare([table(tmp_path / "a.csv", rows)]), "nothing") == ["80"]
    with pytest.raises(LimaskError, match="not a row in it"):
        compare([table(tmp_path / "none.csv", [])])


def test_each_panel_of_the_picture_begins_where_nothing_goes_wrong() -> None:
    """Played once, of one kind, it stands in the panels of all."""
    pytest.importorskip("matplotlib")
    first, second = evaluate_output._drawn(ROWS).axes
    for panel, severity, means in ((first, 0.4, (0.3, 0.8)), (second, 1.0, (0.2, 0.6))):
        assert panel.get_xticks().tolist() == [0.0, severity]
        drawn = [line.get_ydata() for line in panel.lines]
        expected = [[0.85, means[0]], [0.8, means[1]]]
        assert [list(map(float, values)) for values in drawn] == [pytest.approx(each) for each in expected]
    (alone,) = evaluate_output._drawn([each for each in ROWS if each.perturbation == "nearest"]).axes
    assert alone.get_xticks().tolist() == [1.0], "nothing was played"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ROWS)
    assert read_csv(path) == ROWS
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line.partition(',')[2]}\n" for line in lines))
    assert read_csv(path) == [each._replace(run="") for each in ROWS], "folders may be left out"


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = table(tmp_path / "a.csv", ROWS), tmp_path / "out"
    command = ["compare", str(path), "--against", "lim", "--weight", "nearest=2", "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    written = (output / MARKDOWN).read_text()
    assert printed == f"{written}Written: {output / MARKDOWN}\n"
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*ROWS, row("lim", 1, "nearest", 1.0, 0.6)], "lim, seed 1, under nearest 1 on 3m is there twice"),
        (ROWS[:-1], "lim, seed 2, was not evaluated under nearest 1 on 3m"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path: Path, rows: list[Row], words: str) -> None:
    """The same numbers twice are one run's: kinds of faults repeat the battles in which nothing is wrong."""
    same = [*ROWS, row("lim", 1, "nearest", 0.0, 0.9)]
    assert compare([table(tmp_path / "same.csv", same)]) == compare([table(tmp_path / "once.csv", ROWS)])
    with pytest.raises(LimaskError, match=words):
        compare([table(tmp_path / "a.csv", rows)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--against limm", "--against limm: not there; did you mean 'lim'? (known: plain, lim)"),
        ("--weight nerest=2", "did you mean 'nearest'?"),
        ("--weight nearest", "--weight nearest: expected a kind and a number from 0 on, as in nearest=2"),
        ("--weight nearest=-2", "--weight nearest=-2: expected a kind and a number from 0 on"),
        ("--weight nearest=0 dropout=0", "--weight: every kind that goes wrong on 3m has 0"),
        ("--weight nearest=inf", "--weight nearest=inf: expected"),
    ],
)
def test_bad_options(tmp_path: Path, options: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "a.csv", ROWS)
    assert main(["compare", str(path), *options.split(), "--output", str(tmp_path / "out")]) == 2
    out, told = capsys.readouterr()
    assert words in told and not out and not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [None, "", "arm,seed\nlim,1\n", "\x00\x01", b"\xff\xfe\xff"])
def test_files_of_another_kind(tmp_path: Path, text: str | bytes | None) -> None:
    path = tmp_path / "other.csv"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(LimaskError, match=r"other\.csv is (not there|no table of `limask evaluate`)"):
        compare([path])
    damaged = table(tmp_path / "other.csv", ROWS).read_text().replace("0.8", "0.8x", 1)
    path.write_text(damaged)
    with pytest.raises(LimaskError, match="is no table of `limask evaluate`"):
        compare([path])


def test_what_else_was_measured_is_compared(tmp_path: Path) -> None:
    rows = [of._replace(measures={"focus": of.win_rate.value / 2, "credit": math.nan}) for of in ROWS]
    file = table(tmp_path / "a.csv", rows)
    assert read_csv(file)[0].measures["focus"] == pytest.approx(0.4)
    text = compare([file], measure="focus")
    assert cells(text, "nothing") == ["0.43 (0.40, 0.45)", "0.40 (0.45, 0.35)"]
    for measure, words in (("focsu", "did you mean 'focus'"), ("credit", "plain, seed 1, under dropout 0 ")):
        with pytest.raises(LimaskError, match=words):
            compare([file], measure=measure)
