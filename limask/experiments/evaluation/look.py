"""The episode of ``limask inspect``: a run's agents in their host, and what its masker hides from them.

Axes: E draws of masks, T time steps, N agents, K tokens of an observation, J of them that may be hidden.
"""

from __future__ import annotations

from typing import Any

from limask.autoencoder import REGISTRY
from limask.config import AUTO
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.inspection_output import Inspection
from limask.experiments.evaluation.runs import TrainedRun
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.experiments.hosted import Statistics
from limask.hosts import Host
from limask.layouts import Layout, tokens
from limask.protocols import EpisodeBatch

#: Masks drawn for the episode.
DRAWS = 64


def looked_at(where: str, run: TrainedRun, seed: int) -> Inspection:
    """Let the run's agents fight once in the host ``where``, and draw masks for the episode.

    Raises:
        LimaskError: the run has no autoencoder of entities, or its checkpoint is damaged.
    """
    _check_autoencoder(run)
    host = hosted.load_host(where)
    frozen = freeze(host, run, None, batch_size_run=1, test_nepisode=1, env_args={"seed": seed})
    _load(frozen)
    return _inspection(frozen, *_episode(host, frozen))


def _check_autoencoder(run: TrainedRun) -> None:
    name = run.config.get("lim", {}).get("autoencoder", {}).get("name", "none")
    able = [AUTO] + [key for key, kind in REGISTRY.items() if kind is not None and kind.hides == "tokens"]
    if name not in able:
        raise LimaskError(
            f"{run.folder} was trained with lim.autoencoder.name={name}, and hides and reconstructs no "
            f"entities; inspect a run with lim.autoencoder.name={' or '.join(able[1:])}"
        )


def _load(frozen: Frozen) -> None:
    """Mixer, masker and decoder from the checkpoint; ``freeze`` has loaded the agents."""
    path = frozen.run.checkpoint
    try:
        frozen.learner.load_models(str(path))
    except LimaskError:
        raise
    except Exception as error:  # torch raises whatever its reader does on a damaged file
        raise LimaskError(f"{path} is damaged ({error}): inspect another run") from error


def _episode(host: Host, frozen: Frozen) -> tuple[Any, bool]:
    """The host's batch with the one episode's T steps, and whether it was won."""
    runner = hosted.runner(host, "vector", frozen.args, frozen.shape, frozen.mac)
    runner.logger = Statistics()
    runner.test_env = runner.env  # the battle of this very seed
    runner.run(test_mode=True)
    n_steps = int(runner.batch["filled"].sum())
    return runner.batch[:, :n_steps], runner.logger.last["test_battle_won_mean"] > 0


def _inspection(frozen: Frozen, episode: EpisodeBatch, is_won: bool) -> Inspection:
    look, layout = frozen.learner.look(episode[[0] * DRAWS], frozen.run.steps), frozen.mac.agent.layout
    obs = episode["obs"][0]
    is_visible = tokens.visibility(obs, layout)
    is_hideable = tokens.hideable(layout)
    error = look.error.sum(dim=0) / look.is_scored.sum(dim=0)  # 0 / 0 is NaN
    mask_rate = look.is_hidden.float().mean(dim=0)
    return Inspection(
        frozen.run,
        frozen.args.env_args["seed"],
        is_won,
        _names(layout, frozen.shape.n_agents),
        obs.ne(0).any(dim=-1),  # a dead agent sees nothing, not even itself
        *(values[..., is_hideable] for values in (is_visible, mask_rate, error)),
    )


def _names(layout: Layout, n_agents: int) -> list[list[str]]:
    """For each agent the names of the tokens that may be hidden; agent i is ally i + 1 of the others."""
    allies = (tokens.teammate_slots(n_agents) + 1).tolist()
    return [
        [
            f"{group.kind} {allies[agent][k] if group.kind == 'ally' else k + 1}"
            for group in layout.groups
            if group.is_hideable
            for k in range(group.count)
        ]
        for agent in range(n_agents)
    ]
