"""Write docs/python.md as a notebook, examples/python.ipynb: a cell for each text and each block of code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples/python.ipynb"


def notebook(page: str) -> str:
    """The notebook of a page in Markdown."""
    cells: list[dict[str, Any]] = []
    for i, part in enumerate(re.split(r"^```(?:python)?\n", page, flags=re.MULTILINE)):
        is_code = i % 2 == 1
        # Pages link to one another, from the folder beside the notebook's.
        text = part if is_code else re.sub(r"\]\((?=[\w/]+\.md)", "](../docs/", part)
        cell: dict[str, Any] = {
            "cell_type": "code" if is_code else "markdown",
            "id": f"cell-{i}",
            "metadata": {},
        }
        if is_code:
            cell |= {"execution_count": None, "outputs": []}
        if text.strip():
            cells.append(cell | {"source": text.strip().splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook((ROOT / "docs/python.md").read_text(encoding="utf-8")), encoding="utf-8")
