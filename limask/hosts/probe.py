"""What ``limask doctor`` asks of a host: ``python -m limask.hosts.probe [CHECKOUT]``."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from limask import compat
from limask.hosts.pymarlzooplus import PymarlzooplusHost
from limask.hosts.registry import host_of
from limask.networks.gru_kernel import kernel


def probe(where: str) -> None:
    """Register limask in a host, as ``limask run`` does, and print as JSON what is registered, whether GRUs
    are computed by machine code, and how large SMAX's 3m is (None without jaxmarl).

    Args:
        where: root of a checkout, or ``""`` for pymarlzooplus.
    """
    root = Path(where) if where else None
    if root is not None:
        sys.path.insert(0, str(root / "src"))
        compat.apply(root / "src")
    host = PymarlzooplusHost() if root is None else host_of(root)
    host.register()
    found = {"registered": host.registered(), "has_kernel": kernel() is not None, "env_info": _smax_sizes()}
    print(json.dumps(found))


def _smax_sizes() -> dict[str, Any] | None:
    if find_spec("jaxmarl") is None:
        return None
    from limask.envs.smax import SmaxVector, env_info

    return env_info(SmaxVector("3m", [0]))


if __name__ == "__main__":
    probe(sys.argv[1] if len(sys.argv) > 1 else "")
