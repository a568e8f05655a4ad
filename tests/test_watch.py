"""Moving pictures of battles: what is drawn where, what agents believe, the files and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import animation
from matplotlib.patches import Rectangle
from PIL import Image
from run_parts import STOP, save_run

from limask.autoencoder.beliefs import filled_in
from limask.autoencoder.losses import Standardiser
from limask.cli import main
from limask.envs.smax import SmaxVector
from limask.envs.smax_battle import MOVES
from limask.experiments import hosted
from limask.experiments.evaluation import battles, episode, watch_output
from limask.experiments.evaluation.filming import scene
from limask.experiments.evaluation.runs import read_run
from limask.experiments.evaluation.trained import Frozen, freeze
from limask.experiments.evaluation.watch_film import Film, Scene, box_of
from limask.experiments.evaluation.watch_output import Picture
from limask.hosts.base import Host
from limask.layouts import Layout, TokenGroup, lbf_layout, smac_layout_of, smax_layout, tokens
from limask.layouts.places import Around, Places, Units

N_AGENTS, SEED = 3, 10_000  # on 3m
ENV_ARGS = {"map_name": "3m", "seed": 1, "sight_range": 0.6}


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


@pytest.fixture(scope="module")
def runs(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    entity: dict[str, Any] = {"autoencoder": {"use_inference": False}}
    belief = {"autoencoder": {"name": "belief"}}
    return {
        "belief": save_run(host, root / "belief", "qmix_lim", env_args=ENV_ARGS, lim=belief),
        "entity": save_run(host, root / "entity", "qmix_entity_lim", env_args=ENV_ARGS, lim=entity),
        "own": save_run(host, root / "own", "qmix", env_args=ENV_ARGS),
    }


def frozen(host: Host, run: Path) -> Frozen:
    overrides = {"batch_size_run": 1, "test_nepisode": 1, "env_args": {"seed": SEED}}
    return freeze(host, read_run(run), None, **overrides)


def places() -> Places:
    return Places(smax_layout(ENV_ARGS), N_AGENTS, 32.0)


# -- beliefs ----------------------------------------------------------------------------------------------


def test_inferences_take_the_place_of_what_is_not_seen() -> None:
    layout = Layout(
        "two",
        (TokenGroup("enemy", 2, ("health", "x")), TokenGroup("own", 1, ("health",), is_hideable=False)),
    )
    standardiser = Standardiser(2)
    standardiser.mean.copy_(torch.tensor([0.5, 0.0]))
    standardiser.variance.copy_(torch.tensor([0.04, 1.0]) - 1e-4)
    obs = torch.tensor([[0.9, 0.3, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    inferred = torch.tensor([[9.0, 9.0, 2.0, -0.4], [9.0, 9.0, 9.0, 9.0]])
    filled = filled_in(inferred, obs, layout, torch.nn.ModuleDict({"enemy": standardiser}))
    # 0.5 + 2 · 0.2 and -0.4 of the enemy out of sight; the dead believe nothing.
    torch.testing.assert_close(filled, torch.tensor([[0.9, 0.3, 0.9, -0.4, 1.0], [0.0] * 5]))
    values = torch.rand(4, 2)
    torch.testing.assert_close(standardiser.undo(standardiser(values)), values)


@pytest.mark.parametrize("name", ["belief", "entity", "own"])
def test_minds_are_those_that_acted(host: Host, runs: dict[str, Path], name: str) -> None:
    policy = frozen(host, runs[name])
    episode.load_learner(policy)
    (nothing,) = battles.perturbations(None, (), policy)
    (played,) = episode.play(host, policy, nothing, 1)
    batch, mind = played.batch, episode.think(policy, played.batch)
    best = mind.values.masked_fill(batch["avail_actions"][0] == 0, -torch.inf).argmax(dim=-1)
    assert best.equal(batch["actions"][0, ..., 0])
    assert played.taken.tolist() == best.tolist()
    if name == "own":
        assert mind.believed is None
        return
    assert mind.believed is not None
    layout, obs = policy.mac.agent.layout, batch["obs"][0]
    is_unseen = tokens.is_out_of_sight(obs, layout)
    is_filled = tokens.features_of(is_unseen, layout, obs.dtype) > 0
    assert is_unseen.any() and mind.believed[~is_filled].equal(obs[~is_filled])
    assert mind.believed[is_filled].isfinite().all() and mind.believed[is_filled].any()


def test_beliefs_by_hand(host: Host, runs: dict[str, Path]) -> None:
    """A layer, a GRU and two layers, step by step; then in units of the observation, and on the map."""
    policy = frozen(host, runs["belief"])
    belief = policy.mac.agent.autoencoder
    for standardiser in belief.decoder.standardisers.values():
        standardiser.mean.fill_(0.25)
        standardiser.variance.fill_(4.0)
    (nothing,) = battles.perturbations(None, (), policy)
    (played,) = episode.play(host, policy, nothing, 1)
    batch, agent, enemy, width = played.batch, 1, 2, 13
    state = torch.zeros(N_AGENTS, belief.state_size)
    drawn = scene(policy, places(), played, agent)
    assert drawn.believed is not None
    n_compared = 0
    for t in range(batch.max_seq_length):
        inputs = policy.mac._build_inputs(batch, t)
        with torch.no_grad():
            state = belief.rnn(torch.relu(belief.fc1(inputs)), state)
            hidden = torch.relu(belief.decoder.from_hidden(state))
            decoded = belief.decoder.to_features(hidden)
        health, x, y = (decoded[agent, (2 + enemy) * width :][:3] * (4.0 + 1e-4) ** 0.5 + 0.25).tolist()
        if not drawn.believed.is_there[t, N_AGENTS + enemy]:
            continue
        own = batch["state"][0, t, 10 * agent : 10 * agent + 3]
        n_compared += 1
        # Marines see 9 units far, here 0.6 times that; the map is 32 units wide.
        where = [32 * own[1].item() + 5.4 * x, 32 * own[2].item() + 5.4 * y]
        np.testing.assert_allclose(drawn.believed.place[t, N_AGENTS + enemy], where, atol=1e-3)
        np.testing.assert_allclose(drawn.believed.health[t, N_AGENTS + enemy], health, atol=1e-4)
    assert n_compared > 3


def test_battles_are_those_of_an_evaluation_and_actions_those_that_are_taken(
    host: Host, runs: dict[str, Path]
) -> None:
    policy = frozen(host, runs["own"])
    (dead,) = battles.perturbations("dead_teammate", (2,), policy)
    options = {key: value for key, value in ENV_ARGS.items() if key not in ("map_name", "seed")}
    for e, played in enumerate(episode.play(host, policy, dead, 2)):
        start = SmaxVector("3m", [SEED + e], **options).reset()
        np.testing.assert_array_equal(played.batch["state"][0, 0], start.state[0])
        order = np.random.default_rng([SEED, e]).permutation(N_AGENTS)
        assert (played.taken[:, order < 2] == STOP).all()
        chosen = played.batch["actions"][0, ..., 0].numpy()
        assert (played.taken[:, order == 2] == chosen[:, order == 2]).all()
        drawn = scene(policy, places(), played, 0)
        shot_at = drawn.targets[:, torch.from_numpy(order) == 2]
        assert drawn.targets[:, torch.from_numpy(order) < 2].eq(-1).all()
        assert set(shot_at.unique().tolist()) <= {-1, 3, 4, 5} and shot_at.max() > 0


# -- what is drawn ----------------------------------------------------------------------------------------


def units(places: list[list[float]], health: list[float], is_there: list[bool]) -> Units:
    return Units(torch.tensor([places]), torch.tensor([health]), torch.tensor([is_there]))


@pytest.fixture
def film(runs: dict[str, Path]) -> Film:
    """Two agents against two enemies, for one step and as it ended: agent 2 sees only itself and enemy 1."""
    truth = units([[4, 8], [10, 9], [14, 10], [20, 12]], [1.0, 0.6, 0.5, 0.9], [True] * 4)
    seen = units([[0, 0], [10, 9], [14, 10], [0, 0]], [0, 0.6, 0.5, 0], [False, True, True, False])
    believed = units([[5, 7], [0, 0], [0, 0], [18, 15]], [0.8, 0, 0, 0.25], [True, False, False, True])
    twice = [Units(*(torch.cat([part, part]) for part in some)) for some in (truth, seen, believed)]
    values = torch.arange(14.0).view(2, 7)
    played = Scene(
        read_run(runs["own"]), "won", *twice, torch.full((2,), 5.0), 2, torch.tensor([[2, -1], [-1, -1]]),
        [*MOVES, "attack 1", "attack 2"], values, torch.ones(2, 7, dtype=torch.bool), torch.tensor([6, 4]),
        None,
    )  # fmt: skip
    return Film([played], 2, 32.0, SEED, "dropout 0.4")


def marks(axes: Any, marker: str, **look: Any) -> dict[tuple[float, float], Any]:
    """Markers of a panel by their place."""
    return {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): line
        for line in axes.get_lines()
        if line.get_marker() == marker and all(line.properties()[key] == value for key, value in look.items())
    }


def test_units_are_drawn_where_they_are(film: Film) -> None:
    picture = Picture(film)
    picture.draw(0)
    ((battle, view, values, masks),) = picture.columns
    assert masks is None
    assert marks(battle, "o", markersize=10).keys() == {(4, 8), (10, 9)}
    assert marks(battle, "s").keys() == {(14, 10), (20, 12)}
    shots = [line.get_xydata().tolist() for line in battle.get_lines() if len(line.get_xdata()) == 2]
    assert shots == [[[4, 8], [14, 10]]]
    # In the agent's view: what it sees, hollow what it believes, and dots where those really are.
    solid = {at for at, line in marks(view, "s").items() if line.get_markerfacecolor() != "none"}
    assert solid == {(14, 10)}
    ghosts = {
        at: line.get_alpha() for kind in "os" for at, line in marks(view, kind).items() if line.get_alpha()
    }
    assert ghosts == pytest.approx({(5, 7): 0.8, (18, 15): 0.25})
    assert marks(view, ".").keys() == {(4, 8), (20, 12)}
    (circle,) = [patch for patch in view.patches if hasattr(patch, "radius")]
    assert tuple(circle.center) == (10, 9) and circle.radius == 5
    # Seven actions in rows, the one taken at its value.
    taken = [line for line in values.get_lines() if line.get_marker() == "o" and line.get_markersize() > 5]
    assert [line.get_xydata().tolist() for line in taken] == [[[6.0, 6.0]]]
    assert [label.get_text() for label in values.get_yticklabels()][4:] == ["stop", "attack 1", "attack 2"]
    for axes in (battle, view):
        assert axes.get_aspect() == 1
    picture.draw(1)
    assert not [line for line in battle.get_lines() if len(line.get_xdata()) == 2], "it is over"


def test_what_is_drawn_of_the_map(film: Film) -> None:
    """Units reach from (4, 8) to (20, 12), and two units of the map are around them."""
    assert box_of(film) == (2.0, 5.0, 20.0, 10.0)
    (played,) = film.scenes
    assert played.truth is not None
    high = played.truth._replace(place=torch.tensor([[[4.0, 1.0]] * 4, [[4.0, 28.0]] * 4]))
    box = box_of(film._replace(scenes=[played._replace(truth=high)]))
    assert box == (4 - 15.5, -1.0, 31.0, 31.0)


def test_the_dead_see_nothing(film: Film) -> None:
    (played,) = film.scenes
    assert played.truth is not None
    played.truth.is_there[1, 1] = played.seen.is_there[1, 1] = False
    picture = Picture(film)
    picture.draw(1)
    ((battle, view, values, _),) = picture.columns
    assert not view.get_lines() and "agent 2 is dead" in [text.get_text() for text in view.texts]
    assert not values.get_lines()
    assert marks(battle, "x").keys() == {(10, 9)}, "where it fell"


def test_around_an_agent_by_hand() -> None:
    """Agent 2 of two sees its teammate half a sight range to the right and enemy 1 below; then it is dead."""
    params = {
        "n_agents": 2, "n_enemies": 2, "a_race": "T", "b_race": "T", "unit_type_bits": 0, "map_type": "",
    }  # fmt: skip
    layout = smac_layout_of(params, {})
    # Movement; two enemies and an ally: flag, distance, x, y, health; own health.
    enemy, ally = [1.0, 0.2, 0.0, -0.2, 0.6], [1.0, 0.5, 0.5, 0.0, 0.9]
    sees = [*[1.0] * 4, *enemy, *[0.0] * 5, *ally, 0.8]
    obs = torch.tensor([[[0.0] * 20, sees], [[0.0] * 20, [0.0] * 20]])  # (T, N, O)
    around = Around(layout, 2, 1.0)
    state = torch.zeros(2, 7)
    seen = around.seen(obs, state)
    assert seen.is_there[:, 1].tolist() == [[True, True, True, False], [False] * 4]
    assert not seen.is_there[:, 0].any()
    torch.testing.assert_close(seen.place[0, 1, :3], torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, -0.2]]))
    torch.testing.assert_close(seen.health[0, 1, :3], torch.tensor([0.9, 0.8, 0.6]))
    assert around.truth(state) is None
    assert around.sights(state).tolist() == [[1.0, 1.0]] * 2


def test_around_an_agent_that_is_alone_and_knows_nothing_of_itself() -> None:
    params = {
        "n_agents": 1, "n_enemies": 1, "a_race": "T", "b_race": "T", "unit_type_bits": 0, "map_type": "",
    }  # fmt: skip
    layout = smac_layout_of(params, {"obs_all_health": False, "obs_own_health": False})
    assert [group.kind for group in layout.groups] == ["move", "enemy"]
    seen = Around(layout, 1, 1.0).seen(torch.tensor([[[1.0] * 4 + [1.0, 0.3, 0.3, 0.0]]]), torch.zeros(1, 3))
    assert seen.is_there.tolist() == [[[True, True]]]
    torch.testing.assert_close(seen.place[0, 0], torch.tensor([[0.0, 0.0], [0.3, 0.0]]))


def test_around_a_player_by_hand() -> None:
    """Rows grow downwards, from the corner of what is seen: food is two above, a player one to the left."""
    layout = lbf_layout({"key": "lbforaging:Foraging-2s-8x8-2p-2f-v3"})
    obs = torch.tensor([[[0.0, 2.0, 3.0, -1.0, -1.0, 0.0, 2.0, 2.0, 1.0, 2.0, 1.0, 2.0]] * 2])
    seen = Around(layout, 2, 2.5).seen(obs, torch.zeros(1, 24))
    # Agents 1 and 2 as agent 1 sees them, and two foods.
    assert seen.is_there[0, 0].tolist() == [True, True, True, False]
    assert seen.place[0, 0, :3].tolist() == [[0, 0], [-1, 0], [0, 2]]
    assert seen.place[0, 1, :2].tolist() == [[-1, 0], [0, 0]]
    assert seen.health[0, 0].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("is_grid", [False, True])
def test_what_is_around_an_agent_is_drawn_without_the_truth(film: Film, is_grid: bool) -> None:
    (played,) = film.scenes
    around = film._replace(
        scenes=[played._replace(truth=None, targets=None)], map_size=None, is_grid=is_grid, others="food"
    )
    assert box_of(around) == (-6.0, -6.0, 12.0, 12.0)
    picture = Picture(around)
    picture.draw(0)
    ((battle, view, _, _),) = picture.columns
    assert battle is None
    assert not marks(view, "."), "nobody knows where they really are"
    solid = {at for at, line in marks(view, "s").items() if line.get_markerfacecolor() != "none"}
    assert solid == {(14, 10)}
    squares = [patch for patch in view.patches if isinstance(patch, Rectangle) and patch.get_width() == 10]
    assert [square.get_xy() for square in squares] == ([(5, 4)] if is_grid else [])
    told = [text.get_text() for text in picture.figure.legends[0].texts]
    assert told == ["agent", "food", "believed (fainter: less health)"]


# -- the command ------------------------------------------------------------------------------------------


def test_files_of_the_command(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["watch", str(runs["own"]), str(runs["belief"]), "--agent", "2"]
    command += ["--perturb", "dropout", "--severity", "0.4", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"qmix/3m/seed_1, step 1,000: battle of seed {SEED} with dropout 0.4, ")
    assert told[1].startswith("qmix_lim/3m/seed_1, ")
    lengths = [int(line.split()[-2]) for line in told if line.endswith(" steps")]
    with Image.open(tmp_path / "out/battle_10000.gif") as picture:
        assert picture.n_frames == max(lengths) + 1
        assert picture.width == 920
        picture.seek(picture.n_frames - 1)
        assert picture.info["duration"] == pytest.approx(2000, abs=50)
    assert main(command) == 2
    assert "battle_10000.gif is there already" in capsys.readouterr().err
    (tmp_path / "out/battle_10000.gif").write_bytes(b"old")
    alone = ["watch", str(runs["own"]), "--output", str(tmp_path / "out"), "--episodes", "2", "--force"]
    assert main(alone) == 0
    for name in ("battle_10000.gif", "battle_10001.gif"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"GIF")


def test_what_cannot_be_watched(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(words: str, *arguments: str) -> None:
        assert main(["watch", *arguments, "--output", str(tmp_path / "out")]) == 2
        _, error, told = capsys.readouterr().err.partition("limask: error: ")
        assert error and words in told
        assert not (tmp_path / "out").exists()

    own = str(runs["own"])
    fails("holds no run", str(tmp_path))
    fails("3 runs given", *map(str, runs.values()))
    fails("one of them is there twice", own, own)
    fails("--agent=0: agents are numbered from 1", own, "--agent", "0")
    fails("--agent=4: expected 1 to 3 on 3m", own, "--agent", "4")
    fails("--perturb and --severity go together", own, "--severity", "0.3")
    fails("did you mean 'dropout'", own, "--perturb", "dropot", "--severity", "0.3")
    fails("--severity 2: ", own, "--perturb", "dropout", "--severity", "2")
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((runs["belief"] / "config.json").read_text())
    config["env_args"]["map_name"] = "8m"
    (other / "config.json").write_text(json.dumps(config))
    (other / "models").symlink_to(runs["belief"] / "models")
    fails("trained on smax 3m and smax 8m: expected the same map", own, str(other))
    (other / "config.json").write_text(json.dumps(config | {"env": "gymma"}))
    fails("trained on smax 3m and gymma 8m: expected the same map", own, str(other))
    monkeypatch.setattr(animation.writers, "is_available", lambda name: name != "ffmpeg")
    fails("--format=mp4: expected the program ffmpeg on the PATH", own, "--format", "mp4")


@pytest.mark.skipif(not animation.writers.is_available("ffmpeg"), reason="needs ffmpeg")
def test_mp4(film: Film, tmp_path: Path) -> None:
    watch_output.write(tmp_path / "battle_1.mp4", film)
    assert (tmp_path / "battle_1.mp4").read_bytes()[4:8] == b"ftyp"
