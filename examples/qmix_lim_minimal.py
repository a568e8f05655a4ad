"""qmix_lim_robust in one file: QMIX whose agents act on what they infer of the units that they do not see.

The whole method of ``config/algs/qmix_lim_robust.yaml`` on SMAX, to be read, or written anew from. The
package computes the same numbers in less time (``tests/test_minimal.py`` compares them); ``docs/method.md``
says why.

Axes: B episodes, T time steps (the last shows what the last action led to), N agents, M enemies, U = N + M
units, K = N − 1 + M tokens of an observation (allies, then enemies), D features of a token, O of an
observation, I of an agent's input, S of the global state, A actions; H, W, F widths of agent, belief, entity.
Flags: ``is_visible``, True = the environment showed the token; ``is_hidden``, True = the mask takes the token
from the belief's view while it learns; ``is_filled``, True = the step belongs to the episode, no padding.
"""

import copy
from collections.abc import Iterable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

States = list[Tensor | None]  # of agent and belief, (B, N, H) and (B, N, W); None before the first step
#: Values of qmix_lim_robust.yaml, which explains them; the comments have the names in its block lim:.
DEFAULTS = SimpleNamespace(
    hidden_dim=64, mixing_embed_dim=32, hypernet_embed=64, lr=0.0005, grad_norm_clip=10, gamma=0.99, tau=0.02,
    decoder_dim=32, decoder_lr=0.002, lambda_rec=0.1, rec_share=0.125,  # autoencoder.: width lr weight share
    rec_warmup=20000, td_lambda=0.6, mask_ratio=0.5, keep_at_least=1,  # autoencoder.warmup; targets., masker.
    epsilon_start=1.0, epsilon_finish=0.05, epsilon_anneal_time=50000, burst=[0, 0.8],  # faults.
)  # fmt: skip


class Layout:
    """Which slice of SMAX's observation is which entity: N − 1 allies, M enemies, the agent itself.

    A token is [health, x, y, movement (2), target, cooldown, type (6)], x and y relative to the viewer in its
    sight ranges; zeros = dead or out of sight. The agent's own features, and those of each unit in the state,
    agents first, are [health, x, y, cooldown, type (6)], x and y on the map. The dead observe zeros alone.
    """

    def __init__(self, n_agents: int = 3, n_enemies: int = 3, sight_range: float = 1.0) -> None:
        self.n_agents, self.n_units = n_agents, n_agents + n_enemies  # N, U
        self.n_plain = 5  # actions that aim at nobody; action n_plain + k attacks enemy k
        self.width, self.own_width = 13, 10  # features of a token, D, and of the agent itself
        self.counts = [n_agents - 1, n_enemies]  # tokens of each kind of entity, K in all
        # Of an agent's input [tokens | own features | last action | agent id], I in all.
        self.sizes = [sum(self.counts) * self.width, self.own_width, self.n_plain + n_enemies, n_agents]
        self.sights = torch.tensor([9, 10, 10, 9, 8, 9]) * sight_range / 32  # of each type; the map is 1 wide

    def inputs(self, obs: Tensor, last_action: Tensor) -> Tensor:
        """Observations (..., N, O) and one-hot last actions (..., N, A) → inputs (..., N, I)."""
        agent_id = torch.eye(self.n_agents, dtype=obs.dtype).expand(*obs.shape[:-1], -1)
        return torch.cat([obs, last_action.to(obs.dtype), agent_id], dim=-1)

    def tokens(self, inputs: Tensor) -> Tensor:
        """Inputs (..., I) → tokens (..., K, D)."""
        return inputs[..., : self.sizes[0]].unflatten(-1, (-1, self.width))

    def visibility(self, inputs: Tensor) -> Tensor:
        """Inputs (..., I) → ``is_visible`` (..., K + 1); the last is the agent itself, if alive."""
        own = inputs.split(self.sizes, dim=-1)[1]
        return torch.cat([self.tokens(inputs).any(dim=-1), own.any(dim=-1, keepdim=True)], dim=-1)


def random_masks(is_visible: Tensor, options: SimpleNamespace, generator: torch.Generator) -> Tensor:
    """``is_visible`` (..., K + 1) → ``is_hidden`` (..., K): visible tokens with chance ``mask_ratio``, but
    ``keep_at_least`` visible ones, drawn at random, stay in every observation; the agent itself is one."""
    is_hidden = (torch.rand(is_visible.shape, generator=generator) < options.mask_ratio) & is_visible
    is_hidden[..., -1] = False  # an agent knows itself
    n_lacking = options.keep_at_least - (is_visible & ~is_hidden).sum(dim=-1, keepdim=True)
    draw = torch.rand(is_visible.shape, generator=generator).masked_fill(~is_hidden, 2.0)
    return (is_hidden & (draw.argsort(dim=-1).argsort(dim=-1) >= n_lacking))[..., :-1]  # by rank


def truth(tokens: Tensor, state: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Tokens that were shown (B, T, N, K, D) and states (B, T, S) → what there was to see (B, T, N, K, D) and
    ``is_known``, as large: visible tokens whole; of others, to living agents, all that the state holds of
    living units, which is not their movement and target, and that the health of dead ones is 0."""
    n_units = layout.n_units
    units = state[..., : n_units * layout.own_width].unflatten(-1, (n_units, -1))  # (B, T, U, own_width)
    viewer = units[:, :, : layout.n_agents].unsqueeze(3)  # (B, T, N, 1, own_width)
    others = [[u for u in range(n_units) if u != i] for i in range(layout.n_agents)]  # (N, K)
    seen = units[:, :, torch.tensor(others)]  # (B, T, N, K, own_width)
    sight = (viewer[..., 4:] * layout.sights).sum(dim=-1, keepdim=True)  # (B, T, N, 1, 1)
    away = (seen[..., 1:3] - viewer[..., 1:3]) / sight.masked_fill(sight == 0, 1.0)
    told = torch.cat([seen[..., :1], away, torch.zeros_like(seen[..., :3]), seen[..., 3:]], dim=-1)
    column = torch.arange(layout.width)  # 0 is health, 3 to 5 are movement and target
    is_held = seen.any(dim=-1, keepdim=True) & (column // 3 != 1)
    is_told = viewer.any(dim=-1, keepdim=True) & (is_held | (column == 0))
    is_visible = tokens.any(dim=-1, keepdim=True)
    return torch.where(is_visible, tokens, told * is_told), is_visible | is_told


def unroll(gru: nn.GRUCell, x: Tensor, start: Tensor | None) -> Tensor:
    """Features (B, T, N, ·), states (B, N, H) before them (None: zeros) → states (B, T, N, H)."""
    state, states = None if start is None else start.flatten(0, 1), []
    for t in range(x.shape[1]):
        state = gru(x[:, t].flatten(0, 1), state)
        states.append(state.unflatten(0, (x.shape[0], -1)))
    return torch.stack(states, dim=1)


def two_layers(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """Linear, ReLU, linear: (..., n_in) → (..., n_out)."""
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))


class Trunk(nn.Module):
    """Entities embedded with weights shared by kind, and summed by kind, beside an agent's own features."""

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self.layout, kinds = layout, layout.counts
        self.own = nn.Linear(layout.own_width + layout.n_plain + layout.n_agents, width)
        self.E = nn.ModuleList(nn.Linear(layout.width + 2, width // 2, bias=False) for _ in kinds)
        self.pool = nn.ModuleList(nn.Linear(width // 2, width, bias=False) for _ in kinds)

    def forward(
        self, inputs: Tensor, more: Iterable[Tensor | float] = (0.0, 0.0)
    ) -> tuple[Tensor, list[Tensor]]:
        """Inputs (B, T, N, I) → what a GRU takes (B, T, N, width), and embeddings by kind (B, T, N, ·, F):
        e_k = relu(E [token_k | is visible | was aimed at]), 0 of what is out of sight, and ``more`` added."""
        counts, n_plain = self.layout.counts, self.layout.n_plain
        _, own, last_action, agent_id = inputs.split(self.layout.sizes, dim=-1)
        is_aimed = F.pad(last_action[..., n_plain:], (counts[0], 0))  # (B, T, N, K)
        tokens = self.layout.tokens(inputs)  # (B, T, N, K, D)
        is_visible = tokens.any(dim=-1)  # (B, T, N, K)
        shown = torch.cat([tokens, torch.stack([is_visible, is_visible * is_aimed], dim=-1)], dim=-1)
        kinds = zip(self.E, shown.split(counts, dim=3), more, strict=True)
        entities = [torch.relu(E(x)) + added for E, x, added in kinds]
        features = self.own(torch.cat([own, last_action[..., :n_plain], agent_id], dim=-1))
        pooled = (pool(e.sum(dim=3)) for pool, e in zip(self.pool, entities, strict=True))
        return torch.relu(features + sum(pooled)), entities


class Belief(nn.Module):
    """The autoencoder: all tokens, seen or not, each from its own last sighting and from what the agent has
    seen of all. It shares nothing with the agent; W = its width, G = D + own features + 1 of a sighting."""

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self.layout, kinds, n_own = layout, layout.counts, layout.own_width
        self.trunk, self.gru, self.width = Trunk(layout, width), nn.GRUCell(width, width), width
        self.from_agent = nn.Linear(width + n_own, width)
        self.from_sighting = nn.ModuleList(
            nn.Linear(layout.width + n_own + 1, width, bias=False) for _ in kinds
        )
        self.slots = nn.ParameterList(torch.zeros(count, width) for count in kinds)
        self.to_features = nn.ModuleList(nn.Linear(width, layout.width) for _ in kinds)
        self.sums: Tensor = nn.Buffer(torch.zeros(3, 2, layout.width).double())  # by kind, of 1, x and x²

    def sightings(self, inputs: Tensor, last: Tensor) -> Tensor:
        """Inputs (B, T, N, I), sightings (B, N, K, G) before them → after each of them (B, T, N, K, G): the
        features that a token last showed, the agent's own then, and how fresh that is; 0 if never seen."""
        tokens, own = self.layout.tokens(inputs), inputs.split(self.layout.sizes, dim=-1)[1]
        now = torch.cat([tokens, own.unsqueeze(3).expand(*tokens.shape[:4], -1)], dim=-1)
        now, is_visible = F.pad(now, (0, 1), value=1.0), tokens.any(dim=-1, keepdim=True)
        fading, found = torch.tensor([1.0] * (now.shape[-1] - 1) + [0.9], dtype=now.dtype), []
        for t in range(inputs.shape[1]):
            last = torch.where(is_visible[:, t], now[:, t], last * fading)
            found.append(last)
        return torch.stack(found, dim=1)

    def forward(self, inputs: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, N, I), states (B, N, W + K G) → decoded tokens (B, T, N, K, D), states (B, T, N, ·),
        which are the GRU's and all sightings."""
        context, last = None, inputs.new_zeros(1)
        if start is not None:
            context, last = start.tensor_split([self.width], dim=-1)
            last = last.unflatten(-1, (sum(self.layout.counts), -1))  # (B, N, K, G)
        context = unroll(self.gru, self.trunk(inputs)[0], context)  # (B, T, N, W)
        last = self.sightings(inputs, last)
        agents = self.from_agent(torch.cat([context, inputs.split(self.layout.sizes, dim=-1)[1]], dim=-1))
        kinds = zip(
            self.from_sighting, self.slots, self.to_features, last.split(self.layout.counts, 3), strict=True
        )
        decoded = [decode(torch.relu(S(s) + agents.unsqueeze(3) + slots)) for S, slots, decode, s in kinds]
        return torch.cat(decoded, dim=3), torch.cat([context, last.flatten(3)], dim=-1)

    def loss(self, inputs: Tensor, is_hidden: Tensor, state: Tensor, is_filled: Tensor) -> Tensor:
        """Mean squared error of all that is known, visible or not, decoded from inputs (B, T, N, I) without
        the tokens in ``is_hidden`` (B, T, N, K); states (B, T, S), ``is_filled`` (B, T)."""
        tokens = self.layout.tokens(inputs)  # (B, T, N, K, D)
        left = tokens.masked_fill(is_hidden.unsqueeze(-1), 0.0).flatten(-2)  # hidden = as if out of sight
        decoded, _ = self(torch.cat([left, inputs[..., left.shape[-1] :]], dim=-1))  # (B, T, N, K, D)
        target, is_known = truth(tokens, state, self.layout)
        is_known = is_known & is_filled[:, :, None, None, None]
        squares = (decoded - self.standardised(target, is_known)).square() * is_known
        return squares.sum() / is_known.sum().clamp(min=1)

    def standardised(self, x: Tensor, is_known: Tensor) -> Tensor:
        """Tokens (B, T, N, K, D) by their kind's running means and variances, which take in what is known."""
        new = torch.stack([(x.double() ** power * is_known).sum(dim=(0, 1, 2)) for power in range(3)])
        self.sums += torch.stack([kind.sum(dim=1) for kind in new.split(self.layout.counts, dim=1)], dim=1)
        moments = self.sums[1:] / self.sums[0].clamp(min=1)  # (2, kinds, D)
        mean, square = moments.repeat_interleave(torch.tensor(self.layout.counts), dim=1)  # (K, D) each
        return ((x - mean) / (square - mean.square() + 1e-4).sqrt()).to(x.dtype)

    @torch.no_grad()  # no gradient of Q reaches the belief
    def infer(self, inputs: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As ``forward``, with zeros for tokens that the agent sees, and for the dead."""
        decoded, states = self(inputs, start)
        is_visible = self.layout.visibility(inputs)  # (B, T, N, K + 1)
        is_unseen = ~is_visible[..., :-1] & is_visible.any(dim=-1, keepdim=True)  # (B, T, N, K)
        return decoded * is_unseen.unsqueeze(-1), states


class Agent(nn.Module):
    """Entity trunk, GRU, entity head: permuting enemies permutes the values of attacking them, no more."""

    def __init__(self, layout: Layout, hidden_dim: int) -> None:
        super().__init__()
        self.layout, width = layout, hidden_dim // 2
        self.trunk, self.gru = Trunk(layout, hidden_dim), nn.GRUCell(hidden_dim, hidden_dim)
        self.V = nn.ModuleList(nn.Linear(layout.width, width, bias=False) for _ in layout.counts)
        for weight in self.V.parameters():  # begins as if nothing were inferred
            nn.init.zeros_(weight)
        self.head = nn.Linear(hidden_dim, layout.n_plain + width + 1)

    def forward(self, inputs: Tensor, inferred: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, N, I), inferences u (B, T, N, K, D), states (B, N, H) → Q-values (B, T, N, A), states
        h (B, T, N, H). Tokens out of sight are embedded as e_k = V u_k; attacking enemy k is worth
        a(h) · e_k + b(h)."""
        of_kinds = zip(self.V, inferred.split(self.layout.counts, dim=3), strict=True)
        features, (_, enemies) = self.trunk(inputs, [V(u) for V, u in of_kinds])
        states = unroll(self.gru, features, start)
        q_plain, a, b = self.head(states).split([self.layout.n_plain, enemies.shape[-1], 1], dim=-1)
        q_attack = (enemies @ a.unsqueeze(-1)).squeeze(-1) + b  # (B, T, N, M)
        return torch.cat([q_plain, q_attack], dim=-1), states


class Mixer(nn.Module):
    """QMIX (Rashid et al., 2018): Q_tot never falls as a Q_i rises; the state generates the weights."""

    def __init__(self, n_agents: int, state_size: int, width: int, hypernet: int) -> None:
        super().__init__()
        self.w1, self.b1 = two_layers(state_size, hypernet, n_agents * width), nn.Linear(state_size, width)
        self.w2, self.b2 = two_layers(state_size, hypernet, width), two_layers(state_size, width, 1)

    def forward(self, q: Tensor, state: Tensor) -> Tensor:
        """Agents' values (B, T, N), states (B, T, S) → Q_tot (B, T)."""
        w1 = self.w1(state).abs().unflatten(-1, (q.shape[-1], -1))  # (B, T, N, mixing_embed_dim)
        hidden = F.elu((q.unsqueeze(-1) * w1).sum(dim=-2) + self.b1(state))  # (B, T, mixing_embed_dim)
        return (hidden * self.w2(state).abs()).sum(dim=-1) + self.b2(state).squeeze(-1)


class Batch(NamedTuple):  # episodes, padded to T steps
    obs: Tensor  # (B, T, N, O)
    state: Tensor  # (B, T, S)
    is_available: Tensor  # (B, T, N, A) bool
    actions: Tensor  # (B, T, N) integers
    reward: Tensor  # (B, T)
    is_over: Tensor  # (B, T), 1 = this step ended the battle; 0 where time ran out
    is_filled: Tensor  # (B, T) bool


class QmixLim:
    """Networks, optimisers, the acting step and the update."""

    def __init__(self, layout: Layout, state_size: int, options: SimpleNamespace = DEFAULTS) -> None:
        self.layout, self.options, self.generator = layout, options, torch.Generator().manual_seed(0)
        self.agent, self.belief = Agent(layout, options.hidden_dim), Belief(layout, options.decoder_dim)
        self.mixer = Mixer(layout.n_agents, state_size, options.mixing_embed_dim, options.hypernet_embed)
        self.online = nn.ModuleList([self.agent, self.mixer])
        self.target = copy.deepcopy(self.online)  # the belief has no lagging copy
        self.optimiser = torch.optim.Adam(self.online.parameters(), lr=options.lr)
        self.rec_optimiser = torch.optim.Adam(self.belief.parameters(), lr=options.decoder_lr)

    @torch.no_grad()
    def act(self, inputs: Tensor, is_available: Tensor, states: States, t_env: int) -> tuple[Tensor, States]:
        """One step of ε-greedy acting: inputs (B, N, I), available actions (B, N, A) bool, states of agent
        and belief ([None, None] at first) → actions (B, N), states [(B, N, H), (B, N, W)]."""
        o, inputs = self.options, inputs.unsqueeze(1)  # (B, 1, N, I)
        epsilon = np.interp(t_env, [0, o.epsilon_anneal_time], [o.epsilon_start, o.epsilon_finish])
        inferred, belief = self.belief.infer(inputs, states[1])
        q, hidden = (x.squeeze(1) for x in self.agent(inputs, inferred, states[0]))
        scores = torch.where(torch.rand(q.shape[:2]).unsqueeze(-1) < epsilon, torch.rand(q.shape), q)
        return scores.masked_fill(~is_available, -torch.inf).argmax(dim=-1), [hidden, belief.squeeze(1)]

    def td_loss(self, batch: Batch, inputs: Tensor) -> Tensor:
        """Mean squared error of Q_tot against TD(λ) targets of double Q-learning; inputs (B, T, N, I)."""
        inferred, _ = self.belief.infer(inputs)
        q, _ = self.agent(inputs, inferred)  # (B, T, N, A)
        q_tot = self.mixer(q.gather(3, batch.actions.unsqueeze(3)).squeeze(3), batch.state)  # (B, T)
        is_step = batch.is_filled & F.pad(batch.is_filled[:, 1:], (0, 1))  # (B, T): a transition starts here
        with torch.no_grad():
            best = q.masked_fill(~batch.is_available, -torch.inf).argmax(dim=3, keepdim=True)  # (B, T, N, 1)
            q_best, _ = self.target[0](inputs, inferred)  # (B, T, N, A)
            q_best = self.target[1](q_best.gather(3, best).squeeze(3), batch.state)  # (B, T)
            target = torch.zeros_like(q_best)
            for t in reversed(range(target.shape[1] - 1)):  # G_t = r_t + γ [(1 − λ) Q_{t+1} + λ G_{t+1}]
                after = torch.lerp(q_best[:, t + 1], target[:, t + 1], self.options.td_lambda)
                after = torch.where(is_step[:, t + 1], after, q_best[:, t + 1])  # the last step: Q alone
                target[:, t] = batch.reward[:, t] + self.options.gamma * (1 - batch.is_over[:, t]) * after
        return ((q_tot - target).square() * is_step).sum() / is_step.sum()

    def update(self, batch: Batch, t_env: int) -> tuple[float, float]:
        """One SGD step of each loss after ``t_env`` environment steps; returns TD and reconstruction loss."""
        self.agent.V.requires_grad_(t_env >= self.options.rec_warmup)  # till then nothing inferred is let in
        taken = F.one_hot(batch.actions, self.layout.sizes[2])  # (B, T, N, A); inputs hold the one before
        inputs = self.layout.inputs(batch.obs, F.pad(taken, (0, 0, 0, 0, 1, -1)))  # (B, T, N, I)
        td_loss = self.td_loss(batch, inputs)
        n = max(1, round(self.options.rec_share * len(inputs)))  # episodes to reconstruct
        is_hidden = random_masks(self.layout.visibility(inputs[:n]), self.options, self.generator)
        rec_loss = self.belief.loss(inputs[:n], is_hidden, batch.state[:n], batch.is_filled[:n])
        nn.ModuleList([self.online, self.belief]).zero_grad()
        (td_loss + self.options.lambda_rec * rec_loss).backward()  # the losses have no parameter in common
        for module, optimiser in ((self.online, self.optimiser), (self.belief, self.rec_optimiser)):
            nn.utils.clip_grad_norm_(module.parameters(), self.options.grad_norm_clip)
            optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.lerp_(fast, self.options.tau)
        return td_loss.item(), rec_loss.item()


def bursts(tokens: Tensor, options: SimpleNamespace) -> Tensor:
    """Tokens (B, T, N, K, D), and zeros for those that an agent loses sight of, for 5 steps at a time: with a
    chance of p / 5 a step, p from the range ``burst`` that each episode draws."""
    low, high = options.burst
    p = low + (high - low) * torch.rand(len(tokens), 1, 1, 1)
    n_episodes, n_steps, *of_agents = tokens.shape[:4]
    drawn = torch.rand(n_episodes, n_steps + 4, *of_agents).unfold(1, 5, 1)  # (B, T, N, K, last 5 steps)
    is_lost = drawn.amin(dim=-1) < p / 5
    return tokens.masked_fill(is_lost.unsqueeze(-1), 0.0)


def play(learner: QmixLim, n_episodes: int, n_steps: int, t_env: int) -> Batch:
    """Made-up battles in SMAX's form: marines drift over the map, nobody dies, and a step pays the share of
    agents that attack an enemy in sight. To learn that says nothing of how well the method plays SMAX."""
    layout = learner.layout
    place, drift = torch.rand(2, n_episodes, 1, layout.n_units, 2)
    place = place + drift * torch.linspace(-0.3, 0.3, n_steps).view(-1, 1, 1)  # (B, T, U, 2)
    rest = torch.eye(7)[1].expand(*place.shape[:3], 7)  # cooldown 0, and the first type
    units = torch.cat([torch.ones_like(place[..., :1]), place, rest], dim=-1)  # (B, T, U, own_width)
    tokens, _ = truth(torch.zeros(n_episodes, n_steps, 1, 1, 1), units.flatten(2), layout)
    tokens = tokens * (tokens[..., 1:3].norm(dim=-1, keepdim=True) < 1)  # those within sight
    left = bursts(tokens, learner.options).flatten(3)  # what agents act on, and learn from
    obs = torch.cat([left, units[:, :, : layout.n_agents]], dim=-1)  # (B, T, N, O)
    is_available = torch.ones(*obs.shape[:3], layout.sizes[2], dtype=torch.bool)  # (B, T, N, A)
    actions, states = torch.zeros(obs.shape[:3], dtype=torch.long), States([None, None])
    for t in range(n_steps):
        inputs = layout.inputs(obs[:, t], F.one_hot(actions[:, t - 1], layout.sizes[2]) * (t > 0))
        actions[:, t], states = learner.act(inputs, is_available[:, t], states, t_env)
    pays = F.pad(tokens[..., layout.counts[0] :, 0], (layout.n_plain, 0))  # (B, T, N, A): enemies' health
    reward = pays.gather(3, actions.unsqueeze(3)).mean(dim=(2, 3))  # (B, T)
    is_over = F.pad(torch.ones(n_episodes, 1), (n_steps - 2, 1))  # (B, T)
    is_filled = torch.ones_like(reward, dtype=torch.bool)
    return Batch(obs, units.flatten(2), is_available, actions, reward, is_over, is_filled)


if __name__ == "__main__":
    torch.manual_seed(0)
    learner = QmixLim(Layout(), state_size=60)
    for t_env in range(0, 60000, 500):  # as if 500 environment steps lay between two updates
        batch = play(learner, n_episodes=32, n_steps=15, t_env=t_env)
        td_loss, rec_loss = learner.update(batch, t_env)
        if t_env % 5000 == 0:
            print(f"step {t_env}: reward {batch.reward.mean():.2f}, {td_loss=:.3f}, {rec_loss=:.3f}")
