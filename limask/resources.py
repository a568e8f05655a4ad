"""Where limask's own data files are, in a source tree and in an installed wheel."""

from pathlib import Path

from limask.errors import LimaskError


def config_dir() -> Path:
    """Return the folder that holds limask's ``algs`` and ``envs`` YAML files.

    Raises:
        LimaskError: the package was installed without that folder.
    """
    return _data_dir(packaged="configs", source="config")


def models_dir() -> Path:
    """Return the folder of trained agents that limask brings: ``NAME/config.json`` and ``NAME/models``.

    Raises:
        LimaskError: the package was installed without its data.
    """
    return config_dir() / "models"


def src_patch_dir() -> Path:
    """Return the folder that mirrors what limask puts under a host's ``src``.

    Raises:
        LimaskError: the package was installed without that folder.
    """
    return _data_dir(packaged="src_patch", source="src_patch")


def _data_dir(*, packaged: str, source: str) -> Path:
    package = Path(__file__).resolve().parent
    # A wheel carries the data inside the package; a source tree has it beside the package.
    candidates = (package / packaged, package.parent / source)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    expected = " or ".join(str(candidate) for candidate in candidates)
    raise LimaskError(f"limask's data folder is missing: expected {expected}; reinstall limask")
