"""Writes what the options of the ``lim:`` block are wherever it is said, from ``limask.config``.

``python docs/write_options.py`` (``make options``) renews the ``lim:`` block of each YAML in ``config/algs``,
whose values stay (an option that is not there yet gets its default), and ``docs/options.md``. ``--check``
changes nothing, and fails where something is not current.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from limask.config import RENAMED, LimConfig, expected, fields
from limask.config.nested import flat

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = ROOT / "config/algs"
PAGE = ROOT / "docs/options.md"

#: Columns of a YAML file, and where its comments begin.
WIDTH, COMMENT = 122, 29

Block = Mapping[str, Any]


def renewed(text: str) -> str:
    """A YAML file's text with its ``lim:`` block written anew: every option, in order, with its comment."""
    before, _, rest = text.partition("\nlim:\n")
    block = yaml.safe_load(text)["lim"]
    lines = list(_block(LimConfig, block, "  "))
    after = rest[rest.index("\nname:") :]
    return f"{before}\nlim:\n" + "\n".join(lines) + f"\n{after}"


def _block(options: type[Any], block: Block, indent: str) -> Iterator[str]:
    for field in dataclasses.fields(options):
        if (inner := field.metadata.get("group")) is not None:
            yield from _commented(f"{indent}{field.name}:", str(inner.__doc__).replace("``", ""))
            yield from _block(inner, block.get(field.name, {}), indent + "  ")
            continue
        value = block.get(field.name, field.default)
        shown = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
        shown = str(value) if isinstance(value, bool) else shown
        yield from _commented(f"{indent}{field.name}: {shown}", _comment(field))


def _comment(field: dataclasses.Field[Any]) -> str:
    about = field.metadata
    # What a list of choices explains is not said twice.
    choices = " | ".join(about.get("choices", ()))
    is_listed = all(f"{choice} " in f"{about['meaning']} " for choice in about.get("choices", ()))
    parts = [f"{about['unit']}: " if about["unit"] else "", about["meaning"]]
    parts += [f": {choices}" if choices and not is_listed else ""]
    parts += [f" | {about['block']}" if "block" in about else ""]
    parts += ["" if about["used_by"] == "all" else f" ({about['used_by']})"]
    parts += [" (experimental)" if about.get("experimental") else ""]
    return "".join(parts)


def _commented(line: str, comment: str) -> Iterator[str]:
    """A line with a comment behind it, which goes on in lines of its own."""
    first, *more = textwrap.wrap(comment, WIDTH - COMMENT - 2, break_long_words=False, break_on_hyphens=False)
    yield f"{line:<{COMMENT}}# {first}" if len(line) < COMMENT else f"{line}  # {first}"
    for part in more:
        yield " " * COMMENT + f"# {part}"


def page() -> str:
    """The page on all options."""
    algorithms = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in _files()}
    lines = [
        "# Options",
        "",
        "<!-- Written by `make options` from limask/config/options.py: change it there. -->",
        "",
        "An algorithm's YAML in `config/algs` has a block `lim:`. Its options can be overridden on the",
        "command line of `limask run` and of the host, as in",
        "`with lim.masker.ratio=0.25 lim.autoencoder.weight=0.5`. A wrong name, value or combination is",
        "refused before an environment is built, with the nearest valid name; on a host's own command line",
        "sacred refuses a wrong name, without it.",
        "",
        "Defaults are those of `qmix_lim`. The last column names the configs that differ.",
        "",
    ]
    groups: dict[str, list[tuple[str, dataclasses.Field[Any]]]] = {}
    for name, field in fields(LimConfig):
        groups.setdefault(name.partition(".")[0] if "." in name else "", []).append((name, field))
    titles = {
        field.name: field.metadata["group"]
        for field in dataclasses.fields(LimConfig)
        if "group" in field.metadata
    }
    for group, options in groups.items():
        about = titles[group].__doc__ if group else LimConfig.__doc__
        lines += [f"## `lim.{group}`" if group else "## `lim`", "", str(about), ""]
        lines += ["| option | default | values | unit | used by | meaning | other values |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, field in options:
            cells = [
                f"`{name}`",
                f"`{field.default}`",
                *_cells(field),
                _others(name, field.default, algorithms),
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines += ["## Old names", "", "Runs and reports of before options were grouped call them so:", ""]
    lines += [
        "| then | now |",
        "|---|---|",
        "| `masker` | `masker.name` |",
        "| `autoencoder` | `autoencoder.name` |",
    ]
    lines += [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    return "\n".join([*lines, ""])


def _cells(field: dataclasses.Field[Any]) -> list[str]:
    about = field.metadata
    values = "a registered name" if about.get("is_registered") else expected(field)
    reason = about.get("experimental")
    meaning = about["meaning"] + (f" (experimental: {reason})" if reason else "")
    return [values.replace(" such as 0.0005", ""), about["unit"], about["used_by"], meaning]


def _others(name: str, default: object, algorithms: Mapping[str, Any]) -> str:
    """Configs in which an option has another value, by value."""
    by_value: dict[str, list[str]] = {}
    for algorithm, config in algorithms.items():
        value = flat(config["lim"]).get(name, default)
        if value != default:
            by_value.setdefault(str(value), []).append(algorithm)
    return "; ".join(f"`{value}`: {', '.join(names)}" for value, names in by_value.items())


def _files() -> list[Path]:
    return [
        path for path in sorted(ALGORITHMS.glob("*.yaml")) if "\nlim:\n" in path.read_text(encoding="utf-8")
    ]


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` name what is not current; returns the exit status."""
    wanted = {path: renewed(path.read_text(encoding="utf-8")) for path in _files()} | {PAGE: page()}
    stale = [
        path
        for path, text in wanted.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not current: run `make options`", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
