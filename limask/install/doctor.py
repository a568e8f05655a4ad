"""``limask doctor``: whether ``qmix_lim`` would start here, and what to type where it would not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml

from limask import compat, memory, resources
from limask.errors import LimaskError
from limask.install import MANIFEST, recognised
from limask.install.families import PYMARLZOOPLUS, family_of, pymarlzooplus_folder
from limask.install.manifest import read_manifest
from limask.version import __version__

#: Versions that the tests run with (those of ``constraints.txt``).
TESTED = {
    "torch": "2.13.0", "numpy": "2.4.6", "sacred": "0.8.7", "PyYAML": "6.0.3", "setuptools": "81.0.0",
    "tensorboard": "2.21.0", "protobuf": "7.36.2", "gymnasium": "1.3.0", "jax": "0.10.2", "jaxmarl": "0.2.0",
}  # fmt: skip
_NEEDED = ("torch", "numpy", "sacred", "PyYAML", "setuptools")
_PYTHON = ((3, 11), (3, 14))
#: What pip calls packages by whose own names it finds nothing, or something else.
_PIP_NAMES = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "smac": "git+https://github.com/oxwhirl/smac.git", "smacv2": "git+https://github.com/oxwhirl/smacv2.git",
    "smaclite": "git+https://github.com/uoe-agents/smaclite.git",
}  # fmt: skip
_PROBE_SECONDS = 300


class Finding(NamedTuple):
    """``level`` is ``ok``, ``note`` (something will not work) or ``stop`` (``qmix_lim`` does not start)."""

    level: str
    text: str


def doctor(checkout: Path | None) -> list[Finding]:
    """Examine this environment and a host: ``checkout``, or pymarlzooplus where it is None.

    Raises:
        LimaskError: there is no such checkout.
    """
    root = None if checkout is None else recognised(checkout)
    findings = [*_python(), *_packages()]
    findings += _pymarlzooplus() if root is None else _checkout(root)
    findings += [*_starcraft(), *_start(root)]
    return findings


def lines(findings: list[Finding], checkout: Path | None) -> list[str]:
    """For people: what was found, and at the end what to type."""
    told = [f"{finding.level:4}  {finding.text}" for finding in findings]
    if any(finding.level == "stop" for finding in findings):
        return [*told, "qmix_lim does not start here: see the lines that begin with `stop`"]
    host = PYMARLZOOPLUS if checkout is None else checkout
    bridged = checkout is not None and compat.changes(checkout.expanduser() / "src")
    command = f"limask run{' --compat' if bridged else ''} --host {host} --config=qmix_lim --env-config=smax"
    return [*told, f"qmix_lim starts here: {command}"]


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    low, high = (".".join(map(str, bound)) for bound in _PYTHON)
    if _PYTHON[0] <= sys.version_info[:2] < _PYTHON[1]:
        yield Finding("ok", f"Python {found}, limask {__version__}")
    else:
        yield Finding("stop", f"Python {found}: limask needs at least {low} and below {high}")


def _packages() -> Iterator[Finding]:
    for name, tested in TESTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            if name in _NEEDED:
                yield Finding("stop", f"{name} is missing: `pip install '{name}=={tested}'`")
            continue
        if name == "setuptools" and int(found.split(".")[0]) >= 82:
            text = f"setuptools {found} has no pkg_resources, which sacred imports"
            yield Finding("stop", f"{text}: `pip install 'setuptools<82'`")
        elif found.split("+")[0] == tested:
            yield Finding("ok", f"{name} {found}")
        else:
            yield Finding("note", f"{name} {found}: tested with {tested}")


def _pymarlzooplus() -> Iterator[Finding]:
    try:
        pymarlzooplus_folder()
        yield Finding("ok", f"host: {PYMARLZOOPLUS} {version(PYMARLZOOPLUS)}")
    except (LimaskError, PackageNotFoundError) as error:
        yield Finding("stop", f"host: {error}; or name a checkout: `limask doctor CHECKOUT`")


def _checkout(root: Path) -> Iterator[Finding]:
    yield Finding("ok", f"host: {family_of(root).name} ({_git_version(root)}) in {root}")
    manifest = read_manifest(root)
    lacking = ", ".join(shim.name for shim in compat.needed(root / "src"))
    changed = ", ".join(shim.name for shim in compat.changes(root / "src"))
    flag, run = (" --compat" if names else "" for names in (lacking, changed))
    if manifest is None:
        text = (
            f"limask is not installed in it: `limask install{flag} {root}`, or go through `limask run{run}`"
        )
        yield Finding("note", text)
    elif manifest.version != __version__:
        text = f"limask {manifest.version} is installed in it: "
        yield Finding("note", f"{text}`limask install{flag} {root}` brings it up to date")
    else:
        yield Finding("ok", f"limask {manifest.version} is installed in it ({MANIFEST})")
    if missing := compat.missing_packages(root / "src"):
        wanted = " ".join(_pip_name(name, root) for name in missing)
        text = f"its src/main.py imports {', '.join(missing)}, not installed here: `pip install {wanted}`"
        text += " (look the names up: they are those of the imports)"
        yield Finding("note", f"{text}, or leave it: `limask run` stands in for them")
    if lacking and manifest is not None and manifest.compat is None:
        text = f"its src/main.py does not start with the packages installed here ({lacking})"
        yield Finding("note", f"{text}: `limask install --compat {root}`, or `limask run{run}`")
    elif lacking:
        yield Finding("ok", f"--compat bridges what it was written for and is not here: {lacking}")


def _pip_name(package: str, root: Path) -> str:
    """What to install for a package: the repository that the checkout's own lists of requirements have it
    from, or else its name. Versions that they name are left out: they are as old as the host."""
    name = re.sub("[-_.]", "[-_.]", package)
    for file in sorted(root.glob("*requirements*.txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if found := re.search(rf"git\+https://\S*/{name}(\.git)?([@#]\S*)?$", text, re.M | re.I):
            return found[0]
    return _PIP_NAMES.get(package, package)


def _git_version(root: Path) -> str:
    command = ["git", "-C", str(root), "describe", "--tags", "--always", "--dirty"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "no git version"
    return done.stdout.strip()


def _starcraft() -> Iterator[Finding]:
    where = os.environ.get("SC2PATH") or "~/StarCraftII"
    folder = Path(where).expanduser()
    origin = "SC2PATH" if os.environ.get("SC2PATH") else "SC2PATH is unset"
    if find_spec("smac") is None:
        text = (
            "smac is missing, for --env-config=sc2: `pip install 'limask[smac]'` and `pip install --no-deps"
        )
        yield Finding("note", f"{text} git+https://github.com/oxwhirl/smac.git`")
    if not list(folder.glob("Versions/Base*/SC2*")):
        text = f"StarCraft II is not in {folder} ({origin}), for --env-config=sc2: unpack the Linux package "
        text += "4.10 there, or set SC2PATH to where it is"
        yield Finding("note", text)
        return
    yield Finding("ok", f"StarCraft II in {folder} ({origin})")
    maps = list(folder.glob("Maps/SMAC_Maps/*.SC2Map"))
    if maps:
        yield Finding("ok", f"{len(maps)} SMAC maps")
    else:
        yield Finding(
            "note", f"no SMAC maps in {folder}/Maps/SMAC_Maps: unpack SMAC_Maps.zip of oxwhirl/smac"
        )


# -- starting it ------------------------------------------------------------------------------------------


def _start(root: Path | None) -> Iterator[Finding]:
    """Register limask in the host, in a process of its own, and hold the replay buffer against the memory."""
    where = [] if root is None else [str(root)]
    command = [sys.executable, "-m", "limask.hosts.probe", *where]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        yield Finding("stop", f"the host was not imported within {_PROBE_SECONDS} s")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        yield Finding("stop", f"the host cannot be imported: {last}")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    yield Finding("ok", f"registered in the host: {', '.join(found['registered'])}")
    if found["has_kernel"]:
        yield Finding("ok", "GRUs are computed by machine code, which the C compiler made")
    else:
        text = "GRUs are computed by torch's operations, and updates take up to a fifth longer"
        yield Finding("note", f"{text}: install a C compiler, as gcc, or name yours in CC")
    if found["env_info"] is None:
        text = "jaxmarl is missing, for --env-config=smax: `pip install 'limask[smax]'`"
        yield Finding("note", text)
    else:
        yield _memory(found["env_info"])


def _memory(env_info: dict[str, int]) -> Finding:
    config = yaml.safe_load((resources.config_dir() / "algs/qmix_lim.yaml").read_text(encoding="utf-8"))
    try:
        line = memory.check_replay(env_info, config["buffer_size"], "cpu", config["batch_size"], True)
    except LimaskError as error:
        return Finding("stop", f"qmix_lim on SMAX 3m: {error}")
    free = memory.free_memory()
    text = f"qmix_lim on SMAX 3m: {line}"
    if free is None:
        return Finding("ok", text)
    needed = memory.COMPACT * memory.replay_bytes(env_info, config["buffer_size"])
    level = "note" if needed > free else "ok"
    return Finding(level, f"{text}, {free / memory.GIB:.2f} GiB of memory are free")
