"""What limask needs of a host, and how its parts enter the host's registries.

Only this package knows a host's names. A host family is a subclass of ``Host`` that fills in how it differs.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from limask import layouts
from limask.acting.agent import LimAgent
from limask.acting.controller import LimMac
from limask.acting.selectors import EpsilonGreedy
from limask.autoencoder import options
from limask.config import LimConfig
from limask.envs import VECTOR_REGISTRY
from limask.envs.smax_env import SmaxEnv
from limask.envs.vector_runner import VectorRunner
from limask.envs.worker_runner import WorkerRunner
from limask.errors import LimaskError
from limask.faults import read_faults
from limask.learning.checkpoints import Checkpoints, forgetting_note, start_from
from limask.learning.learner import LimLearner
from limask.learning.replay import CompactReplay
from limask.learning.wrapped_learner import PREFIX, WrappedLearner
from limask.memory import check_replay, check_sampling
from limask.networks.spec import AgentSpec
from limask.protocols import Args, Block, EpisodeBatch, Learner, Logger, Runner


class Host(ABC):
    """A PyMARL-family run loop whose modules are importable.

    Attributes:
        prefix: prefix of its modules, ``""`` in a checkout with a flat ``src/``.
        td_weight: weight of the squared TD error in the loss of the family's own Q-learner.
        has_metrics: whether the family's logger fills sacred's ``metrics.json``.
        ends_abruptly: the module whose ``run`` ends the whole process, if the family's does.
        has_individual_rewards: whether ``common_reward=False`` gives each agent a reward of its own.
    """

    prefix: str = ""
    td_weight: float = 1.0
    has_metrics: bool = True
    ends_abruptly: str | None = None
    has_individual_rewards: bool = True
    #: The learner of limask's that the host has built last.
    learner: Checkpoints | None = None

    def module(self, name: str) -> Any:
        """Import one of the host's modules."""
        return importlib.import_module(self.prefix + name)

    def logger(self) -> type:
        """Class of the host's logger of statistics."""
        logger: type = self.module(self.ends_abruptly or "run").Logger
        return logger

    def has(self, kind: type) -> bool:
        """Whether a class is the host's, or limask's."""
        package = "limask."
        if kind.__module__.startswith((package, self.prefix or package)):
            return True
        if self.prefix:
            return False
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        return file is not None and Path(file).is_relative_to(self.config_folder().parent)

    # -- how the families differ ----------------------------------------------------------------------

    def hidden_dim(self, args: Args) -> int:
        """H, under the family's name for it."""
        return int(args.hidden_dim)

    def config_folder(self) -> Path:
        """The host's own folder of configs."""
        return Path(self.module("learners").__file__).parents[1] / "config"

    def known_env_args(self, config: Path, env: str, env_args: Block) -> Block | None:
        """``env_args``, with what the family keeps elsewhere of an environment's options, as far as its files
        tell; None where only its modules do.

        Args:
            config: the host's folder of configs.
            env: the host's name of the environment.
            env_args: as the run gives them.
        """
        return env_args

    def layout_args(self, args: Args) -> Block:
        """``known_env_args`` of a run in this host, whose modules can be imported."""
        known = self.known_env_args(self.config_folder(), args.env, args.env_args)
        assert known is not None  # who asks modules overrides this
        return known

    @abstractmethod
    def update_targets(self, learner: Learner, episode_num: int) -> None:
        """Count one SGD step, and move the target networks if it is time."""

    @abstractmethod
    def actions_of(self, chosen: Any) -> torch.Tensor:
        """Actions (B, N) in what the family's ``select_actions`` returns."""

    @abstractmethod
    def episodes_of_run(self, batch: EpisodeBatch, returns: list[float]) -> Any:
        """What the family's ``runner.run`` returns."""

    def set_up(self, runner: Any, **parts: Any) -> None:
        """Give the family's ``runner`` its ``scheme``, ``groups``, ``preprocess`` and ``mac``."""
        runner.setup(**parts)

    @abstractmethod
    def smax_env(self) -> Callable[..., Any]:
        """Builds one SMAX battle as the family's runners expect it."""

    def check(self, args: Args) -> None:  # noqa: B027 - most families take everything
        """Refuse options of the family's that ``lim_learner`` does not have.

        Raises:
            LimaskError: names the option and what to set.
        """

    def q_learner(self) -> type:
        """The learner that ``lim_learner`` extends."""
        learner: type = self.module("learners").REGISTRY["q_learner"]
        return learner

    def before_update(self, learner: Learner) -> None:  # noqa: B027 - most families need nothing
        """Make the networks ready for learning, after episodes were acted."""

    def before_episodes(self, runner: Runner) -> None:  # noqa: B027 - most families need nothing
        """Make the networks ready for acting."""

    # -- registration ---------------------------------------------------------------------------------

    def register(self) -> None:
        """Add limask's parts to the host's registries."""
        learners, runners = self.module("learners").REGISTRY, self.module("runners").REGISTRY
        if "lim_learner" in learners:
            return
        macs = self.module("controllers").REGISTRY
        self.module("modules.agents").REGISTRY["lim"] = self.build_agent
        selectors = self.module("components.action_selectors").REGISTRY
        selectors["lim_epsilon_greedy"] = self._join(
            "EpsilonGreedy", EpsilonGreedy, selectors["epsilon_greedy"]
        )
        macs["lim_mac"] = self._join("LimMac", LimMac, macs["basic_mac"])
        for name, learner in list(learners.items()):
            learners[PREFIX + name] = self._join("WrappedLearner", WrappedLearner, learner)
        learners["lim_learner"] = self._join("LimLearner", LimLearner, self.q_learner())
        self.module("envs").REGISTRY["smax"] = functools.partial(_in_either_form, self.smax_env())
        vector, workers = (
            self._join(mixin.__name__, mixin, runners["parallel"]) for mixin in (VectorRunner, WorkerRunner)
        )
        runners["vector"] = lambda args, logger: (vector if args.env in VECTOR_REGISTRY else workers)(
            args, logger
        )
        for name, runner in runners.items():
            runners[name] = self._checked(runner)
        self._offer_compact_replay()
        if self.ends_abruptly:
            self.module(self.ends_abruptly).os = _WithoutExit()

    def _offer_compact_replay(self) -> None:
        """Have the host's run loop build a ``CompactReplay`` where the run is to have one."""
        module = self.module("components.episode_buffer")
        own = module.ReplayBuffer
        compact = self._join("CompactReplay", CompactReplay, own)
        compact.batch = module.EpisodeBatch  # type: ignore[attr-defined]

        def new(kind: type, *args: Any, **options: Any) -> Any:
            return object.__new__(compact if kind is own and CompactReplay.is_wanted else kind)

        own.__new__ = new

    def registered(self) -> list[str]:
        """What limask has added to the host's registries, as ``registry.name``."""
        registries = ("learners", "controllers", "modules.agents", "components.action_selectors", "runners")
        names = ("lim_learner", "lim_mac", "lim", "lim_epsilon_greedy", "vector")
        ours = [*zip(registries, names, strict=True), ("envs", "smax")]
        return [f"{module}.{name}" for module, name in ours if name in self.module(module).REGISTRY]

    def _join(self, name: str, mixin: type, base: type) -> type:
        return type(name, (mixin, base), {"host": self, "__module__": __name__})

    def _checked(self, runner: Callable[..., Any]) -> Callable[..., Any]:
        """``runner``, refusing a bad ``lim:`` block before it builds an environment, and a replay buffer that
        cannot fit before the host reserves it."""

        @functools.wraps(runner)
        def build(args: Args, logger: Logger) -> Any:
            CompactReplay.is_wanted = False
            if not hasattr(args, "lim"):
                return runner(args=args, logger=logger)
            config = options.read_options(args.lim)
            self.check(args)
            env_args = self.layout_args(args)
            options.known_layout(config, args.env, env_args)
            config.n_minibatches(args.batch_size)
            self._check_options(config, args)
            if not getattr(args, "evaluate", False):
                check_sampling(args.batch_size, args.buffer_size, args.batch_size_run, args.t_max)
            built = runner(args=args, logger=logger)
            device, info = "cpu" if args.buffer_cpu_only else args.device, built.get_env_info()
            try:
                # What is replaced with every batch is not worth it.
                is_large = args.buffer_size > args.batch_size
                CompactReplay.is_wanted = config.compact_replay and is_large and str(device) == "cpu"
                line = check_replay(info, args.buffer_size, device, args.batch_size, CompactReplay.is_wanted)
                layout = options.resolve(config, args.env, env_args, info["obs_shape"])
                faults = read_faults(config.faults.severities(), layout, info["n_agents"], "lim.faults")
                if faults is not None:
                    faults.check_length(info["episode_limit"], "lim.faults")
            except LimaskError:
                built.close_env()
                raise
            notes = layouts.flat_note(config, args.env, env_args), forgetting_note(config, args)
            for said in (line, *notes):
                if said:
                    logger.console_logger.info(said)
            return built

        return build

    def _check_options(self, config: LimConfig, args: Args) -> None:
        if not self.has_individual_rewards and not getattr(args, "common_reward", True):
            raise LimaskError(
                "common_reward=False: this host adds the agents' rewards up; set common_reward=True, or use "
                "a checkout of EPyMARL"
            )
        learners = self.module("learners").REGISTRY
        learner = learners.get(args.learner)
        if learner is None:
            known = ", ".join(name for name in learners if name.startswith(PREFIX))
            raise LimaskError(f"learner={args.learner!r} is none of this host's; with lim: {known}")
        if isinstance(learner, type) and issubclass(learner, (LimLearner, WrappedLearner)):
            learner.check_options(config, args)

    def build_agent(self, input_size: int, args: Args) -> LimAgent:
        """The agent in the form in which hosts build theirs."""
        config = options.read_options(args.lim)
        spec = AgentSpec(
            n_agents=args.n_agents,
            n_actions=args.n_actions,
            hidden_dim=self.hidden_dim(args),
            has_last_action=bool(args.obs_last_action),
            has_agent_id=bool(args.obs_agent_id),
            is_recurrent=bool(getattr(args, "use_rnn", True)),
        )
        obs_size = input_size - spec.input_size(0)
        layout = options.resolve(config, args.env, self.layout_args(args), obs_size)
        layout.check_team(args.n_agents, args.n_actions)
        agent = LimAgent(spec, config.on_layout(layout.kinds), layout)
        if config.start_from:
            start_from(config.start_from, agent)
        return agent


def _in_either_form(
    build: Callable[..., Any], *, env_args: Block | None = None, args: object = None, **options: Any
) -> Any:
    """Build an environment with its options by name, or as some forks do with all of them as ``env_args``."""
    return build(**(options if env_args is None else env_args))


class _WithoutExit:
    """Module ``os`` for a host's ``run``, whose last statement is ``os._exit``: without it the process ends
    by itself, and what sacred, TensorBoard and W&B have not written yet is written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def _exit(status: int) -> None:
        if status:
            raise SystemExit(status)


class FiveTupleSmaxEnv(SmaxEnv):
    """SMAX for hosts whose ``env.step`` returns (observations, reward, terminated, truncated, info)."""

    def step(self, actions: Any) -> Any:
        """See ``SmaxEnv.step``."""
        reward, is_over, info = super().step(actions)
        # These hosts read a cut off ``info["episode_limit"]``; ``terminated`` ends the episode either way.
        return self.get_obs(), reward, is_over, False, info
