"""The reconstruction objective beside any learner of a host's, whose own code runs unchanged.

The gradient of the reconstruction loss is added to the agent's when the host is about to step the agent's
optimiser: after its own backward pass and clipping, as in ``LimLearner``. What the host computes before that
is what it would be without limask.

Axes: B episodes, T time steps, M filled steps, P transitions, N agents, D features of an agent's input.
"""

from __future__ import annotations

from typing import Any

import torch

from limask import masking
from limask.acting.agent import LimAgent
from limask.autoencoder import EntityAutoencoder
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.learning import signals
from limask.learning.checkpoints import Checkpoints, check_finite
from limask.learning.reconstruction import Hints, Reconstruction
from limask.networks.packing import Packing

#: Prefix of a wrapped learner's name in the host's registry.
PREFIX = "lim_"

#: The one value of options that a host's own loss has no use for.
_UNUSED: dict[str, object] = {
    "lambda_aug": 0.0, "rec_weights": False, "credit": "local", "td_lambda": 0.0, "rec_latent": False,
    "use_inference": False, "q_lambda": False,
}  # fmt: skip


class WrappedLearner(Checkpoints):
    """Mixed in before a learner of the host's, which trains agent ``lim`` through controller ``lim_mac``.

    Maskers that read TD errors or dependence on teammates need agents with Q-values of their own; TD errors
    are then ``signals.local_errors``. The team's value is the host's own affair: nothing here can explain it.

    Raises:
        LimaskError: the agent is not limask's, the host trains it with no optimiser or with several, or
            ``check_options`` refuses.
    """

    # Set by the host's learner.
    args: Any
    mac: Any
    target_mac: Any
    logger: Any
    log_stats_t: int

    def __init__(self, mac: Any, scheme: Any, logger: Any, args: Any) -> None:
        agent = getattr(mac, "agent", None)
        if not isinstance(agent, LimAgent):
            raise LimaskError(
                f"learner={args.learner!r} with mac={args.mac!r} agent={args.agent!r}: it reconstructs from "
                "limask's agent; set mac=lim_mac agent=lim"
            )
        self.check_options(agent.config, args)
        super().__init__(mac, scheme, logger, args)  # type: ignore[call-arg]
        self.agent, self.config = agent, agent.config
        #: The batch being trained on and its environment steps, inside the host's ``train``.
        self._now: tuple[Any, int] | None = None
        self._stats: dict[str, torch.Tensor] = {}
        if self.config.autoencoder == "entity":
            optimiser = self._agent_optimiser()
            self.reconstruction = self._build()
            if self.config.lambda_rec > 0:
                optimiser.register_step_pre_hook(self._add_reconstruction)

    @staticmethod
    def check_options(config: LimConfig, args: Any) -> None:
        """Refuse what cannot be had beside a host's own loss.

        Raises:
            LimaskError: names the option and what to set instead.
        """
        learner = f"learner={args.learner!r}"
        if config.autoencoder not in ("none", "entity"):
            raise LimaskError(
                f"lim.autoencoder={config.autoencoder!r} with {learner}: expected 'entity' or 'none'; the "
                "others need learner=lim_learner"
            )
        for name, value in _UNUSED.items():
            if (given := getattr(config, name)) != value:
                raise LimaskError(
                    f"lim.{name}={given!r} with {learner}, whose loss is the host's own; set "
                    f"lim.{name}={value!r}"
                )
        known = _signals(args)
        if missing := masking.REGISTRY[config.masker].signals - known:
            able = [name for name, masker in masking.REGISTRY.items() if masker.signals <= known]
            raise LimaskError(
                f"lim.masker={config.masker!r} with {learner}, which gives a masker no "
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
                f"{', '.join(found) or 'none'}; the reconstruction cannot go beside it"
            )
        return next(iter(found.values()))

    def _build(self) -> Reconstruction:
        # Apart from the run's own stream of random numbers, which goes on as without an autoencoder.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.args.seed))
            sizes = (self.agent.spec.hidden_dim, self.config.decoder_dim)
            decoder = EntityAutoencoder(self.agent.layout, *sizes)
        return Reconstruction(self.agent, decoder, int(self.args.seed), self.args.grad_norm_clip)

    def train(self, batch: Any, t_env: int, episode_num: int, *args: Any, **kwargs: Any) -> Any:
        """Let the host train on ``minibatches`` parts of one sampled batch of its ``EpisodeBatch``.

        Returns:
            What the host's learner returns.

        Raises:
            LimaskError: the reconstruction loss is not finite (the agent is as it was before that step), or
                the batch was divided and the host's learner returns something.
        """
        is_logged = t_env - self.log_stats_t >= self.args.learner_log_interval
        self.agent.let_in(t_env >= self.config.rec_warmup)
        n_parts = self.config.n_minibatches(batch.batch_size)
        bounds = [batch.batch_size * i // n_parts for i in range(n_parts + 1)]
        returned = None
        for first, end in zip(bounds[:-1], bounds[1:], strict=True):
            part = batch if n_parts == 1 else batch[first:end]
            self._now = (part, t_env)
            try:
                returned = super().train(part, t_env, episode_num, *args, **kwargs)  # type: ignore[misc]
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

    def _add_reconstruction(self, *_: Any) -> None:
        """Add the reconstruction's gradient to the host's, on the first ``rec_share`` of the episodes."""
        if self._now is None:
            return
        batch, t_env = self._now
        assert self.reconstruction is not None
        part = batch[: max(1, round(self.config.rec_share * batch.batch_size))]
        packing = Packing(part["filled"].squeeze(-1).bool())
        inputs = self.mac.sequence_inputs(part, packing)
        rec = self.reconstruction.loss(
            inputs, packing, self._hints(part, packing, inputs, t_env), part["state"]
        )
        check_finite(self, "reconstruction loss", rec.loss, f"t_env={t_env}")
        norm = self.reconstruction.step(rec.loss, None, t_env)
        self._stats = {"rec_loss": rec.loss.detach(), "rec_grad_norm": norm, **rec.stats}

    def _hints(self, part: Any, packing: Packing, inputs: torch.Tensor, t_env: int) -> Hints:
        assert self.reconstruction is not None
        needs = self.reconstruction.needs(t_env)
        errors = dependence = None
        if "td_error" in needs:
            errors = signals.by_step(packing, self._local_errors(part, packing, inputs))
        if "dependence" in needs:
            actions = packing.pack(part["actions"])
            of_tokens = signals.token_gradients(self.agent, inputs, packing, actions, lambda chosen: chosen)
            dependence = packing.unpack(of_tokens)
        return Hints(t_env, td_error=errors, dependence=dependence)

    @torch.no_grad()
    def _local_errors(self, part: Any, packing: Packing, inputs: torch.Tensor) -> torch.Tensor:
        """Size of each agent's own TD error: (P, N)."""
        q_values, _ = self.agent.sequence(inputs, packing.counts)
        q_target, _ = self.target_mac.agent.sequence(inputs, packing.counts)
        best = signals.best_values(
            part, packing, q_values, q_target, packing.ends, double_q=self.args.double_q
        )
        reward, terminated, actions = (
            packing.pack(part[key])[packing.starts] for key in ("reward", "terminated", "actions")
        )
        chosen = q_values[packing.starts].gather(2, actions).squeeze(2)
        return signals.local_errors(chosen, reward, terminated.float(), best, self.args.gamma)


def _signals(args: Any) -> frozenset[masking.Signal]:
    """What a masker can be told of agents that the host trains."""
    return frozenset({"td_error", "dependence"} if args.agent_output_type == "q" else ())
