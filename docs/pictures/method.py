"""Draws the picture of the method: python docs/pictures/method.py

Writes ``method-light.svg`` and ``method-dark.svg`` beside this file. A test compares both with what it would
write, so change the picture here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1000, 362
#: Left edges of the four panels, their width, and the top of the map and of the row of tokens.
PANELS, PANEL, MAP_TOP, TOKENS_TOP = (8, 262, 516, 770), 222, 50, 222
MAP_HEIGHT, TOKEN, TOKEN_STEP = 152, 31, 37.5


class Theme(NamedTuple):
    text: str
    faint: str  # lines and words in the background
    panel: str  # what maps are drawn on
    ally: str
    enemy: str


THEMES = {
    "light": Theme("#1f2328", "#656d76", "#f3f5f8", "#0969da", "#bc4c00"),
    "dark": Theme("#e6edf3", "#9198a1", "#1b2129", "#58a6ff", "#f0883e"),
}


class Unit(NamedTuple):
    """A unit of the battle; x and y count from the map's upper left corner, the agent is the first."""

    name: str
    x: float
    y: float
    is_enemy: bool
    is_visible: bool
    #: Where it is inferred to be.
    guess: tuple[float, float] = (0, 0)


UNITS = (
    Unit("me", 70, 84, False, True),
    Unit("a1", 40, 52, False, True),
    Unit("a2", 30, 136, False, False, (34, 131)),
    Unit("e1", 112, 58, True, True, (115, 62)),
    Unit("e2", 120, 104, True, True),
    Unit("e3", 188, 40, True, False, (182, 46)),
)
SIGHT, RADIUS = 62, 10
#: What the mask takes from the view in this picture.
HIDDEN = "e1"
#: Action values in the last panel, as lengths of bars.
VALUES = (("move", 38), ("stop", 24), ("attack e1", 74), ("attack e2", 96), ("attack e3", 58))


def text(x: float, y: float, words: str, colour: str, size: float = 15, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size:g}" {more}>{words}</text>'


def look(unit: Unit, state: str, theme: Theme) -> str:
    """Fill and stroke of a unit that is ``seen``, ``unseen``, ``hidden`` or ``inferred``."""
    colour = theme.enemy if unit.is_enemy else theme.ally
    return {
        "seen": f'fill="{colour}" stroke="{colour}" stroke-width="2"',
        "unseen": f'fill="none" stroke="{theme.faint}" stroke-width="1.5" stroke-dasharray="2 3"',
        "hidden": f'fill="url(#hatch)" stroke="{theme.faint}" stroke-width="1.5"',
        "inferred": f'fill="{colour}" fill-opacity="0.25" stroke="{colour}" stroke-width="2" '
        'stroke-dasharray="4 3"',
    }[state]


def states(panel: int) -> dict[str, str]:
    """How each unit is drawn in a panel."""
    found = {unit.name: "seen" if unit.is_visible else "unseen" for unit in UNITS}
    if panel in (1, 2):
        found[HIDDEN] = "hidden"
    if panel in (2, 3):
        return {name: "seen" if state == "seen" else "inferred" for name, state in found.items()}
    return found


def battle(left: float, panel: int, theme: Theme) -> Iterator[str]:
    """The map with the agent's sight, and the units on it."""
    me = UNITS[0]
    yield (
        f'<circle cx="{left + me.x}" cy="{MAP_TOP + me.y}" r="{SIGHT}" fill="none" stroke="{theme.faint}" '
        'stroke-dasharray="5 4"/>'
    )
    for unit in UNITS:
        state = states(panel)[unit.name]
        x, y = unit.guess if state == "inferred" else (unit.x, unit.y)
        yield f'<circle cx="{left + x}" cy="{MAP_TOP + y}" r="{RADIUS}" {look(unit, state, theme)}/>'
    yield (
        f'<circle cx="{left + me.x}" cy="{MAP_TOP + me.y}" r="{RADIUS + 5}" fill="none" '
        f'stroke="{theme.ally}" stroke-width="2"/>'
    )


def bars(left: float, theme: Theme) -> Iterator[str]:
    """An action value for each action; the one at a unit out of sight comes from what is inferred."""
    for place, (name, length) in enumerate(VALUES):
        y = MAP_TOP + 14 + 27 * place
        unit = next((unit for unit in UNITS if name.endswith(unit.name)), UNITS[0])
        state = "seen" if unit.is_visible else "inferred"
        yield text(left + 84, y + 13, name, theme.text, 15, 'text-anchor="end"')
        yield f'<rect x="{left + 92}" y="{y}" width="{length}" height="17" {look(unit, state, theme)}/>'


def tokens(left: float, panel: int, theme: Theme) -> Iterator[str]:
    """The observation as a row of tokens, one for each unit."""
    for place, unit in enumerate(UNITS):
        x, state = left + 2 + place * TOKEN_STEP, states(panel)[unit.name]
        yield (
            f'<rect x="{x:g}" y="{TOKENS_TOP}" width="{TOKEN}" height="{TOKEN}" rx="4" '
            f"{look(unit, state, theme)}/>"
        )
        colour = ("#ffffff" if theme == THEMES["light"] else "#0d1117") if state == "seen" else theme.text
        if state != "hidden":
            yield text(
                x + TOKEN / 2,
                TOKENS_TOP + 21,
                unit.name,
                colour,
                15,
                'text-anchor="middle" font-weight="600"',
            )


HEADS = ("1 Observe", "2 Hide", "3 Infer", "4 Act")
WORDS = (
    ("Each agent sees the units", "in its sight range."),
    ("While learning, a mask", "hides some of them."),
    ("A small GRU infers every", "unit from the history."),
    ("Seen and inferred units", "give the action values."),
)


def draw(theme: Theme) -> str:
    """The whole picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">",
        "<title>Observe, hide, infer, act</title>",
        '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="7" height="7" fill="{theme.panel}"/>'
        f'<rect width="3" height="7" fill="{theme.faint}"/></pattern>'
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{theme.faint}"/></marker></defs>',
    ]
    for panel, left in enumerate(PANELS):
        parts.append(text(left + 2, 32, HEADS[panel], theme.text, 23, 'font-weight="700"'))
        parts.append(
            f'<rect x="{left}" y="{MAP_TOP}" width="{PANEL}" height="{MAP_HEIGHT}" rx="8" '
            f'fill="{theme.panel}"/>'
        )
        parts += bars(left, theme) if panel == 3 else battle(left, panel, theme)
        parts += tokens(left, panel, theme)
        for line, words in enumerate(WORDS[panel]):
            parts.append(text(left + 2, TOKENS_TOP + 58 + 21 * line, words, theme.text, 17))
        if panel:
            y = MAP_TOP + MAP_HEIGHT / 2
            parts.append(
                f'<path d="M{left - 29} {y:g}h24" stroke="{theme.faint}" stroke-width="2.5" fill="none" '
                'marker-end="url(#tip)"/>'
            )
    x: float = 10
    for state, words in (
        ("seen", "seen"),
        ("unseen", "out of sight"),
        ("hidden", "hidden by the mask"),
        ("inferred", "inferred"),
    ):
        unit = UNITS[3]
        parts.append(
            f'<rect x="{x:g}" y="{HEIGHT - 28}" width="18" height="18" rx="3" {look(unit, state, theme)}/>'
        )
        parts.append(text(x + 26, HEIGHT - 14, words, theme.faint, 16))
        x += 60 + 8.6 * len(words)
    parts.append(
        text(WIDTH - 8, HEIGHT - 14, "blue: own team, orange: enemies", theme.faint, 16, 'text-anchor="end"')
    )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    for name, theme in THEMES.items():
        (FOLDER / f"method-{name}.svg").write_text(draw(theme), encoding="utf-8")
