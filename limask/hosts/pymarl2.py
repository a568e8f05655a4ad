"""PyMARL2 (hijkzzz/pymarl2) and PyMARL3 (tjuHaoXiaotian/pymarl3)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from limask.errors import LimaskError
from limask.hosts.pymarl import PymarlHost, refuse
from limask.layouts import SMAC_MAP, Layout, map_params
from limask.protocols import Args, Block, Learner, Logger, Mac, Runner


class Pymarl2Host(PymarlHost):
    """PyMARL2: ``nq_learner``, half the squared error, and a controller that is told when it learns."""

    td_weight = 0.5
    ends_abruptly = "run.run"

    def check(self, args: Args) -> None:
        """See ``Host.check``."""
        super().check(args)
        refuse(args, "use_per", False, "it does not weigh episodes by priority")
        refuse(args, "save_probs", False, "it keeps no probabilities of actions")
        refuse(args, "run", "default", "it learns from the replay buffer alone")

    def q_learner(self) -> type:
        """See ``Host.q_learner``."""
        return _with_every_mixer(self.module("learners").REGISTRY["nq_learner"])

    def before_update(self, learner: Learner) -> None:
        """See ``Host.before_update``."""
        # Acting may have left the agent in evaluation mode, in which a GRU on a GPU has no backward pass.
        learner.mac.agent.train()


#: PyMARL3's own maps, by environment.
_MAPS = {"sc2": "envs.smac_v1.official.maps", "sc2_v2": "envs.smac_v2.official.maps"}


class Pymarl3Host(Pymarl2Host):
    """PyMARL3: as PyMARL2, but its agents may act on the CPU while they learn on the GPU, and it has its
    own SMAC and SMACv2."""

    def known_env_args(self, config: Path, env: str, env_args: Block) -> Block | None:
        """See ``Host.known_env_args``: its own maps are in its modules."""
        return None if env in _MAPS else env_args

    def layout_args(self, args: Args) -> Block:
        """See ``Host.layout_args``."""
        if args.env not in _MAPS:
            return super().layout_args(args)
        # pysc2 takes no second package with maps of the same names: the smac package must not be imported.
        try:
            maps = self.module(_MAPS[args.env])
        except (ImportError, TypeError) as error:
            raise LimaskError(
                f"env={args.env} needs this host's StarCraft requirements, and importing its maps failed "
                f"({' '.join(str(error).split())}): install them with `pip install 'limask[smac]'`"
            ) from error
        given = {**args.env_args, SMAC_MAP: map_params(maps.get_map_params, args.env_args, "host's SMAC")}
        drawn = given.get("capability_config", {})
        if "team_gen" in drawn:  # its SMACv2 draws as many enemies as agents, whatever else stands there
            given["capability_config"] = {**drawn, "n_enemies": drawn["n_units"]}
        return given

    def before_update(self, learner: Learner) -> None:
        """See ``Host.before_update``."""
        if learner.args.use_cuda:
            learner.mac.cuda()
        super().before_update(learner)

    def before_episodes(self, runner: Runner) -> None:
        """See ``Host.before_episodes``."""
        if runner.args.use_cuda and runner.args.cpu_inference:
            runner.mac.cpu()


def _with_every_mixer(learner: type) -> type:
    """``nq_learner`` that also takes ``mixer: null`` (independent learners), as other families' do, and knows
    what ``mixer: qatten`` needs of the state in every environment whose layout tells."""

    def init(self: Any, mac: Mac, scheme: Any, logger: Logger, args: Args) -> None:
        if args.mixer == "qatten":
            args.agent_own_state_size = _own_state_size(mac.agent.layout, args)
        if args.mixer is not None:
            learner.__init__(self, mac, scheme, logger, args)  # type: ignore[misc]
            return
        # VDN's mixer has no parameters: what is built with it is what is built without one.
        learner.__init__(self, mac, scheme, logger, SimpleNamespace(**(vars(args) | {"mixer": "vdn"})))  # type: ignore[misc]
        self.args, self.mixer, self.target_mixer = args, None, None

    return type(learner.__name__, (learner,), {"__init__": init})


def _own_state_size(layout: Layout, args: Args) -> int:
    """Features of one agent in the state, whose first N blocks are the agents'.

    Raises:
        LimaskError: nothing is known of the state.
    """
    # The hosts put a size there for their own StarCraft environments; in their configs it is True.
    given = getattr(args, "agent_own_state_size", None)
    size = layout.state_width or (given if type(given) is int else 0)
    if not size:
        raise LimaskError(
            f"mixer='qatten' with env={args.env!r}: it reads each agent's features where the state begins, "
            f"and layout {layout.name!r} does not tell how many; set mixer=qmix, or choose SMAX or SMAC"
        )
    return size
