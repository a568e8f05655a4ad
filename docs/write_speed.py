"""Writes the tables of docs/performance.md that say what docs/results/speed.csv and docs/results/peers hold.

``python docs/write_speed.py`` renews them; ``--check`` changes nothing, and fails where they are not current.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from limask.experiments.bench import peers
from limask.experiments.display import markdown_table, percent

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/performance.md"
CSV, PEERS = ROOT / "docs/results/speed.csv", ROOT / "docs/results/peers"

#: Map by its heading.
MAPS = {"LBF 8x8-2p-3f": "lbf_8x8_2p_3f", "3m": "3m", "2s3z": "2s3z", "27m_vs_30m": "27m_vs_30m"}
ARMS = ("parity", "qmix_entity", "qmix_entity_lim", "qmix_lim", "qmix_lim_robust")
ACTING = (
    "qmix_fc",
    "qmix_entity",
    "qmix_lim",
    "qmix_lim_robust",
    "qmix_entity compile=True",
    "qmix_lim compile=True",
)

#: What a row says, by the case of the file that it is of, in each table.
UPDATES = {f"update, {kind}, {arm}": f"`{arm}`, {kind}" for kind in ("replay", "full length") for arm in ARMS}
REACHING = {
    "update, replay, qmix_lim faults.replay=1": "`lim.faults.replay=1`",
    "update, replay, qmix_lim masker.replay=1": "`lim.masker.replay=1`",
    "update, replay, qmix_lim masker.replay=1, value_saliency": "`lim.masker.replay=1`, `value_saliency`",
    "update, replay, qmix_lim view.weight=0.1": "`lim.view.weight=0.1`",
    "update, replay, qmix_lim autoencoder.denoise=True": "`lim.autoencoder.denoise=True`",
}
LOOP = {
    f"end to end, per step, {arm}": f"`{arm}`, acting and learning, per environment step"
    for arm in ("qmix_fc", "qmix_entity", "qmix_lim", "qmix_lim_robust")
}
LOOP |= {
    f"{case}, {arm}": f"`{arm.partition(' ')[0]}`{', compiled' * (' ' in arm)}, {what}"
    for arm in ACTING
    for case, what in {
        "acting, actions chosen": "acting: inputs, agent and choice",
        "acting, agent alone": "the agent's step alone",
    }.items()
}
LOOP |= {
    f"memory of an update, {arm} (MiB)": f"`{arm}`, memory that an update adds"
    for arm in ("parity", "qmix_lim")
}
#: By name the rows and the maps of each table.
TABLES = {
    "updates": (UPDATES, MAPS),
    "reaching": (REACHING, {"2s3z": "2s3z"}),
    "loop": (LOOP, {name: key for name, key in MAPS.items() if key != "lbf_8x8_2p_3f"}),
}


def table(rows: Mapping[str, str], maps: Mapping[str, str]) -> str:
    """A table of ratios with their spreads, – where nothing was timed."""
    with CSV.open(encoding="utf-8", newline="") as file:
        timed = {(row["case"], row["shape"]): row for row in csv.DictReader(file)}
    lines = [f"| | {' | '.join(maps)} |", f"|---|{'---|' * len(maps)}"]
    for case, said in rows.items():
        cells = [_ratio(timed.get((case, key))) for key in maps.values()]
        lines.append(f"| {said} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "–"
    ratio, spread = f"{float(row['ratio']):.2f}", float(row["spread"])
    return f"{ratio} ± {spread:.2f}" if spread else ratio


def ends(curves: peers.Curves) -> str:
    """The mean over seeds of the wins in the last three tests, of each peer on each map."""
    names = dict.fromkeys(peer for peer, _, _ in curves)
    lines = [f"| | {' | '.join(f'`{name}`' for name in names)} |", f"|---|{'---|' * len(names)}"]
    for map_name in dict.fromkeys(map_name for _, map_name, _ in curves):
        cells = []
        for name in names:
            own = [curve for key, curve in curves.items() if key[:2] == (name, map_name)]
            cells.append(percent(mean(point.win_rate for curve in own for point in curve[-3:])))
        lines.append(f"| `{map_name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def raced(file: Path) -> peers.Curves:
    """The curves of a race."""
    curves: dict[tuple[str, str, int], list[peers.Point]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            point = peers.Point(int(row["steps"]), float(row["win_rate"]), float(row["cpu_seconds"]))
            curves.setdefault((row["peer"], row["map"], int(row["seed"])), []).append(point)
    return curves


def renewed(text: str) -> str:
    """The page with its tables written anew."""
    tables = {name: table(*of) for name, of in TABLES.items()}
    for name in ("peers", "longer"):
        curves = raced(PEERS / f"{name}.csv")
        tables |= {name: markdown_table(peers.table(curves)), f"{name}_end": ends(curves)}
    for name, of in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        written = f"{begin}\n\n{of}\n\n{end}"
        text, n = re.subn(
            f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, to=written: to, text, flags=re.S
        )
        assert n == 1, f"{PAGE}: expected one pair of {begin} and {end}"
    return text


def main(arguments: list[str]) -> int:
    """Renew the page, or say whether it is current."""
    text = PAGE.read_text(encoding="utf-8")
    if "--check" in arguments:
        return int(renewed(text) != text)
    PAGE.write_text(renewed(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
