"""The ``limask`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from limask import __version__
from limask.errors import LimaskError

_RUN_EXAMPLE = "limask run --host pymarlzooplus --config=qmix_lim --env-config=smax with env_args.map_name=3m"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (2 for a mistake in what was asked for)."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _run:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        options.command(options)
    except LimaskError as error:
        print(f"limask: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="limask", description="Masked-autoencoder QMIX for PyMARL-family checkouts.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"limask {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("install", _install, "put limask into a checkout: registry lines, thin files and configs"),
        ("uninstall", _uninstall, "take out exactly what install put in"),
    ):
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("checkout", type=Path, help="folder of the checkout (the one with src/ in it)")
        sub.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
        sub.set_defaults(command=command)
    text = "what is installed, and where"
    status = commands.add_parser("status", help=text, description=text, allow_abbrev=False)
    status.add_argument("checkout", type=Path, nargs="?", help="folder of a checkout")
    status.add_argument(
        "--dry-run", action="store_true", help="accepted for symmetry: status changes nothing"
    )
    status.set_defaults(command=_status)
    text = "run a host's own main with limask registered in memory; nothing of the host is edited"
    run = commands.add_parser(
        "run", help=text, description=text, epilog=f"example: {_RUN_EXAMPLE}", allow_abbrev=False
    )
    run.add_argument("--host", required=True, help="pymarlzooplus, or the folder of a checkout")
    run.add_argument(
        "--results", type=Path, default=Path("results"), help="folder for results (default: ./results)"
    )
    run.set_defaults(command=_run)
    text = "train QMIX and masked-autoencoder QMIX on a SMAX battle and draw their learning curves"
    demo = commands.add_parser("demo", help=text, description=text, allow_abbrev=False)
    demo.add_argument(
        "--output", type=Path, default=Path("demo"), help="folder for results (default: ./demo)"
    )
    demo.add_argument(
        "--t-max", type=int, default=100_000, help="environment steps of each arm (default: 100000)"
    )
    demo.add_argument("--seed", type=int, default=1, help="seed of every arm (default: 1)")
    demo.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    demo.set_defaults(command=_demo)
    _add_campaign(commands)
    _add_bench(commands)
    return parser


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "time the host's own learner, agent and runner against limask's"
    bench = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    benchmarks = bench.add_subparsers(required=True, metavar="BENCHMARK")
    text = "updates, acting, environment steps, the whole loop and memory, in one process"
    speed = benchmarks.add_parser("speed", help=text, description=text, allow_abbrev=False)
    speed.add_argument(
        "--output", type=Path, default=Path("bench"), help="folder for files (default: ./bench)"
    )
    speed.add_argument("--quick", action="store_true", help="only 2s3z, fewer turns: within three minutes")
    speed.set_defaults(command=_bench_speed)


def _add_campaign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "train every arm on every map with every seed of a campaign file"
    campaign = commands.add_parser("campaign", help=text, description=text, allow_abbrev=False)
    actions = campaign.add_subparsers(required=True, metavar="ACTION")
    text = "run a campaign, or go on with one that was cut short"
    run = actions.add_parser("run", help=text, description=text, allow_abbrev=False)
    run.add_argument("file", type=Path, help="campaign file, or the name of one of limask's: smoke, pilot")
    run.add_argument(
        "--output", type=Path, help="the campaign's folder (default: ./results/NAME OF THE FILE)"
    )
    run.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    run.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    run.set_defaults(command=_campaign_run)
    text = "how many runs are planned, done, running, failed and retried"
    status = actions.add_parser("status", help=text, description=text, allow_abbrev=False)
    status.add_argument("folder", type=Path, help="the campaign's folder")
    status.add_argument("--json", action="store_true", help="the numbers alone, as JSON")
    status.set_defaults(command=_campaign_status)


# Each command imports what it needs: `limask status` has no use for torch.


def _install(options: argparse.Namespace) -> None:
    from limask.install import install

    print("\n".join(install(options.checkout, dry_run=options.dry_run)))


def _uninstall(options: argparse.Namespace) -> None:
    from limask.install import uninstall

    print("\n".join(uninstall(options.checkout, dry_run=options.dry_run)))


def _status(options: argparse.Namespace) -> None:
    from limask.install import status

    print("\n".join(status(options.checkout)))


def _run(options: argparse.Namespace) -> None:
    from limask.run import run_host

    run_host(options.host, options.rest, options.results)


def _bench_speed(options: argparse.Namespace) -> None:
    from limask.experiments.speed import speed

    speed(options.output, quick=options.quick)


def _demo(options: argparse.Namespace) -> None:
    from limask.experiments.demo import demo

    demo(options.output, t_max=options.t_max, seed=options.seed, jobs=options.jobs)


def _campaign_run(options: argparse.Namespace) -> None:
    from limask.experiments.campaign_run import run_campaign

    output = options.output or Path("results") / options.file.stem
    run_campaign(options.file, output, jobs=options.jobs, dry_run=options.dry_run)


def _campaign_status(options: argparse.Namespace) -> None:
    from limask.experiments.campaign_run import campaign_status

    print("\n".join(campaign_status(options.folder, as_json=options.json)))
