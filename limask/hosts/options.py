"""A run's options before its host starts: read as the host will read them, checked against its configs."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from limask import resources
from limask.autoencoder.options import known_layout, read_options
from limask.config import LimConfig
from limask.config.nested import flat, merged, nested
from limask.errors import LimaskError, nearest
from limask.hosts.base import Host
from limask.install import recognised
from limask.install.families import PYMARLZOOPLUS, pymarlzooplus_folder
from limask.learning.checkpoints import newest_checkpoint
from limask.memory import check_sampling
from limask.protocols import Block, State


class Bounds(NamedTuple):
    """What a number may be: at least ``low`` (or above it), at most ``high``, and whether it is whole."""

    low: float
    high: float = math.inf
    is_above: bool = False
    is_whole: bool = False

    def allow(self, value: float) -> bool:
        """Whether ``value`` is inside."""
        is_inside = value > self.low if self.is_above else value >= self.low
        return is_inside and value <= self.high and (not self.is_whole or value == int(value))

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        low = f"{kind}, {'above' if self.is_above else 'at least'} {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:.0f}"


_COUNT, _NATURAL = Bounds(1, is_whole=True), Bounds(0, is_whole=True)
_SHARE, _POSITIVE = Bounds(0, 1), Bounds(0, is_above=True)

#: Numbers of the hosts' that limask or their run loops read.
BOUNDS = {
    **dict.fromkeys(("batch_size", "batch_size_run", "buffer_size", "t_max", "test_interval"), _COUNT),
    **dict.fromkeys(("save_model_interval", "target_update_interval"), _COUNT),
    **dict.fromkeys(("hidden_dim", "rnn_hidden_dim", "mixing_embed_dim", "hypernet_embed"), _COUNT),
    **dict.fromkeys(("test_nepisode", "log_interval", "runner_log_interval"), _NATURAL),
    **dict.fromkeys(("learner_log_interval", "epsilon_anneal_time"), _NATURAL),
    **dict.fromkeys(("gamma", "epsilon_start", "epsilon_finish", "evaluation_epsilon"), _SHARE),
    **dict.fromkeys(("lr", "grad_norm_clip", "target_update_interval_or_tau"), _POSITIVE),
    "seed": Bounds(0, 2**32 - 1, is_whole=True),
}

#: Options that name something in a registry, the host's module that holds it, and what limask adds there.
_REGISTRIES = {
    "runner": ("runners/__init__.py", ("vector",)),
    "learner": ("learners/__init__.py", ("lim_learner",)),
    "mac": ("controllers/__init__.py", ("lim_mac",)),
    "agent": ("modules/agents/__init__.py", ("lim",)),
    "action_selector": ("components/action_selectors.py", ("lim_epsilon_greedy",)),
}

#: Options that every sacred experiment has.
_OF_SACRED = ("seed",)

#: Words for what YAML calls true, false and null, as sacred reads them.
_YAML_WORDS = {"true": True, "false": False, "null": None}


def configs_of(host: str, where: str) -> Path:
    """A host's own folder of configs.

    Args:
        host: ``pymarlzooplus``, or the path of a checkout.
        where: who names it, for messages.

    Raises:
        LimaskError: there is no such host.
    """
    if host == PYMARLZOOPLUS:
        return pymarlzooplus_folder(where) / "config"
    try:
        return recognised(Path(host)) / "src/config"
    except LimaskError as error:
        raise LimaskError(f"{where}: expected pymarlzooplus or a checkout; {error}") from error


def find_config(configs: Path, kind: str, name: str, where: str) -> Path:
    """The host's config of that name, or limask's.

    Args:
        configs: see ``configs_of``.
        kind: ``algs`` or ``envs``.
        name: of the config.
        where: who names it, for messages.

    Raises:
        LimaskError: neither has one.
    """
    folders = (configs / kind, resources.config_dir() / kind)
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise LimaskError(f"{where}: no such config{nearest(name, known)} (known: {', '.join(known)})")


def read_config(path: Path) -> State:
    """A config as it stands in its file.

    Raises:
        LimaskError: it cannot be read.
    """
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LimaskError(f"{path}: {' '.join(str(error).split())}; expected the config of a host") from error
    return options or {}


def read_value(text: str) -> Any:
    """A value of sacred's command line: Python's literals, YAML's true, false and null, or text."""
    if text in _YAML_WORDS:
        return _YAML_WORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def check_names(given: Block, options: Block, where: str = "") -> None:
    """Refuse options that no config names, as sacred would.

    Args:
        given: block in block.
        options: those of the configs.
        where: begins messages.

    Raises:
        LimaskError: names the nearest.
    """
    known = {**flat(options), **dict.fromkeys(_OF_SACRED)}
    for name in flat(given):
        parts = name.split(".")
        # A value may be a block, of which the config's own has other keys.
        if not any(".".join(parts[:i]) in known for i in range(1, len(parts) + 1)):
            if name.startswith("lim."):
                _told(where, LimConfig.check_name, name.removeprefix("lim."))
            raise LimaskError(
                f"{where}{name} is no option of the host's default.yaml or these configs"
                f"{nearest(name, known)}"
            )


def check_values(given: Block, options: Block, where: str = "") -> State:
    """Values by dotted name as their options take them: a whole number is an integer, whatever it is written
    as. ``lim`` has checks of its own.

    Args: see ``check_names``.

    Raises:
        LimaskError: a value is of another type than the config's own, or out of range.
    """
    own = flat(options)
    return {
        name: _checked(f"{where}{name}", name, value, own.get(name))
        for name, value in flat(given).items()
        if not name.startswith("lim.")
    }


def _checked(shown: str, name: str, value: Any, default: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is None and default is None:
        return None
    if name in BOUNDS:
        bounds = BOUNDS[name]
        if not is_number or not bounds.allow(value):
            raise LimaskError(f"{shown}={value!r}: expected {bounds}")
        return int(value) if bounds.is_whole else value
    if isinstance(default, bool) and not isinstance(value, bool):
        raise LimaskError(f"{shown}={value!r}: expected True or False")
    is_of_number = isinstance(default, (int, float)) and not isinstance(default, bool)
    # What an environment takes is its own affair.
    if is_of_number and not is_number and value is not None and not name.startswith("env_args."):
        raise LimaskError(f"{shown}={value!r}: expected a number, as its default {default!r}")
    return value


def check_run(options: Block, host: Host, configs: Path, where: str = "") -> None:
    """Check what belongs together in all of a run's options, as far as it is known before it starts.

    Raises:
        LimaskError: a registered name is misspelt, options do not go together, there is no such checkpoint,
            the replay buffer never holds a batch, or the ``lim:`` block does not go with the environment.
    """
    _told(where, _check_registered, options, configs)
    _told(where, _check_together, options)
    if not options.get("evaluate"):
        sizes = (options.get(name) for name in ("batch_size", "buffer_size", "batch_size_run", "t_max"))
        numbers = [size for size in sizes if isinstance(size, int)]
        if len(numbers) == 4:
            _told(where, check_sampling, *numbers)
    if "lim" in options:
        _told(where, _check_lim, options, host, configs)


def _check_registered(options: Block, configs: Path) -> None:
    """Names may be registered in ways that no file tells: refused is only what is near to a known one."""
    for option, (file, ours) in _REGISTRIES.items():
        value = options.get(option)
        try:
            text = (configs.parent / file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # As `REGISTRY["name"] = …`, or as one dictionary of all.
        found = re.findall(r"REGISTRY\[[\"'](\w+)[\"']\]|[\"'](\w+)[\"']\s*:", text)
        known = {*(name or entry for name, entry in found), *ours}
        known |= {f"lim_{name}" for name in known if option == "learner"}
        if isinstance(value, str) and value not in known and (hint := nearest(value, known)):
            raise LimaskError(f"{option}={value!r} is none of this host's{hint}")


def _check_together(options: Block) -> None:
    runner, beside = options.get("runner"), options.get("batch_size_run")
    if runner == "episode" and isinstance(beside, int) and beside > 1:
        raise LimaskError(
            f"runner='episode' with batch_size_run={beside}: it plays one episode at a time; set "
            "batch_size_run=1, or runner=vector"
        )
    path, is_evaluation = options.get("checkpoint_path"), options.get("evaluate")
    if path and not Path(path).is_dir():
        raise LimaskError(
            f"checkpoint_path={path!r}: no such folder; expected one of a run's models, which holds a folder "
            "for each checkpoint, named by its environment steps"
        )
    if path and not any(folder.name.isdecimal() and folder.is_dir() for folder in Path(path).iterdir()):
        raise LimaskError(
            f"checkpoint_path={path!r} holds no checkpoint: expected a folder for each, named by its "
            "environment steps"
        )
    if is_evaluation and not path:
        raise LimaskError(
            "evaluate=True without checkpoint_path: agents that have learned nothing would play; set "
            "checkpoint_path to the models of a run"
        )
    if options.get("save_replay") and options.get("env") == "smax":
        raise LimaskError("save_replay=True with env='smax', which saves no replays; set save_replay=False")


def _check_lim(options: Block, host: Host, configs: Path) -> None:
    config = read_options(options["lim"])
    if config.start_from:
        newest_checkpoint(config.start_from)
    env_args = host.known_env_args(configs, options["env"], options["env_args"])
    if env_args is not None:
        known_layout(config, options["env"], env_args)
    config.n_minibatches(options["batch_size"])


def _told(where: str, check: Any, *given: Any) -> None:
    try:
        check(*given)
    except LimaskError as error:
        raise LimaskError(f"{where}{error}") from error


def checked_arguments(arguments: list[str], defaults: Block, host: Host, configs: Path) -> list[str]:
    """Arguments of a host's command line with the values of ``name=value`` as the options take them.

    Args:
        arguments: as they were given.
        defaults: of the host's configs, block in block.
        host: adapter of the host.
        configs: see ``configs_of``.

    Raises:
        LimaskError: see ``check_names``, ``check_values`` and ``check_run``.
    """
    pairs = {i: a.partition("=") for i, a in enumerate(arguments) if "=" in a and not a.startswith("-")}
    given = nested({name: read_value(text) for name, _, text in pairs.values()})
    check_names(given, defaults)
    options = merged(defaults, given)
    values = check_values(given, defaults)
    check_run(merged(options, nested(values)), host, configs)
    checked = list(arguments)
    for i, (name, _, text) in pairs.items():
        # Options of lim are checked by themselves: of theirs only words are put as sacred reads them.
        value = values[name] if name in values else _YAML_WORDS.get(text, text)
        if value != text:
            checked[i] = f"{name}={value!r}"
    return checked
