"""What others may add, an autoencoder by one class and one line or a masker; and what must stay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkout_parts
import host_parts
import pytest
import torch
from torch import nn

from limask import autoencoder, masking
from limask.autoencoder import TokenAutoencoder, Truth
from limask.autoencoder.base import Place, RunAgent
from limask.autoencoder.losses import Scored
from limask.autoencoder.options import read_options
from limask.config import LimConfig
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.hosts.registry import import_maskers
from limask.layouts import Layout, tokens
from limask.networks.spec import AgentSpec

SIZES = {"n_agents": 3, "n_actions": 8, "state_shape": 72}  # of SMAX 3m
OBS = 75


class MeanAutoencoder(TokenAutoencoder):
    """Infers of each token what it was on average, and takes part in acting at the trunk, without a state."""

    needs_entities = True

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, self.mean = layout, nn.Parameter(torch.zeros(layout.obs_size))

    @classmethod
    def build(cls, spec: AgentSpec, layout: Layout, config: LimConfig) -> MeanAutoencoder:
        return cls(layout)

    @classmethod
    def place(cls, use_inference: bool) -> Place:
        return "trunk"

    def infer_step(self, inputs: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = tokens.hideable_features(self.mean.detach().unsqueeze(0), self.layout)
        return mean.expand(len(inputs), -1), states

    def infer_episodes(
        self, inputs: torch.Tensor, counts: list[int], rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        n_rows = inputs.shape[0] * inputs.shape[1] if rows is None else len(rows)
        return self.infer_step(inputs.new_empty(n_rows, 0), inputs.new_empty(n_rows, 0))[0]

    def encode(
        self, view: torch.Tensor, counts: list[int], run_agent: RunAgent
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        return None, view.new_zeros(*view.shape[:2], 0)

    def loss(self, hidden: torch.Tensor, truth: Truth, *, updates_statistics: bool = True) -> Scored:
        is_feature = tokens.features_of(truth.is_scored, self.layout, truth.obs.dtype)
        squares = (truth.obs - self.mean).square() * is_feature
        error = squares.detach() @ tokens.by_token(self.layout)
        return Scored(squares.sum() / is_feature.sum().clamp(min=1), error)


class HideEnemies(masking.Masker):
    """Every enemy, always."""

    def propose(self, view: masking.MaskView, generator: torch.Generator) -> torch.Tensor:
        kinds = [group.kind for group in self.layout.groups for _ in range(group.count)]
        return torch.tensor([kind == "enemy" for kind in kinds]).expand(view.is_visible.shape)


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def make_learner(host: Host, algorithm: str, **options: Any) -> Any:
    torch.manual_seed(0)
    args = host_parts.make_args(host, algorithm, env="smax", env_args={"map_name": "3m"}, **SIZES, **options)
    return host_parts.make_learner(host, args, OBS)


def make_batch(host: Host, learner: Any) -> Any:
    return host_parts.make_batch(host, learner.args, 8, obs_size=OBS)


@pytest.mark.parametrize("trunk", ["entity", "fc"])
def test_a_fifth_autoencoder_is_one_class_and_one_line(
    host: Host, trunk: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is read from the options, built, acts, learns, is saved and loaded, and inspected."""
    monkeypatch.setitem(autoencoder.REGISTRY, "mean", MeanAutoencoder)
    lim = {"autoencoder": {"name": "mean", "targets": "own", "warmup": 0}, "trunk": trunk}
    learner = make_learner(host, "qmix_lim", lim=lim)
    batch = make_batch(host, learner)
    for call in range(3):
        learner.train(batch, call, 0)
    assert learner.logger.stats["rec_loss"][-1] < learner.logger.stats["rec_loss"][0]
    mean = learner.agent.autoencoder.mean
    assert mean.abs().sum() > 0
    assert not any(parameter is mean for parameter in learner.params), "Q-learning trains it"
    assert learner.look(batch, 3).is_hidden.any()
    inputs = torch.randn(6, learner.agent.spec.input_size(OBS))
    acted = learner.agent(inputs, learner.agent.init_hidden().expand(6, -1))
    learner.save_models(str(tmp_path))
    twin = make_learner(host, "qmix_lim", lim=lim)
    twin.load_models(str(tmp_path))
    again = twin.agent(inputs, twin.agent.init_hidden().expand(6, -1))
    assert torch.equal(acted[0], again[0])
    with pytest.raises(
        LimaskError, match=r"lim\.autoencoder\.name='mean', and this run has lim\.autoencoder\.name='entity'"
    ):
        make_learner(host, "qmix_entity_lim").load_models(str(tmp_path))


def test_what_is_registered_is_named_where_a_name_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(autoencoder.REGISTRY, "mean", MeanAutoencoder)
    monkeypatch.setitem(masking.REGISTRY, "hide_enemies", HideEnemies)
    with pytest.raises(LimaskError, match=r"sightings, mean; did you mean 'mean'"):
        read_options({"autoencoder": {"name": "means"}})
    with pytest.raises(LimaskError, match=r"adversarial, hide_enemies; did you mean 'hide_enemies'"):
        read_options({"masker": {"name": "hide_enemy"}})


def test_a_masker_of_ones_own_hides_what_it_says(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(masking.REGISTRY, "hide_enemies", HideEnemies)
    learner = make_learner(host, "qmix_lim", lim={"masker": {"name": "hide_enemies"}})
    learner.train(make_batch(host, learner), 0, 0)
    stats = learner.logger.stats
    assert (stats["mask_rate_enemy"], stats["mask_rate_ally"]) == ([1.0], [0.0])


# -- in a checkout ----------------------------------------------------------------------------------------


def imported(checkout: Path, program: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: names of modules stay imported."""
    command = [sys.executable, "-c", program, str(checkout)]
    path = str(Path(__file__).parents[1])
    return subprocess.run(command, env={"PYTHONPATH": path}, text=True, capture_output=True, timeout=100)


PROGRAM = """
import sys
from pathlib import Path
from limask.autoencoder.options import read_options
from limask.hosts.registry import import_maskers
before = list(sys.path)
import_maskers(Path(sys.argv[1]))
assert sys.path == before
print(read_options({"masker": {"name": "hide_enemies"}}).masker.name)
"""


def test_maskers_of_a_checkout_are_found(tmp_path: Path) -> None:
    checkout = checkout_parts.make_checkout(tmp_path / "host")
    checkout_parts.write_masker(checkout)
    done = imported(checkout, PROGRAM)
    assert done.stdout == "hide_enemies\n", done.stderr


def test_a_checkout_without_limask_has_no_maskers(tmp_path: Path) -> None:
    before = dict(masking.REGISTRY)
    import_maskers(checkout_parts.make_checkout(tmp_path / "host"))
    assert before == masking.REGISTRY
    assert "modules.maskers" not in sys.modules


def test_maskers_that_cannot_be_imported_are_named(tmp_path: Path) -> None:
    checkout = checkout_parts.make_checkout(tmp_path / "host")
    checkout_parts.write_masker(checkout)
    (checkout / "src/modules/maskers/enemies.py").write_text("import no_such_package\n")
    done = imported(checkout, PROGRAM)
    last = done.stderr.strip().splitlines()[-1]
    assert (
        "modules/maskers cannot be imported: ModuleNotFoundError: No module named 'no_such_package'" in last
    )


# -- what must stay ---------------------------------------------------------------------------------------

NAMES: dict[str, dict[str, list[str]]] = json.loads(
    (Path(__file__).parent / "checkpoint_names.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("algorithm", NAMES)
def test_checkpoints_hold_what_they_held_when_first_written(
    host: Host, algorithm: str, tmp_path: Path
) -> None:
    """Names of weights, and of what the autoencoder's file holds: other names would not load."""
    learner = make_learner(host, algorithm)
    learner.save_models(str(tmp_path))
    found = {
        name: sorted(torch.load(tmp_path / name, weights_only=name == "agent.th"))
        for name in ("agent.th", "autoencoder.th")
        if (tmp_path / name).exists()
    }
    held = NAMES[algorithm]
    assert found.keys() == held.keys()
    assert found["agent.th"] == held["agent.th"]
    assert set(found.get("autoencoder.th", ())) >= set(held.get("autoencoder.th", ()))
