"""What is said of the options: one source, from which the YAMLs' comments and a page are written."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from limask.config import LimConfig, fields
from limask.config.nested import flat
from limask.config.schema import option

ROOT = Path(__file__).parents[1]
OPTIONS = dict(fields(LimConfig))


def load() -> ModuleType:
    """``docs/write_options.py``, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("write_options", ROOT / "docs/write_options.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


write_options = load()


def blocks(folder: str) -> list[dict[str, object]]:
    """All ``lim:`` blocks in a folder of configs, by dotted name."""
    found = []

    def look(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("lim"), dict):
                found.append(flat(value["lim"]))
            for inner in value.values():
                look(inner)

    for path in (ROOT / "config" / folder).glob("*.yaml"):
        look(yaml.safe_load(path.read_text(encoding="utf-8")))
    return found


def test_what_is_written_is_current() -> None:
    """`make options` would change nothing."""
    assert write_options.main(["--check"]) == 0


def test_defaults_are_those_of_qmix_lim() -> None:
    config = yaml.safe_load((ROOT / "config/algs/qmix_lim.yaml").read_text(encoding="utf-8"))
    assert LimConfig.from_block(config["lim"]) == LimConfig()


def test_what_is_stale_is_named_and_then_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "config/algs/qmix_lim.yaml").read_text(encoding="utf-8")
    (tmp_path / "algs").mkdir()
    file = tmp_path / "algs/qmix_lim.yaml"
    file.write_text(text.replace("expected share of", "share of").replace("ratio: 0.5 ", "ratio: 0.25"))
    monkeypatch.setattr(write_options, "ROOT", tmp_path)
    monkeypatch.setattr(write_options, "ALGORITHMS", tmp_path / "algs")
    monkeypatch.setattr(write_options, "PAGE", tmp_path / "options.md")
    assert write_options.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "algs/qmix_lim.yaml is not current" in said and "options.md is not current" in said
    assert write_options.main([]) == 0
    assert file.read_text() == text.replace("ratio: 0.5 ", "ratio: 0.25")
    assert "| `masker.ratio` | `0.5` |" in (tmp_path / "options.md").read_text()
    assert "`0.25`: qmix_lim" in (tmp_path / "options.md").read_text()
    assert write_options.main(["--check"]) == 0


def test_an_experimental_option_says_so_in_the_yaml_and_why_on_the_page() -> None:
    @dataclasses.dataclass
    class Tried:
        new: float = option(
            0.5, "share of it", unit="steps", low=0.0, used_by="belief", experimental="a hope"
        )

    (field,) = dataclasses.fields(Tried)
    assert write_options._comment(field) == "steps: share of it (belief) (experimental)"
    cells = ["a number at least 0.0", "steps", "belief", "share of it (experimental: a hope)"]
    assert write_options._cells(field) == cells


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_used_or_says_why_it_stays(name: str) -> None:
    """By a config, a campaign, or the page on the method or the one on performance."""
    default = OPTIONS[name].default
    is_set = any(block.get(name, default) != default for block in blocks("algs"))
    is_tried = any(name in block for block in blocks("campaigns"))
    pages = [ROOT / "docs/method.md", ROOT / "docs/performance.md"]
    is_explained = any(f"`lim.{name}`" in page.read_text(encoding="utf-8") for page in pages)
    is_used = is_set or is_tried or is_explained
    assert is_used != bool(OPTIONS[name].metadata.get("experimental"))
