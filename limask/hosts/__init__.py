"""Adapters to the hosts."""

import sys
from pathlib import Path

from limask.hosts.base import Host
from limask.hosts.epymarl import EpymarlHost, EpymarlV1Host
from limask.hosts.pymarl import PymarlHost
from limask.hosts.pymarl2 import Pymarl2Host, Pymarl3Host
from limask.hosts.pymarlzooplus import PymarlzooplusHost
from limask.install.families import family_of

#: By the keys of ``limask.install.families``.
CHECKOUTS: dict[str, type[Host]] = {
    "epymarl": EpymarlHost,
    "epymarl_v1": EpymarlV1Host,
    "pymarl": PymarlHost,
    "pymarl2": Pymarl2Host,
    "pymarl3": Pymarl3Host,
}


def host_of(checkout: Path) -> Host:
    """The adapter to a checkout, by its root folder.

    Raises:
        LimaskError: it is of no family that limask knows.
    """
    return CHECKOUTS[family_of(checkout).key]()


def register_checkout() -> None:
    """Register limask in the checkout whose ``src/`` is on the import path; called by the installed block."""
    host_of(Path(str(sys.modules["learners"].__file__)).parents[2]).register()


__all__ = ["CHECKOUTS", "Host", "PymarlzooplusHost", "host_of", "register_checkout"]
