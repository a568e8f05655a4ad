"""The commands ``limask bench …``: what can be refused is refused before torch and the host are loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from limask.envs.smax_battle import scenario_sizes
from limask.errors import LimaskError
from limask.experiments.display import markdown_table, say
from limask.files import check_free
from limask.install.families import PYMARLZOOPLUS
from limask.requirements import require

#: What ``speed`` writes.
_NAMES = ("speed.csv", "speed.png", "growth.png")

#: Environment steps before which JaxMARL's replay buffer gives no sample.
_LEAST_STEPS = 50_000


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


def bench_peers(
    output: Path,
    *,
    jaxmarl: Path | None,
    python: str,
    racing: Sequence[str],
    maps: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    force: bool = False,
) -> None:
    """See ``peers.peers``.

    Args:
        output: folder for the files.
        jaxmarl: a checkout of JaxMARL, or None.
        python: the Python that has what it needs.
        racing: who races; empty = all, JaxMARL where there is a checkout.
        maps: of SMAX.
        seeds: of the runs.
        steps: environment steps of each run.
        force: whether runs that are in ``output`` are made again.

    Raises:
        LimaskError: a package, the checkout or its Python is missing, or an argument is out of range;
            nothing has been trained then.
    """
    from limask.experiments.bench.jaxmarl_peer import BASELINE
    from limask.experiments.bench.peers import HOSTS, Race, peers

    require(PYMARLZOOPLUS, "smax")
    if jaxmarl is None and "jaxmarl" in racing:
        raise LimaskError("--peers jaxmarl: expected --jaxmarl with a checkout of it as well")
    if jaxmarl is not None and not (jaxmarl / BASELINE / "qmix_rnn.py").is_file():
        raise LimaskError(
            f"--jaxmarl {jaxmarl} has no {BASELINE / 'qmix_rnn.py'}: expected a checkout of JaxMARL "
            "(git clone https://github.com/FLAIROx/JaxMARL)"
        )
    if shutil.which(python) is None:
        raise LimaskError(f"--python {python}: no such program; name the Python that has what JaxMARL needs")
    if steps < _LEAST_STEPS:
        raise LimaskError(f"--steps {steps}: expected at least {_LEAST_STEPS}")
    for name, given in (("--peers", racing), ("--maps", maps), ("--seeds", seeds)):
        if len(set(given)) < len(given):
            raise LimaskError(f"{name} {' '.join(map(str, given))}: one of them is there twice")
    for map_name in maps:
        scenario_sizes(map_name)
    if force:
        shutil.rmtree(output / "curves", ignore_errors=True)
    racing = racing or [*(["jaxmarl"] if jaxmarl else []), *HOSTS]
    print(markdown_table(peers(Race(racing, maps, seeds, steps), output, jaxmarl, python)))
    print(f"Written: {output / 'peers.csv'}")
