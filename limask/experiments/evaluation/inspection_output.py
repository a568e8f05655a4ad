"""What ``limask inspect`` prints and writes."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from limask.experiments.display import Axes
from limask.experiments.evaluation.runs import TrainedRun
from limask.files import replace

if TYPE_CHECKING:
    import torch

CSV, PNG = "inspect.csv", "inspect.png"
NAMES = (CSV, PNG)

_HEADER = ("time_step", "agent", "agent_is_alive", "token", "is_visible", "mask_rate", "error")

#: Error of the colour at the end of the scale; predicting each feature's mean has an error of about 1.
_WORST = 2.0

#: Inches for a token's row, for what is around an agent's rows, and for the whole picture at most.
_ROW, _AROUND, _HIGHEST = 0.2, 0.45, 100.0

_UNSEEN, _SEEN, _DEATH = "#d0d0d0", "#ffffff", "#d62728"


class Inspection(NamedTuple):
    """One test episode of T time steps, the last of which no action follows.

    Attributes:
        run: whose agents act and whose autoencoder reconstructs.
        seed: of the battle.
        result: see ``Episode``.
        names: N × J names of the tokens; allies and enemies are numbered from 1.
        is_alive: (T, N) bool.
        is_visible: (T, N, J) bool, True = the environment showed the token.
        mask_rate: (T, N, J) share of the draws in which the token was hidden.
        error: (T, N, J) mean squared error of the standardised features over the draws in which the token was
            reconstructed; NaN where that was in none.
    """

    run: TrainedRun
    seed: int
    result: str
    names: list[list[str]]
    is_alive: torch.Tensor
    is_visible: torch.Tensor
    mask_rate: torch.Tensor
    error: torch.Tensor


def title(inspection: Inspection) -> str:
    """What was inspected."""
    run = inspection.run
    return f"{run.name}, step {run.steps:,}: battle of seed {inspection.seed}, {inspection.result}"


def summary(inspection: Inspection) -> list[str]:
    """Lines on what was hidden and how well it was reconstructed, by kind of token."""
    names = np.array(inspection.names)
    lines = [title(inspection)]
    for kind in dict.fromkeys(name.rpartition(" ")[0] for name in inspection.names[0]):
        is_shown = inspection.is_visible.numpy() & np.char.startswith(names, f"{kind} ")
        rate, error = (values.numpy()[is_shown] for values in (inspection.mask_rate, inspection.error))
        error = error[~np.isnan(error)]
        lines.append(
            f"  {kind}: {is_shown.sum()} tokens seen by {len(names)} agents in {len(is_shown)} steps, "
            f"hidden in {_mean(rate):.1%} of the draws, reconstructed with error {_mean(error):.3f}"
        )
    return lines


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def write_csv(path: Path, inspection: Inspection) -> None:
    """One line for each time step, agent and token; no error where nothing was reconstructed."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(_HEADER)
            for t, agent, k in np.ndindex(*inspection.is_visible.shape):
                rate, error = (float(part[t, agent, k]) for part in (inspection.mask_rate, inspection.error))
                is_alive, is_visible = inspection.is_alive[t, agent], inspection.is_visible[t, agent, k]
                lines.writerow((
                    t, agent + 1, int(is_alive), inspection.names[agent][k], int(is_visible), f"{rate:.6g}",
                    "" if math.isnan(error) else f"{error:.6g}",
                ))  # fmt: skip

    replace(path, write)


def write_png(path: Path, inspection: Inspection) -> None:
    """Draw, for each agent, tokens over time steps: mask rates on the left, errors on the right."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    _, n_agents, n_tokens = inspection.is_visible.shape
    row = min(_ROW, (_HIGHEST / n_agents - _AROUND) / n_tokens)
    height = 1.6 + n_agents * (n_tokens * row + _AROUND)
    figure = Figure(figsize=(13, height), dpi=100, layout="constrained")
    panels = figure.subplots(n_agents, 2, sharex=True, squeeze=False)
    columns = (
        (
            inspection.mask_rate,
            "how often the masker hides the unit from this agent (share of draws)",
            1.0,
            "neither",
        ),
        (
            inspection.error,
            "how wrong the guess of it is then (1: as wrong as always guessing the average)",
            _WORST,
            "max",
        ),
    )
    for column, (values, label, end, extend) in enumerate(columns):
        for agent in range(n_agents):
            image = _heat_map(panels[agent, column], inspection, agent, values, end)
            panels[agent, column].tick_params(axis="y", labelsize=min(8.0, 60 * row), length=2)
        panels[-1, column].set_xlabel("time step")
        panels[-1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(
            image, ax=panels[:, column], label=label, extend=extend,
            location="bottom", aspect=40, pad=0.1 / height, fraction=0.5 / height,
        )  # fmt: skip
    marks = [
        Patch(facecolor=_UNSEEN, label="not seen by this agent"),
        Patch(facecolor=_SEEN, edgecolor="#999999", label="seen and never hidden: nothing to guess"),
        Line2D([], [], color=_DEATH, linewidth=2, label="this agent died"),
    ]
    figure.suptitle(title(inspection), fontsize=11)
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
    replace(path, lambda temporary: figure.savefig(temporary, format="png"))


def _heat_map(axes: Axes, inspection: Inspection, agent: int, values: torch.Tensor, end: float) -> Any:
    """Draw one agent's ``values`` (T, N, J) from 0 to ``end``, and what it saw; returns the image."""
    from matplotlib.colors import ListedColormap

    is_visible = inspection.is_visible[:, agent].T.numpy()
    shown = np.ma.masked_where(~is_visible, values[:, agent].T.numpy())
    look = {"aspect": "auto", "interpolation": "nearest"}
    axes.imshow(is_visible, cmap=ListedColormap([_UNSEEN, _SEEN]), vmin=0, vmax=1, **look)
    image = axes.imshow(np.ma.masked_invalid(shown), cmap="viridis", vmin=0, vmax=end, **look)
    dead = np.flatnonzero(~inspection.is_alive[:, agent].numpy())
    if dead.size:
        axes.axvline(dead[0] - 0.5, color=_DEATH, linewidth=2)
    axes.set_yticks(range(len(inspection.names[agent])), inspection.names[agent])
    axes.set_title(f"agent {agent + 1}", fontsize=9, loc="left", pad=3)
    return image
