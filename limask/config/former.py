"""Blocks of runs that are older than the options' names and defaults of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Options that had other names before they were grouped.
RENAMED = {
    "mask_ratio": "masker.ratio",
    "mask_span": "masker.span",
    "keep_at_least": "masker.keep_at_least",
    "random_until": "masker.random_until",
    "random_anneal": "masker.random_anneal",
    "random_finish": "masker.random_finish",
    "credit": "masker.credit",
    "decoder_dim": "autoencoder.width",
    "decoder_lr": "autoencoder.lr",
    "lambda_rec": "autoencoder.weight",
    "balance": "autoencoder.balance",
    "rec_warmup": "autoencoder.warmup",
    "rec_targets": "autoencoder.targets",
    "rec_share": "autoencoder.share",
    "rec_latent": "autoencoder.latent",
    "rec_weights": "autoencoder.saliency_weights",
    "detach_trunk": "autoencoder.detach_trunk",
    "use_inference": "autoencoder.use_inference",
    "lambda_aug": "view.weight",
    "window": "team.window",
    "pretrain_episodes": "team.pretrain_episodes",
    "pretrain_updates": "team.pretrain_updates",
    "finetune_calls": "team.finetune_calls",
    "joint": "team.joint",
    "td_lambda": "targets.td_lambda",
    "q_lambda": "targets.q_lambda",
}


#: Defaults that had other values then; a block may be older than some of its options.
_FORMER: dict[str, dict[str, Any]] = {
    "autoencoder": {
        "name": "entity", "width": 64, "lr": 5e-4, "warmup": 0, "targets": "own", "share": 0.25,
    },
    "targets": {"td_lambda": 0.0},
}  # fmt: skip


def restored(block: Mapping[str, Any]) -> dict[str, Any]:
    """The ``lim:`` block of a run as it is written now: one of before options were grouped is ``migrated``,
    and what it lacks has the default of then. Others stay as they are."""
    new = migrated(block)
    if new == block:
        return new
    former = {group: own | new.get(group, {}) for group, own in _FORMER.items()}
    return new | former


def migrated(block: Mapping[str, Any]) -> dict[str, Any]:
    """A ``lim:`` block that was written before options were grouped, as it is written now."""
    new: dict[str, Any] = {}
    for key, value in block.items():
        is_name = key in ("masker", "autoencoder") and not isinstance(value, Mapping)
        name = f"{key}.name" if is_name else RENAMED.get(key, key)
        first, _, inner = name.partition(".")
        if inner:
            new.setdefault(first, {})[inner] = value
        elif isinstance(value, Mapping) and isinstance(new.get(first), dict):
            new[first] |= value
        else:
            new[first] = value
    return new
