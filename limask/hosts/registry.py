"""The adapters by host."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.hosts.epymarl import EpymarlHost, EpymarlV1Host
from limask.hosts.pymarl import PymarlHost
from limask.hosts.pymarl2 import Pymarl2Host, Pymarl3Host
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
    checkout = Path(str(sys.modules["learners"].__file__)).parents[2]
    host_of(checkout).register()
    import_maskers(checkout)


def import_maskers(checkout: Path) -> None:
    """Import ``src/modules/maskers`` of a checkout, in which users name maskers of their own in
    ``limask.masking.REGISTRY``; nothing where limask is not installed in it.

    Raises:
        LimaskError: it cannot be imported.
    """
    source = checkout / "src"
    if not (source / "modules/maskers/__init__.py").is_file():
        return
    is_on_path = str(source) in sys.path
    if not is_on_path:
        sys.path.insert(0, str(source))
    try:
        importlib.import_module("modules.maskers")
    except Exception as error:  # whatever a user's file raises
        raise LimaskError(
            f"{source / 'modules/maskers'} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        if not is_on_path:
            sys.path.remove(str(source))
