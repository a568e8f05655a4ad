"""The commands ``limask bench …``: what can be refused is refused before torch and the host are loaded."""

from __future__ import annotations

from pathlib import Path

from limask.errors import LimaskError
from limask.experiments.display import say
from limask.files import check_free
from limask.install.families import PYMARLZOOPLUS
from limask.requirements import require

#: What ``speed`` writes.
_NAMES = ("speed.csv", "speed.png", "growth.png")


def bench_speed(output: Path, *, quick: bool, device: str = "cpu", force: bool = False) -> None:
    """See ``speed.speed``.

    Args:
        output: folder for the files.
        quick: only 2s3z, and fewer turns (under three minutes).
        device: ``cpu`` or ``cuda``.
        force: whether files in ``output`` are written anew.

    Raises:
        LimaskError: a package or a GPU is missing, or ``output`` holds such files; nothing has been timed
            then.
    """
    check_free(output, _NAMES, force=force)
    require(PYMARLZOOPLUS, "smax")
    say("Loading pymarlzooplus and compiling battles: up to a minute until the first line …")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise LimaskError(
            f"--device cuda: torch {torch.__version__} finds no GPU; install a build of torch with CUDA on a "
            "machine that has one, or leave --device out"
        )
    from limask.experiments.bench.speed import speed

    speed(output, quick=quick, device=device)


def bench_replay(output: Path, *, force: bool = False) -> None:
    """See ``replay.replay``; the arguments, and what is refused, are those of ``bench_speed``."""
    check_free(output, ("replay.csv",), force=force)
    require(PYMARLZOOPLUS, "smax")
    say("Loading pymarlzooplus and compiling battles: up to a minute until the first line …")
    from limask.experiments.bench.replay import replay

    replay(output)
