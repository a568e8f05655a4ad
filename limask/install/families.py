"""Which family a checkout belongs to, told from what is written in its files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from limask.errors import LimaskError

#: The host that lives in site-packages, by its package's name.
PYMARLZOOPLUS = "pymarlzooplus"


class Family(NamedTuple):
    """``key`` in the code, ``name`` for people, and in some files each a word that tells it from others."""

    key: str
    name: str
    words: dict[str, str]


_Q_LEARNER, _NQ_LEARNER = "src/learners/q_learner.py", "src/learners/nq_learner.py"

#: The first whose words are all there is the family.
FAMILIES = (
    Family(
        "epymarl",
        "EPyMARL 2.0.0 or later",
        {_Q_LEARNER: "target_update_interval_or_tau", "src/runners/episode_runner.py": "truncated"},
    ),
    Family("epymarl_v1", "EPyMARL before 2.0.0", {_Q_LEARNER: "target_update_interval_or_tau"}),
    Family("pymarl3", "PyMARL3", {_NQ_LEARNER: "NQLearner", "src/config/default.yaml": "cpu_inference"}),
    Family("pymarl2", "PyMARL2", {_NQ_LEARNER: "NQLearner"}),
    Family("pymarl", "PyMARL", {_Q_LEARNER: "target_update_interval"}),
)


def pymarlzooplus_folder(asked: str = "") -> Path:
    """Folder of the installed pymarlzooplus.

    Args:
        asked: where it was asked for, as ``--host=pymarlzooplus``, for the message.

    Raises:
        LimaskError: it is not installed; the message says how to.
    """
    found = find_spec(PYMARLZOOPLUS)
    if found is None or found.origin is None:
        raise LimaskError(
            f"{asked}{', and ' if asked else ''}pymarlzooplus is not installed: `pip install "
            f"'limask[pymarlzooplus]'` and then `pip install --no-deps pymarlzooplus==1.1.0`"
        )
    return Path(found.origin).parent


def family_of(root: Path) -> Family:
    """The family of the checkout at ``root``.

    Raises:
        LimaskError: none that limask has an adapter for.
    """
    for family in FAMILIES:
        if all(_says(root / name, word) for name, word in family.words.items()):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise LimaskError(
        f"{root} is a PyMARL-family checkout that limask has no adapter for: neither {_Q_LEARNER} nor "
        f"{_NQ_LEARNER} is like that of {known}; use one of these, or pymarlzooplus"
    )


def _says(path: Path, word: str) -> bool:
    return path.is_file() and word in path.read_text(encoding="utf-8", errors="replace")
