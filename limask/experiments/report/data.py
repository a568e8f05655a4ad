"""What a report knows: plain data, filled in ``runs``, ``folders``, ``assemble`` and ``numbers``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from limask.experiments.campaign.collect import Test
from limask.experiments.campaign.plan import Campaign, Run
from limask.experiments.display import Table
from limask.experiments.storage.sacred_files import Curve
from limask.protocols import Block


class Result(NamedTuple):
    """A run that counts: its tests, in order."""

    arm: str
    map: str
    seed: int
    tests: Sequence[Test]
    is_diverged: bool = False


class FoundRun(NamedTuple):
    """A run as it was found: ``result`` is what counts of it, and else ``left_out`` says why nothing does.

    ``sacred`` is sacred's folder of it, None where there is none; the others are as in ``RunRecord``.
    """

    run: Run
    status: str
    result: Result | None
    left_out: str
    sacred: Path | None
    attempts: int
    seconds: float | None
    reason: str
    command: str
    made_with: Block


@dataclass(frozen=True)
class Task:
    """A map, what is measured on it, and the environment steps that its runs are judged over.

    ``floor`` is what a run has after it diverged: a win rate of 0, or the lowest return that any run of the
    map logged.
    """

    map: str
    measure: Literal["win rate", "return"]
    budget: int
    floor: float = 0.0


@dataclass(frozen=True)
class Score:
    """What one run comes to: T_τ by threshold (None: not reached), final score, average over the budget."""

    arm: str
    map: str
    seed: int
    times: Mapping[float, float | None]
    final: float
    area: float
    is_diverged: bool
    curve: Curve


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, None where one of its maps has a single run."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def is_interval(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None

    def contains(self, value: float) -> bool:
        """Whether the interval contains ``value``; False without one."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class Cell:
    """An arm on a map: RMST_τ in steps and share of runs that reached τ by threshold, IQMs of the scores."""

    arm: str
    map: str
    measure: str
    n_runs: int
    n_diverged: int
    restricted_mean: Mapping[float, float]
    reached: Mapping[float, float]
    final: Estimate
    area: Estimate


@dataclass(frozen=True)
class Overall:
    """An arm over those ``maps`` that are measured by win rates: IQMs, and the profile of final win rates."""

    arm: str
    maps: list[str]
    final: Estimate
    area: Estimate
    profile: list[tuple[float, Estimate]]


@dataclass(frozen=True)
class Ratio:
    """RMST_τ of ``arm`` over that of ``baseline``: on one map, or the geometric mean over several.

    ``estimate`` is None where a run wins before any training, as there is no ratio to 0 steps.
    ``is_reached`` says whether any of the runs reached τ; if none did, the ratio is 1 by definition. Runs
    that do not reach τ count with the whole budget, at which they were cut off: the true ratio is below the
    estimate (``bound`` "≤") where that befell ``baseline`` alone, and above it ("≥") where it befell ``arm``
    alone.
    """

    arm: str
    baseline: str
    threshold: float
    maps: list[str]
    estimate: Estimate | None
    is_reached: bool
    bound: Literal["", "≤", "≥"] = ""


@dataclass(frozen=True)
class Improvement:
    """Chance that a run of ``arm`` ends above one of ``baseline`` on the same map, averaged over ``maps``."""

    arm: str
    baseline: str
    maps: list[str]
    estimate: Estimate


@dataclass(frozen=True)
class Band:
    """IQM of an arm's curves on a map at each step of the grid, with a 95 % band for each step by itself."""

    arm: str
    map: str
    steps: list[float]
    values: list[Estimate]


@dataclass(frozen=True)
class Survival:
    """Share of an arm's runs on a map that needs more than ``steps[i]`` to the threshold; 1 at first."""

    arm: str
    map: str
    threshold: float
    steps: list[float]
    not_yet: list[float]


@dataclass(frozen=True)
class Numbers:
    """All numbers; arms and maps in the campaign's order, as far as runs of theirs count."""

    arms: list[str]
    tasks: list[Task]
    thresholds: list[float]
    scores: list[Score]
    cells: list[Cell]
    overall: list[Overall]
    ratios: list[Ratio]
    improvements: list[Improvement]
    bands: list[Band]
    survival: list[Survival]

    def budgets(self, maps: Collection[str] | None = None) -> list[int]:
        """Environment steps of ``maps`` (all maps, where it is None)."""
        return [task.budget for task in self.tasks if maps is None or task.map in maps]

    @property
    def fewest_seeds(self) -> int:
        """Runs of the arm and map that has the fewest."""
        return min(cell.n_runs for cell in self.cells)


@dataclass(frozen=True)
class RunRecord:
    """A planned run, whether it counts or not.

    ``seconds`` are wall-clock time of the attempt that counts, ``steps`` and ``episodes`` the last
    environment step and the number of training episodes that it logged. ``differs`` names the options in
    which it differs from the first arm's run on the same map, ``reason`` says why it did not finish and
    ``left_out`` why it does not count. ``command`` is the command line, or the run's folder where no campaign
    gave it, ``config`` the options that the host ran with by dotted name, ``made_with`` versions and machine.
    """

    arm: str
    map: str
    seed: int
    status: str
    attempts: int
    seconds: float | None
    steps: float | None
    episodes: float | None
    differs: str
    reason: str
    left_out: str
    command: str
    config: Block
    made_with: Block

    @property
    def id(self) -> str:
        """The run's name, as everywhere."""
        return f"{self.arm}/{self.map}/seed_{self.seed}"


@dataclass(frozen=True)
class Report:
    """A campaign, its runs in the order in which they were planned, and what comes of them.

    ``is_planned`` is False where runs were found that no campaign has made: ``campaign`` is then what they
    come to. ``robustness`` is what `limask compare` makes of the runs' evaluation, where there is one.
    """

    name: str
    campaign: Campaign
    runs: list[RunRecord]
    numbers: Numbers
    is_planned: bool = True
    robustness: Sequence[Table] = ()

    @property
    def title(self) -> str:
        """What is reported on."""
        return f"Campaign {self.name}" if self.is_planned else f"Runs in {self.name}"

    @property
    def missing(self) -> list[RunRecord]:
        """The runs that do not count."""
        return [run for run in self.runs if run.left_out]
