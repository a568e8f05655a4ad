"""Autoencoder ``team`` (MA²E: Kang et al., ICLR 2025): what agents went through, inferred from a few of them.

An agent's trajectory over the last W time steps is a token for each step (its observation, last action and
id) and one for each action that it took in between. Hidden agents' tokens are zero vectors with their
position's code: they ask the visible ones through the attention, and nobody asks them.

Axes: B episodes, T time steps, M windows, N agents, W steps of a window, S = 2 W − 1 tokens of an agent (its
steps, then its actions), D features of an agent's input without inferences, O features of an observation,
A actions, F width.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
from torch import nn

from limask.autoencoder.base import AgentAutoencoder, Place
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.layouts import Layout
from limask.networks.spec import AgentSpec

#: The published shape. The hidden layer of torch's layers is four times as wide as the tokens, as is usual.
WIDTH, N_HEADS, N_ENCODER_LAYERS, N_DECODER_LAYERS = 24, 4, 3, 2


class TeamAutoencoder(AgentAutoencoder):
    """Transformer over the team's windows; it has no dropout.

    Agents are told apart by their id among the features and by the code of their position. Both belong to
    the agent's slot: permuting agents together with them permutes the output.

    Args:
        n_agents: N.
        n_actions: A.
        input_size: D, of which the observation comes first.
        obs_size: O.
        window: W.

    Raises:
        LimaskError: a team of one agent has nobody to infer.
    """

    #: Its tokens are agents, and its encoder its own.
    unused = MappingProxyType({
        "trunk": "fc", "masker.ratio": 0.0, "masker.span": 1, "masker.keep_at_least": 1,
        "autoencoder.balance": "fixed", "autoencoder.warmup": 0, "autoencoder.saliency_weights": False,
        "view.weight": 0.0, "autoencoder.detach_trunk": False,
        "autoencoder.targets": "own", "autoencoder.latent": False, "autoencoder.use_inference": False,
        "autoencoder.sightings": False, "autoencoder.denoise": False,
        "faults.replay": 0.0, "masker.replay": 0.0,
    })  # fmt: skip

    time_code: torch.Tensor
    agent_code: torch.Tensor
    is_other: torch.Tensor
    others: torch.Tensor

    def __init__(self, n_agents: int, n_actions: int, input_size: int, obs_size: int, window: int) -> None:
        super().__init__()
        if n_agents < 2:
            raise LimaskError(
                f"lim.autoencoder.name='team' with a team of {n_agents} agent: there is nobody to infer; set "
                "lim.autoencoder.name='none' lim.masker.name='none' lim.autoencoder.weight=0"
            )
        self.window, self.obs_size = window, obs_size
        self.from_step = nn.Linear(input_size, WIDTH)
        self.from_action = nn.Linear(n_actions, WIDTH)
        self.encoder = _layers(N_ENCODER_LAYERS)
        self.decoder = _layers(N_DECODER_LAYERS)
        self.to_obs = nn.Linear(WIDTH, obs_size)
        self.to_action = nn.Linear(WIDTH, n_actions)
        # Steps and actions alternate in time: o₀ a₀ o₁ a₁ … o_W.
        times = torch.cat([torch.arange(0, 2 * window - 1, 2), torch.arange(1, 2 * window - 1, 2)])
        self.register_buffer("time_code", sinusoids(times, WIDTH // 2), persistent=False)
        self.register_buffer("agent_code", sinusoids(torch.arange(n_agents), WIDTH // 2), persistent=False)
        others = ~torch.eye(n_agents, dtype=torch.bool)
        self.register_buffer("is_other", others, persistent=False)
        slots = torch.arange(n_agents).expand(n_agents, n_agents)[others].view(n_agents, n_agents - 1)
        self.register_buffer("others", slots, persistent=False)
        self.train(False)

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> TeamAutoencoder:
        """See ``Autoencoder.build``."""
        input_size = spec.input_size(layout.obs_size)
        return cls(spec.n_agents, spec.n_actions, input_size, layout.obs_size, config.team.window)

    @classmethod
    def place(cls, use_inference: bool) -> Place:
        """See ``Autoencoder.place``."""
        return "attention"

    @classmethod
    def check(cls, config: LimConfig) -> None:
        """See ``Autoencoder.check``: what reads TD errors learns beside the update that they are of."""
        if config.masker.name != "random_agent" and not config.team.joint:
            raise LimaskError(
                f"lim.masker.name={config.masker.name!r} with lim.team.joint=False: it reads the TD errors "
                "of the update "
                "that the autoencoder learns beside; set lim.team.joint=True or "
                "lim.masker.name='random_agent'"
            )

    def train(self, mode: bool = True) -> TeamAutoencoder:
        """Stays in evaluation mode: there is no dropout, and torch has a faster path there."""
        return super().train(False)

    def tokens(self, inputs: torch.Tensor, actions: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Embedded windows (M, N, S, F).

        Args:
            inputs: (B, T, N, D) agents' inputs; before the first step they count as zeros.
            actions: (B, T, N, A) one-hot; those of a window's last step are not looked at.
            index: (M,) last step of each window, in the flattened (B · T) steps.
        """
        n_steps, n_before = inputs.shape[1], self.window - 1
        steps = windows(self.from_step(_padded(inputs, n_before)), index, n_steps, self.window)
        taken = windows(self.from_action(_padded(actions, n_before)), index, n_steps, self.window)
        return torch.cat([steps, taken[:, :, :-1]], dim=2)

    @torch.no_grad()
    def infer_from_window(
        self, inputs: torch.Tensor, taken: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """See ``Autoencoder.infer_from_window``; an agent's own observation is the truth."""
        now = inputs[..., : self.obs_size].flatten(0, 1).index_select(0, index)
        return self.infer(self.tokens(inputs, taken, index), now).flatten(2)

    def infer(self, tokens: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """What each agent infers of everybody's last observation from its own window alone.

        Args:
            tokens: (M, N, S, F).
            obs: (M, N, O) last observations.

        Returns:
            (M, N, N, O): entry m, i, j is agent i's idea of j's observation, and the truth where i = j.
        """
        n_windows, n_agents, n_own, _ = tokens.shape
        code = self._code()
        asked = code[self.others, self.window - 1].expand(n_windows, -1, -1, -1)
        x = torch.cat([tokens + code, asked], dim=2).flatten(0, 1)
        # Of the hidden tokens only those that are wanted take part: the visible ones never look at them.
        is_hidden = torch.arange(x.shape[1], device=x.device) >= n_own
        x = self._attend(x, is_hidden.expand(x.shape[0], -1))
        inferred = obs.new_empty(n_windows, n_agents, n_agents, self.obs_size)
        inferred[:, self.is_other] = self.to_obs(x[:, n_own:]).view(n_windows, -1, self.obs_size)
        inferred[:, ~self.is_other] = obs
        return inferred

    def reconstruct(self, tokens: torch.Tensor, is_hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Everybody's window from those of the agents that are not hidden.

        Args:
            tokens: (M, N, S, F).
            is_hidden: (M, N) bool, True = the agent's whole window is hidden; never all agents.

        Returns:
            Observations (M, N, W, O) and actions (M, N, W − 1, A).
        """
        n_own = tokens.shape[2]
        x = tokens.masked_fill(is_hidden[:, :, None, None], 0.0) + self._code()
        x = self._attend(x.flatten(1, 2), is_hidden.repeat_interleave(n_own, dim=1)).view_as(x)
        return self.to_obs(x[:, :, : self.window]), self.to_action(x[:, :, self.window :])

    def loss(
        self,
        inputs: torch.Tensor,
        actions: torch.Tensor,
        index: torch.Tensor,
        is_hidden: torch.Tensor,
        is_scored: torch.Tensor,
    ) -> torch.Tensor:
        """See ``AgentAutoencoder.loss``."""
        n_steps, n_before = inputs.shape[1], self.window - 1
        obs, chosen = self.reconstruct(self.tokens(inputs, actions, index), is_hidden)
        true_obs = windows(_padded(inputs[..., : self.obs_size], n_before), index, n_steps, self.window)
        taken = windows(_padded(actions, n_before), index, n_steps, self.window)[:, :, :-1]
        by_agent = (obs - true_obs).square().sum(dim=(2, 3)) + (chosen - taken).square().sum(dim=(2, 3))
        n_scored = is_scored.sum() * (2 * self.window - 1)
        return (by_agent * is_scored).sum() / n_scored.clamp(min=1)

    def _code(self) -> torch.Tensor:
        """Codes of all positions, (N, S, F): half of the width for the time, half for the agent."""
        n_agents, n_times = len(self.agent_code), len(self.time_code)
        times = self.time_code.expand(n_agents, -1, -1)
        return torch.cat([times, self.agent_code.unsqueeze(1).expand(-1, n_times, -1)], dim=2)

    def _attend(self, x: torch.Tensor, is_hidden: torch.Tensor) -> torch.Tensor:
        """Tokens (R, L, F) through all layers; nobody looks at those in ``is_hidden`` (R, L)."""
        for layer in (*self.encoder, *self.decoder):
            x = layer(x, src_key_padding_mask=is_hidden)
        return x


def windows(values: torch.Tensor, index: torch.Tensor, n_steps: int, window: int) -> torch.Tensor:
    """The last ``window`` steps before and at each of the steps in ``index``: (M, N, W, …).

    Args:
        values: (B, W − 1 + T, N, …), that is with W − 1 steps before each episode.
        index: (M,) steps in the flattened (B · T).
        n_steps: T.
        window: W.
    """
    first = index // n_steps * (n_steps + window - 1) + index % n_steps
    steps = first.unsqueeze(1) + torch.arange(window, device=index.device)
    return values.flatten(0, 1)[steps].transpose(1, 2)


def sinusoids(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines (Vaswani et al., 2017) of the positions (P,) at ``width`` / 2 rates: (P, width)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = positions.unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _padded(values: torch.Tensor, n_before: int) -> torch.Tensor:
    """Values (B, T, N, X) with ``n_before`` steps of zeros before each episode."""
    return nn.functional.pad(values, (0, 0, 0, 0, n_before, 0))


def _layers(count: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.TransformerEncoderLayer(WIDTH, N_HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
        for _ in range(count)
    )
