"""What a run's masker hides from its agents in an episode.

Axes: E draws of masks, T time steps, N agents, K tokens of an observation, J of them that may be hidden.
"""

from __future__ import annotations

from limask.autoencoder import REGISTRY
from limask.config import AUTO
from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation.battles import perturbations
from limask.experiments.evaluation.episode import Episode, load_learner, play
from limask.experiments.evaluation.inspection_output import Inspection
from limask.experiments.evaluation.runs import TrainedRun
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.layouts import Layout, tokens

#: Masks drawn for the episode.
DRAWS = 64

#: Autoencoders of tokens.
_ABLE = [name for name, kind in REGISTRY.items() if kind is not None and kind.hides == "tokens"]


def looked_at(where: str, run: TrainedRun, seed: int) -> Inspection:
    """Let the run's agents fight once in the host ``where``, and draw masks for the episode.

    Raises:
        LimaskError: the run has no autoencoder of entities, or its checkpoint is damaged.
    """
    if not hides_tokens(run):
        raise LimaskError(
            f"{run.folder} was trained with lim.autoencoder.name={_autoencoder(run)}, and hides and "
            f"reconstructs no entities; inspect a run with lim.autoencoder.name={' or '.join(_ABLE)}"
        )
    host = hosted.load_host(where)
    frozen = freeze(host, run, None, batch_size_run=1, test_nepisode=1, env_args={"seed": seed})
    load_learner(frozen)
    (nothing,) = perturbations(None, (), frozen)
    (episode,) = play(host, frozen, nothing, 1)
    return inspected(frozen, episode)


def hides_tokens(run: TrainedRun) -> bool:
    """Whether a run's masker hides tokens from its autoencoder."""
    return _autoencoder(run) in (AUTO, *_ABLE)


def _autoencoder(run: TrainedRun) -> str:
    name: str = run.config.get("lim", {}).get("autoencoder", {}).get("name", "none")
    return name


def inspected(frozen: Frozen, episode: Episode) -> Inspection:
    """Draw masks for an episode; ``frozen`` has its whole learner, see ``load_learner``."""
    layout, obs = frozen.mac.agent.layout, episode.batch["obs"][0]
    look = frozen.learner.look(episode.batch[[0] * DRAWS], frozen.run.steps)
    is_visible = tokens.visibility(obs, layout)
    is_hideable = tokens.hideable(layout)
    error = look.error.sum(dim=0) / look.is_scored.sum(dim=0)  # 0 / 0 is NaN
    mask_rate = look.is_hidden.float().mean(dim=0)
    return Inspection(
        frozen.run,
        frozen.args.env_args["seed"],
        episode.result,
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
