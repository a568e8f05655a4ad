"""The documentation: its links, its form, and the site that ``make docs`` builds of it."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
#: Written by ``limask campaign report``.
REPORTS = set(DOCS.glob("results/*/report.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
#: A ratio or share with its interval, as 0.45 (0.32 to 0.64) or 50 % (47 to 54).
INTERVAL = re.compile(r"\d(?: %)? \(−?[\d.]+ to −?[\d.]+\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Lines of a page, with their numbers, outside blocks of code and tables."""
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "    ")):
            yield number, line


def links(page: Path) -> set[str]:
    """Targets of links and pictures, in Markdown and in HTML."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "code", text))
    return {*found, *re.findall(r'(?:src|srcset|href)="([^"]+)"', text)}


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    heads = [line.lstrip("#").strip() for _, line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        # Pictures name the palette that they are for.
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page not in REPORTS], ids=name_of)
def test_lines_of_prose_are_short(page: Path) -> None:
    long = [f"{n}: {line}" for n, line in prose(page) if len(re.sub(r"https?://[^\s)]+", "", line)) > 100]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in REPORTS], ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    pattern = r"(?<![\w/.~])(?:limask|config|docs|tests|examples|src_patch)/[\w./-]*[\w/]"
    for path in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_readme_is_read_in_two_minutes() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert {"make demo", "make test"} <= {line.split("#")[0].strip() for line in lines}
    assert any(line.startswith("limask install") for line in lines[:60])


def test_results_are_told_where_they_live() -> None:
    """What the README tells of them stands there too, word for word; other pages tell none."""
    results = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("results/**/README.md"))
    told = [line for line in README.read_text(encoding="utf-8").splitlines() if INTERVAL.search(line)]
    assert told
    for line in told:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        arm = cells[0].split(":")[0]
        rows = [row for row in results.splitlines() if row.startswith(f"| {arm} |")]
        assert any(all(cell in row for cell in cells[1:]) for row in rows), line
    for page in DOCS.glob("*.md"):
        assert not INTERVAL.search(page.read_text(encoding="utf-8")), page.name


def test_the_picture_is_what_its_script_draws() -> None:
    script = runpy.run_path(str(DOCS / "pictures/method.py"))
    for name, theme in script["THEMES"].items():
        path = DOCS / f"pictures/method-{name}.svg"
        assert path.read_text(encoding="utf-8") == script["draw"](theme), f"python {DOCS}/pictures/method.py"


def test_the_reference_has_every_module_of_the_method() -> None:
    named = set(re.findall(r"^::: ([\w.]+)", "\n".join(map(Path.read_text, DOCS.glob("api/*.md"))), re.M))
    for package in ("layouts", "masking", "networks", "autoencoder", "acting", "learning"):
        modules = {path.stem for path in (ROOT / "limask" / package).glob("[!_]*.py")}
        assert {f"limask.{package}.{module}" for module in modules} <= named


# -- the site ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does: a warning is an error."""
    for name in ("material", "mkdocs", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install 'limask[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_whole(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {"index.html", "options.html", "results/index.html", "results/pilot/report.html"} <= pages
    # Taken over from the docstrings, and from files at the top of the repository.
    reference = (site / "api/masking.html").read_text(encoding="utf-8")
    assert "(B, T, N, K) bool, True = the environment showed the token" in reference
    assert "make check" in (site / "contributing.html").read_text(encoding="utf-8")
    assert "Keep a Changelog" in (site / "changelog.html").read_text(encoding="utf-8")
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        outside = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?https?://[^">]*', page)
        assert not outside, path.name


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def listened(browser: Any, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A page; what it says in the console, and what it asks for."""
    page, said, asked = browser.new_page(**options), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    return page, said, asked


def test_every_page_fits_a_screen_and_a_phone(browser: Any, site: Path, address: str) -> None:
    """Without scripts, which change nothing of the layout and take most of the time; some pages with them."""
    phone = browser.new_page(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        phone.goto(address + name)
        assert phone.evaluate("document.documentElement.scrollWidth") == 390, name
        broken = "[...document.images].filter((image) => image.complete && !image.naturalWidth).length"
        assert phone.evaluate(broken) == 0, name
    phone.close()
    for width in (390, 1280):
        page, said, _ = listened(browser, viewport={"width": width, "height": 844})
        for name in ("options.html", "performance.html", "results/choosing/index.html"):
            page.goto(address + name)
            assert page.evaluate("document.documentElement.scrollWidth") == width, name
        assert not said
        page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_site_in_a_browser(width: int, scheme: str, browser: Any, address: str) -> None:
    page, said, asked = listened(browser, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(address + "index.html")
    shown = "[...document.images].filter((image) => image.offsetWidth).map((image) => image.src)"
    (picture,) = page.evaluate(shown)
    assert f"method-{scheme}.svg" in picture
    # The key opens the search, once the page's script runs.
    page.wait_for_function("document.querySelector('[data-md-component=search]') !== null")
    page.wait_for_timeout(500)
    page.keyboard.press("f")
    # A single letter is a query of its own: any word that begins with it.
    page.keyboard.type("m")
    page.wait_for_timeout(500)
    page.keyboard.type("asker", delay=30)
    page.wait_for_selector(".md-search-result__item")
    assert "Masking" in page.inner_text(".md-search-result__list")

    assert not said
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    page.close()
