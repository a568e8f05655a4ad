"""Level-Based Foraging: its layout against the real environment, and kinds of entity other than units."""

from __future__ import annotations

from typing import Any

import gymnasium
import host_parts
import numpy as np
import options_parts
import pytest
import torch

from limask import masking
from limask.acting.agent import LimAgent
from limask.autoencoder.options import known_layout
from limask.config import LimConfig, MaskerOptions
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.layouts import Layout, layout_name, lbf_layout, tokens
from limask.networks.spec import AgentSpec

NEAR, FAR = "lbforaging:Foraging-2s-8x8-3p-2f-v3", "lbforaging:Foraging-8x8-3p-2f-coop-v3"
#: Informed masks from the first step on.
AT_ONCE = {"random_until": 0, "random_anneal": 0, "random_finish": 0.0}


def sizes(layout: Layout) -> dict[str, tuple[int, int]]:
    return {group.kind: (group.count, group.width) for group in layout.groups}


# --- by name ---------------------------------------------------------------------------


def test_layout_by_hand() -> None:
    """Where an agent may miss a teammate, a slot no longer says which teammate it shows."""
    assert sizes(lbf_layout({"key": FAR})) == {"food": (2, 3), "own": (1, 3), "ally": (2, 3)}
    near = lbf_layout({"key": NEAR})
    assert sizes(near) == {"food": (2, 3), "own": (1, 3), "player": (2, 3)}
    assert near.kinds == {"food", "player"}
    assert near.unseen == (-1, -1, 0) * 2 + (0, 0, 0) + (-1, -1, 0) * 2
    assert near.target is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sight": 8}, {"food": (2, 3), "own": (1, 3), "ally": (2, 3)}),
        ({"players": 1}, {"food": (2, 3), "own": (1, 3)}),
        ({"max_num_food": 5}, {"food": (5, 3), "own": (1, 3), "player": (2, 3)}),
        ({"observe_agent_levels": False}, {"food": (2, 3), "own": (1, 2), "player": (2, 2)}),
        ({"field_size": (2, 2)}, {"food": (2, 3), "own": (1, 3), "ally": (2, 3)}),
        ({"time_limit": 50, "pretrained_wrapper": None}, {"food": (2, 3), "own": (1, 3), "player": (2, 3)}),
    ],
)
def test_options_go_before_the_name(options: dict[str, Any], expected: dict[str, tuple[int, int]]) -> None:
    assert sizes(lbf_layout({"key": NEAR} | options)) == expected


@pytest.mark.parametrize(
    ("env", "env_args", "expected"),
    [
        ("gymma", {"key": NEAR}, "lbf"),
        ("gymma", {"key": "Foraging-5x5-2p-1f-pen-v3"}, "lbf"),
        ("gymma", {"key": NEAR, "grid_observation": True}, "flat"),
        ("gymma", {"key": "lbforaging:Foraging-grid-2s-8x8-3p-2f-v3"}, "flat"),
        ("gymma", {"key": "rware:rware-tiny-2ag-v2"}, "flat"),
        ("gymma", {"key": None}, "flat"),
        ("my_env", {"key": NEAR}, "flat"),
    ],
)
def test_layout_of_a_gymnasium_id(env: str, env_args: dict[str, Any], expected: str) -> None:
    assert layout_name(LimConfig(), env, env_args) == expected


def test_ids_that_are_no_foraging_are_refused_where_it_is_named() -> None:
    with pytest.raises(LimaskError, match="env_args.key='rware:rware-tiny-2ag-v2'.*Foraging-2s-8x8"):
        known_layout(LimConfig(layout="lbf"), "gymma", {"key": "rware:rware-tiny-2ag-v2"})


@pytest.mark.parametrize("masker", ["random_agent", "coordination"])
def test_maskers_of_teammates_need_to_know_who_is_who(masker: str) -> None:
    config = LimConfig(masker=MaskerOptions(name=masker))
    known_layout(config, "gymma", {"key": FAR})
    with pytest.raises(
        LimaskError, match=f"lim.masker.name='{masker}' on layout 'lbf'.*lim.masker.name='random'"
    ):
        known_layout(config, "gymma", {"key": NEAR})


# --- against the environment -----------------------------------------------------------


@pytest.fixture(scope="module")
def foraging() -> Any:
    return pytest.importorskip("lbforaging", reason="needs the lbforaging package: it is in the extra dev")


def test_every_registered_task(foraging: Any) -> None:
    """By the arguments that its name stands for, in the package and in pymarlzooplus."""
    host_parts.load_host("pymarlzooplus").module("envs")
    found = [spec for spec in gymnasium.registry.values() if spec.id.startswith("Foraging")]
    assert len(found) > 1000
    for spec in found:
        options = spec.kwargs
        counts = {kind: count for kind, (count, _) in sizes(lbf_layout({"key": spec.id})).items()}
        sees_all = options["sight"] >= max(options["field_size"])
        others = "ally" if sees_all else "player"
        assert counts == {"food": options["max_num_food"], "own": 1, others: options["players"] - 1}, spec.id


@pytest.mark.parametrize("key", [NEAR, FAR, "lbforaging:Foraging-2s-6x6-2p-1f-coop-v3"])
def test_tokens_show_the_field(foraging: Any, key: str) -> None:
    """Every token of every agent, in games at random."""
    env = gymnasium.make(key).unwrapped
    layout = lbf_layout({"key": key})
    rng = np.random.default_rng(0)
    n_seen = n_unseen = 0
    obs, _ = env.reset(seed=1)
    for _ in range(60):
        rows = torch.from_numpy(np.stack(obs))
        layout.check_obs_size(rows.shape[1])
        parts, is_visible = tokens.split(rows, layout), tokens.visibility(rows, layout)
        n_foods = layout.groups[0].count
        for i, player in enumerate(env.players):
            row, column = (min(place, env.sight) for place in player.position)
            assert parts["own"][i, 0].tolist() == [row, column, player.level]
            corner = [place - min(env.sight, place) for place in player.position]
            near = env.field[
                corner[0] : player.position[0] + env.sight + 1, corner[1] : player.position[1] + env.sight + 1
            ]
            foods = [[y, x, near[y, x]] for y, x in zip(*np.nonzero(near), strict=True)]
            shown = parts["food"][i][is_visible[i, :n_foods]].tolist()
            assert shown == foods
            others = [p for j, p in enumerate(env.players) if j != i]
            kind = layout.groups[2].kind
            places = [[p.position[0] - corner[0], p.position[1] - corner[1], p.level] for p in others]
            inside = [place for place in places if 0 <= min(place[:2]) and max(place[:2]) <= 2 * env.sight]
            assert parts[kind][i][is_visible[i, n_foods + 1 :]].tolist() == inside
            n_seen += len(shown) + len(inside)
            n_unseen += int((~is_visible[i]).sum())
        obs, _, is_over, _, _ = env.step(rng.integers(6, size=len(env.players)).tolist())
        if is_over:
            obs, _ = env.reset()
    assert n_seen > 100
    assert n_unseen > 50 or key == FAR  # where all is in sight, only food that was eaten is not


def test_the_hosts_environment_has_that_size(foraging: Any) -> None:
    env = host_parts.load_host("pymarlzooplus").module("envs").REGISTRY["gymma"](key=NEAR, time_limit=50)
    lbf_layout({"key": NEAR}).check_obs_size(env.get_obs_size())


# --- what is out of sight, where that is not zeros --------------------------------------


def observations() -> torch.Tensor:
    """Two foods, the agent and two others; the second food and the first other are out of sight: (1, 15)."""
    return torch.tensor([[0, 0, 2, -1, -1, 0, 1, 1, 1, -1, -1, 0, 2, 0, 1]]).float()


def test_visible_and_hidden_tokens_by_hand() -> None:
    layout = lbf_layout({"key": NEAR})
    obs = observations()
    assert tokens.visibility(obs, layout).tolist() == [[True, False, True, False, True]]
    hidden = tokens.hide(obs, torch.tensor([[True, False, False, False, True]]), layout)
    assert hidden.tolist() == [[-1, -1, 0, -1, -1, 0, 1, 1, 1, -1, -1, 0, -1, -1, 0]]
    assert tokens.visibility(hidden, layout).tolist() == [[False, False, True, False, False]]


def make_agent(key: str = NEAR) -> LimAgent:
    torch.manual_seed(2)
    spec = AgentSpec(
        n_agents=3, n_actions=6, hidden_dim=8, has_last_action=True, has_agent_id=True, is_recurrent=True
    )
    return LimAgent(spec, options_parts.config({}), lbf_layout({"key": key}))


def inputs_of(obs: torch.Tensor) -> torch.Tensor:
    """Three agents that observe the same: (3, D)."""
    return torch.cat([obs.expand(3, -1), torch.eye(6)[:3], torch.eye(3)], dim=1)


def test_unseen_entities_add_nothing_to_the_trunk() -> None:
    encoded = make_agent().fc1(inputs_of(observations()))
    assert encoded.entities["food"][:, 1].count_nonzero() == 0
    assert encoded.entities["player"][:, 0].count_nonzero() == 0
    assert encoded.entities["food"][:, 0].count_nonzero() > 0


def test_q_values_do_not_depend_on_the_order_of_foods_and_players() -> None:
    agent, obs = make_agent(), observations()
    order = [3, 4, 5, 0, 1, 2, 6, 7, 8, 12, 13, 14, 9, 10, 11]
    before, _ = agent(inputs_of(obs), agent.init_hidden().expand(3, -1))
    after, _ = agent(inputs_of(obs[:, order]), agent.init_hidden().expand(3, -1))
    torch.testing.assert_close(before, after)


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


@pytest.mark.parametrize(
    ("key", "masker"),
    [(NEAR, name) for name in ("none", "random", "value_saliency", "learning_progress", "adversarial")]
    + [(FAR, name) for name in masking.REGISTRY if name not in ("none", "random")],
)
def test_every_masker_trains_on_foods_and_players(host: Host, key: str, masker: str) -> None:
    reconstruction = {"share": 1.0, "saliency_weights": True}
    options = {"masker": {"name": masker} | AT_ONCE, "autoencoder": reconstruction, "view": {"weight": 0.1}}
    args = host_parts.make_args(host, "qmix_entity_lim", env_args={"key": key}, n_actions=6, lim=options)
    learner = host_parts.make_learner(host, args, 15)
    batch = host_parts.make_batch(host, args, 6, obs_size=15)
    batch["obs"][:, :, 1] = torch.tensor(learner.agent.layout.unseen)
    for t_env in range(1, 4):
        learner.train(batch, t_env, t_env)
    stats = learner.logger.stats
    others = "ally" if key == FAR else "player"
    assert {"mask_rate_food", "rec_error_food", f"mask_rate_{others}", f"rec_error_{others}"} <= stats.keys()
    assert all(np.isfinite(values).all() for values in stats.values())
    assert (stats["mask_rate"][-1] == 0) == (masker == "none")


def test_policies_of_actions_that_aim_at_nobody(host: Host) -> None:
    """The hosts write into the logits of actions that are not available."""
    args = host_parts.make_args(host, "mappo_lim", env_args={"key": NEAR}, n_actions=6, batch_size=4)
    learner = host_parts.make_learner(host, args, 15)
    batch = host_parts.make_batch(host, args, 4, obs_size=15)
    learner.train(batch, 0, 0)
    learner.mac.init_hidden(4)
    policy = learner.mac.forward(batch, 0)
    assert policy.sum(dim=2).allclose(torch.ones(4, 3))
    assert policy[batch["avail_actions"][:, 0] == 0].max() == 0
    assert {"pg_loss", "rec_error_food"} <= learner.logger.stats.keys()


def test_saliency_is_of_what_stands_out_from_nothing_seen(host: Host) -> None:
    """Tokens out of sight have none, although their features are not zeros."""
    args = host_parts.make_args(
        host,
        "qmix_entity_lim",
        env_args={"key": NEAR},
        n_actions=6,
        lim={"masker": {"name": "value_saliency"} | AT_ONCE, "autoencoder": {"share": 1.0}},
    )
    learner = host_parts.make_learner(host, args, 15)
    batch = host_parts.make_batch(host, args, 4, obs_size=15)
    batch["obs"][:, :, 1, :6] = torch.tensor([-1.0, -1.0, 0.0] * 2)
    seen = host_parts.record_views(learner)
    learner.train(batch, 1, 0)
    saliency = seen[0].saliency
    assert saliency[:, :, 1, :2].count_nonzero() == 0
    assert saliency[:, :, 0, :2].count_nonzero() > 0


def test_names_are_read_as_they_are_registered() -> None:
    """A suffix that is not known is no LBF task of ours."""
    for key in (
        "Foraging-8x8-3p-2f-v3",
        "Foraging-8x8-3p-2f-coop-ind-pen-v2",
        "a.b:Foraging-2s-8x8-3p-2f-v3",
    ):
        assert layout_name(LimConfig(), "gymma", {"key": key}) == "lbf"
    for key in ("Foraging-8x8-3p-v3", "Foraging-8x8-3p-2f-fast-v3", "NotForaging-8x8-3p-2f-v3"):
        assert layout_name(LimConfig(), "gymma", {"key": key}) == "flat"
