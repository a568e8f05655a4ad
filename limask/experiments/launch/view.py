"""What a running campaign shows: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limask.experiments.campaign.plan import Run
from limask.experiments.display import clock, percent
from limask.experiments.launch.progress import JobWatch, Lines

if TYPE_CHECKING:
    from rich.table import Table


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass
class CampaignView:
    """Follows the runs that are being trained.

    ``watches`` are those runs and ``summary`` is the line under their table: whoever starts and ends runs
    keeps both up to date. ``show`` looks at the runs and shows what has changed; ``say`` prints a line that
    stays.
    """

    summary: str = ""
    watches: dict[JobWatch, Run] = field(default_factory=dict)
    show: Callable[[], None] = lambda: None
    say: Callable[[str], None] = _print

    def table(self) -> Table:
        """The runs as they stand now."""
        from rich import box
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(caption=self.summary, caption_justify="left", box=box.SIMPLE)
        for heading in ("arm", "map"):
            table.add_column(heading)
        table.add_column("seed", justify="right")
        table.add_column("", width=12)
        for heading in ("steps", "win rate", "steps/s", "time left"):
            table.add_column(heading, justify="right", no_wrap=True)
        for watch, run in self.watches.items():
            now = watch.look()
            table.add_row(
                run.arm.id,
                run.environment.id,
                str(run.seed),
                ProgressBar(total=watch.t_max, completed=now.steps),
                f"{now.steps:,}",
                "" if now.win_rate is None else percent(now.win_rate),
                "" if now.speed is None else f"{now.speed:,.0f}",
                clock(now.seconds_left) if now.seconds_left else now.phase,
            )
        return table


@contextmanager
def campaign_view() -> Iterator[CampaignView]:
    """Yield the view that suits standard output; without rich, a terminal gets plain lines too."""
    view = CampaignView()
    try:
        from rich.console import Console
        from rich.live import Live

        console = Console()
    except ImportError:
        console = None
    if console is None or not console.is_interactive or not sys.stdout.isatty():
        view.show = Lines(view.watches).show
        yield view
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        view.show = lambda: live.update(view.table(), refresh=True)
        view.say = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
        yield view
