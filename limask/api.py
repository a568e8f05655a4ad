"""Trained teams from Python: load one, act with it, look at its beliefs, evaluate it; or train one.

The commands do the same in the same way: ``limask run``, ``limask evaluate``, ``limask watch``.

Axes: B battles side by side, N agents, O features of an observation, A actions, K tokens of a kind, D
features of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from limask.config.nested import flat
from limask.envs.smax import Observation
from limask.envs.vector_runner import act
from limask.errors import DIVERGED_FILE, LimaskError
from limask.experiments import hosted
from limask.experiments.campaign.plan import run_command
from limask.experiments.evaluation import evaluate
from limask.experiments.evaluation.battles import Battles
from limask.experiments.evaluation.episode import believe, load_learner
from limask.experiments.evaluation.evaluate_output import Row
from limask.experiments.evaluation.look import hides_tokens
from limask.experiments.evaluation.runs import TrainedRun, common_host, extras_of, read_run
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.experiments.evaluation.units import Asked
from limask.experiments.hosted import Shape
from limask.experiments.launch.jobs import Job, last_line, run_jobs
from limask.files import make_folder
from limask.hosts.base import Host
from limask.install.families import PYMARLZOOPLUS
from limask.layouts import tokens
from limask.requirements import require_host

__all__ = ["Belief", "Team", "load", "train"]


class Belief(NamedTuple):
    """What each agent takes the units of one kind to be.

    Attributes:
        tokens: (B, N, K, D) as the agent's observation would show them: what it sees as it sees it, all else
            as it infers it; zeros for the dead.
        is_seen: (B, N, K) bool, True = the observation shows the unit.
        features: names of the D features.
    """

    tokens: npt.NDArray[np.float32]
    is_seen: npt.NDArray[np.bool_]
    features: tuple[str, ...]


def load(run: str | Path, *, host: str | None = None) -> Team:
    """The team of a run's last checkpoint, on the CPU; it always takes the best action.

    Args:
        run: an attempt of a campaign (``runs/ARM/MAP/seed_N/attempt_K``), the folder given to ``train`` or to
            ``limask run --results``, sacred's own folder of a run, what ``limask export`` wrote, or the name
            of agents that limask brings, as ``qmix_lim/3m``.
        host: ``pymarlzooplus`` or a checkout that it is to act in, or None for the one that it was trained
            in. A process can hold one checkout.

    Raises:
        LimaskError: a package is missing, there is no such run, its checkpoint is missing or damaged, or this
            process holds another checkout.
    """
    trained = read_run(Path(run))
    where = common_host([trained], host)
    require_host(where, *extras_of([trained]))
    loaded = hosted.load_host(where)
    frozen = freeze(loaded, trained, None, batch_size_run=1, test_nepisode=1, env_args={"seed": 0})
    if hides_tokens(trained):
        load_learner(frozen)
    return Team(where, loaded, frozen)


class Team:
    """Trained agents. ``load`` makes one."""

    def __init__(self, where: str, host: Host, frozen: Frozen) -> None:
        self._where, self._host, self._frozen = where, host, frozen
        self._batch: Any = None
        self._t = 0

    @property
    def run(self) -> TrainedRun:
        """The run that trained it: its folder, options and checkpoint."""
        return self._frozen.run

    @property
    def shape(self) -> Shape:
        """Sizes of its task: agents, actions, features of an observation, transitions of a battle."""
        return self._frozen.shape

    def reset(self, n: int = 1) -> None:
        """Begin ``n`` battles side by side: the agents remember nothing.

        Raises:
            LimaskError: ``n`` is not at least 1.
        """
        if n < 1:
            raise LimaskError(f"reset({n}): expected at least 1 battle")
        self._batch = hosted.empty_batch(self._host, self.shape, n)
        self._frozen.mac.init_hidden(n)
        self._t = 0

    def act(self, obs: npt.ArrayLike, avail: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Actions of the next time step.

        Args:
            obs: (B, N, O) what the agents observe.
            avail: (B, N, A) which actions are available, 1 or True = is.

        Returns:
            (B, N) actions.

        Raises:
            LimaskError: the shapes do not fit the team and the battles begun, or these lasted too long.
        """
        shape, batch = self.shape, self._begun("act")
        observed, available = np.asarray(obs, np.float32), np.asarray(avail).astype(np.int32)
        for name, given, width in (("obs", observed, shape.obs_size), ("avail", available, shape.n_actions)):
            expected = (batch.batch_size, shape.n_agents, width)
            if given.shape != expected:
                raise LimaskError(f"{name} of shape {given.shape}: expected {expected} (battles, agents, …)")
        if self._t > shape.limit:
            raise LimaskError(
                f"act() was called {self._t} times since reset(), and battles on {shape.name} last "
                f"{shape.limit} steps at most: call reset() where new ones begin"
            )
        observation = Observation(np.empty(0), observed, available)
        actions = act(self._host, self._frozen.mac, batch, self._t, observation, self.run.steps, True)
        self._t += 1
        return actions.astype(np.int64)

    def beliefs(self) -> dict[str, Belief]:
        """What the agents believe after the last ``act``, by the units' kind: on SMAX ``ally`` (the others of
        the team, in its order) and ``enemy``.

        Raises:
            LimaskError: the agents infer no units, or have not acted yet.
        """
        batch = self._begun("beliefs")
        if self._t == 0:
            raise LimaskError("beliefs() before act(): agents believe once they have observed")
        obs = batch["obs"][:, self._t - 1]
        believed = believe(self._frozen, obs)
        if believed is None:
            raise LimaskError(
                f"{self.run.name} infers no features of units: load one of qmix_lim, or another whose "
                "lim.autoencoder.name is belief or entity (without latent)"
            )
        layout = self._frozen.mac.agent.layout
        parts = tokens.split(believed, layout)
        is_seen = tokens.visibility(obs, layout).split([group.count for group in layout.groups], dim=-1)
        return {
            group.kind: Belief(parts[group.kind].numpy(), seen.numpy(), group.features)
            for group, seen in zip(layout.groups, is_seen, strict=True)
            if group.is_hideable
        }

    def evaluate(
        self,
        env: str | None = None,
        *,
        perturb: str | None = None,
        severity: float | None = None,
        episodes: int = 128,
        seed: int = 10_000,
    ) -> Row:
        """Let the team fight, as ``limask evaluate`` does; battles that were begun here stay as they are.

        Args:
            env: another map of its environment; None = the one that the team was trained on.
            perturb: what goes wrong, a kind of ``docs/evaluation.md``; None = nothing.
            severity: how strong; with ``perturb`` alone.
            episodes: battles.
            seed: battle e on SMAX is seeded by ``seed + e``, another environment by ``seed``.

        Returns:
            Win rate with its 95 % interval (NaN where the environment knows no wins), mean return with its
            standard error, and what they are of.

        Raises:
            LimaskError: an argument is out of range, or the team cannot act on that map.
        """
        asked = [Asked(perturb, [] if severity is None else [severity])]
        evaluate.check([self.run.folder], asked, episodes, seed)
        (row,) = Battles(self._where, [self.run], asked, episodes=episodes, map_name=env, seed=seed).rows()
        return row

    def _begun(self, name: str) -> Any:
        if self._batch is None:
            raise LimaskError(f"{name}() before reset(): call reset(battles side by side) first")
        return self._batch


def train(
    config: str,
    env: str,
    *,
    t_max: int,
    results: str | Path = "results",
    host: str = PYMARLZOOPLUS,
    **overrides: Any,
) -> Path:
    """Train in a process of its own, as ``limask run`` does; call it from the main thread.

    Args:
        config: an algorithm's config of the host's or of limask's, such as ``qmix_lim``.
        env: an environment's config, such as ``smax``.
        t_max: environment steps.
        results: new folder for all that the run writes; its output is in ``output.log``.
        host: ``pymarlzooplus``, or the folder of a checkout.
        overrides: options laid over the configs', blocks as dictionaries:
            ``env_args={"map_name": "3m"}, lim={"masker": {"ratio": 0.3}}``. Models are saved ten times unless
            ``save_model`` or ``save_model_interval`` says otherwise.

    Returns:
        ``results``, which ``load`` takes.

    Raises:
        LimaskError: ``results`` holds something already, or the run failed or diverged; says why.
    """
    folder = Path(results).resolve()
    if folder.is_dir() and any(folder.iterdir()):
        raise LimaskError(f"results={results} holds something already: choose a new folder for this run")
    make_folder(folder)
    options = {"save_model": True, "save_model_interval": max(1, t_max // 10), **overrides, "t_max": t_max}
    command = run_command(host, folder, config, env, flat(options))
    job = Job("train", command, folder / "output.log")
    run_jobs([job], 1, lambda: None, lambda _: ())
    if (failure := job.failure()) is not None:
        diverged = folder / DIVERGED_FILE
        said = diverged.read_text(encoding="utf-8").strip() if diverged.is_file() else last_line(job.log)
        raise LimaskError(f"{failure}: {said} (all of it is in {job.log})")
    return Path(results)
