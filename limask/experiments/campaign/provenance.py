"""What a run was made with: versions, host commit, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import limask
from limask.install.families import PYMARLZOOPLUS
from limask.protocols import State

#: Packages that change results, of which those that are installed are recorded.
_PACKAGES = (
    "gymnasium",
    "jax",
    "jaxlib",
    "jaxmarl",
    "numpy",
    "pymarlzooplus",
    "sacred",
    "smac",
    "smaclite",
    "torch",
)


def provenance(host: str) -> State:
    """Versions and machine, of JSON's types; what cannot be found out is None."""
    packages = {"limask": limask.__version__}
    for package in _PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "packages": packages,
        "limask_commit": _commit(Path(limask.__file__).parent.parent),
        "host_commit": None if host == PYMARLZOOPLUS else _commit(Path(host)),
        "starcraft2": _starcraft2(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "gpus": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
    }


def _commit(checkout: Path) -> str | None:
    """The commit, with ``-dirty`` where tracked files differ from it; None where it is no checkout."""
    if not (checkout / ".git").exists():
        return None
    return _output(
        "git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"
    )


def _starcraft2() -> str | None:
    folder = Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser() / "Versions"
    return ", ".join(sorted(path.name for path in folder.glob("Base*"))) or None


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, None) or platform.processor() or None


def _output(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return "; ".join(done.stdout.split("\n")).strip("; ") or None if done.returncode == 0 else None
