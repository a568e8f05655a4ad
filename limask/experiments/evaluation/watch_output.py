"""What ``limask watch`` draws."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from limask.errors import LimaskError
from limask.experiments.display import COLOURS, Axes
from limask.experiments.evaluation.watch_film import Film, Scene, box_of
from limask.files import replace

if TYPE_CHECKING:
    import torch

#: Kinds of files, and who of matplotlib writes them.
WRITERS = {"gif": "pillow", "mp4": "ffmpeg"}

#: Time steps a second, and for how long the last one stays.
RATE, LAST = 3, 2.0

_DPI = 100

#: Inches: width of a run's column, of the maps in it and of names; heights of a row, and of what is above,
#: between and below panels.
_COLUMN, _FIELD, _NAMES = 4.6, 4.4, 0.75
_ROW, _TOP, _BETWEEN, _BOTTOM = 0.155, 0.5, 0.32, 0.36
#: Inches of a line above a panel.
_LINE = 0.17

#: Inches that all rows have at most.
_ROWS = 4.0

_ALLY, _ENEMY = COLOURS[0], COLOURS[1]
_TEXT, _FAINT, _OFF = "#2b2f33", "#8d949a", "#b9bec3"
_GROUND, _DARK, _FIGURE = "#ffffff", "#e4e7ea", "#f5f6f7"


def check_suffix(suffix: str) -> None:
    """Refuse a kind of file that cannot be written here.

    Raises:
        LimaskError: ffmpeg is missing.
    """
    from matplotlib.animation import writers

    if not writers.is_available(WRITERS[suffix]):
        raise LimaskError(
            f"--format={suffix}: expected the program ffmpeg on the PATH; install it, or choose --format=gif"
        )


def write(path: Path, film: Film) -> None:
    """Draw every time step, and the last one for longer."""
    from matplotlib.animation import writers

    picture = Picture(film)
    with tempfile.TemporaryDirectory() as folder:
        # Writers tell by its ending what a file is.
        drawn = Path(folder) / path.name
        writer = writers[WRITERS[path.suffix.removeprefix(".")]](fps=RATE)
        with writer.saving(picture.figure, str(drawn), _DPI):
            for _ in picture.frames():
                writer.grab_frame(facecolor=_FIGURE)
        replace(path, functools.partial(_copy, drawn))


def _copy(drawn: Path, temporary: Path) -> None:
    shutil.copyfile(drawn, temporary)


class _Panels(NamedTuple):
    """Of one scene."""

    battle: Axes | None
    view: Axes
    values: Axes
    masks: Axes | None


class Picture:
    """The figure of a film: a column for each run with the battle, where the truth is known, the agent's view
    of it, the values of its actions and, where there are any, its masks."""

    def __init__(self, film: Film) -> None:
        from matplotlib.figure import Figure

        self.film, self.box = film, box_of(film)
        self.n_steps = max(scene.n_steps for scene in film.scenes)
        field = _FIELD * self.box.height / self.box.width
        n_rows = max(max(len(scene.actions), len(_tokens(scene))) for scene in film.scenes)
        self.n_fields = 1 if film.map_size is None else 2
        self.row = min(_ROW, _ROWS / n_rows)
        # Where the view is the first panel, its own line stands below those of the battle.
        self.top = _TOP if film.map_size is not None else _TOP + _LINE
        height = self.top + self.n_fields * (field + _BETWEEN) + n_rows * self.row + _BOTTOM
        self.size = (len(film.scenes) * _COLUMN, height)
        self.point = self.box.width / (_FIELD * 72)  # map units of a point
        self.figure = Figure(figsize=self.size, dpi=_DPI, facecolor=_FIGURE)
        self.columns = [self._panels(i, scene, field) for i, scene in enumerate(film.scenes)]
        self._legend()

    def _panels(self, column: int, scene: Scene, field: float) -> _Panels:
        x = column * _COLUMN + (_COLUMN - _FIELD) / 2
        tops = [self.top + i * (field + _BETWEEN) for i in range(self.n_fields + 1)]
        battle = None if self.film.map_size is None else self._axes(x, tops[0], _FIELD, field)
        view = self._axes(x, tops[-2], _FIELD, field)
        top, half = tops[-1], _FIELD / 2
        room = (half if scene.masks else _FIELD) - _NAMES - 0.2
        values = self._axes(x + _NAMES, top, room, self.row * len(scene.actions))
        masks = None
        if scene.masks:
            masks = self._axes(x + half + _NAMES, top, half - _NAMES, self.row * len(_tokens(scene)))
        return _Panels(battle, view, values, masks)

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """A panel, by inches from the upper left corner of the figure."""
        x, y = self.size
        return self.figure.add_axes((left / x, 1 - (top + height) / y, width / x, height / y))

    def frames(self) -> Iterator[int]:
        """Draw one time step after the other, and the last as often as it takes to look at it."""
        for t in range(self.n_steps):
            self.draw(t)
            yield t
        for _ in range(round(RATE * LAST) - 1):
            yield self.n_steps - 1

    def draw(self, t: int) -> None:
        """Draw time step ``t``; a scene that is over stays as it ended."""
        for scene, panels in zip(self.film.scenes, self.columns, strict=True):
            step = min(t, scene.n_steps - 1)
            for axes in panels:
                if axes is not None:
                    axes.clear()
            if panels.battle is not None:
                self._draw_battle(panels.battle, scene, step)
            self._draw_view(panels.view, scene, step)
            self._draw_heads(panels.battle or panels.view, scene, step)
            self._draw_values(panels.values, scene, step)
            if panels.masks is not None:
                self._draw_masks(panels.masks, scene, step)

    # -- panels ---------------------------------------------------------------------------------------

    def _field(self, axes: Axes, ground: str) -> None:
        """The empty map."""
        from matplotlib.patches import Rectangle

        left, bottom, width, height = self.box
        axes.set(xlim=(left, left + width), ylim=(bottom, bottom + height), xticks=[], yticks=[])
        axes.set_aspect("equal")
        axes.set_facecolor(ground)
        for spine in axes.spines.values():
            spine.set(color="#c9ced2", linewidth=0.8)
        if (size := self.film.map_size) is not None:
            axes.add_patch(Rectangle((0, 0), size, size, fill=False, edgecolor=_FAINT, linewidth=1.0))

    def _draw_heads(self, axes: Axes, scene: Scene, t: int) -> None:
        is_over = t == scene.n_steps - 1
        wrong = f" · {self.film.going_wrong}" if self.film.going_wrong else ""
        above = 72 * (self.top - _TOP)
        _head(axes, scene.run.name, up=15 + above, fontsize=9.5, fontweight="bold")
        _head(axes, f"battle of seed {self.film.seed}{wrong}", up=3 + above)
        state = scene.result if is_over else f"step {t}"
        _head(axes, state, is_left=False, up=3 + above, fontweight="bold" if is_over else "normal")

    def _draw_battle(self, axes: Axes, scene: Scene, t: int) -> None:
        agent, is_over = self.film.agent - 1, t == scene.n_steps - 1
        self._field(axes, _GROUND)
        units, n_agents = scene.truth, scene.n_agents
        assert units is not None and scene.targets is not None
        if not is_over:
            for i, target in enumerate(scene.targets[t].tolist()):
                if target >= 0 and units.is_there[t, i] and units.is_there[t, target]:
                    ends = units.place[t, [i, target]].T
                    axes.plot(*ends, color=_ALLY, linewidth=1.1, alpha=0.55, zorder=1)
        for unit in range(len(units.health[t])):
            if units.is_there[t, unit]:
                place, health = units.place[t, unit].tolist(), float(units.health[t, unit])
                self._unit(axes, place, unit, n_agents, health)
            elif len(was := units.is_there[:t, unit].nonzero()):
                x, y = units.place[was[-1, 0], unit].tolist()
                axes.plot(x, y, "x", color=_FAINT, markersize=5, zorder=0)
        if units.is_there[t, agent]:
            _ring(axes, units.place[t, agent])

    def _draw_view(self, axes: Axes, scene: Scene, t: int) -> None:
        agent, n_agents = self.film.agent - 1, scene.n_agents
        believes = "" if scene.believed is None else " and believes"
        truth, seen, believed = scene.truth, scene.seen, scene.believed
        self._field(axes, _DARK)
        if not seen.is_there[t, agent]:
            _head(axes, f"agent {self.film.agent} is dead")
            return
        _head(axes, f"what agent {self.film.agent} sees{believes}")
        self._sight(axes, seen.place[t, agent].tolist(), float(scene.sight[t]))
        for unit in range(len(seen.health[t])):
            if seen.is_there[t, unit]:
                place = seen.place[t, unit].tolist()
                self._unit(axes, place, unit, n_agents, float(seen.health[t, unit]))
                continue
            really = None
            if truth is not None and truth.is_there[t, unit]:
                really = truth.place[t, unit].tolist()
                axes.plot(*really, ".", color=_FAINT, markersize=4, zorder=1)
            if believed is not None and believed.is_there[t, unit]:
                place, health = believed.place[t, unit].tolist(), float(believed.health[t, unit])
                self._ghost(axes, place, unit, n_agents, health)
                if really is not None:
                    ends = zip(place, really, strict=True)
                    axes.plot(*ends, ":", color=_FAINT, linewidth=0.8, zorder=1)
        _ring(axes, seen.place[t, agent])

    def _sight(self, axes: Axes, place: Sequence[float], reach: float) -> None:
        """What an agent at ``place`` can see: as far as ``reach``, or a square of cells."""
        from matplotlib.patches import Circle, Patch, Rectangle

        x, y = place
        area: Patch = Circle((x, y), reach)
        if self.film.is_grid:
            area = Rectangle((x - reach, y - reach), 2 * reach, 2 * reach)
        area.set(facecolor=_GROUND, edgecolor=_FAINT, linewidth=0.7, zorder=0)
        axes.add_patch(area)

    def _draw_values(self, axes: Axes, scene: Scene, t: int) -> None:
        of_all = scene.values[scene.is_available]
        low, high = float(of_all.min()), float(of_all.max())
        room = 0.06 * max(high - low, 1e-3)
        is_alive = bool(scene.seen.is_there[t, self.film.agent - 1])
        is_available = scene.is_available[t] & is_alive
        labels = _rows(axes, "values of its actions", scene.actions, self.row * 45, is_available.tolist())
        axes.set_xlim(low - room, high + room)
        taken = -1 if t == scene.n_steps - 1 else int(scene.taken[t])
        for action in is_available.nonzero().flatten().tolist():
            colour, size = (_ALLY, 5.5) if action == taken else (_FAINT, 4.0)
            labels[action].set_fontweight("bold" if action == taken else "normal")
            axes.axhline(action, color=_DARK, linewidth=0.8, zorder=0)
            axes.plot(scene.values[t, action], action, "o", markersize=size, color=colour, clip_on=False)

    def _draw_masks(self, axes: Axes, scene: Scene, t: int) -> None:
        agent, masks = self.film.agent - 1, scene.masks
        assert masks is not None
        is_visible = masks.is_visible[t, agent]
        _rows(axes, "how often masks hide", masks.names[agent], self.row * 45, is_visible.tolist())
        axes.set_xlim(0, 1)
        for token in is_visible.nonzero().flatten().tolist():
            axes.barh(token, 1.0, height=0.55, color=_DARK)
            axes.barh(token, masks.mask_rate[t, agent, token].item(), height=0.55, color=_FAINT)

    # -- units ----------------------------------------------------------------------------------------

    def _unit(self, axes: Axes, place: Sequence[float], unit: int, n_agents: int, health: float) -> None:
        """A unit that is there: its number, and a bar of its health."""
        from matplotlib.patches import Rectangle

        (x, y), colour, marker, number = place, *_look(unit, n_agents)
        axes.plot(x, y, marker, color=colour, markersize=10, markeredgecolor="white", markeredgewidth=0.7)
        self._number(axes, place, number, "white")
        width, height, up = 13 * self.point, 2.2 * self.point, 8.0 * self.point
        corner = (x - width / 2, y + up)
        share = min(1.0, max(0.0, health))
        axes.add_patch(Rectangle(corner, width, height, color="#cfd4d8", linewidth=0, zorder=3))
        axes.add_patch(Rectangle(corner, share * width, height, color=colour, linewidth=0, zorder=4))

    def _ghost(self, axes: Axes, place: Sequence[float], unit: int, n_agents: int, health: float) -> None:
        """A unit that the agent takes to be there: the fainter, the less health it should have."""
        colour, marker, number = _look(unit, n_agents)
        alpha = min(1.0, max(0.0, health))
        hollow = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.3}
        axes.plot(*place, marker, markersize=10, alpha=alpha, zorder=2, **hollow)
        self._number(axes, place, number, colour, alpha)

    def _number(
        self, axes: Axes, place: Sequence[float], number: int, colour: str, alpha: float = 1.0
    ) -> None:
        axes.annotate(
            str(number), place, ha="center", va="center_baseline", fontsize=6.5, color=colour, alpha=alpha,
            fontweight="bold", zorder=5, annotation_clip=True,
        )  # fmt: skip

    def _legend(self) -> None:
        from matplotlib.lines import Line2D

        def mark(marker: str, label: str, **look: Any) -> Line2D:
            return Line2D([], [], linestyle="none", marker=marker, label=label, **look)

        marks = [
            mark("o", "agent", color=_ALLY, markersize=6),
            mark("s", self.film.others, color=_ENEMY, markersize=6),
        ]
        if any(scene.believed is not None for scene in self.film.scenes):
            hollow = {"markerfacecolor": "none", "markeredgewidth": 1.2, "markersize": 6}
            marks.append(mark("o", "believed (fainter: less health)", markeredgecolor=_ALLY, **hollow))
        if self.film.map_size is not None:
            marks.append(mark(".", "where it is, unseen", color=_FAINT, markersize=4))
        self.figure.legend(
            handles=marks, loc="lower left", ncols=len(marks), frameon=False, fontsize=7, labelcolor=_TEXT,
            handletextpad=0.2, columnspacing=1.0, borderpad=0.3,
        )  # fmt: skip


def _head(
    axes: Axes, text: str, *, is_left: bool = True, up: float = 3.0, across: float = 0.0, **font: Any
) -> None:
    """A line ``up`` and ``across`` points from the upper left or right corner of a panel."""
    axes.annotate(
        text, (0 if is_left else 1, 1), xycoords="axes fraction", xytext=(across, up),
        textcoords="offset points", ha="left" if is_left else "right",
        **{"fontsize": 8, "color": _TEXT, **font},
    )  # fmt: skip


def _rows(axes: Axes, title: str, names: Sequence[str], size: float, is_on: Sequence[bool]) -> list[Any]:
    """A panel with a row for each name, the first on top, faint where it is not on; returns the labels."""
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=2)
    axes.set(ylim=(len(names) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(names)), names, fontsize=size)
    _head(axes, title, across=-72 * _NAMES)
    labels: list[Any] = axes.get_yticklabels()
    for label, is_row_on in zip(labels, is_on, strict=True):
        label.set_color(_TEXT if is_row_on else _OFF)
    return labels


def _ring(axes: Axes, place: torch.Tensor) -> None:
    """Around the agent whose view is drawn."""
    hollow = {"markerfacecolor": "none", "markeredgecolor": _TEXT, "markeredgewidth": 1.1}
    axes.plot(*place.tolist(), "o", markersize=15, **hollow)


def _look(unit: int, n_agents: int) -> tuple[str, str, int]:
    """Colour, marker and number of a unit."""
    if unit < n_agents:
        return _ALLY, "o", unit + 1
    return _ENEMY, "s", unit - n_agents + 1


def _tokens(scene: Scene) -> list[str]:
    return [] if scene.masks is None else scene.masks.names[0]
