"""Adapters to the hosts."""

from limask.hosts.base import Host
from limask.hosts.epymarl import EpymarlHost
from limask.hosts.pymarlzooplus import PymarlzooplusHost


def register_checkout() -> None:
    """Register limask in the checkout whose ``src/`` is on the import path; called by the installed block."""
    EpymarlHost().register()


__all__ = ["EpymarlHost", "Host", "PymarlzooplusHost", "register_checkout"]
