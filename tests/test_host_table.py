"""The tables of what has run in which host: ✓ and ✗ as the records say, and no older than them."""

from __future__ import annotations

import json

import host_table

RECORDS = {
    "SMAX 3m": {
        "PyMARL2 `1`": {"qmix_lim": "744 steps, loss 0.0527, reloaded", "qplex_lim": "**no**: KeyError: 'x'"},
        "EPyMARL `2`": {"qmix_lim": "741 steps, loss 0.109, reloaded", "qplex_lim": "not in this host"},
    },
    "LBF 2s-8x8": {"EPyMARL `2`": {"qmix (stock)": "5 steps, loss 1, reloaded", "qmix_lim": "**no**: late"}},
}


def test_tables_have_a_sign_for_each_outcome_and_a_note_for_each_failure() -> None:
    assert host_table.tables(RECORDS).splitlines() == [
        "| SMAX 3m | PyMARL2 `1` | EPyMARL `2` |",
        "| --- | :-: | :-: |",
        "| `qmix_lim` | ✓ | ✓ |",
        "| `qplex_lim` | ✗ (1) | – |",
        "",
        "| LBF 2s-8x8 | EPyMARL `2` |",
        "| --- | :-: |",
        "| `qmix` (stock) | ✓ |",
        "| `qmix_lim` | ✗ (2) |",
        "",
        "| failed | what | error |",
        "| :-: | --- | --- |",
        "| ✗ (1) | `qplex_lim` on SMAX 3m in PyMARL2 `1` | `KeyError: 'x'` |",
        "| ✗ (2) | `qmix_lim` on LBF 2s-8x8 in EPyMARL `2` | `late` |",
    ]


def test_the_readme_has_one_row_for_each_host() -> None:
    assert host_table.summary(RECORDS).splitlines() == [
        "| `qmix_lim` | SMAX | LBF |",
        "| --- | :-: | :-: |",
        "| PyMARL2 `1` | ✓ | – |",
        "| EPyMARL `2` | ✓ | ✗ |",
    ]


def test_pages_hold_what_the_records_say() -> None:
    """``python tests/host_table.py --from-records`` mends what fails here."""
    records = json.loads(host_table.RECORDS.read_text(encoding="utf-8"))
    page = host_table.PAGE.read_text(encoding="utf-8")
    assert page == host_table.with_table(page, host_table.tables(records))
    assert page.count("| ✗ (") == 2
    readme = host_table.README.read_text(encoding="utf-8")
    assert readme == host_table.with_table(readme, host_table.summary(records))
