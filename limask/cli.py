"""The ``limask`` command: what it takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from limask import dispatch
from limask.errors import DIVERGED_STATUS, LimaskError
from limask.experiments.evaluation.units import ASKED, UNITS
from limask.version import __version__

_RUN_EXAMPLE = "limask run --host pymarlzooplus --config=qmix_lim --env-config=smax with env_args.map_name=3m"


_COMPAT = "let a host start that was written for older packages, or imports some that are not installed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (2 for a mistake in what was asked for)."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not dispatch.do_run:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        return options.command(options) or 0
    except LimaskError as error:
        print(f"limask: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="limask", description="Masked-autoencoder QMIX for PyMARL-family checkouts.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"limask {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        (
            "install",
            dispatch.do_install,
            "put limask into a checkout: registry lines, thin files and configs",
        ),
        ("uninstall", dispatch.do_uninstall, "take out exactly what install put in"),
    ):
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("checkout", type=Path, help="folder of the checkout (the one with src/ in it)")
        sub.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
        if command is dispatch.do_install:
            sub.add_argument("--compat", action="store_true", help=f"also {_COMPAT}, by lines in src/main.py")
        sub.set_defaults(command=command)
    text = "what is installed, and where"
    status = commands.add_parser("status", help=text, description=text, allow_abbrev=False)
    status.add_argument("checkout", type=Path, nargs="?", help="folder of a checkout")
    status.add_argument(
        "--dry-run", action="store_true", help="accepted for symmetry: status changes nothing"
    )
    status.set_defaults(command=dispatch.do_status)
    text = "run a host's own main with limask registered in memory; nothing of the host is edited"
    epilog = f"example: {_RUN_EXAMPLE} (exit status {DIVERGED_STATUS}: a loss was not finite)"
    run = commands.add_parser("run", help=text, description=text, epilog=epilog, allow_abbrev=False)
    run.add_argument("--host", help="pymarlzooplus, or the folder of a checkout")
    run.add_argument("--results", type=Path, help="folder for results (default: ./results)")
    text = (
        "go on with the run that was cut off and whose --results this is, with all that it was started with"
    )
    run.add_argument("--resume", type=Path, metavar="FOLDER", help=text)
    text = "how often what the run needs to go on is kept (default: %(default).0f; 0 = never)"
    run.add_argument("--save-state", type=float, default=300.0, metavar="SECONDS", help=text)
    run.add_argument("--compat", action="store_true", help=_COMPAT + ", in this run alone")
    _add_sink(run)
    run.set_defaults(command=dispatch.do_run)
    text = "whether qmix_lim would start here, and what to type where it would not"
    doctor = commands.add_parser("doctor", help=text, description=text, allow_abbrev=False)
    text = "folder of a checkout (default: examine pymarlzooplus)"
    doctor.add_argument("checkout", type=Path, nargs="?", help=text)
    doctor.set_defaults(command=dispatch.do_doctor)
    _add_campaign(commands)
    _add_bench(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_inspect(commands)
    _add_watch(commands)
    _add_export(commands)
    _add_report(commands)
    return parser


#: What is found in it by ``limask.experiments.evaluation.runs.read_run``.
_TRAINED = (
    "folder of a run with a checkpoint, of any host: an attempt of a campaign, the --results of `limask "
    "run`, or sacred's folder of a run, as results/sacred/qmix_lim/3m/1 of a checkout; or the name of agents "
    "that limask brings, as qmix_lim/3m"
)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "draw what a run's masker hides in a test episode, and how well that is reconstructed"
    inspect = commands.add_parser("inspect", help=text, description=text, allow_abbrev=False)
    inspect.add_argument("run", type=Path, metavar="RUN", help=_TRAINED)
    text = "seed of the battle (default: 10000)"
    inspect.add_argument("--seed", type=int, default=10_000, help=text)
    _add_host_and_output(inspect, "inspection/RUN")
    inspect.set_defaults(command=dispatch.do_inspect)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "let trained agents act under perturbations, or on another map"
    evaluate = commands.add_parser("evaluate", help=text, description=text, allow_abbrev=False)
    text = f"{_TRAINED}, or a campaign's folder, for all of its runs that have ended"
    evaluate.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=text)
    kinds, text = f"{{{','.join(UNITS)}}}", "what goes wrong (default: nothing); may be given again"
    evaluate.add_argument("--perturb", action="append", default=[], metavar=kinds, help=text)
    units = "; ".join(f"{name}: {unit}" for name, unit in UNITS.items())
    text = f"after each --perturb: how strong, 0 is nothing ({units})"
    evaluate.add_argument("--severity", type=float, nargs="+", action="append", default=[], help=text)
    for name, columns in ASKED.items():
        text = f"on SMAX, measure besides wins {', '.join(columns)}"
        evaluate.add_argument(f"--{name}", action="store_true", help=text)
    text = "episodes of each run at each severity (default: 128)"
    evaluate.add_argument("--episodes", type=int, default=128, help=text)
    evaluate.add_argument("--map", help="map to act on (default: the one that the run was trained on)")
    text = "seed of the episodes and of what goes wrong in them (default: 10000)"
    evaluate.add_argument("--seed", type=int, default=10_000, help=text)
    _add_host_and_output(evaluate, "evaluation/RUNS_PERTURBATION")
    evaluate.set_defaults(command=dispatch.do_evaluate)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "arms against each other when something goes wrong, from tables that `limask evaluate` wrote"
    compare = commands.add_parser("compare", help=text, description=text, allow_abbrev=False)
    text = "evaluate.csv, or several of them"
    compare.add_argument("files", type=Path, nargs="+", metavar="FILE", help=text)
    text = "arm that the others are compared with (default: the first)"
    compare.add_argument("--against", metavar="ARM", help=text)
    text = "how often a kind of perturbation counts in the mean (default: once each)"
    compare.add_argument("--weight", nargs="+", default=[], metavar="KIND=NUMBER", help=text)
    text = "column that is compared, of those of --tactics and --credit (default: wins, or returns)"
    compare.add_argument("--measure", metavar="COLUMN", help=text)
    text = "folder for compare.md (default: it is printed only)"
    compare.add_argument("--output", type=Path, help=text)
    compare.add_argument("--force", action="store_true", help="overwrite it")
    compare.set_defaults(command=dispatch.do_compare)


def _add_watch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "draw battles as moving pictures: what happens, and what an agent sees, believes and values"
    watch = commands.add_parser("watch", help=text, description=text, allow_abbrev=False)
    text = f"{_TRAINED}; two are seen side by side, in the same battle"
    watch.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=text)
    watch.add_argument("--agent", type=int, default=1, help="whose view is drawn, from 1 (default: 1)")
    text = "what goes wrong, as in `limask evaluate` (default: nothing)"
    watch.add_argument("--perturb", metavar=f"{{{','.join(UNITS)}}}", help=text)
    watch.add_argument("--severity", type=float, help="how strong, as in `limask evaluate`")
    text = "battles, with a file for each (default: 1)"
    watch.add_argument("--episodes", type=int, default=1, help=text)
    text = "seed of the first battle and of what goes wrong in it (default: 10000)"
    watch.add_argument("--seed", type=int, default=10_000, help=text)
    text = "of the files (default: gif); mp4 takes the program ffmpeg"
    watch.add_argument("--format", choices=("gif", "mp4"), default="gif", help=text)
    _add_host_and_output(watch, "watch/RUNS_PERTURBATION")
    watch.set_defaults(command=dispatch.do_watch)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "write trained agents into a small folder, to be handed on"
    export = commands.add_parser("export", help=text, description=text, allow_abbrev=False)
    export.add_argument("run", type=Path, metavar="RUN", help=_TRAINED)
    text = "a new folder, which evaluate, watch and inspect take as they take the run"
    export.add_argument("--output", type=Path, required=True, help=text)
    export.set_defaults(command=dispatch.do_export)


def _add_host_and_output(command: argparse.ArgumentParser, output: str) -> None:
    text = "pymarlzooplus, or the folder of a checkout, to act in (default: the one that it was trained in)"
    command.add_argument("--host", help=text)
    _add_output(command, output)


def _add_output(command: argparse.ArgumentParser, default: str, given: Path | None = None) -> None:
    text = f"folder for files (default: ./{default})"
    command.add_argument("--output", type=Path, default=given, help=text)
    command.add_argument("--force", action="store_true", help="replace files of an earlier call")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "curves, intervals and a page from folders of runs that no campaign made, of every host"
    report = commands.add_parser("report", help=text, description=text, allow_abbrev=False)
    text = "what sacred wrote: results of hosts or of `limask run`, or folders of these; the first arm found "
    text += "is the baseline, and the last is compared with all others"
    report.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help=text)
    text = "environment steps that runs are compared over (default: the smallest t_max of them)"
    report.add_argument("--budget", type=int, metavar="STEPS", help=text)
    text = "win rates whose first crossing is compared (default: 0.5 0.8)"
    report.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.8], help=text)
    _add_output(report, "report", Path("report"))
    report.set_defaults(command=dispatch.do_report)


def _add_sink(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sink",
        choices=("tensorboard", "wandb"),
        action="append",
        default=[],
        help="log there as well, below the folder for results; may be given twice",
    )


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "time the host's own learner, agent and runner against limask's"
    bench = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    benchmarks = bench.add_subparsers(required=True, metavar="BENCHMARK")
    text = "updates, acting, environment steps, the whole loop and memory, in one process"
    speed = benchmarks.add_parser("speed", help=text, description=text, allow_abbrev=False)
    _add_output(speed, "bench", Path("bench"))
    speed.add_argument("--quick", action="store_true", help="only 2s3z, fewer turns: within three minutes")
    text = "where networks and batches are, the host's and limask's (default: cpu)"
    speed.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=text)
    speed.set_defaults(command=dispatch.do_bench_speed)
    text = "the host's replay buffer against limask's: time and memory, within two minutes"
    replay = benchmarks.add_parser("replay", help=text, description=text, allow_abbrev=False)
    _add_output(replay, "bench", Path("bench"))
    replay.set_defaults(command=dispatch.do_bench_replay)
    text = (
        "CPU seconds and steps to 50 and 80 % of wins: JaxMARL's QMIX, the host's and limask's; takes hours"
    )
    peers = benchmarks.add_parser("peers", help=text, description=text, allow_abbrev=False)
    text = "a checkout of JaxMARL (default: it is left out)"
    peers.add_argument("--jaxmarl", type=Path, metavar="CHECKOUT", help=text)
    text = "the Python that has what JaxMARL's baselines need (default: this one)"
    peers.add_argument("--python", default=sys.executable, help=text)
    text = "who races (default: all, JaxMARL where --jaxmarl is given)"
    peers.add_argument(
        "--peers", nargs="+", default=[], choices=("jaxmarl", "qmix", "qmix_fc", "qmix_lim"), help=text
    )
    text = "maps of SMAX (default: %(default)s)"
    peers.add_argument("--maps", nargs="+", default=["3m", "2s3z"], help=text)
    peers.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default: %(default)s)"
    )
    text = "environment steps of each run (default: %(default)s)"
    peers.add_argument("--steps", type=int, default=150_000, help=text)
    _add_output(peers, "bench", Path("bench"))
    peers.set_defaults(command=dispatch.do_bench_peers)


def _add_campaign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "train every arm on every map with every seed of a campaign file"
    campaign = commands.add_parser("campaign", help=text, description=text, allow_abbrev=False)
    actions = campaign.add_subparsers(required=True, metavar="ACTION")
    text = "run a campaign, or go on with one that was cut short"
    run = actions.add_parser("run", help=text, description=text, allow_abbrev=False)
    run.add_argument(
        "file", type=Path, help="campaign file, or the name of one of limask's: demo, pilot, smoke, …"
    )
    run.add_argument(
        "--output", type=Path, help="the campaign's folder (default: ./results/NAME OF THE FILE)"
    )
    run.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    run.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    _add_launchers(run)
    run.set_defaults(command=dispatch.do_campaign_run)
    text = "how many runs are planned, done, running, failed and retried, and how far those are that run"
    status = actions.add_parser("status", help=text, description=text, allow_abbrev=False)
    status.add_argument("folder", type=Path, help="the campaign's folder")
    status.add_argument("--json", action="store_true", help="the numbers alone, as JSON")
    status.set_defaults(command=dispatch.do_campaign_status)
    text = "write report.html, report.md, report.json and pictures into the folder's report/"
    report = actions.add_parser("report", help=text, description=text, allow_abbrev=False)
    report.add_argument("folder", type=Path, help="the campaign's folder; what is not finished is left out")
    report.set_defaults(command=dispatch.do_campaign_report)


def _add_launchers(run: argparse.ArgumentParser) -> None:
    text = "on several machines, all of them have to share the campaign's folder and this Python environment"
    group = run.add_argument_group("where runs are trained", text)
    group.add_argument(
        "--launcher",
        choices=("local", "ray", "slurm"),
        default="local",
        help="on this machine (default), on Ray (`pip install 'limask[ray]'`), or as SLURM jobs "
        "(`pip install 'limask[slurm]'`)",
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the Ray cluster (default: RAY_ADDRESS, or a Ray started on this machine for the campaign)",
    )
    for kind, default in (("cpus", 1), ("gpus", 0)):
        group.add_argument(
            f"--{kind}-per-run",
            metavar="N",
            type=float,
            help=f"what Ray sets aside for each run, as 0.5 or 2 (default: {default})",
        )
    group.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a parameter of submitit's for each job; give timeout_min=MINUTES, and others as needed: "
        "partition=gpu, mem_gb=8, cpus_per_task=2, gpus_per_node=1, ...",
    )
