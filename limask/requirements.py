"""Which packages a command needs beyond limask's own, and what to type where they are missing.

Looked for before anything is loaded, and all together: nobody learns of them one by one.
"""

from __future__ import annotations

from importlib.util import find_spec

from limask.errors import LimaskError

#: Modules that each extra of ``setup.py`` brings.
EXTRAS = {
    "pymarlzooplus": (
        "cloudpickle", "cv2", "gymnasium", "matplotlib", "networkx", "pandas", "rich", "seaborn", "sklearn",
    ),
    "smax": ("jax", "jaxmarl"),
    "report": ("matplotlib",),
    "wandb": ("wandb",),
    "ray": ("ray",),
    "slurm": ("submitit",),
}  # fmt: skip

#: The host, whose own list of requirements brings what nothing here needs.
_HOST, _HOST_COMMAND = "pymarlzooplus", "pip install --no-deps pymarlzooplus==1.1.0"


def require(*extras: str) -> None:
    """See that what these ``extras`` bring is installed, and for ``pymarlzooplus`` that host as well.

    Raises:
        LimaskError: names everything that is missing, and one command that installs it.
    """
    lacking = {extra: [name for name in EXTRAS[extra] if find_spec(name) is None] for extra in extras}
    missing = [name for names in lacking.values() for name in names]
    wanted = [extra for extra, names in lacking.items() if names]
    commands = [f"pip install 'limask[{','.join(wanted)}]'"] if wanted else []
    if _HOST in extras and find_spec(_HOST) is None:
        missing.insert(0, _HOST)
        commands.append(_HOST_COMMAND)
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise LimaskError(
            f"{', '.join(dict.fromkeys(missing))} {are} not installed: `{' && '.join(commands)}`"
        )


def require_host(host: str, *extras: str) -> None:
    """``require`` for what is done in ``host``: pymarlzooplus, or a checkout, which has a list of its own."""
    require(*([_HOST] if host == _HOST else []), *extras)
