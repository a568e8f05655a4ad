"""``limask inspect``: what a run's masker hides in a test episode, and how well that is reconstructed.

Axes: E draws of masks, T time steps, N agents, K tokens of an observation, J of them that may be hidden.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from limask.errors import LimaskError
from limask.experiments import hosted
from limask.experiments.evaluation import inspection_output
from limask.experiments.evaluation.inspection_output import Inspection
from limask.experiments.evaluation.trained import Frozen, TrainedRun, check_seed, freeze, read_run
from limask.experiments.hosted import Statistics
from limask.experiments.storage.files import claim
from limask.hosts import Host
from limask.layouts import Layout, tokens
from limask.masking import Masker, MaskView, Signal

#: Masks drawn for the episode.
DRAWS = 64

#: Factor on the number of tokens that the statistics of the features are taken from: so many are not moved by
#: an episode's. (Nothing times anything is nothing: a decoder that has seen no token starts with this one.)
_FREEZE = 1e20


class Watched(Masker):
    """Proposes what ``masker`` does, keeps what came of it, and teaches it nothing.

    ``is_hidden`` and ``error`` are those of ``Masker.learn``, (E, T, N, K).
    """

    is_hidden: torch.Tensor
    error: torch.Tensor

    def __init__(self, masker: Masker) -> None:
        super().__init__(masker.config, masker.layout)
        self.masker = masker

    def needs(self, t_env: int) -> frozenset[Signal]:
        """See ``Masker.needs``."""
        return self.masker.needs(t_env)

    def propose(self, view: MaskView, generator: torch.Generator) -> torch.Tensor:
        """See ``Masker.propose``."""
        return self.masker.propose(view, generator)

    def learn(self, is_hidden: torch.Tensor, error: torch.Tensor) -> None:
        """See ``Masker.learn``."""
        self.is_hidden, self.error = is_hidden, error


def inspect(folder: Path, *, seed: int, output: Path) -> Inspection:
    """Let the last checkpoint of a run fight once, always taking the best action, and draw masks for the
    episode; print a summary, write ``inspect.csv`` and ``inspect.png``.

    The masks, and what drives them, come from the learner itself: it is given copies of the episode to learn
    from, at the checkpoint's step, and is watched.

    Args:
        folder: see ``trained.read_run``.
        seed: of the battle.
        output: folder for the files.

    Raises:
        LimaskError: a package is missing, the run has no autoencoder of entities or no checkpoint, was not
            trained on SMAX, or ``output`` holds such files; nothing has been written then.
    """
    check_seed(seed)
    run = read_run(folder)
    _check_autoencoder(run)
    host = hosted.load_host()
    # One update that reconstructs in all episodes of its batch, and nothing that the agents did not see; the
    # run's own weight would change nothing.
    update = {"rec_share": 1.0, "minibatches": 1, "lambda_rec": 1.0, "lambda_aug": 0.0, "rec_targets": "own"}
    frozen = freeze(host, run, None, batch_size_run=1, test_nepisode=1, env_args={"seed": seed}, lim=update)
    _load(frozen)
    claim(output, inspection_output.NAMES)
    inspection = _inspection(frozen, *_episode(host, frozen))
    print("\n".join(inspection_output.summary(inspection)))
    inspection_output.write_csv(output / inspection_output.CSV, inspection)
    print(f"Written: {output / inspection_output.CSV}")
    inspection_output.write_png(output / inspection_output.PNG, inspection)
    print(f"Picture: {output / inspection_output.PNG}")
    return inspection


def _check_autoencoder(run: TrainedRun) -> None:
    autoencoder = run.config.get("lim", {}).get("autoencoder", "none")
    if autoencoder not in ("auto", "entity", "belief"):
        raise LimaskError(
            f"{run.folder} was trained with lim.autoencoder={autoencoder}, and hides and reconstructs no "
            "entities; inspect a run with lim.autoencoder=entity or belief"
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
    runner.run(test_mode=True)
    n_steps = int(runner.batch["filled"].sum())
    return runner.batch[:, :n_steps], runner.logger.last["test_battle_won_mean"] > 0


def _inspection(frozen: Frozen, episode: Any, is_won: bool) -> Inspection:
    reconstruction = frozen.learner.reconstruction
    layout, masker = reconstruction.layout, Watched(reconstruction.masker)
    reconstruction.masker = masker
    for standardiser in reconstruction.decoder.standardisers.values():
        standardiser.count *= _FREEZE
    frozen.learner.train(episode[[0] * DRAWS], frozen.run.steps, 0)
    obs = episode["obs"][0]
    is_visible = tokens.visibility(obs, layout)
    is_hideable = tokens.hideable(layout)
    scores_all = reconstruction.scores_all
    is_scored = (is_visible & is_hideable).expand_as(masker.is_hidden) if scores_all else masker.is_hidden
    error = masker.error.sum(dim=0) / is_scored.sum(dim=0)  # 0 / 0 is NaN
    mask_rate = masker.is_hidden.float().mean(dim=0)
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
