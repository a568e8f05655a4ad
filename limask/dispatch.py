"""What each command of ``limask`` calls, with the options that ``limask.cli`` has read."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path

from limask.errors import LimaskError
from limask.resumable import read_start

# Each command imports what it needs: `limask status` has no use for torch.


def do_install(options: argparse.Namespace) -> None:
    from limask.install import install

    print("\n".join(install(options.checkout, dry_run=options.dry_run, with_compat=options.compat)))


def do_uninstall(options: argparse.Namespace) -> None:
    from limask.install import uninstall

    print("\n".join(uninstall(options.checkout, dry_run=options.dry_run)))


def do_status(options: argparse.Namespace) -> None:
    from limask.install import status

    if options.checkout is not None and (options.checkout / "campaign.json").is_file():
        command = shlex.join(["limask", "campaign", "status", str(options.checkout)])
        raise LimaskError(f"{options.checkout} is a campaign's folder and no checkout: `{command}`")
    print("\n".join(status(options.checkout)))


def do_doctor(options: argparse.Namespace) -> int:
    from limask.experiments.display import say
    from limask.install.doctor import doctor, lines

    say("Looking at the packages and importing the host: up to half a minute …")
    findings = doctor(options.checkout)
    print("\n".join(lines(findings, options.checkout)))
    return int(any(finding.level == "stop" for finding in findings))


def do_run(options: argparse.Namespace) -> None:
    from limask.hosts.run import run_host

    if not 0 <= options.save_state < math.inf:
        raise LimaskError(f"--save-state={options.save_state}: expected seconds, or 0 for never")
    host, rest, sinks, compat = options.host, options.rest, options.sink, options.compat
    results = options.results or options.resume or Path("results")
    if options.resume is not None:
        if host or rest or sinks or compat:
            raise LimaskError(
                f"--resume={options.resume}: the run goes on as it was started; give at most --results and "
                "--save-state beside it"
            )
        start = read_start(options.resume)
        host, rest, sinks, compat = (start[name] for name in ("host", "arguments", "sinks", "compat"))
    elif not host:
        raise LimaskError(
            "--host is missing: pymarlzooplus, or the folder of a checkout (or --resume FOLDER)"
        )
    run_host(
        host, rest, results, sinks, with_compat=compat, save_state=options.save_state, resume=options.resume
    )


def do_bench_speed(options: argparse.Namespace) -> None:
    from limask.experiments.bench.run import bench_speed

    bench_speed(options.output, quick=options.quick, device=options.device, force=options.force)


def do_bench_replay(options: argparse.Namespace) -> None:
    """See ``bench_replay``."""
    from limask.experiments.bench.run import bench_replay

    bench_replay(options.output, force=options.force)


def do_bench_peers(options: argparse.Namespace) -> None:
    from limask.experiments.bench.run import bench_peers

    bench_peers(
        options.output,
        jaxmarl=options.jaxmarl,
        python=options.python,
        racing=options.peers,
        maps=options.maps,
        seeds=options.seeds,
        steps=options.steps,
        force=options.force,
    )


def do_evaluate(options: argparse.Namespace) -> None:
    from limask.experiments.evaluation.evaluate import evaluate
    from limask.experiments.evaluation.units import ASKED, Asked

    if len(options.perturb) != len(options.severity):
        raise LimaskError(
            f"{len(options.perturb)} times --perturb, and {len(options.severity)} times --severity: they go "
            "together, as in `--perturb noise --severity 0 0.1 0.2 --perturb nearest --severity 1`"
        )
    evaluate(
        options.runs,
        [*map(Asked, options.perturb, options.severity)] or [Asked()],
        episodes=options.episodes,
        map_name=options.map,
        seed=options.seed,
        output=options.output,
        host=options.host,
        force=options.force,
        measures=[name for name in ASKED if getattr(options, name)],
    )


def do_compare(options: argparse.Namespace) -> None:
    from limask.experiments.evaluation.compare import compare

    weights = {}
    for given in options.weight:
        name, _, number = given.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
        if not 0 <= weights[name] < math.inf:
            raise LimaskError(f"--weight {given}: expected a kind and a number from 0 on, as in nearest=2")
    compare(
        options.files,
        against=options.against,
        weights=weights,
        measure=options.measure,
        output=options.output,
        force=options.force,
    )


def do_inspect(options: argparse.Namespace) -> None:
    from limask.experiments.evaluation.inspection import inspect

    inspect(options.run, seed=options.seed, output=options.output, host=options.host, force=options.force)


def do_export(options: argparse.Namespace) -> None:
    from limask.experiments.evaluation.export import export

    export(options.run, options.output)


def do_watch(options: argparse.Namespace) -> None:
    from limask.experiments.evaluation.watch import watch

    watch(
        options.runs,
        agent=options.agent,
        perturb=options.perturb,
        severity=options.severity,
        episodes=options.episodes,
        seed=options.seed,
        suffix=options.format,
        output=options.output,
        host=options.host,
        force=options.force,
    )


def do_report(options: argparse.Namespace) -> None:
    from limask.experiments.report.write import report_folders

    report_folders(
        options.folders,
        options.output,
        budget=options.budget,
        thresholds=options.thresholds,
        force=options.force,
    )


def do_campaign_run(options: argparse.Namespace) -> None:
    from limask.experiments.launch.choose import chosen_launcher
    from limask.experiments.launch.run import run_campaign

    launcher = chosen_launcher(
        options.launcher,
        address=options.address,
        cpus=options.cpus_per_run,
        gpus=options.gpus_per_run,
        slurm=options.slurm,
    )
    output = options.output or Path("results") / options.file.stem
    run_campaign(options.file, output, jobs=options.jobs, dry_run=options.dry_run, launcher=launcher)


def do_campaign_report(options: argparse.Namespace) -> None:
    from limask.experiments.report.write import report_campaign

    report_campaign(options.folder)


def do_campaign_status(options: argparse.Namespace) -> None:
    from limask.experiments.launch.run import campaign_status

    print("\n".join(campaign_status(options.folder, as_json=options.json)))
