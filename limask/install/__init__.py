"""Put limask into a PyMARL-family checkout and take it out again.

Every change is planned first and then carried out as one transaction: either all
of it happens or the checkout is as it was. A manifest in the checkout records what
was added, so that an uninstall removes exactly that and nothing of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limask import compat, resources
from limask.errors import LimaskError
from limask.install.block import block_state
from limask.install.families import family_of
from limask.install.manifest import MANIFEST, REGISTRY_FILE, file_state, read_manifest
from limask.install.plan import Step, plan_install, plan_uninstall
from limask.install.recovery import held, interrupted, recover
from limask.install.transaction import carry_out, os_errors_told
from limask.version import __version__

__all__ = ["MANIFEST", "REGISTRY_FILE", "install", "recognised", "status", "uninstall"]

_HOST_FOLDERS = (
    "src/controllers",
    "src/modules/agents",
    "src/runners",
    "src/config/algs",
    "src/config/envs",
)


def install(checkout: Path, *, dry_run: bool = False, with_compat: bool = False) -> list[str]:
    """Add limask to a checkout, or bring an earlier install up to date.

    Args:
        checkout: root folder of the checkout (the one that holds ``src``).
        dry_run: only say what would be done.
        with_compat: whether ``src/main.py`` gets what an old host needs to start here (``limask.compat``).

    Returns:
        What was done, or would be done, a line each.

    Raises:
        LimaskError: the folder is no host, a file of the user's is in the way, the
            block or the manifest is damaged, or a write failed. Nothing is changed then.
    """
    with os_errors_told(checkout), _alone(recognised(checkout), dry_run) as (root, undone):
        old = read_manifest(root)
        steps, new = plan_install(root, old, __version__, with_compat)
        hint = [] if with_compat else _compat_hint(root)
        if new == old and all(step.verb == "keep" for step in steps):
            told = [step.line(dry_run) for step in steps]
            return [*undone, *told, *hint, f"limask {__version__} is already installed in {root}"]
        verb = "add" if old is None else "replace"
        steps.append(Step(verb, MANIFEST, root / MANIFEST, new.to_bytes()))
        told = carry_out(root, steps, dry_run)
        done = "would be" if dry_run else "is now"
        return [*undone, *told, *hint, f"limask {__version__} {done} installed in {root}"]


@contextmanager
def _alone(root: Path, dry_run: bool) -> Iterator[tuple[Path, list[str]]]:
    """Hold a checkout, in which what a killed command had begun has been undone; told with it.

    Raises:
        LimaskError: another command is at work there, or a dry run would have to undo something first.
    """
    if not (root / "src").is_dir():
        yield root, []
        return
    with held(root / "src"):
        if dry_run and interrupted(root):
            raise LimaskError(
                f"{root}: a command was interrupted there, which the next install or uninstall undoes first; "
                "run that without --dry-run; nothing was changed"
            )
        yield root, recover(root)


def _compat_hint(root: Path) -> list[str]:
    names = ", ".join(shim.name for shim in compat.needed(root / "src"))
    told = f"src/main.py does not start with the packages installed here ({names})"
    return [f"{told}: `limask install --compat` helps"] if names else []


def uninstall(checkout: Path, *, dry_run: bool = False) -> list[str]:
    """Take out of a checkout what ``install`` added, and leave everything else alone.

    Args:
        checkout: root folder of the checkout (the one that holds ``src``).
        dry_run: only say what would be done.

    Returns:
        What was done, or would be done, a line each; files kept are named.

    Raises:
        LimaskError: limask is not installed there, the block was edited, the block or
            the manifest is damaged, or a write failed. Nothing is changed then.
    """
    with os_errors_told(checkout), _alone(_folder(checkout), dry_run) as (root, undone):
        manifest = read_manifest(root)
        if manifest is None:
            now = "; what an interrupted command had begun was undone" if undone else ""
            raise LimaskError(f"limask is not installed in {root}: it has no {MANIFEST}{now}")
        steps = plan_uninstall(root, manifest)
        steps.append(Step("remove", MANIFEST, root / MANIFEST))
        told = carry_out(root, steps, dry_run)
        done = "would be" if dry_run else "is now"
        return [*undone, *told, f"limask {done} uninstalled from {root}"]


def status(checkout: Path | None) -> list[str]:
    """Describe this limask (without a checkout), or its install in a checkout.

    Raises:
        LimaskError: the folder is no host, or its manifest is damaged.
    """
    if checkout is None:
        return [f"limask {__version__}", f"config: {resources.config_dir()}"]
    with os_errors_told(checkout):
        root = _folder(checkout)
        manifest = read_manifest(root)
        left = [f"{path.relative_to(root)}: left by an interrupted command" for path in interrupted(root)]
        if manifest is None:
            recognised(checkout)
            lines = [f"limask is not installed in {root}", *left]
            block = block_state(root / REGISTRY_FILE, None)
            if block != "missing":
                lines.append(f"{REGISTRY_FILE}: has a limask block that no {MANIFEST} records")
            return lines
        lines = [f"limask {manifest.version} is installed in {root}", *left]
        if manifest.version != __version__:
            lines.append(f"this is limask {__version__}: `limask install` would update it")
        for name, digest in manifest.files.items():
            lines.append(f"{name}: {file_state(root / name, digest)}")
        for file, record in manifest.blocks().items():
            lines.append(f"block in {file}: {block_state(root / file, record)}")
        return lines


def _folder(checkout: Path) -> Path:
    """Return the real path of a folder that may be a checkout's root."""
    root = checkout.expanduser().resolve()
    if not root.exists():
        raise LimaskError(f"{checkout} does not exist; expected the folder of a PyMARL checkout")
    if not root.is_dir():
        raise LimaskError(f"{checkout} is a file; expected the folder of a PyMARL checkout")
    if (root / "main.py").is_file() and (root / "learners").is_dir():
        raise LimaskError(f"{checkout} is the source folder of a checkout; give the checkout: {root.parent}")
    return root


def recognised(checkout: Path) -> Path:
    """Return the real path of a checkout that limask knows how to extend.

    Raises:
        LimaskError: it is no PyMARL-family checkout, or one of a family that limask has no adapter for.
    """
    root = _folder(checkout)
    missing = [name for name in _HOST_FOLDERS if not (root / name).is_dir()]
    if not (root / "src/main.py").is_file():
        missing.insert(0, "src/main.py")
    # PyMARL2 and PyMARL3 have a package where the others have a module.
    if not (root / "src/run.py").is_file() and not (root / "src/run").is_dir():
        missing.append("src/run.py (or the folder src/run)")
    registry = root / REGISTRY_FILE
    if not registry.is_file():
        missing.append(REGISTRY_FILE)
    elif b"REGISTRY" not in registry.read_bytes():
        missing.append(f"REGISTRY in {REGISTRY_FILE}")
    if missing:
        raise LimaskError(
            f"{checkout} is not a PyMARL-family checkout: it lacks {', '.join(missing)}; "
            "give the folder that holds src/main.py"
        )
    family_of(root)
    return root
