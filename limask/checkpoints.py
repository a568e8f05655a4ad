"""What a learner of limask's keeps beside the host's checkpoints, and what stops it."""

from __future__ import annotations

import os
from typing import Any

import torch

from limask.agent import LimAgent
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.reconstruction import Reconstruction
from limask.team import TeamReconstruction


class Checkpoints:
    """Mixed in before a host's learner: its files, and ``autoencoder.th`` where the run has an autoencoder.

    ``reconstruction`` or ``team`` is whatever reconstructs, or neither; ``checkpoint`` names the last folder
    written.
    """

    agent: LimAgent
    config: LimConfig
    reconstruction: Reconstruction | None = None
    team: TeamReconstruction | None = None
    checkpoint: str = "none written"

    def cuda(self) -> None:
        """Move everything to the GPU."""
        super().cuda()  # type: ignore[misc]
        if (part := self._part()) is not None:
            part.to(torch.device("cuda"))

    def _part(self) -> Reconstruction | TeamReconstruction | None:
        """Whatever reconstructs."""
        return self.team if self.reconstruction is None else self.reconstruction

    def save_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` where the run has an autoencoder."""
        super().save_models(path)  # type: ignore[misc]
        if (part := self._part()) is not None:
            temporary = os.path.join(path, "autoencoder.th.part")
            torch.save(part.state_dict(), temporary)
            os.replace(temporary, os.path.join(path, "autoencoder.th"))
        self.checkpoint = str(path)

    def load_models(self, path: str) -> None:
        """Host's files, and ``autoencoder.th`` where the run has an autoencoder.

        Raises:
            LimaskError: the checkpoint was written by a run without one, with another one, or with another
                masker; nothing has been loaded.
        """
        part = self._part()
        file = os.path.join(path, "autoencoder.th")
        if part is not None and not os.path.exists(file):
            raise LimaskError(
                f"checkpoint {path} has no autoencoder.th: it was written by a run with "
                "lim.autoencoder=none; load it with lim.autoencoder=none lim.masker=none lim.lambda_rec=0"
            )
        state = {}
        if os.path.exists(file):
            state = torch.load(file, map_location=next(self.agent.parameters()).device)
            self._check_state(state, path)
        super().load_models(path)  # type: ignore[misc]
        if part is not None:
            part.load_state_dict(state)

    def _check_state(self, state: dict[str, Any], path: str) -> None:
        """Refuse what another autoencoder or masker wrote.

        The plain learner may take over agents that had an autoencoder beside them, but not inside them.
        """
        written = {"autoencoder": state.get("autoencoder", "entity"), "masker": state["masker"]}
        if self._part() is None and written["autoencoder"] != "team":
            return
        for key, value in written.items():
            if value != (own := getattr(self.config, key)):
                raise LimaskError(
                    f"checkpoint {path} was written with lim.{key}={value!r}, and this run has "
                    f"lim.{key}={own!r}: give it the checkpoint's"
                )


def check_finite(learner: Checkpoints, name: str, loss: torch.Tensor, where: str) -> None:
    """Stop before ``loss`` spoils the networks.

    Raises:
        LimaskError: it is not finite; the message tells ``where`` in the run, and the last checkpoint.
    """
    if not torch.isfinite(loss):
        raise LimaskError(
            f"{name} is {loss.item()} at {where}: training stops before the networks are spoiled; "
            f"last checkpoint: {learner.checkpoint}; config: {learner.config}"
        )
