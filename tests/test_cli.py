"""The ``limask`` command: what a user types wrongly is answered on one line, with a non-zero status."""

from __future__ import annotations

from pathlib import Path

import pytest

from limask import __version__
from limask.cli import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["install", "nowhere"], "nowhere does not exist"),
        (["uninstall", "nowhere"], "nowhere does not exist"),
        (["status", "nowhere"], "nowhere does not exist"),
        (["install", "a_file"], "a_file is a file"),
        (["install", "empty"], "is not a PyMARL-family checkout"),
        (["uninstall", "empty", "--dry-run"], "limask is not installed"),
        (
            ["run", "--host", "nowhere", "--config=qmix_lim", "--env-config=smax"],
            "expected pymarlzooplus or a checkout",
        ),
        (["run", "--host", "pymarlzooplus", "--config=qmix_lin", "--env-config=smax"], "qmix_lim"),
        (["run", "--host", "pymarlzooplus", "--config=qmix_lim"], "--env-config=… is missing"),
    ],
)
def test_mistakes(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    (tmp_path / "empty").mkdir()
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("limask: error: ")
    assert words in told.err
    assert told.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_file", "empty"]


def test_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["status", "--nonsense"])
    assert caught.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


def test_status_of_a_campaigns_folder_points_to_the_command_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my campaign"
    folder.mkdir()
    (folder / "campaign.json").write_text("{}")
    assert main(["status", str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.endswith(f"is a campaign's folder and no checkout: `limask campaign status '{folder}'`\n")


def test_status_names_the_version_and_the_configs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    told = capsys.readouterr().out
    assert f"limask {__version__}" in told
    config = Path(told.splitlines()[1].removeprefix("config: "))
    assert (config / "algs/qmix_lim.yaml").is_file()
