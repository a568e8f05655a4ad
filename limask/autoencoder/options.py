"""The ``lim:`` block, checked against what the registered maskers and autoencoders and a run's layout can do.

All of it is known from a run's options: mistakes are found before an environment exists.
"""

from __future__ import annotations

from collections.abc import Iterable

from limask import autoencoder, layouts, masking
from limask.autoencoder.base import Autoencoder
from limask.config import AUTO, LimConfig, not_allowed
from limask.errors import LimaskError
from limask.faults import read_faults
from limask.layouts import Layout, flat_layout, layout_name
from limask.masking import Masker
from limask.protocols import Block

#: Agents of a team whose size is not known yet.
MANY = 10**6

#: The one value of options that there is no use for without an autoencoder.
_UNUSED_BY_NONE = {
    "autoencoder.weight": 0.0, "view.weight": 0.0, "autoencoder.targets": "own", "autoencoder.latent": False,
    "autoencoder.use_inference": False, "autoencoder.sightings": False, "autoencoder.denoise": False,
    "masker.replay": 0.0,
}  # fmt: skip


def read_options(block: object) -> LimConfig:
    """Read a ``lim:`` block.

    Raises:
        LimaskError: see ``LimConfig.from_block``; or no masker or autoencoder is registered under that name,
            or they cannot go together with each other or the other options.
    """
    config = LimConfig.from_block(block)
    _check_faults(config)
    _check_masker(config)
    masker, kind = _masker(config), _autoencoder(config)
    if kind is None:
        if config.masker.name != "none":
            raise LimaskError(
                f"lim.masker.name={config.masker.name!r} with "
                f"lim.autoencoder.name={config.autoencoder.name!r}: nothing would "
                "use the mask; set lim.masker.name='none' or lim.autoencoder.name='entity'"
            )
        why, remedy = "there is nothing to reconstruct", " or lim.autoencoder.name='entity'"
        config.check_unused(_UNUSED_BY_NONE, why, remedy)
        return config
    if kind.hides == "agents" and masker.hides != "agents":
        able = [name for name, masker in masking.REGISTRY.items() if masker.hides == "agents"]
        raise LimaskError(
            f"lim.masker.name={config.masker.name!r} with lim.autoencoder.name={config.autoencoder.name!r}, "
            "which hides whole "
            f"agents: expected one of {', '.join(able)}"
        )
    kind.check(config)
    config.check_unused(kind.unused, "which has no use for it")
    _check_targets(config)
    if config.autoencoder.weight == 0 and masker.learn is not Masker.learn:
        raise LimaskError(
            f"lim.masker.name={config.masker.name!r} with lim.autoencoder.weight=0: it learns from errors of "
            "the reconstruction, and there would be none; set lim.masker.name='random'"
        )
    is_used = kind.is_trained and kind.place(config.autoencoder.use_inference) != "nowhere"
    if config.autoencoder.weight == 0 and is_used:
        name = "autoencoder.use_inference" if config.autoencoder.use_inference else "autoencoder.name"
        raise LimaskError(
            f"lim.{name}={config.value(name)!r} with lim.autoencoder.weight=0: what the agent acts on would "
            "never learn; "
            "raise lim.autoencoder.weight"
        )
    return config


def _check_masker(config: LimConfig) -> None:
    if config.masker.replay > 0 and config.masker.name == "none":
        raise LimaskError(
            f"lim.masker.replay={config.masker.replay} with lim.masker.name='none': nothing would be hidden; "
            "set lim.masker.name='random' or lim.masker.replay=0.0"
        )


def _check_faults(config: LimConfig) -> None:
    severities, is_used = config.faults.severities(), config.faults.collect or config.faults.replay > 0
    if severities and not is_used:
        name, given = next(iter(severities.items()))
        raise LimaskError(
            f"lim.faults.{name}={given!r} with lim.faults.collect=False and lim.faults.replay=0.0: nothing "
            "would go wrong; set lim.faults.collect=True, or lim.faults.replay above 0"
        )
    if is_used and not severities:
        name = "collect" if config.faults.collect else "replay"
        raise LimaskError(
            f"lim.faults.{name}={config.value(f'faults.{name}')!r}, and no kind of fault: set one, as in "
            "lim.faults.dropout=[0,0.8]"
        )


def _check_targets(config: LimConfig) -> None:
    if config.autoencoder.saliency_weights and config.autoencoder.targets != "own":
        raise LimaskError(
            "lim.autoencoder.saliency_weights=True with "
            f"lim.autoencoder.targets={config.autoencoder.targets!r}: a token that the agent "
            "does not see has no saliency for its value; set lim.autoencoder.saliency_weights=False or "
            "lim.autoencoder.targets='own'"
        )
    if config.autoencoder.latent and config.trunk == "fc":
        raise LimaskError(
            "lim.autoencoder.latent=True with lim.trunk='fc', which embeds no tokens; set lim.trunk='entity' "
            "or "
            "lim.autoencoder.latent=False"
        )
    if config.autoencoder.latent and config.autoencoder.use_inference:
        raise LimaskError(
            "lim.autoencoder.use_inference=True with lim.autoencoder.latent=True: the agent acts on inferred "
            "features, and "
            "embeddings are reconstructed; set one of them to False"
        )


def known_layout(config: LimConfig, env: str, env_args: Block) -> Layout | None:
    """The run's layout where the options determine it, None for ``flat``.

    Raises:
        LimaskError: see ``layouts.known_layout`` and ``check_layout``.
    """
    layout = layouts.known_layout(config, env, env_args)
    kinds = layout.kinds if layout else frozenset()
    targets = layout.targets if layout else frozenset({"own"})
    check_layout(config.on_layout(kinds), layout_name(config, env, env_args), kinds, targets)
    if layout is not None:
        ally = layout.group("ally")
        read_faults(config.faults.severities(), layout, ally.count + 1 if ally else MANY, "lim.faults")
    return layout


def resolve(config: LimConfig, env: str, env_args: Block, obs_size: int) -> Layout:
    """The run's layout, checked against the observation size that the host reports.

    Raises:
        LimaskError: see ``known_layout`` and ``Layout.check_obs_size``.
    """
    layout = known_layout(config, env, env_args) or flat_layout(obs_size, config.group_width)
    layout.check_obs_size(obs_size)
    read_faults(config.faults.severities(), layout, MANY, "lim.faults")
    return layout


def check_layout(
    config: LimConfig, name: str, kinds: frozenset[str], targets: Iterable[str] = ("own",)
) -> None:
    """Refuse what a layout cannot carry.

    Args:
        config: with ``autoencoder.name: auto`` decided.
        name: of the layout.
        kinds: of entity that it knows.
        targets: values of ``lim.autoencoder.targets`` that it can serve.

    Raises:
        LimaskError: names both options and what to choose instead.
    """
    masker, kind = _masker(config), _autoencoder(config)
    if kind is not None and kind.hides == "agents":
        return  # its tokens are agents, on any layout
    if config.masker.name != "none" and config.trunk == "fc" and not kinds:
        raise LimaskError(
            f"lim.masker.name={config.masker.name!r} with lim.trunk='fc' on layout {name!r}, which has no "
            "entities "
            "to hide; set lim.trunk='entity' (feature groups become tokens) or lim.masker.name='none'"
        )
    if masker.needs_teammates and "ally" not in kinds:
        raise LimaskError(
            f"lim.masker.name={config.masker.name!r} on layout {name!r}, which does not say which features "
            "show a "
            "teammate; set lim.masker.name='random'"
        )
    if config.autoencoder.targets not in {*targets, "auto"}:
        what = {"team": "where a token places its unit", "state": "what the global state holds of units"}
        raise LimaskError(
            f"lim.autoencoder.targets={config.autoencoder.targets!r} on layout {name!r}, which does not say "
            f"{what[config.autoencoder.targets]}; set "
            f"lim.autoencoder.targets={' or '.join(map(repr, sorted(targets)))}"
        )
    chosen = targets if config.autoencoder.targets == "auto" else [config.autoencoder.targets]
    if config.autoencoder.denoise and config.faults.replay == 0 and "state" not in chosen:
        remedy = "lim.autoencoder.targets='state', or " if "state" in targets else ""
        raise LimaskError(
            f"lim.autoencoder.denoise=True on layout {name!r} with "
            f"lim.autoencoder.targets={config.autoencoder.targets!r}: nothing tells what is shown from what "
            f"is there; set {remedy}lim.faults.replay above 0, which keeps the truth"
        )
    asked = {
        "autoencoder.name": (kind is not None and kind.needs_entities, "entity"),
        "autoencoder.use_inference": (config.autoencoder.use_inference, False),
        "autoencoder.latent": (config.autoencoder.latent, False),
    }
    for key, (is_asked, other) in asked.items():
        if is_asked and not kinds:
            raise LimaskError(
                f"lim.{key}={config.value(key)!r} on layout {name!r}, which has no entities; set "
                f"lim.{key}={other!r}"
            )


def _masker(config: LimConfig) -> type[Masker]:
    known = masking.REGISTRY
    if not isinstance(config.masker.name, str) or config.masker.name not in known:
        raise not_allowed("masker.name", config.masker.name, f"one of {', '.join(known)}", known)
    return known[config.masker.name]


def _autoencoder(config: LimConfig) -> type[Autoencoder] | None:
    """The class that ``config`` names; where the layout chooses, what it chooses where there are entities."""
    known = [AUTO, *autoencoder.REGISTRY]
    if not isinstance(config.autoencoder.name, str) or config.autoencoder.name not in known:
        raise not_allowed("autoencoder.name", config.autoencoder.name, f"one of {', '.join(known)}", known)
    return autoencoder.REGISTRY[config.on_layout(frozenset({"enemy"})).autoencoder.name]
