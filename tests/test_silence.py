"""What would otherwise go wrong without a word: frozen training, sentinels in targets, untrained runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import host_parts
import pytest
import torch
from test_faulty_training import make_batch, make_learner
from test_learner import smax_batch, smax_learner
from test_wrap import smax_learner as wrapped_learner

from limask.errors import DivergedError, LimaskError
from limask.hosts.base import Host
from limask.hosts.resume import Resumption
from limask.hosts.run import _end_told


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


def weights(learner: Any) -> list[torch.Tensor]:
    """Copies of all that is trained."""
    trained = [*learner.params, *learner.reconstruction.autoencoder.parameters()]
    return [parameter.clone() for parameter in trained]


def are_equal(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -- gradients that are not finite -----------------------------------------------------------------------


def overflow(monkeypatch: pytest.MonkeyPatch, function: str, at: int) -> None:
    """The ``at``-th norm that the function of ``torch.nn.utils`` finds is infinite, though no gradient is."""
    count, real = [0], getattr(torch.nn.utils, function)

    def found(*args: Any, **kwargs: Any) -> torch.Tensor:
        count[0] += 1
        norm: torch.Tensor = real(*args, **kwargs)
        return norm * torch.inf if count[0] == at else norm

    monkeypatch.setattr(torch.nn.utils, function, found)


@pytest.mark.parametrize(
    ("algorithm", "function", "at", "name"),
    [
        ("qmix_lim", "clip_grad_norm_", 1, "norm of the TD loss's gradient"),
        ("qmix_lim", "clip_grad_norm_", 2, "norm of the reconstruction loss's gradient"),
        ("qmix_lim", "get_total_norm", 1, "norm of the hidden view's gradient"),
        ("qmix_entity_lim", "get_total_norm", 1, "norm of the reconstruction loss's gradient"),
        ("maa2c_lim", "get_total_norm", 1, "norm of the host's gradient"),
    ],
)
def test_a_norm_that_overflows_stops_before_anything_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch, algorithm: str, function: str, at: int, name: str
) -> None:
    if algorithm == "maa2c_lim":
        learner = smax_learner(host, algorithm)
        batch = smax_batch(host, learner)
    else:
        learner = make_learner(host, algorithm, autoencoder={"warmup": 0}, view={"weight": 0.1})
        batch = make_batch(host, learner)
    trained = [*learner.agent.parameters(), *learner.reconstruction.autoencoder.parameters()]
    before = [parameter.clone() for parameter in trained]
    overflow(monkeypatch, function, at)
    with pytest.raises(DivergedError, match=f"{name} is inf at t_env=77"):
        learner.train(batch, 77, 0)
    assert are_equal(before, trained)


def test_rewards_of_a_wrong_scale_stop_training(host: Host) -> None:
    """The loss is finite, and the norm of its gradient is not."""
    learner = smax_learner(host, "qmix_entity")
    batch = smax_batch(host, learner)
    batch["reward"].mul_(1e15)
    batch["obs"].mul_(1e12)
    before = [parameter.clone() for parameter in learner.params]
    with pytest.raises(DivergedError, match="is (inf|nan) at"):
        learner.train(batch, 0, 0)
    assert are_equal(before, learner.params)


@pytest.mark.parametrize("key", ["obs", "state", "reward"])
@pytest.mark.parametrize("algorithm", ["qmix_lim", "qmix_fc", "qplex_lim", "mappo_lim"])
def test_what_an_environment_gives_that_is_not_finite_is_named(host: Host, algorithm: str, key: str) -> None:
    make = smax_learner if algorithm in ("qmix_lim", "qmix_fc") else wrapped_learner
    plain = {"autoencoder": {"name": "none", "weight": 0.0}, "masker": {"name": "none"}}
    learner = make(host, algorithm, **plain if algorithm == "mappo_lim" else {})
    batch = smax_batch(host, learner)
    batch[key][0, 1] = torch.nan
    before = [parameter.clone() for parameter in learner.agent.parameters()]
    with pytest.raises(DivergedError, match=f"; values of {key} that env='smax' gave are not finite"):
        learner.train(batch, 0, 0)
    assert are_equal(before, list(learner.agent.parameters()))


@pytest.mark.parametrize("algorithm", ["qmix_lim", "mappo_lim"])
@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_a_clipping_that_leaves_nothing_is_refused(host: Host, algorithm: str, clip: float) -> None:
    args = host_parts.make_args(
        host, algorithm, env="smax", env_args={"map_name": "3m"}, n_actions=8, grad_norm_clip=clip
    )
    with pytest.raises(LimaskError, match="grad_norm_clip=.*: expected a norm above 0"):
        host_parts.make_learner(host, args, 75)


# -- agents without an available action ------------------------------------------------------------------


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("mixer", ["qmix", "vdn", None])
def test_agents_without_an_action_do_nothing(host: Host, mixer: str | None, double_q: bool) -> None:
    """As if the environment offered them action 0 for it, as SMAC does: no sentinel enters a target."""
    learner, same = smax_learner(host, mixer=mixer), smax_learner(host, mixer=mixer)
    stats = []
    for each, offered in ((learner, 0), (same, 1)):
        each.td_options = each.td_options._replace(double_q=double_q)
        batch = smax_batch(host, each)
        batch["avail_actions"][:, 2:, 1] = 0
        batch["avail_actions"][:, 2:, 1, 0] = offered
        each.train(batch, 0, 0)
        stats.append({name: values[-1] for name, values in each.logger.stats.items()})
    assert stats[0] == stats[1]
    assert abs(stats[0]["target_mean"]) < 100
    assert are_equal(weights(learner), weights(same))


def test_a_hosts_own_loss_is_not_given_such_agents(host: Host) -> None:
    learner = wrapped_learner(host, "qplex_lim")
    batch = smax_batch(host, learner)
    learner.train(batch, 0, 0)
    batch["avail_actions"][:, 1, 1] = 0
    before = [parameter.clone() for parameter in learner.agent.parameters()]
    with pytest.raises(LimaskError, match="an agent has no available action.*make action 0 available"):
        learner.train(batch, 0, 0)
    assert are_equal(before, list(learner.agent.parameters()))


def test_who_has_no_action_takes_action_0(host: Host) -> None:
    options = {"epsilon_start": 1.0, "epsilon_finish": 1.0, "epsilon_anneal_time": 1}
    args = SimpleNamespace(**options, evaluation_epsilon=0.0, action_selector_strategy="epsilon_greedy")
    selector = host.module("components.action_selectors").REGISTRY["lim_epsilon_greedy"](args)
    for is_test in (True, False):
        chosen = selector.select_action(torch.rand(50, 2, 5), torch.zeros(50, 2, 5), 10, test_mode=is_test)
        assert not chosen.any()


# -- runs that learn nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["qmix_lim", "mappo_lim"])
def test_a_run_that_made_no_sgd_step_says_so(
    host: Host, algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = smax_learner(host, algorithm)
    learner.args.t_max, learner.args.batch_size = 200, 64
    with _end_told(Resumption(learner.host, tmp_path, {}, 0.0, None)):
        pass
    said = capsys.readouterr().err
    assert "limask: this run made no SGD step: it ended (t_max=200) before batch_size=64 episodes" in said
    assert (tmp_path / "untrained.txt").read_text().startswith("made no SGD step")


@pytest.mark.parametrize("status", [None, 0])
def test_a_run_that_learned_says_nothing(host: Host, tmp_path: Path, status: int | None) -> None:
    learner = smax_learner(host)
    learner.train(smax_batch(host, learner), 0, 0)
    assert learner.n_updates == learner.config.n_minibatches(32)
    with pytest.raises(SystemExit), _end_told(Resumption(learner.host, tmp_path, {}, 0.0, None)):
        raise SystemExit(status)
    assert not list(tmp_path.iterdir())


def test_a_run_that_only_evaluates_says_nothing(host: Host, tmp_path: Path) -> None:
    learner = smax_learner(host)
    learner.args.evaluate = True
    with _end_told(Resumption(learner.host, tmp_path, {}, 0.0, None)):
        pass
    assert not list(tmp_path.iterdir())
