"""The reconstruction objective beside any learner of a host's, whose own code runs unchanged.

The gradient of the reconstruction loss is added to the agent's when the host is about to step the agent's
optimiser: after its own backward pass and clipping, as in ``LimLearner``. What the host computes before that
is what it would be without limask.

Axes: B episodes, T time steps, M filled steps, P transitions, N agents, D features of an agent's input.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch

from limask import autoencoder, masking
from limask.acting.agent import LimAgent
from limask.autoencoder import Autoencoder, TokenAutoencoder
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.learning import signals
from limask.learning.checkpoints import Checkpoints, blamed, check_clip, check_finite
from limask.learning.reconstruction import Look, Reconstruction
from limask.learning.update import Update, minibatches
from limask.masking import Signal
from limask.networks.packing import Packing
from limask.protocols import Args, EpisodeBatch, Logger, Mac

#: Prefix of a wrapped learner's name in the host's registry.
PREFIX = "lim_"

#: The one value of options that a host's own loss has no use for.
_UNUSED: dict[str, object] = {
    "view.weight": 0.0, "autoencoder.saliency_weights": False, "masker.credit": "local",
    "targets.td_lambda": 0.0, "autoencoder.latent": False, "autoencoder.use_inference": False,
    "targets.q_lambda": False, "faults.replay": 0.0, "masker.replay": 0.0,
}  # fmt: skip


class WrappedLearner(Checkpoints):
    """Mixed in before a learner of the host's, which trains agent ``lim`` through controller ``lim_mac``.

    Maskers that read TD errors or dependence on teammates need agents with Q-values of their own; TD errors
    are then ``signals.local_errors``. The team's value is the host's own affair: nothing here can explain it.

    Raises:
        LimaskError: the agent is not limask's, the host trains it with no optimiser or with several, or
            ``check_options`` refuses.
    """

    host: Any
    # Set by the host's learner.
    args: Args
    mac: Mac
    target_mac: Mac
    logger: Logger
    log_stats_t: int

    def __init__(self, mac: Mac, scheme: Any, logger: Logger, args: Args) -> None:
        agent = getattr(mac, "agent", None)
        if not isinstance(agent, LimAgent):
            raise LimaskError(
                f"learner={args.learner!r} with mac={args.mac!r} agent={args.agent!r}: it reconstructs from "
                "limask's agent; set mac=lim_mac agent=lim"
            )
        self.check_options(agent.config, args)
        super().__init__(mac, scheme, logger, args)  # type: ignore[call-arg]
        self.agent, self.config = agent, agent.config
        self.host.learner = self
        #: The batch being trained on and its environment steps, inside the host's ``train``.
        self._now: tuple[Any, int] | None = None
        self._stats: dict[str, torch.Tensor] = {}
        kind = autoencoder.REGISTRY[self.config.autoencoder.name]
        if kind is not None:
            self.reconstruction = self._trainer(kind)
        self._agent_optimiser().register_step_pre_hook(self._before_step)

    @staticmethod
    def check_options(config: LimConfig, args: Args) -> None:
        """Refuse what cannot be had beside a host's own loss.

        Raises:
            LimaskError: names the option and what to set instead.
        """
        check_clip(args)
        learner = f"learner={args.learner!r}"
        able = [name for name, kind in autoencoder.REGISTRY.items() if kind is None or _stands_beside(kind)]
        if config.autoencoder.name not in able:
            raise LimaskError(
                f"lim.autoencoder.name={config.autoencoder.name!r} with {learner}: expected "
                f"{' or '.join(map(repr, able))}; the others need learner=lim_learner"
            )
        for name, value in _UNUSED.items():
            if (given := config.value(name)) != value:
                raise LimaskError(
                    f"lim.{name}={given!r} with {learner}, whose loss is the host's own; set "
                    f"lim.{name}={value!r}"
                )
        known = _signals(args)
        if missing := masking.REGISTRY[config.masker.name].signals - known:
            able = [name for name, masker in masking.REGISTRY.items() if masker.signals <= known]
            raise LimaskError(
                f"lim.masker.name={config.masker.name!r} with {learner}, which gives a masker no "
                f"{', '.join(sorted(missing))}: expected one of {', '.join(able)}"
            )
        if args.agent_output_type != "q" and config.n_minibatches(args.batch_size) > 1:
            raise LimaskError(
                f"lim.minibatches={config.minibatches!r} with {learner} and batch_size={args.batch_size}: it "
                "learns from all episodes of its policy at once; set lim.minibatches=1"
            )

    def _agent_optimiser(self) -> torch.optim.Optimizer:
        """The host's optimiser of the agent."""
        own = {id(parameter) for parameter in self.agent.parameters()}
        found = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, torch.optim.Optimizer)
            and any(id(parameter) in own for group in value.param_groups for parameter in group["params"])
        }
        if len(found) != 1:
            raise LimaskError(
                f"learner={self.args.learner!r}: expected one optimiser that trains the agent, found "
                f"{', '.join(found) or 'none'}"
            )
        return next(iter(found.values()))

    def _trainer(self, kind: type[Autoencoder]) -> Reconstruction:
        # Apart from the run's own stream of random numbers, which goes on as without an autoencoder.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.args.seed))
            trained = kind.build(self.agent.spec, self.agent.layout, self.config)
        decoder = cast(TokenAutoencoder, trained)  # check_options allows no other
        return Reconstruction(self.agent, decoder, int(self.args.seed), self.args.grad_norm_clip)

    def train(self, batch: EpisodeBatch, t_env: int, episode_num: int, *args: Any, **kwargs: Any) -> Any:
        """Let the host train on ``minibatches`` parts of one sampled batch of its ``EpisodeBatch``.

        Returns:
            What the host's learner returns.

        Raises:
            LimaskError: the reconstruction loss is not finite (the agent is as it was before that step), or
                the batch was divided and the host's learner returns something.
        """
        is_logged = t_env - self.log_stats_t >= self.args.learner_log_interval
        n_parts = self.config.n_minibatches(batch.batch_size)
        returned = None
        for part in minibatches(batch, n_parts):
            self._check_actions(part)
            self._now = (part, t_env)
            try:
                with blamed(part, self.args):
                    returned = super().train(part, t_env, episode_num, *args, **kwargs)  # type: ignore[misc]
                self.n_updates += 1
            finally:
                self._now = None
        if n_parts > 1 and returned is not None:
            raise LimaskError(
                f"lim.minibatches={self.config.minibatches!r} with learner={self.args.learner!r}, whose "
                "result the host wants for the whole batch (prioritised replay): set lim.minibatches=1"
            )
        if is_logged:
            for key, value in self._stats.items():
                self.logger.log_stat(key, value.item(), t_env)
        return returned

    def _check_actions(self, batch: EpisodeBatch) -> None:
        """Refuse what the host's own loss would value by a sentinel, some −10 million.

        Raises:
            LimaskError: an agent has no available action at a time step.
        """
        has_none = (batch["avail_actions"] == 0).all(dim=-1).any(dim=-1) & (batch["filled"].squeeze(-1) > 0)
        if bool(has_none.any()):
            raise LimaskError(
                f"learner={self.args.learner!r}: env={self.args.env!r} has time steps at which an agent has "
                "no available action, and this loss, the host's own, would value them by a sentinel; make "
                "action 0 available to agents that can do nothing, or use learner=lim_learner"
            )

    def look(self, batch: EpisodeBatch, t_env: int) -> Look:
        """See ``LimLearner.look``.

        Raises:
            LimaskError: the run has no autoencoder.
        """
        if not isinstance(self.reconstruction, Reconstruction):
            raise LimaskError(
                f"lim.autoencoder.name={self.config.autoencoder.name!r} hides and reconstructs no tokens"
            )
        return self.reconstruction.look(HostUpdate(self, batch, t_env))

    def _before_step(self, *_: Any) -> None:
        """Check the host's gradient, and add the reconstruction's to it.

        Raises:
            LimaskError: either is not finite; the agent is as it was before that step.
        """
        if self._now is None:
            return
        update = HostUpdate(self, *self._now)
        found = [p.grad for p in self.agent.parameters() if p.grad is not None]
        update.check("norm of the host's gradient", torch.nn.utils.get_total_norm(found))
        if self.reconstruction is not None and self.config.autoencoder.weight > 0:
            self._stats = self.reconstruction.beside(update)


class HostUpdate(Update):
    """An update by a loss of the host's.

    Args:
        learner: which makes it.
        batch: the host's ``EpisodeBatch``.
        t_env: environment steps made so far.
    """

    def __init__(self, learner: WrappedLearner, batch: EpisodeBatch, t_env: int) -> None:
        self.learner, self.batch, self.t_env = learner, batch, t_env

    @functools.cached_property
    def packing(self) -> Packing:  # type: ignore[override]
        """Of the filled steps."""
        return Packing(self.batch["filled"].squeeze(-1).bool())

    @functools.cached_property
    def inputs(self) -> torch.Tensor:  # type: ignore[override]
        """(M, N, D) agents' inputs."""
        inputs: torch.Tensor = self.learner.mac.sequence_inputs(self.batch, self.packing)
        return inputs

    def first(self, n_episodes: int) -> HostUpdate:
        """See ``Update.first``."""
        return HostUpdate(self.learner, self.batch[:n_episodes], self.t_env)

    def check(self, name: str, loss: torch.Tensor) -> None:
        """See ``Update.check``."""
        check_finite(self.learner, name, loss, f"t_env={self.t_env}")

    def signal(self, name: Signal) -> torch.Tensor:
        """See ``Update.signal``; ``check_options`` allows no saliency."""
        if name == "td_error":
            return signals.by_step(self.packing, self._local_errors())
        actions = self.packing.pack(self.batch["actions"])
        gradients = signals.token_gradients(
            self.learner.agent, self.inputs, self.packing, actions, lambda chosen: chosen
        )
        return self.packing.unpack(gradients)

    def hidden_view_loss(self, q_values: torch.Tensor, q_full: torch.Tensor | None) -> torch.Tensor:
        """See ``Update.hidden_view_loss``.

        Raises:
            LimaskError: always, for the targets are the host's own; ``check_options`` lets nobody ask.
        """
        raise LimaskError(
            f"lim.view.weight with learner={self.learner.args.learner!r}: its targets are its own"
        )

    @torch.no_grad()
    def _local_errors(self) -> torch.Tensor:
        """Size of each agent's own TD error: (P, N)."""
        packing, batch, args = self.packing, self.batch, self.learner.args
        q_values, _ = self.learner.agent.sequence(self.inputs, packing.counts)
        q_target, _ = self.learner.target_mac.agent.sequence(self.inputs, packing.counts)
        best = signals.best_values(batch, packing, q_values, q_target, packing.ends, double_q=args.double_q)
        reward, terminated, actions = (
            packing.pack(batch[key])[packing.starts] for key in ("reward", "terminated", "actions")
        )
        chosen = q_values[packing.starts].gather(2, actions).squeeze(2)
        return signals.local_errors(chosen, reward, terminated.float(), best, args.gamma)


def _stands_beside(kind: type[Autoencoder]) -> bool:
    """Whether agents act without it."""
    return kind.place(use_inference=False) == "nowhere"


def _signals(args: Args) -> frozenset[masking.Signal]:
    """What a masker can be told of agents that the host trains."""
    return frozenset({"td_error", "dependence"} if args.agent_output_type == "q" else ())
