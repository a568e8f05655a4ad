"""What a campaign is: arms × environments × seeds, read from a YAML file and checked by itself.

Whether the host knows what the file names is found in ``campaign_check``.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from limask import resources
from limask.config.nested import flat
from limask.errors import LimaskError, nearest
from limask.experiments.campaign import values
from limask.experiments.campaign.values import Options
from limask.hosts.sinks import REGISTRY as SINKS
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import Block, State

#: Options that the campaign sets for each run, and the key of the file that it has them from.
SET_ELSEWHERE = {
    "t_max": "t_max",
    "test_interval": "test_interval",
    "seed": "seeds",
    "env": "environments",
    "env_args": "environments",
}


@dataclass(frozen=True)
class Arm:
    """An algorithm's config with ``overrides`` laid over it."""

    id: str
    config: str
    overrides: Options

    @classmethod
    def from_block(cls, name: str, block: object) -> Arm:
        """Read ``arms.<name>``; raises ``LimaskError`` as ``Campaign.from_block`` does."""
        where = f"arms.{name}"
        given = values.block(where, block, ("config",), {"overrides": {}})
        config = values.text(f"{where}.config", given["config"])
        return cls(name, config, _overrides(f"{where}.overrides", given["overrides"]))


@dataclass(frozen=True)
class Environment:
    """An environment's config with ``env_args`` laid over its own; called map in tables and paths.

    ``t_max`` are environment steps of each run on it, None for the campaign's.
    """

    id: str
    env_config: str
    env_args: Options
    t_max: int | None = None

    @classmethod
    def from_block(cls, name: str, block: object) -> Environment:
        """Read ``environments.<name>``; raises ``LimaskError`` as ``Campaign.from_block`` does."""
        where = f"environments.{name}"
        given = values.block(where, block, ("env_config",), {"env_args": {}, "t_max": None})
        config = values.text(f"{where}.env_config", given["env_config"])
        t_max = None if given["t_max"] is None else values.integer(f"{where}.t_max", given["t_max"], 1)
        return cls(name, config, values.options(f"{where}.env_args", given["env_args"]), t_max)


class Run(NamedTuple):
    """One training: the unit of a campaign."""

    arm: Arm
    environment: Environment
    seed: int

    @property
    def id(self) -> str:
        """The run's name and its folder below ``runs``, the same whenever it is planned."""
        return f"{self.arm.id}/{self.environment.id}/seed_{self.seed}"


@dataclass(frozen=True)
class Campaign:
    """What is trained, and how it is judged.

    Attributes:
        host: ``pymarlzooplus``, or the path of a checkout.
        arms: what is compared.
        environments: what it is compared on.
        seeds: of every arm on every environment.
        t_max: environment steps of each run, where its environment has none of its own.
        test_interval: environment steps between two tests.
        thresholds: win rates in (0, 1] that a run reaches sooner or later.
        overrides: options of every run.
        max_attempts: how often a run that crashes is started.
        sinks: of ``limask.hosts.sinks``, that take what the runs log as well.
        compat: whether an old host gets what it needs to start (``limask.compat``).
    """

    host: str
    arms: tuple[Arm, ...]
    environments: tuple[Environment, ...]
    seeds: tuple[int, ...]
    t_max: int
    test_interval: int
    thresholds: tuple[float, ...]
    overrides: Options
    max_attempts: int
    sinks: tuple[str, ...]
    compat: bool

    @classmethod
    def from_block(cls, block: object) -> Campaign:
        """Read a campaign file's contents.

        Raises:
            LimaskError: a key is unknown or missing, or a value is not what it has to be; the message names
                the key, what was given and what is expected.
        """
        required = ("host", "arms", "environments", "seeds", "t_max", "test_interval", "thresholds")
        optional = {"overrides": {}, "max_attempts": 3, "sinks": [], "compat": False}
        given = values.block("the campaign", block, required, optional)
        campaign = cls(
            host=_host(values.text("host", given["host"])),
            arms=tuple(Arm.from_block(*item) for item in values.named("arms", given["arms"])),
            environments=tuple(
                Environment.from_block(*item) for item in values.named("environments", given["environments"])
            ),
            seeds=tuple(
                values.integer("seeds", seed, 0, 2**32 - 1)
                for seed in values.distinct("seeds", given["seeds"])
            ),
            t_max=values.integer("t_max", given["t_max"], 1),
            test_interval=values.integer("test_interval", given["test_interval"], 1),
            thresholds=tuple(
                values.win_rate("thresholds", value)
                for value in values.distinct("thresholds", given["thresholds"])
            ),
            overrides=_overrides("overrides", given["overrides"]),
            max_attempts=values.integer("max_attempts", given["max_attempts"], 1),
            sinks=tuple(values.choices("sinks", given["sinks"], SINKS)),
            compat=values.truth("compat", given["compat"]),
        )
        for env in campaign.environments:
            t_max = campaign.budget(env)
            where = "t_max" if env.t_max is None else f"environments.{env.id}.t_max"
            if campaign.test_interval > t_max:
                raise LimaskError(
                    f"test_interval is {campaign.test_interval} and {where} is {t_max}: expected tests "
                    "within the budget"
                )
        return campaign

    def to_block(self) -> State:
        """The campaign as ``from_block`` reads it, of JSON's types."""
        return {
            "host": self.host,
            "arms": {arm.id: {"config": arm.config, "overrides": arm.overrides} for arm in self.arms},
            "environments": {
                env.id: {"env_config": env.env_config, "env_args": env.env_args}
                | ({} if env.t_max is None else {"t_max": env.t_max})
                for env in self.environments
            },
            "seeds": list(self.seeds),
            "t_max": self.t_max,
            "test_interval": self.test_interval,
            "thresholds": list(self.thresholds),
            "overrides": self.overrides,
            "max_attempts": self.max_attempts,
            "sinks": list(self.sinks),
            "compat": self.compat,
        }

    def budget(self, environment: Environment) -> int:
        """Environment steps of each run on ``environment``."""
        return self.t_max if environment.t_max is None else environment.t_max

    def runs(self) -> list[Run]:
        """All runs in the order in which they are started: seed after seed, so that half a campaign has half
        of the seeds, and every arm on every environment for each of them."""
        return [
            Run(arm, env, seed)
            for seed, env, arm in itertools.product(self.seeds, self.environments, self.arms)
        ]

    def options(self, run: Run) -> State:
        """What ``run`` sets beyond its configs, by dotted name."""
        t_max = self.budget(run.environment)
        own = {"t_max": t_max, "test_interval": self.test_interval, "seed": run.seed}
        own |= flat({"env_args": run.environment.env_args})
        return own | flat(self.overrides) | flat(run.arm.overrides)

    def command(self, run: Run, results: Path, resume: Path | None = None) -> list[str]:
        """Command that trains ``run``, as a user would type it. ``resume`` are results of the same run,
        which was cut off."""
        if resume is not None:
            return [
                sys.executable, "-m", "limask", "run", "--resume", str(resume), "--results", str(results)
            ]  # fmt: skip
        flags = [*(["--compat"] if self.compat else []), *(f"--sink={name}" for name in self.sinks)]
        config, env_config = run.arm.config, run.environment.env_config
        return run_command(self.host, results, config, env_config, self.options(run), flags)


def run_command(
    host: str, results: Path, config: str, env_config: str, options: Block, flags: Sequence[str] = ()
) -> list[str]:
    """``limask run`` as a user would type it, with this interpreter; ``options`` by dotted name."""
    limask = [sys.executable, "-m", "limask", "run", "--host", host, "--results", str(results), *flags]
    given = (f"{name}={_literal(value)}" for name, value in options.items())
    return [*limask, f"--config={config}", f"--env-config={env_config}", "with", *given]


def read_campaign(file: Path) -> Campaign:
    """Read the campaign file ``file``, or the one that limask brings under that name.

    Raises:
        LimaskError: no such file, no YAML, a name given twice, or see ``Campaign.from_block``.
    """
    path = _find(file)
    try:
        return Campaign.from_block(yaml.load(path.read_text(encoding="utf-8"), _Loader))
    except OSError as error:
        raise LimaskError(f"{file}: {error.strerror}; expected a campaign file") from error
    except UnicodeDecodeError as error:
        raise LimaskError(f"{file}: not text in UTF-8; expected a campaign file in YAML") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise LimaskError(f"{file}{line}: {error.problem}; expected a campaign file in YAML") from error
    except yaml.YAMLError as error:
        raise LimaskError(f"{file}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise LimaskError(
            f"{file}: blocks in blocks without end; expected a campaign file in YAML"
        ) from error
    except LimaskError as error:
        raise LimaskError(f"{file}: {error}") from error


def _find(file: Path) -> Path:
    if file.is_file() or file.suffix or len(file.parts) > 1:
        return file
    ours = resources.config_dir() / "campaigns"
    if not (ours / f"{file}.yaml").is_file():
        known = sorted(path.stem for path in ours.glob("*.yaml"))
        raise LimaskError(
            f"{file}: no such campaign file{nearest(file, known)} "
            f"(limask brings {', '.join(known)}; or give the path of a YAML file)"
        )
    return ours / f"{file}.yaml"


class _Loader(yaml.SafeLoader):
    """YAML in which a name given twice is a mistake, where YAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{name!r} is there twice: give each name once", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def _host(host: str) -> str:
    return host if host == PYMARLZOOPLUS else str(Path(host).expanduser().absolute())


def _overrides(where: str, value: object) -> Options:
    for key in (options := values.options(where, value)):
        if key in SET_ELSEWHERE:
            raise LimaskError(f"{where}.{key}: set it in the campaign's own {SET_ELSEWHERE[key]!r}")
    return options


def _literal(value: Any) -> str:
    """``value`` as sacred's command line reads it back: text that would be a number there is quoted."""
    if isinstance(value, str):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return repr(value)
