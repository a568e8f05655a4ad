"""Fixtures of more than one module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

#: Files of a minute and more, longest first: begun last, one of them would keep a single process busy.
LONG = (
    "test_hosts", "test_smax", "test_launchers", "test_api", "test_inference", "test_docs", "test_resume",
    "test_inspect", "test_speed", "test_wrap", "test_install", "test_evaluate", "test_watch", "test_campaign",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'limask[dev]'")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"needs a browser: {', '.join(names)}")
    with api.sync_playwright() as playwright:
        # Chromium's sandbox does not start for root.
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()
