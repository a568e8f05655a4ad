"""Which launcher a command line asks for."""

from __future__ import annotations

from collections.abc import Sequence

from limask.errors import LimaskError
from limask.experiments.launch.launcher import Launcher, LocalLauncher
from limask.experiments.launch.ray_launcher import RayLauncher
from limask.experiments.launch.slurm_launcher import SlurmLauncher


def chosen_launcher(
    name: str,
    *,
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    slurm: Sequence[str] = (),
) -> Launcher:
    """The launcher called ``local``, ``ray`` or ``slurm``; the options are None or empty where not given.

    Raises:
        LimaskError: an option is another launcher's, or is not what it has to be.
    """
    options = (
        ("--address", "ray", address is not None),
        ("--cpus-per-run", "ray", cpus is not None),
        ("--gpus-per-run", "ray", gpus is not None),
        ("--slurm", "slurm", bool(slurm)),
    )
    for option, launcher, is_given in options:
        if is_given and launcher != name:
            raise LimaskError(f"{option} goes with --launcher {launcher}, and the launcher is {name}")
    if name == "ray":
        return RayLauncher(address, 1.0 if cpus is None else cpus, 0.0 if gpus is None else gpus)
    if name == "slurm":
        return SlurmLauncher.from_options(slurm)
    return LocalLauncher()
