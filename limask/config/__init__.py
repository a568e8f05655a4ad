"""The ``lim:`` block of an algorithm's YAML: its options, and how it is read."""

from limask.config.former import RENAMED, migrated, restored
from limask.config.options import (
    AUTO,
    LAYOUTS,
    AutoencoderOptions,
    FaultOptions,
    LimConfig,
    MaskerOptions,
    TargetOptions,
    TeamOptions,
    ViewOptions,
)
from limask.config.schema import expected, fields, not_allowed

__all__ = [
    "AUTO",
    "LAYOUTS",
    "RENAMED",
    "AutoencoderOptions",
    "FaultOptions",
    "LimConfig",
    "MaskerOptions",
    "TargetOptions",
    "TeamOptions",
    "ViewOptions",
    "expected",
    "fields",
    "migrated",
    "not_allowed",
    "restored",
]
