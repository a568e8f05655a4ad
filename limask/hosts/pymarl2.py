"""PyMARL2 (hijkzzz/pymarl2) and PyMARL3 (tjuHaoXiaotian/pymarl3)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from limask.hosts.pymarl import PymarlHost, refuse


class Pymarl2Host(PymarlHost):
    """PyMARL2: ``nq_learner``, half the squared error, and a controller that is told when it learns."""

    td_weight = 0.5
    ends_abruptly = "run.run"

    def check(self, args: Any) -> None:
        """See ``Host.check``."""
        super().check(args)
        refuse(args, "use_per", False, "it does not weigh episodes by priority")
        refuse(args, "save_probs", False, "it keeps no probabilities of actions")
        refuse(args, "run", "default", "it learns from the replay buffer alone")

    def q_learner(self) -> type:
        """See ``Host.q_learner``."""
        return _or_without_mixer(self.module("learners").REGISTRY["nq_learner"])

    def before_update(self, learner: Any) -> None:
        """See ``Host.before_update``."""
        # Acting may have left the agent in evaluation mode, in which a GRU on a GPU has no backward pass.
        learner.mac.agent.train()


class Pymarl3Host(Pymarl2Host):
    """PyMARL3: as PyMARL2, but its agents may act on the CPU while they learn on the GPU."""

    def before_update(self, learner: Any) -> None:
        """See ``Host.before_update``."""
        if learner.args.use_cuda:
            learner.mac.cuda()
        super().before_update(learner)

    def before_episodes(self, runner: Any) -> None:
        """See ``Host.before_episodes``."""
        if runner.args.use_cuda and runner.args.cpu_inference:
            runner.mac.cpu()


def _or_without_mixer(learner: type) -> type:
    """``nq_learner`` that also takes ``mixer: null`` (independent learners), as other families' do."""

    def init(self: Any, mac: Any, scheme: Any, logger: Any, args: Any) -> None:
        if args.mixer is not None:
            learner.__init__(self, mac, scheme, logger, args)  # type: ignore[misc]
            return
        # VDN's mixer has no parameters: what is built with it is what is built without one.
        learner.__init__(self, mac, scheme, logger, SimpleNamespace(**(vars(args) | {"mixer": "vdn"})))  # type: ignore[misc]
        self.args, self.mixer, self.target_mixer = args, None, None

    return type(learner.__name__, (learner,), {"__init__": init})
