"""``limask bench speed``: the host's own learner, agent and runner against limask's, in one process.

Every case runs its contestants in turns on the same data, single-threaded, so that whatever else the machine
does falls on all of them.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from limask import masking
from limask.experiments import hosted
from limask.experiments.bench import speed_plots, timing
from limask.experiments.hosted import Arm, Shape
from limask.files import make_folder
from limask.hosts.base import Host
from limask.protocols import EpisodeBatch, Runner

#: Episodes in one update, environments in one step, and SGD steps for every run of all environments.
BATCH, ENVS, UPDATES = 32, 8, 8

#: The control arm on the host's own one-step targets: the same maths as the host's learner.
PARITY = {"targets": {"td_lambda": 0.0}}

#: LBF's ``Foraging-8x8-2p-3f``: no part of it is needed for its sizes.
LBF = Shape("lbf_8x8_2p_3f", 2, 6, 15, 30, 50, "gymma", {"key": "lbforaging:Foraging-8x8-2p-3f-v3"})


class Effort(NamedTuple):
    """How much is timed: turns of each case, and the maps; and the device of networks and batches."""

    turns: int
    maps: tuple[str, ...]
    is_quick: bool
    device: str = "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """The device as a run's options have it."""
        return {"device": self.device, "use_cuda": self.device == "cuda"}


QUICK = Effort(5, ("2s3z",), True)
FULL = Effort(15, ("3m", "2s3z", "27m_vs_30m"), False)


def speed(output: Path, *, quick: bool, device: str = "cpu") -> None:
    """Time everything, print a table, and write ``speed.csv``, ``speed.png`` and ``growth.png``.

    Args:
        output: folder for the files.
        quick: only 2s3z, and fewer turns (under three minutes).
        device: ``cpu``, or ``cuda``: for both the host and limask, and without what is of the CPU alone
            (processes for environments, compiled steps, a process's memory).

    Raises:
        LimaskError: a package is missing.
    """
    host = hosted.load_host()
    make_folder(output)
    effort = (QUICK if quick else FULL)._replace(device=device)
    cases = [_updates(host, effort), _acting(host, effort), _loops(host, effort)]
    if not quick and device == "cpu":
        cases.append(_parallel(host))
        if sys.platform == "linux":  # elsewhere nobody says what one program has held at most
            cases.append(_memory(effort))
    rows: list[timing.Row] = []
    print(timing.heading(), flush=True)
    for row in itertools.chain(*cases):
        rows.append(row)
        print(timing.line(row), flush=True)
        speed_plots.write_csv(output / "speed.csv", rows)
    if not quick:
        growth = speed_plots.Growth(_by_agents(host, effort), _by_length(host, effort))
        rows += [row for points in growth for _, row in points]
        speed_plots.write_growth(output / "growth.png", growth)
    speed_plots.write_csv(output / "speed.csv", rows)
    speed_plots.write_bars(output / "speed.png", rows)
    print(f"Written: {output / 'speed.csv'} and pictures beside it")


def build(host: Host, algorithm: str, shape: Shape, **overrides: Any) -> Arm:
    """An arm with the options that all arms share here, on the device that they name."""
    common = {"standardise_rewards": False, "batch_size_run": ENVS, "obs_last_action": True}
    options = {**common, "batch_size": BATCH, **overrides}
    args = hosted.arguments(host, algorithm, shape, **options, buffer_size=options["batch_size"])
    arm = hosted.arm(host, args, shape)
    if args.use_cuda:
        arm.learner.cuda()
    return arm


# -- cases ---------------------------------------------------------------------------------------------


def _updates(host: Host, effort: Effort) -> Iterator[timing.Row]:
    """One SGD step on 32 episodes: of SMAX battles fought at random, and full-length random ones."""
    for shape in [LBF, *map(hosted.smax_shape, effort.maps)]:
        on = effort.options
        stock = build(host, "qmix", shape, **on)
        parity = build(host, "qmix_fc", shape, lim=PARITY, **on)
        ours = ("qmix_entity", "qmix_entity_lim", "qmix_lim", "qmix_lim_robust")
        arms = {"parity": parity, **{name: build(host, name, shape, **on) for name in ours}}
        if shape.name == "2s3z" and not effort.is_quick:
            arms |= {
                f"qmix_entity_lim masker={masker}": build(
                    host, "qmix_entity_lim", shape, lim={"masker": {"name": masker}}, **on
                )
                for masker in masking.REGISTRY
            }
            arms |= {
                f"{name} acting=True": build(host, name, shape, lim=_TRAINED, **on) for name in _INFERRING
            }
            arms |= {
                f"qmix_lim {what}": build(host, "qmix_lim", shape, lim=lim, **on)
                for what, lim in _REACHING.items()
            }
        full = hosted.random_batch(host, shape, BATCH)
        full.to(effort.device)
        if shape.env == "smax":
            sample = partial(_sample, _battles(host, shape), BATCH, effort.device)
            yield from _update_rows("update, replay", shape, stock, arms, sample, effort)
            arms = {name: arm for name, arm in arms.items() if "=" not in name}
        yield from _update_rows(
            "update, full length", shape, stock, arms, partial(timing.given, full), effort
        )


def _update_rows(
    case: str, shape: Shape, stock: Arm, arms: Mapping[str, Arm], batch: Callable[[], Any], effort: Effort
) -> Iterator[timing.Row]:
    contestants = {name: partial(_update, arm) for name, arm in {"host": stock, **arms}.items()}
    yield from timing.rows(case, shape.name, timing.race(contestants, batch, effort.turns, warm_up=2))


def _update(arm: Arm, batch: EpisodeBatch) -> float:
    return timing.seconds(lambda: arm.learner.train(batch, _LATE, _LATE))


#: Arms whose autoencoders take part in acting; what is pretrained and tuned at the beginning is frozen here.
_INFERRING = ("qmix_ma2e", "qmix_li_ma2e")
_TRAINED = {"team": {"pretrain_updates": 0, "finetune_calls": 0}}


#: What lets losses and masks reach the values, or is inferred besides.
_REACHING: dict[str, dict[str, Any]] = {
    "faults.replay=1": {"faults": {"replay": 1.0, "dropout": [0, 0.8]}},
    "masker.replay=1": {"masker": {"replay": 1.0, "ratio": [0, 0.8]}},
    "masker.replay=1, value_saliency": {
        "masker": {"name": "value_saliency", "replay": 1.0, "ratio": [0, 0.8]}
    },
    "view.weight=0.1": {"view": {"weight": 0.1}},
    "autoencoder.denoise=True": {"autoencoder": {"denoise": True}},
}


def _battles(host: Host, shape: Shape) -> Any:
    """Episodes from which every turn samples anew: the longest of a sample decides how much is padding."""
    import torch

    n_runs = 20
    torch.manual_seed(0)
    arm = build(host, "qmix_fc", shape)
    runner = hosted.runner(host, "vector", arm.args, shape, arm.mac)
    buffer = hosted.replay_buffer(host, shape, arm.args, n_runs * ENVS)
    for _ in range(n_runs):
        buffer.insert_episode_batch(runner.run()[0])
    return buffer


def _sample(buffer: Any, n_episodes: int, device: str) -> Any:
    """A batch as the hosts' run loop makes it."""
    batch = buffer.sample(n_episodes)
    batch = batch[:, : batch.max_t_filled()]
    batch.to(device)
    return batch


def _acting(host: Host, effort: Effort) -> Iterator[timing.Row]:
    """One time step of eight environments: from the batch to the chosen actions, and the agent alone."""
    import torch

    for shape in map(hosted.smax_shape, effort.maps):
        on = effort.options
        arms = {"host": build(host, "qmix", shape, **on)}
        arms |= {name: build(host, name, shape, **on) for name in ("qmix_fc", "qmix_entity", "qmix_lim")}
        # As in tests: faults go on from step to step, and here one step is taken again and again.
        in_tests = {"faults": {"collect": False, "burst": 0.0}}
        arms["qmix_lim_robust"] = build(host, "qmix_lim_robust", shape, lim=in_tests, **on)
        if not effort.is_quick and effort.device == "cpu":
            arms |= {
                f"{name} compile=True": build(host, name, shape, lim={"compile": True})
                for name in ("qmix_entity", "qmix_lim")
            }
        batch = hosted.random_batch(host, shape, ENVS, limit=4)
        batch.to(effort.device)
        for case, timed in (("acting, actions chosen", _choose), ("acting, agent alone", _step)):
            contestants = {name: partial(timed, arm) for name, arm in arms.items()}
            with torch.inference_mode():
                times = timing.race(contestants, partial(timing.given, batch), 40 * effort.turns, warm_up=10)
            yield from timing.rows(case, shape.name, times)


def _choose(arm: Arm, batch: EpisodeBatch) -> float:
    arm.mac.init_hidden(ENVS)
    return timing.seconds(lambda: arm.mac.select_actions(batch, 2, 0))


def _step(arm: Arm, batch: EpisodeBatch) -> float:
    arm.mac.init_hidden(ENVS)
    inputs = arm.mac._build_inputs(batch, 2)
    step = getattr(arm.mac.agent, "compiled", None) or arm.mac.agent
    return timing.seconds(lambda: step(inputs, arm.mac.hidden_states))


def _loops(host: Host, effort: Effort) -> Iterator[timing.Row]:
    """Milliseconds per environment step of acting and learning, in the vectorised runner, with as many SGD
    steps of 32 episodes as episodes; and of acting alone."""
    for shape in map(hosted.smax_shape, [m for m in effort.maps if m != "27m_vs_30m"]):
        arms = {"host": build(host, "qmix", shape, **effort.options)}
        arms |= {
            name: build(host, name, shape, batch_size=BATCH * UPDATES, **effort.options)
            for name in (
                ("qmix_fc", "qmix_lim")
                if effort.is_quick
                else ("qmix_fc", "qmix_entity", "qmix_lim", "qmix_lim_robust")
            )
        }
        loops = {name: _Loop(host, arm, shape) for name, arm in arms.items()}
        contestants = {name: loop.turn for name, loop in loops.items()}
        times = timing.race(contestants, lambda: None, effort.turns, warm_up=1)
        yield from timing.rows("end to end, per step", shape.name, times)
        acting = {name: loop.act for name, loop in loops.items()}
        yield from timing.rows(
            "steps without learning", shape.name, timing.race(acting, lambda: None, effort.turns, warm_up=1)
        )


class _Loop:
    """The host's run loop around one arm."""

    def __init__(self, host: Host, arm: Arm, shape: Shape) -> None:
        self.arm = arm
        self.runner = hosted.runner(host, "vector", arm.args, shape, arm.mac)
        is_ours = hasattr(arm.args, "lim")
        self.buffer = hosted.replay_buffer(host, shape, arm.args, 2 * BATCH * UPDATES, is_ours)
        # The host's learner takes one SGD step of one sample, limask's divides a larger one.
        self.n_samples = BATCH * UPDATES // arm.args.batch_size
        while not self.buffer.can_sample(BATCH * UPDATES):
            self.act()

    def act(self, data: None = None) -> float:
        """Seconds per environment step of running all environments once."""
        before = self.runner.t_env
        seconds = timing.seconds(lambda: self.buffer.insert_episode_batch(self.runner.run()[0]))
        return seconds / (self.runner.t_env - before)

    def turn(self, data: None = None) -> float:
        """Seconds per environment step of running all environments once, and of learning."""
        before = self.runner.t_env
        start = time.perf_counter()
        self.act()
        for _ in range(self.n_samples):
            batch = _sample(self.buffer, self.arm.args.batch_size, self.arm.args.device)
            self.arm.learner.train(batch, _LATE, _LATE)
        timing.finish()
        return (time.perf_counter() - start) / (self.runner.t_env - before)


def _parallel(host: Host) -> Iterator[timing.Row]:
    """The same agent through the host's own parallel runner: a process for each environment."""
    shape = hosted.smax_shape("2s3z")
    arm = build(host, "qmix_fc", shape)
    # As the host's own main does: jax's threads would not survive a fork.
    multiprocessing.set_start_method("spawn", force=True)
    runners = {name: hosted.runner(host, key, arm.args, shape, arm.mac) for name, key in _RUNNERS.items()}
    try:
        contestants = {name: partial(_per_step, runner) for name, runner in runners.items()}
        times = timing.race(contestants, lambda: None, FULL.turns, warm_up=1)
    finally:
        runners["host"].close_env()
    yield from timing.rows("steps without learning, host's parallel runner", shape.name, times)


#: Environment steps, and episodes, by which informed masks have taken over and nothing waits for anything.
_LATE = 1_000_000

_RUNNERS = {"host": "parallel", "qmix_fc": "vector"}


def _per_step(runner: Runner, data: None = None) -> float:
    before = runner.t_env
    seconds = timing.seconds(runner.run)
    return seconds / (runner.t_env - before)


def _memory(effort: Effort) -> Iterator[timing.Row]:
    """MiB that two updates on full-length episodes add to the memory of a fresh process."""
    context = multiprocessing.get_context("spawn")
    for map_name in effort.maps:
        used = {}
        for name, lim in (("qmix", None), ("qmix_fc", PARITY), ("qmix_lim", {})):
            with ProcessPoolExecutor(1, mp_context=context) as fresh:
                used[name] = fresh.submit(_peak_of_update, name, lim, map_name).result()
        for name, case in (("qmix_fc", "parity"), ("qmix_lim", "qmix_lim")):
            ratio = used["qmix"] / used[name]
            yield timing.Row(
                f"memory of an update, {case} (MiB)", map_name, used["qmix"], used[name], ratio, 0.0
            )


def _peak_of_update(algorithm: str, lim: dict[str, Any] | None, map_name: str) -> float:
    host = hosted.load_host()
    shape = hosted.smax_shape(map_name)
    arm = build(host, algorithm, shape, **({} if lim is None else {"lim": lim}))
    batch = hosted.random_batch(host, shape, BATCH)
    before = _peak_memory()
    for _ in range(2):
        arm.learner.train(batch, _LATE, _LATE)
    return _peak_memory() - before


def _peak_memory() -> float:
    """MiB that this program has held at most; getrusage would count what its parent held when it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def _by_agents(host: Host, effort: Effort) -> list[tuple[float, timing.Row]]:
    """(agents, row) of updates on 8 random episodes of 30 steps."""
    points: list[tuple[float, timing.Row]] = []
    for map_name in ("3m", "5m_vs_6m", "8m", "10m_vs_11m", "27m_vs_30m"):
        shape = hosted.smax_shape(map_name)
        points += [(shape.n_agents, row) for row in _growth_rows(host, shape, 8, 30, effort)]
    return points


def _by_length(host: Host, effort: Effort) -> list[tuple[float, timing.Row]]:
    """(steps, row) of updates on 8 random episodes of 2s3z."""
    shape = hosted.smax_shape("2s3z")
    return [(n, row) for n in (15, 30, 60, 120, 240) for row in _growth_rows(host, shape, 8, n, effort)]


def _growth_rows(host: Host, shape: Shape, n_episodes: int, limit: int, effort: Effort) -> list[timing.Row]:
    on = effort.options
    arms = {"parity": build(host, "qmix_fc", shape, lim=PARITY, batch_size=n_episodes, **on)}
    arms["qmix_lim"] = build(host, "qmix_lim", shape, batch_size=n_episodes, **on)
    batch = hosted.random_batch(host, shape, n_episodes, limit)
    batch.to(effort.device)
    stock = build(host, "qmix", shape, **on)
    rows = list(_update_rows("growth", shape, stock, arms, lambda: batch, effort))
    return [row._replace(shape=f"{shape.name}, {n_episodes} episodes of {limit}") for row in rows]
