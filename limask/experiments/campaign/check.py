"""Whether a host knows what a campaign names, found before anything is started."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml

from limask import compat, resources
from limask.autoencoder.options import known_layout, read_options
from limask.config import LimConfig
from limask.errors import LimaskError, nearest
from limask.experiments.campaign.plan import Arm, Campaign, Environment
from limask.experiments.campaign.values import Options
from limask.experiments.nested import flat, merged
from limask.hosts import Host, PymarlzooplusHost, host_of, import_maskers
from limask.install import recognised
from limask.install.families import PYMARLZOOPLUS, pymarlzooplus_folder
from limask.protocols import State


def check_campaign(campaign: Campaign) -> None:
    """Check each arm on each environment as the host and limask would at the start of a run.

    Raises:
        LimaskError: no such host, config, option or map, or a ``lim:`` block that does not go with an
            environment; the message names the place in the campaign file.
    """
    if "wandb" in campaign.sinks and importlib.util.find_spec("wandb") is None:
        raise LimaskError("sinks: wandb is not installed: `pip install 'limask[wandb]'`")
    configs = _host_configs(campaign.host)
    if campaign.host != PYMARLZOOPLUS and not campaign.compat:
        _check_starts(configs.parent)
    host = _host(campaign.host)
    defaults = _read(configs / "default.yaml")
    for env in campaign.environments:
        env_options = merged(defaults, _config(configs, "envs", env.env_config, f"environments.{env.id}"))
        for arm in campaign.arms:
            options = merged(env_options, _config(configs, "algs", arm.config, f"arms.{arm.id}"))
            for where, given in _given(campaign, arm, env):
                _check_known(where, given, options)
                options = merged(options, given)
            _check_lim(f"arms.{arm.id} on environments.{env.id}", options, host, configs)


def _given(campaign: Campaign, arm: Arm, env: Environment) -> list[tuple[str, Options]]:
    return [
        (f"environments.{env.id}", {"env_args": env.env_args}),
        ("overrides", campaign.overrides),
        (f"arms.{arm.id}.overrides", arm.overrides),
    ]


def _host(name: str) -> Host:
    """The adapter, with the maskers that the checkout brings."""
    if name == PYMARLZOOPLUS:
        return PymarlzooplusHost()
    import_maskers(Path(name))
    return host_of(recognised(Path(name)))


def _host_configs(host: str) -> Path:
    if host == PYMARLZOOPLUS:
        return pymarlzooplus_folder("host is pymarlzooplus") / "config"
    try:
        return recognised(Path(host)) / "src/config"
    except LimaskError as error:
        raise LimaskError(f"host: expected pymarlzooplus or a checkout; {error}") from error


def _check_starts(source: Path) -> None:
    if names := ", ".join(shim.name for shim in compat.needed(source)):
        raise LimaskError(
            f"host: {source.parent} was written for older packages and does not start here ({names}); set "
            "compat: true"
        )


def _config(configs: Path, kind: str, name: str, where: str) -> State:
    """The host's config of that name, or limask's, as ``limask run`` looks them up."""
    folders = (configs / kind, resources.config_dir() / kind)
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return _read(folder / f"{name}.yaml")
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    key = {"algs": "config", "envs": "env_config"}[kind]
    raise LimaskError(
        f"{where}.{key} is {name!r}: no such config{nearest(name, known)} (known: {', '.join(known)})"
    )


def _read(path: Path) -> State:
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LimaskError(f"{path}: {' '.join(str(error).split())}; expected the config of a host") from error
    return options or {}


def _check_known(where: str, given: Options, options: Options) -> None:
    # Sacred refuses what no config names.
    known = flat(options)
    for name in flat(given):
        if name not in known:
            _check_lim_name(where, name)
            raise LimaskError(
                f"{where}: {name} is no option of the host's default.yaml or these configs"
                f"{nearest(name, known)}"
            )


def _check_lim_name(where: str, name: str) -> None:
    try:
        if name.startswith("lim."):
            LimConfig.check_name(name.removeprefix("lim."))
    except LimaskError as error:
        raise LimaskError(f"{where}: {error}") from error


def _check_lim(where: str, options: Options, host: Host, configs: Path) -> None:
    if "lim" not in options:
        return
    try:
        config = read_options(options["lim"])
        env_args = host.known_env_args(configs, options["env"], options["env_args"])
        if env_args is not None:
            known_layout(config, options["env"], env_args)
        config.n_minibatches(options["batch_size"])
    except LimaskError as error:
        raise LimaskError(f"{where}: {error}") from error
