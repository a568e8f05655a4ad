"""limask: masked-autoencoder QMIX for the PyMARL family of multi-agent RL codebases."""

from typing import TYPE_CHECKING

from limask.version import __version__

__all__ = ["Belief", "Team", "__version__", "load", "train"]

if TYPE_CHECKING:
    from limask.api import Belief, Team, load, train
else:

    def __getattr__(name):
        # torch and a host are imported where they are used: the command `limask install` needs neither.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from limask import api

        return getattr(api, name)
