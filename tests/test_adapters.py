"""What each family's adapter does differently, on small stand-ins for the host's objects."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limask.autoencoder.options import known_layout
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.hosts.base import _in_either_form, _WithoutExit
from limask.hosts.epymarl import EpymarlHost
from limask.hosts.pymarl import PymarlHost
from limask.hosts.pymarl2 import Pymarl2Host, Pymarl3Host, _with_every_mixer
from limask.hosts.registry import CHECKOUTS
from limask.install.families import FAMILIES
from limask.layouts import Layout, smac_layout, smac_layout_of
from limask.layouts.starcraft import smacv2_layout_of


def test_every_family_has_an_adapter() -> None:
    assert list(CHECKOUTS) == [
        family.key for family in sorted(FAMILIES, key=lambda family: list(CHECKOUTS).index(family.key))
    ]
    assert len(CHECKOUTS) == len(FAMILIES)


def test_targets_are_copied_after_as_many_episodes_as_the_interval_says() -> None:
    copies: list[int] = []
    learner = SimpleNamespace(
        args=SimpleNamespace(target_update_interval=20), training_steps=0, last_target_update_episode=0
    )
    learner._update_targets = lambda: copies.append(learner.training_steps)
    for episode in (8, 16, 24, 24, 32, 40, 44):
        PymarlHost().update_targets(learner, episode)
    assert copies == [3, 7]
    assert learner.last_target_update_episode == 44


def test_hidden_size_goes_by_the_familys_name() -> None:
    args = SimpleNamespace(hidden_dim=1, rnn_hidden_dim=2)
    sizes = {key: host().hidden_dim(args) for key, host in CHECKOUTS.items()}
    assert sizes == {"epymarl": 1, "epymarl_v1": 1, "pymarl": 2, "pymarl2": 2, "pymarl3": 2}


@pytest.mark.parametrize(
    ("host", "option", "value", "wanted"),
    [
        (PymarlHost, "standardise_rewards", True, "False"),
        (Pymarl2Host, "standardise_rewards", True, "False"),
        (Pymarl2Host, "use_per", True, "False"),
        (Pymarl2Host, "save_probs", True, "False"),
        (Pymarl3Host, "run", "on_off", "'default'"),
    ],
)
def test_options_that_the_learner_does_not_have_are_refused(
    host: type[PymarlHost], option: str, value: Any, wanted: str
) -> None:
    host().check(SimpleNamespace())
    with pytest.raises(LimaskError, match=f"{option}={value!r} .* set {option}={wanted}"):
        host().check(SimpleNamespace(**{option: value}))


class NqLearner:
    """Stands in for a host's: builds a mixer, and can't do without."""

    def __init__(self, mac: Any, scheme: Any, logger: Any, args: Any) -> None:
        self.args, self.mixer, self.target_mixer = args, args.mixer.upper(), args.mixer.upper()


def test_nq_learner_with_and_without_a_mixer() -> None:
    learner = _with_every_mixer(NqLearner)
    for mixer, built in (("qmix", "QMIX"), (None, None)):
        made = learner(None, None, None, SimpleNamespace(mixer=mixer))
        assert (made.mixer, made.target_mixer, made.args.mixer) == (built, built, mixer)


@pytest.mark.parametrize(("given", "state_width", "size"), [(None, 8, 8), (True, 8, 8), (6, 8, 8), (6, 0, 6)])
def test_qatten_is_told_the_width_of_an_agent_in_the_state(given: Any, state_width: int, size: int) -> None:
    layout = Layout("smax", (), state_width=state_width)
    args = SimpleNamespace(mixer="qatten", env="smax", agent_own_state_size=given)
    mac = SimpleNamespace(agent=SimpleNamespace(layout=layout))
    assert _with_every_mixer(NqLearner)(mac, None, None, args).args.agent_own_state_size == size


def test_qatten_without_an_agents_place_in_the_state_is_refused() -> None:
    mac = SimpleNamespace(agent=SimpleNamespace(layout=Layout("lbf", ())))
    args = SimpleNamespace(mixer="qatten", env="gymma", agent_own_state_size=True)
    with pytest.raises(LimaskError, match="mixer='qatten' with env='gymma'.*'lbf' does not tell.*mixer=qmix"):
        _with_every_mixer(NqLearner)(mac, None, None, args)


MAP = {"n_agents": 3, "n_enemies": 4, "a_race": "P", "b_race": "T", "unit_type_bits": 0, "map_type": "x"}


def test_pymarl3_asks_its_own_smac_for_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    host, asked = Pymarl3Host(), []
    own = SimpleNamespace(get_map_params={"3x_vs_4x": MAP}.__getitem__, __file__="/src/learners/__init__.py")
    monkeypatch.setattr(host, "module", lambda name: asked.append(name) or own)
    given = host.layout_args(SimpleNamespace(env="sc2", env_args={"map_name": "3x_vs_4x"}))
    assert smac_layout(given) == smac_layout_of(MAP, {})
    assert asked == ["envs.smac_v1.official.maps"]
    with pytest.raises(LimaskError, match="map_name='3y' is no map of the host's SMAC"):
        host.layout_args(SimpleNamespace(env="sc2", env_args={"map_name": "3y"}))
    smax = {"map_name": "3m"}
    assert host.layout_args(SimpleNamespace(env="smax", env_args=smax)) is smax
    assert asked[2:] == ["learners"], "it has no need of maps"
    drawn = {"map_name": "3x_vs_4x", "capability_config": {"n_units": 5, "team_gen": {}}}
    given = host.layout_args(SimpleNamespace(env="sc2_v2", env_args=drawn))
    assert asked[-1] == "envs.smac_v2.official.maps"
    assert known_layout(LimConfig(), "sc2_v2", given) == smacv2_layout_of(
        {**MAP, "n_agents": 5, "n_enemies": 5}, drawn
    )


def test_what_the_files_of_a_host_tell_of_an_environment(tmp_path: Path) -> None:
    """Without a module of the host's: PyMARL3's maps are in modules, EPyMARL's SMACv2 scenarios in files."""
    given = {"map_name": "3m"}
    for host in (PymarlHost(), Pymarl2Host(), EpymarlHost()):
        assert host.known_env_args(tmp_path, "sc2", given) is given
    assert Pymarl3Host().known_env_args(tmp_path, "sc2", given) is None
    assert Pymarl3Host().known_env_args(tmp_path, "smax", given) is given
    folder = tmp_path / "envs/smacv2_configs"
    folder.mkdir(parents=True)
    (folder / "5x.yaml").write_text("env_args: {capability_config: {n_units: 5}}")
    found = EpymarlHost().known_env_args(tmp_path, "sc2v2", {"map_name": "5x"})
    assert found == {"capability_config": {"n_units": 5}}


def test_pymarl3_without_starcraft_says_what_to_install() -> None:
    with pytest.raises(LimaskError, match=r"env=sc2 needs.*No module named 'envs'.*limask\[smac\]"):
        Pymarl3Host().layout_args(SimpleNamespace(env="sc2", env_args={"map_name": "3m"}))


def test_environments_are_built_in_either_form() -> None:
    """By their options, as PyMARL's runners do, or with all of them as ``env_args``, as forks of it do."""

    def build(**options: Any) -> dict[str, Any]:
        return options

    expected = {"map_name": "3m", "seed": 1}
    assert _in_either_form(build, map_name="3m", seed=1) == expected
    assert _in_either_form(build, env_args={"map_name": "3m", "seed": 1}, args=object()) == expected


class Mac:
    """Remembers where it was moved."""

    def __init__(self) -> None:
        self.agent = torch.nn.Linear(1, 1)
        self.moves: list[str] = []

    def cuda(self) -> None:
        self.moves.append("cuda")

    def cpu(self) -> None:
        self.moves.append("cpu")


@pytest.mark.parametrize(
    ("use_cuda", "cpu_inference", "moves"),
    [(True, True, ["cpu", "cuda"]), (True, False, ["cuda"]), (False, True, [])],
)
def test_pymarl3_acts_where_it_is_told_and_learns_on_the_gpu(
    use_cuda: bool, cpu_inference: bool, moves: list[str]
) -> None:
    mac = Mac()
    mac.agent.eval()  # as its controller leaves it
    both = SimpleNamespace(mac=mac, args=SimpleNamespace(use_cuda=use_cuda, cpu_inference=cpu_inference))
    Pymarl3Host().before_episodes(both)
    Pymarl3Host().before_update(both)
    assert mac.moves == moves
    assert mac.agent.training


def test_os_without_exit_is_os_in_all_else() -> None:
    replaced = _WithoutExit()
    assert replaced.path is os.path
    assert replaced.EX_OK == 0
    replaced._exit(0)  # returns
    with pytest.raises(SystemExit) as caught:
        replaced._exit(3)
    assert caught.value.code == 3
