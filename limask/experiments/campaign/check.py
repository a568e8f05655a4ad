"""Whether a host knows what a campaign names, found before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limask import compat
from limask.config.nested import merged
from limask.errors import LimaskError
from limask.experiments.campaign.plan import Arm, Campaign, Environment
from limask.experiments.campaign.values import Options
from limask.hosts.base import Host
from limask.hosts.options import check_names, check_run, check_values, configs_of, find_config, read_config
from limask.hosts.pymarlzooplus import PymarlzooplusHost
from limask.hosts.registry import host_of, import_maskers
from limask.install import recognised
from limask.install.families import PYMARLZOOPLUS
from limask.requirements import EXTRAS, require_host


def check_campaign(campaign: Campaign, extras: Sequence[str] = ()) -> None:
    """Check each arm on each environment as the host and limask would at the start of a run.

    Args:
        campaign: what is to be run.
        extras: that are needed besides, to run it.

    Raises:
        LimaskError: a package is missing, no such host, config, option or map, or a ``lim:`` block that does
            not go with an environment; the message names the place in the campaign file.
    """
    smax = ["smax"] if any(env.env_config == "smax" for env in campaign.environments) else []
    sinks = [sink for sink in campaign.sinks if sink in EXTRAS]
    require_host(campaign.host, *smax, *sinks, *extras)
    configs = configs_of(campaign.host, "host")
    if campaign.host != PYMARLZOOPLUS and not campaign.compat:
        _check_starts(configs.parent)
    host = _host(campaign.host)
    defaults = read_config(configs / "default.yaml")
    for env in campaign.environments:
        where = f"environments.{env.id}.env_config is {env.env_config!r}"
        env_options = merged(defaults, read_config(find_config(configs, "envs", env.env_config, where)))
        for arm in campaign.arms:
            where = f"arms.{arm.id}.config is {arm.config!r}"
            options = merged(env_options, read_config(find_config(configs, "algs", arm.config, where)))
            for where, given in _given(campaign, arm, env):
                check_names(given, options, f"{where}: ")
                check_values(given, options, f"{where}: ")
                options = merged(options, given)
            options = merged(options, {"t_max": campaign.budget(env)})
            check_run(options, host, configs, f"arms.{arm.id} on environments.{env.id}: ")


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


def _check_starts(source: Path) -> None:
    if names := ", ".join(shim.name for shim in compat.changes(source)):
        raise LimaskError(f"host: {source.parent} does not start here ({names}); set compat: true")
